"""Downloads against an origin on loopback that cuts, forgets, changes its mind and lies."""
from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from wisp.adapters import fetch
from wisp.errors import StepFailed

CONTENT = random.Random(7).randbytes(3 << 20)
OTHER = random.Random(8).randbytes(3 << 20)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HALF = len(CONTENT) // 2
TRICKLE = 200


@dataclass
class Origin:
    """What is served and how badly; the Range of each request, and how many bytes were promised for it."""

    content: bytes = CONTENT
    etag: str = '"one"'
    modified: str = ""
    ranges: bool = True
    heeds_if_range: bool = True
    skew: int = 0
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    location: str = ""
    asked: list[str] = field(default_factory=list)
    promised: list[int] = field(default_factory=list)
    authorized: list[str | None] = field(default_factory=list)
    drip: bool = False
    url: str = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range", "")
        self.asked.append(asked)
        self.authorized.append(request.headers["Authorization"])
        if self.statuses:
            request.send_response(self.statuses.pop(0))
            if self.location:
                request.send_header("Location", self.location)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        start = self.start(asked, request.headers.get("If-Range", ""))
        start += self.skew if start else 0
        if start and start >= len(self.content):
            request.send_error(416)
            return
        self.send(request, start)

    def start(self, asked: str, condition: str) -> int:
        same = not self.heeds_if_range or condition in ("", self.etag or self.modified)
        return int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.ranges and same else 0

    def send(self, request: BaseHTTPRequestHandler, start: int) -> None:
        body = self.content[start:]
        self.promised.append(len(body))
        request.send_response(206 if start else 200)
        request.send_header("Content-Length", str(len(body)))
        for name, value in (("ETag", self.etag), ("Last-Modified", self.modified)):
            if value:
                request.send_header(name, value)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        request.end_headers()
        if self.drip:
            self.trickle(request, body)
        else:
            request.wfile.write(body[:self.cuts.pop(0)] if self.cuts else body)

    def trickle(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        """A byte now and then, until nobody listens any more."""
        with suppress(ConnectionError):
            for at in range(TRICKLE):
                request.wfile.write(body[at:at + 1])
                time.sleep(0.02)


@pytest.fixture
def origin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Origin]:
    monkeypatch.setenv("NO_PROXY", "*")
    served = Origin()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served.url = f"http://127.0.0.1:{server.server_port}/disk.raw"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield served
        server.shutdown()
        thread.join()


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "images" / f"{SHA256}.part"


def download(url: str, part: Path, *, again: int = 2) -> str:
    """Download with `again` further attempts; what came of it."""
    try:
        fetch.download(url, part, SHA256, threading.Event(), pauses=(0,) * again)
    except StepFailed as failure:
        return f"{failure.reason} {failure.patience}"
    assert part.read_bytes() == CONTENT
    return "whole"


def test_content_is_asked_for_once(origin: Origin, part: Path) -> None:
    assert download(origin.url, part) == "whole"
    assert origin.asked == [""]


def test_a_cut_download_goes_on_where_it_was(origin: Origin, part: Path) -> None:
    origin.cuts = [HALF]
    assert download(origin.url, part) == "whole"
    assert origin.promised == [len(CONTENT), len(CONTENT) - HALF]


def test_without_an_etag_the_date_is_the_validator(origin: Origin, part: Path) -> None:
    origin.etag, origin.modified, origin.cuts = "", "Mon, 02 Nov 2026 10:00:00 GMT", [HALF]
    assert download(origin.url, part) == "whole"
    assert origin.promised == [len(CONTENT), len(CONTENT) - HALF]


@pytest.mark.parametrize("etag", ["", 'W/"one"'], ids=["none", "weak"])
def test_without_a_strong_validator_it_begins_anew(origin: Origin, part: Path, etag: str) -> None:
    origin.etag, origin.cuts = etag, [HALF]
    assert download(origin.url, part) == "whole"
    assert origin.asked == ["", ""]


def test_a_download_outlives_a_crash(origin: Origin, part: Path) -> None:
    origin.cuts = [HALF]
    assert download(origin.url, part, again=0) == "DownloadFailed None"
    assert part.stat().st_size == HALF
    assert download(origin.url, part, again=0) == "whole"
    assert origin.promised == [len(CONTENT), len(CONTENT) - HALF]


def test_a_whole_part_left_by_a_crash_asks_nobody(origin: Origin, part: Path) -> None:
    part.parent.mkdir()
    part.write_bytes(CONTENT)
    assert download(origin.url, part) == "whole"
    assert origin.asked == []


def test_an_origin_without_ranges_sends_all_of_it_again(origin: Origin, part: Path) -> None:
    origin.ranges, origin.cuts = False, [HALF]
    assert download(origin.url, part) == "whole"
    assert origin.asked == ["", f"bytes={HALF}-"]


def test_content_that_changed_between_two_attempts_is_not_patched_together(origin: Origin, part: Path) -> None:
    origin.content, origin.cuts = OTHER, [HALF]
    assert download(origin.url, part, again=0) == "DownloadFailed None"
    origin.content, origin.etag = CONTENT, '"two"'
    assert download(origin.url, part, again=0) == "whole"


def test_an_origin_that_ignores_the_condition_is_found_out_by_its_etag(origin: Origin, part: Path) -> None:
    origin.content, origin.heeds_if_range, origin.cuts = OTHER, False, [HALF]
    assert download(origin.url, part, again=0) == "DownloadFailed None"
    origin.content, origin.etag = CONTENT, '"two"'
    assert download(origin.url, part, again=1) == "whole"
    assert origin.asked == ["", f"bytes={HALF}-", ""]


