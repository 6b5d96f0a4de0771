"""What an operator sees: metrics of requests, the audit log, and those who guess at the door."""
from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from falcon import testing

from wisp.api import build
from wisp.api.bearers import TOKENS
from wisp.api.problems import refusal
from wisp.listener import Listener
from wisp.logs import JsonLines
from wisp.metrics import Metrics

LAN = "/v1/namespaces/web/networks/lan"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def audit() -> Iterator[Any]:
    """`audit()` -> the lines so far, as a machine reads them."""
    stream, log = io.StringIO(), logging.getLogger("wisp.audit")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    log.addHandler(handler)
    level = log.level
    log.setLevel(logging.INFO)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    log.removeHandler(handler)
    log.setLevel(level)


def put(cloud: Any, who: str = "admin", request: str = "r-1", path: str = LAN, **spec: Any) -> int:
    code: int = cloud.ask(who, "PUT", path, json.dumps({"spec": spec}), {**JSON, "X-Request-Id": request}).status_code
    return code


# --- audit

def test_every_write_leaves_a_line_that_says_who_and_what(cloud: Any, audit: Any) -> None:
    put(cloud, cidr="10.1.0.0/24")
    (line,) = audit()
    said = {name: line[name] for name in line if name not in ("at", "level", "source", "message")}
    assert said == {"actor": "web/admin", "verb": "put", "resource": "network web/lan", "before": 0, "after": 1,
                    "outcome": "done", "request_id": "r-1"}


def test_generations_tell_what_a_write_did(cloud: Any, audit: Any) -> None:
    for servers in (["10.1.0.9"], ["10.1.0.9"], ["10.1.0.8"]):
        put(cloud, cidr="10.1.0.0/24", dns_servers=servers)
    cloud.ask("admin", "DELETE", LAN)
    cloud.ask("admin", "DELETE", LAN)
    assert [(line["verb"], line.get("before"), line.get("after")) for line in audit()] == [
        ("put", 0, 1), ("put", 1, 1), ("put", 1, 2), ("delete", 2, 3), ("delete", None, None)]


def test_a_refused_write_leaves_a_line_too(cloud: Any, audit: Any) -> None:
    put(cloud, "viewer", cidr="10.1.0.0/24")
    put(cloud, "stranger", cidr="10.1.0.0/24")
    assert [(line["actor"], line["outcome"]) for line in audit()] == [
        ("web/viewer", "forbidden"), ("shop/stranger", "not_found")]


def test_a_rehearsal_is_no_write(cloud: Any, audit: Any) -> None:
    put(cloud, path=f"{LAN}?dry_run=true", cidr="10.1.0.0/24")
    assert audit() == []


def test_no_secret_gets_into_the_audit_log(cloud: Any, audit: Any) -> None:
    secret = "hunter2-" * 6
    put(cloud, path="/v1/namespaces/web/keys/ci", role="viewer", secret=secret)
    put(cloud, path="/v1/namespaces/web/instances/vm", cpus=1, memory_mib=64, disks=[{"size_gib": 1}], user_data="#!hunter2")
    lines = json.dumps(audit())
    assert lines.count('"done"') == 2 and "hunter2" not in lines
    assert not any(token.rsplit("_")[-1] in lines for token in cloud.tokens.values())


def test_the_log_of_a_request_names_request_and_actor_on_every_line(cloud: Any, audit: Any) -> None:
    put(cloud, "editor", "r-7", cidr="10.1.0.0/24")
    put(cloud, "admin", "r-8", cidr="10.1.0.0/24")
    assert [(line["request_id"], line["actor"]) for line in audit()] == [("r-7", "web/editor"), ("r-8", "web/admin")]


# --- guessing

def test_guessing_is_slowed_and_those_at_work_go_on(cloud: Any) -> None:
    assert cloud.ask("viewer", "GET", LAN).status_code == 404
    assert {cloud.ask("forger", "GET", LAN).status_code for _ in range(TOKENS)} == {401}
    slowed = cloud.ask("forger", "GET", LAN)
    assert (slowed.status_code, slowed.json["code"], slowed.json["retryable"]) == (429, "too_many_requests", True)
    assert int(slowed.headers["retry-after"]) >= 1
    assert cloud.ask("viewer", "GET", LAN).status_code == 404
    assert cloud.ask("nobody", "GET", LAN).status_code == 401
    assert cloud.ask("nobody", "GET", "/livez").status_code == 200


@pytest.mark.parametrize("path", ["/v1/changes", "/v1/audit", "/v1/nodes", f"{LAN}/events"])
def test_every_door_slows(cloud: Any, path: str) -> None:
    codes = [cloud.ask("forger", "GET", path).status_code for _ in range(TOKENS + 1)]
    assert codes == [401] * TOKENS + [429]


# --- metrics

@pytest.fixture
def measured(cloud: Any) -> Any:
    """`measured("GET", path)` asks as `admin`; `measured.told()` is what Prometheus reads then."""
    metrics = Metrics()
    client = testing.TestClient(build(cloud.resources, cloud.resources.catalogue, measure=metrics.request))
    known = {"Authorization": f"Bearer {cloud.tokens['admin']}"}

    def ask(method: str, path: str, query: str = "") -> None:
        client.simulate_request(method, path, query_string=query, headers=known)
    ask.told = lambda: testing.TestClient(metrics.app).simulate_get("/metrics").text  # type: ignore[attr-defined]
    return ask


def count(method: str, route: str, code: int) -> str:
    return f'wisp_request_seconds_count{{code="{code}",method="{method}",route="{route}"}}'


def test_requests_are_counted_by_route_and_code(measured: Any) -> None:
    for name in ("a", "b", "c"):
        measured("GET", f"/v1/namespaces/web/networks/{name}")
    measured("GET", "/v1/namespaces/web/networks")
    measured("GET", "/v1/namespaces/web")
    told = measured.told()
    assert count("GET", "/v1/namespaces/{namespace}/networks/{name}", 404) + " 3.0" in told
    assert count("GET", "/v1/namespaces/{namespace}/networks", 200) + " 1.0" in told
    assert count("GET", "/v1/namespaces/{name}", 200) + " 1.0" in told


def test_patience_does_not_look_like_slowness(measured: Any) -> None:
    measured("GET", LAN, "wait=absent&timeout=0")
    assert count("GET", "/v1/namespaces/{namespace}/networks/{name}?wait", 404) + " 1.0" in measured.told()


@pytest.mark.filterwarnings("ignore:Unknown REQUEST_METHOD")
def test_a_stranger_cannot_make_the_metrics_grow(measured: Any) -> None:
    def size() -> int:
        return len(measured.told().splitlines())
    measured("GET", "/nowhere")
    measured("BREW", "/livez")
    before = size()
    for number in range(20):
        measured("GET", f"/nowhere/{number}", f"x={number}")
        measured(f"BREW{number}", "/livez")
    assert size() == before


def test_metrics_have_a_listener_of_their_own(served: Any) -> None:
    metrics = Metrics()
    listener = Listener(metrics.app, "127.0.0.1", 0, refusal(served.cloud.resources.catalogue.errors), threads=2)
    thread = threading.Thread(target=listener.run)
    thread.start()
    try:
        metrics.turn("n1", "done")
        url = "http://{}:{}/metrics".format(*listener.address)
        assert 'wisp_turns_total{node="n1",outcome="done"} 1.0' in requests.get(url, timeout=30).text
        assert requests.get(f"{served.url}/metrics", timeout=30).status_code == 404
    finally:
        listener.close()
        thread.join()
