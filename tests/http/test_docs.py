"""The docs page in a real browser: all of it opens, nothing leaves the origin, and its policy has nothing to complain of.

The browser is Debian's chromium without a screen, spoken to over its own protocol. `WISP_SCREENSHOTS=DIR` keeps
what it saw.
"""
from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import requests
from websockets.sync.client import connect

from wisp import catalogue
from wisp.api import docs

CHROMIUM = shutil.which("chromium")
REGISTRY = catalogue.load().errors
VENDORED = {  # of swagger-ui-dist-5.35.0.tgz, which is sha512-U06rpMtW9V3XPGOBeamTUSr0Z09jMX4IJuANpE/EZbAhw0G8CgwrzU4YmXkn/h0wCDNsXdGarTNNHC3sU8yVUQ==
    "swagger-ui-bundle.js": "e6a898692f2d768e807c3ba4626068a69a2c5dd960dd6c76f3e4d3a3de180af2",
    "swagger-ui.css": "5ed08757e53da3e026d6cbecc61fe5d43585c9560b302d534ad56692519a273d",
    "swagger-ui.LICENSE": "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30",
    "swagger-ui.NOTICE": "0d20d1adef18aee3f40dd258172155521ce702ac445cb5f7b7d60ed32dad2fb2",
    "swagger-ui-bundle.js.LICENSE.txt": "37eb6e7e59aed57b2c1acf076574b818ea07b74265717e0bd67b59e0baf9abbb",
}


LINKS = "[...document.querySelectorAll('a[href]')].map(each => each.href).filter(href => !href.includes('#/'))"
TOP = "section.models > div > article"


class Page(HTMLParser):
    """What a page asks for by itself, and the places in it that can be pointed at."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.asked: list[str] = []
        self.inline = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids += [given["id"] or ""] if "id" in given else []
        self.asked += [given[name] or "" for name in ("src", "href") if name in given and tag != "a"]
        self.inline += tag == "style" or "style" in given or (tag == "script" and "src" not in given) or any(name.startswith("on") for name in given)


def test_the_viewer_is_what_its_makers_published() -> None:
    assert {name: hashlib.sha256((docs.STATIC / name).read_bytes()).hexdigest() for name in VENDORED} == VENDORED
    ours = {"docs.html", "docs.js", "docs.css"}
    assert {path.name for path in docs.STATIC.iterdir()} == ours | VENDORED.keys()


def test_every_problem_points_at_a_row_of_the_table(cloud: Any) -> None:
    page = Page(cloud.ask("nobody", "GET", "/docs").text)
    assert page.ids == ["api", "codes", *REGISTRY]
    kind = cloud.ask("nobody", "GET", "/nowhere").json["type"]
    assert kind.partition("#")[0] == "/docs" and kind.partition("#")[2] in page.ids


def test_the_page_is_made_of_files_that_are_served_here_and_of_nothing_inline(cloud: Any) -> None:
    answer = cloud.ask("nobody", "GET", "/docs/")
    page = Page(answer.text)
    served = [address for address in page.asked if address != "data:,"]
    assert {address.removeprefix("/docs/") for address in served} == docs.SERVED.keys()
    for address in served:
        assert cloud.ask("nobody", "GET", address).headers["content-type"].startswith(("text/javascript", "text/css"))
    assert page.inline == 0
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'" and "unsafe" not in str(policy)


@pytest.mark.parametrize("name", ["swagger-ui.LICENSE", "docs.html", "..%2fdocs.py", "nothing.js"])
def test_nothing_else_is_served(cloud: Any, name: str) -> None:
    assert cloud.ask("nobody", "GET", f"/docs/{name}").json["code"] == "not_found"


class Browser:
    """One tab, and what it reported since."""

    def __init__(self, home: Path) -> None:
        assert CHROMIUM
        words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
                 "--no-first-run", "--remote-debugging-port=0", f"--user-data-dir={home}", "--window-size=1400,1800", "about:blank"]
        self._process = subprocess.Popen([CHROMIUM, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                         env=os.environ | {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "XDG_CACHE_HOME": str(home)})
        assert self._process.stderr
        line = next(line for line in self._process.stderr if "DevTools listening on" in line)
        threading.Thread(target=self._process.stderr.read, daemon=True).start()
        host = line.split("ws://")[1].split("/")[0]
        tab = next(each for each in requests.get(f"http://{host}/json", timeout=10).json() if each["type"] == "page")
        self._connection = connect(tab["webSocketDebuggerUrl"], max_size=None)
        self._wire = self._connection.__enter__()
        self._numbers = itertools.count(1)
        self.reports: list[dict[str, Any]] = []
        for domain in ("Network", "Log", "Runtime", "Page", "Audits"):
            self.tell(f"{domain}.enable")

    def tell(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._wire.send(json.dumps({"id": number, "method": method, "params": params}))
        while (said := json.loads(self._wire.recv())).get("id") != number:
            self.reports.append(said)
        assert "error" not in said, said
        return said["result"]  # type: ignore[no-any-return]

    def run(self, script: str) -> Any:
        said = self.tell("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    def until(self, script: str) -> None:
        """Once it is true; the test's own time limit ends it otherwise."""
        pause = threading.Event()
        while not self.run(script):
            pause.wait(0.1)

    def open(self, url: str) -> None:
        self.tell("Page.navigate", url=url)

    def screenshot(self, name: str) -> None:
        if folder := os.environ.get("WISP_SCREENSHOTS"):
            Path(folder, f"{name}.png").write_bytes(base64.b64decode(self.tell("Page.captureScreenshot")["data"]))

    def of(self, *methods: str) -> list[dict[str, Any]]:
        return [report["params"] for report in self.reports if report["method"] in methods]

    def asked(self) -> set[str]:
        """The addresses outside the page itself."""
        urls = {report["request"]["url"] for report in self.of("Network.requestWillBeSent")}
        return {url for url in urls if not url.startswith("data:")}

    def complaints(self) -> list[Any]:
        spoken = [report for report in self.of("Runtime.consoleAPICalled") if report["type"] in ("error", "warning", "assert")]
        issues = [report for report in self.of("Audits.issueAdded") if report["issue"]["code"] != "GenericIssue"]     # of nameless fields
        return [*spoken, *issues, *self.of("Runtime.exceptionThrown", "Log.entryAdded")]

    def close(self) -> None:
        self._wire.close()
        self._process.terminate()
        self._process.wait()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    made = Browser(tmp_path)
    yield made
    made.close()