def test_a_range_that_nobody_asked_for_is_not_appended(origin: Origin, part: Path) -> None:
    origin.skew, origin.cuts = 512, [HALF]
    assert download(origin.url, part) == "whole"
    assert origin.asked == ["", f"bytes={HALF}-", ""]


def test_content_that_shrank_is_fetched_from_its_beginning(origin: Origin, part: Path) -> None:
    part.parent.mkdir()
    part.write_bytes(OTHER + OTHER)
    fetch.validator_path(part).write_text(origin.etag)
    assert download(origin.url, part) == "whole"


def test_wrong_bytes_are_refused_and_not_kept(origin: Origin, part: Path) -> None:
    origin.content = OTHER
    assert download(origin.url, part) == "ChecksumMismatch 3"
    assert list(part.parent.iterdir()) == []


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_not_argued_with(origin: Origin, part: Path, status: int) -> None:
    origin.statuses = [status]
    assert download(origin.url, part) == "OriginRefused 3"
    assert len(origin.asked) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_tried_again(origin: Origin, part: Path, status: int) -> None:
    origin.statuses = [status]
    assert download(origin.url, part) == "whole"


def test_what_does_not_pass_is_a_failed_download_without_end_of_patience(origin: Origin, part: Path) -> None:
    origin.statuses = [500, 502, 503]
    assert download(origin.url, part) == "DownloadFailed None"


def test_a_failed_attempt_in_between_loses_nothing(origin: Origin, part: Path) -> None:
    origin.cuts = [HALF]
    assert download(origin.url, part, again=0) == "DownloadFailed None"
    origin.statuses = [500]
    assert download(origin.url, part) == "whole"
    assert origin.promised == [len(CONTENT), len(CONTENT) - HALF]


def test_a_redirect_is_followed(origin: Origin, part: Path) -> None:
    origin.statuses, origin.location = [302], "/elsewhere"
    assert download(origin.url, part) == "whole"


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/disk", "gopher://127.0.0.1/"])
def test_a_redirect_out_of_http_is_refused(origin: Origin, part: Path, location: str) -> None:
    origin.statuses, origin.location = [302], location
    assert download(origin.url, part) == "OriginRefused 3"


def test_a_redirect_in_a_circle_ends(origin: Origin, part: Path) -> None:
    origin.statuses, origin.location = [302] * 99, origin.url
    assert download(origin.url, part, again=0) == "DownloadFailed None"


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "/etc/passwd", "http://", "http://[", "data:,x"])
def test_only_http_and_https_are_origins(part: Path, url: str) -> None:
    assert download(url, part) == "OriginRefused 1"


def test_more_than_the_limit_is_not_stored(origin: Origin, part: Path) -> None:
    with pytest.raises(StepFailed) as failure:
        fetch.download(origin.url, part, SHA256, threading.Event(), limit=len(CONTENT) - 1, pauses=())
    assert failure.value.reason == "ImageTooLarge"
    assert list(part.parent.iterdir()) == []


def test_nobody_listening_is_a_failed_download(origin: Origin, part: Path) -> None:
    assert download("http://127.0.0.1:1/disk.raw", part, again=0) == "DownloadFailed None"


def test_no_password_and_no_query_gets_into_a_message(origin: Origin, part: Path) -> None:
    address = origin.url.removeprefix("http://")
    messages = []
    for statuses in ([404], [500], [302]):
        origin.statuses, origin.location = statuses, "file:///secret"
        with pytest.raises(StepFailed) as failure:
            fetch.download(f"http://user:secret@{address}?signature=secret", part, SHA256, threading.Event(), pauses=())
        messages.append(failure.value.message)
    origin.content = OTHER
    with pytest.raises(StepFailed) as failure:
        fetch.download(f"http://user:secret@{address}?signature=secret", part, SHA256, threading.Event(), pauses=())
    messages.append(failure.value.message)
    assert all("secret" not in message and origin.url in message for message in messages), messages


def test_a_full_filesystem_is_not_mistaken_for_a_cut(
        origin: Origin, part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def append(partial: fetch.Partial, chunk: bytes) -> None:
        with open("/dev/full", "wb", buffering=0) as full:
            full.write(chunk)

    monkeypatch.setattr(fetch.Partial, "append", append)
    assert download(origin.url, part) == "NoSpace None"
    assert len(origin.asked) == 1


def test_an_origin_that_only_trickles_is_cut_off(origin: Origin, part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "SLOW_SECONDS", 0.1)
    origin.drip = True
    assert download(origin.url, part, again=0) == "DownloadFailed None"
    assert 0 < part.stat().st_size < TRICKLE


def test_a_download_told_to_stop_ends_and_can_be_resumed(origin: Origin, part: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(StepFailed) as failure:
        fetch.download(origin.url, part, SHA256, stop, pauses=())
    assert (failure.value.reason, failure.value.patience) == ("Interrupted", None)
    assert download(origin.url, part) == "whole"


@pytest.mark.parametrize("redirected", [False, True], ids=["asked", "redirected"])
def test_no_password_of_the_services_own_goes_to_an_origin(
        origin: Origin, part: Path, monkeypatch: pytest.MonkeyPatch, redirected: bool) -> None:
    netrc = part.parents[1] / "netrc"
    netrc.write_text("machine 127.0.0.1 login root password secret")
    monkeypatch.setenv("NETRC", str(netrc))
    if redirected:
        origin.statuses, origin.location = [302], origin.url
    assert download(origin.url.replace("127.0.0.1", "localhost" if redirected else "127.0.0.1"), part) == "whole"
    assert origin.authorized == [None] * (1 + redirected)


def test_a_password_that_stands_in_the_url_is_sent(origin: Origin, part: Path) -> None:
    assert download(origin.url.replace("//", "//user:secret@"), part) == "whole"
    assert origin.authorized == ["Basic dXNlcjpzZWNyZXQ="]