@pytest.mark.skipif(not CHROMIUM, reason="there is no chromium to look at it with")
@pytest.mark.timeout(300)
def test_in_a_browser_everything_opens_and_nothing_leaves_the_origin(served: Any, browser: Browser) -> None:
    described = requests.get(f"{served.url}/openapi.json", timeout=10).json()
    operations = sum(method in item for item in described["paths"].values() for method in ("get", "put", "delete"))

    browser.open(f"{served.url}/docs")
    browser.until(f"document.querySelectorAll('.opblock').length === {operations}")
    browser.screenshot("page")
    pointed: set[str] = set(browser.run(LINKS))
    for number in range(operations):      # one at a time: all at once is more than the viewer can draw
        browser.run(f"document.querySelectorAll('.opblock-summary-control')[{number}].click()")
        browser.until("document.querySelectorAll('.opblock.is-open .responses-wrapper').length === 1")
        pointed.update(browser.run(LINKS))
        if "put" in browser.run("document.querySelector('.opblock.is-open').className"):
            browser.run("document.querySelector('.opblock.is-open').scrollIntoView()")
            browser.screenshot("put")
        browser.run("document.querySelector('.opblock.is-open .opblock-summary-control').click()")
        browser.until("document.querySelectorAll('.opblock.is-open').length === 0")

    schemas = len(described["components"]["schemas"])
    browser.run("document.querySelector('.models').scrollIntoView()")
    assert browser.run(f"document.querySelectorAll('{TOP}').length") == schemas
    for number in range(schemas):
        for opens in ("true", "false"):
            browser.run(f"document.querySelectorAll('{TOP}')[{number}].querySelector('.json-schema-2020-12-accordion').click()")
            browser.until(f"!document.querySelectorAll('{TOP}')[{number}].querySelector(':scope > .json-schema-2020-12-body--collapsed') === {opens}")
    browser.screenshot("schemas")
    assert browser.run("document.querySelectorAll('.errors-wrapper .error-wrapper').length") == 0

    assert pointed == {f"{served.url}/docs#{code}" for code in REGISTRY.keys() - {"method_not_allowed"} | {"codes"}} | {f"{served.url}/openapi.json"}
    anchors = sorted(link.partition("#")[2] for link in pointed if "#" in link)
    assert browser.run(f"{json.dumps(anchors)}.filter(id => !document.getElementById(id))") == []

    assert browser.asked() == {f"{served.url}/docs", f"{served.url}/openapi.json", *(f"{served.url}/docs/{name}" for name in docs.SERVED)}
    assert browser.complaints() == []


@pytest.mark.skipif(not CHROMIUM, reason="there is no chromium to look at it with")
def test_in_a_browser_the_link_of_a_problem_ends_at_its_row(served: Any, browser: Browser) -> None:
    browser.open(f"{served.url}/docs#in_use")
    browser.until("document.querySelectorAll('.opblock').length > 0")
    browser.until("(() => { const at = document.getElementById('in_use').getBoundingClientRect().top; return at >= 0 && at < innerHeight })()")
    browser.screenshot("row")
