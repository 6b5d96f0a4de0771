"""Downloads: the door of `requests`.

A download is proven by its SHA-256 alone; everything else here only saves bytes. What has come lies
in a `.part`, and the origin's validator (a strong ETag, else Last-Modified) beside it. After a cut,
or a crash, the rest is asked for with `Range` and `If-Range`: an origin whose content has changed,
or that knows no ranges, sends all of it, and we begin anew. Without a validator nothing is resumed.
The digest is taken as bytes arrive, so a whole file is never read a second time.

Nothing can wake a thread out of a name lookup or a read, so a download has one of its own, which is
left behind when we are told to stop: it writes no more, and does not keep the process from ending.
"""
from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from types import TracebackType

import requests
import urllib3.exceptions
from requests.auth import HTTPBasicAuth
from requests.utils import get_auth_from_url

from wisp.adapters import layout, origin
from wisp.errors import StepFailed

TIMEOUT = (10, 30)
"""Seconds to connect, and of silence."""
PAUSES = (0.2, 0.5, 1.0)
"""Seconds between attempts within one call; the caller's own backoff comes after."""
LIMIT = 256 << 30
CHUNK = 1 << 16
SLOW_SECONDS, SLOWEST = 60.0, 1024
"""Fewer bytes a second than this, over so many seconds, and the origin is given up."""
GLANCE_SECONDS = 0.2
PASSING = frozenset({408, 425, 429})
"""Statuses of the 4xx that say "later" and not "no"."""


class _Cut(Exception):
    """An attempt ended early; asking again may help. Its text says why."""


class _Session(requests.Session):
    """Proxies and certificates as the environment says, but no password out of root's .netrc."""

    def __init__(self) -> None:
        super().__init__()
        self.auth = _credentials

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        if self.should_strip_auth(str(response.request.url), str(prepared_request.url)):  # type: ignore[no-untyped-call]
            prepared_request.headers.pop("Authorization", None)


def _credentials(request: requests.PreparedRequest) -> requests.PreparedRequest:
    name, password = get_auth_from_url(str(request.url))
    return HTTPBasicAuth(name, password)(request) if name or password else request


class Partial:
    """What has come of a download: bytes, their digest, and whose bytes they are."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.beside = validator_path(path)

    def __enter__(self) -> Partial:
        layout.make_directory(self.path.parent)
        self.path.touch()
        self.path.chmod(0o644)
        self.validator = self.beside.read_text() if self.beside.exists() else ""
        self._file = self.path.open("r+b")
        self._digest = hashlib.sha256()
        self.size = 0
        while chunk := self._file.read(CHUNK):
            self._digest.update(chunk)
            self.size += len(chunk)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self._file.close()

    def is_whole(self, sha256: str) -> bool:
        return self._digest.hexdigest() == sha256

    def restart(self, validator: str) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._digest = hashlib.sha256()
        self.size = 0
        self.validator = validator
        self.beside.write_text(validator)

    def append(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self._digest.update(chunk)
        self.size += len(chunk)


def validator_path(part: Path) -> Path:
    return part.with_name(part.name + ".validator")


def discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    validator_path(part).unlink(missing_ok=True)


def download(url: str, part: Path, sha256: str, stop: threading.Event, *, limit: int = LIMIT,
             pauses: Sequence[float] = PAUSES) -> None:
    """Fill `part` with the content of this digest, going on with what is there. Bytes proven wrong do not stay."""
    done: Future[None] = Future()

    def run() -> None:
        try:
            _download(url, part, sha256, stop, limit, pauses)
            done.set_result(None)
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, name="wisp-download", daemon=True).start()
    while not wait([done], GLANCE_SECONDS).done:
        if stop.is_set():
            raise layout.interrupted()
    done.result()


def _download(url: str, part: Path, sha256: str, stop: threading.Event, limit: int, pauses: Sequence[float]) -> None:
    shown = origin.shown(url)
    with layout.filesystem(), Partial(part) as partial, _Session() as session:
        _persist(session, url, shown, partial, sha256, stop, limit, pauses)
        if partial.is_whole(sha256):
            return
        discard(part)
    raise StepFailed("ChecksumMismatch", f"What {shown} sends does not have the SHA-256 {sha256}.", patience=3)


def _persist(session: requests.Session, url: str, shown: str, partial: Partial, sha256: str,
             stop: threading.Event, limit: int, pauses: Sequence[float]) -> None:
    for pause in (*pauses, None):
        if partial.is_whole(sha256):
            return
        try:
            _attempt(session, url, shown, partial, stop, limit)
            return
        except _Cut as cut:
            if pause is None:
                raise StepFailed("DownloadFailed", f"The download from {shown} failed: {cut}.") from cut
            if stop.wait(pause):
                raise layout.interrupted() from cut


def _attempt(session: requests.Session, url: str, shown: str, partial: Partial, stop: threading.Event,
             limit: int) -> None:
    """One request, its answer streamed into `partial`; returns when the origin says that was all."""
    try:
        with session.get(url, headers=_headers(partial), stream=True, timeout=TIMEOUT) as answer:
            _judge(answer, shown)
            if stop.is_set():
                raise layout.interrupted()
            _align(answer, partial)
            for chunk in _chunks(answer, stop):
                if partial.size + len(chunk) > limit:
                    discard(partial.path)
                    raise StepFailed("ImageTooLarge", f"{shown} sends more than {limit} bytes.", patience=1)
                partial.append(chunk)
    except (requests.exceptions.InvalidSchema, requests.exceptions.InvalidURL,
            requests.exceptions.MissingSchema) as error:
        raise StepFailed("OriginRefused", f"{shown} leads to where nothing is fetched from: http and https only.",
                         patience=3) from error
    except requests.RequestException as error:
        raise _Cut(_reason(error)) from error
    except urllib3.exceptions.HTTPError as error:
        raise _Cut("the connection was cut, or nothing came for long") from error


def _chunks(answer: requests.Response, stop: threading.Event) -> Iterator[bytes]:
    """What comes as it comes, not a chunk at a time: so that a trickle is seen to be one."""
    since, came = time.monotonic(), 0
    while chunk := answer.raw.read1(CHUNK, decode_content=True):
        if stop.is_set():
            raise layout.interrupted()
        yield chunk
        came += len(chunk)
        if (took := time.monotonic() - since) > SLOW_SECONDS:
            if came < SLOWEST * took:
                raise _Cut(f"less than {SLOWEST} bytes came in a second")
            since, came = time.monotonic(), 0


def _headers(partial: Partial) -> dict[str, str]:
    headers = {"Accept-Encoding": "identity"}
    if partial.size and partial.validator:
        headers |= {"Range": f"bytes={partial.size}-", "If-Range": partial.validator}
    return headers


def _judge(answer: requests.Response, shown: str) -> None:
    status = answer.status_code
    if status in (200, 206, 416):
        return
    if 400 <= status < 500 and status not in PASSING:
        raise StepFailed("OriginRefused", f"{shown} answered {status}.", patience=3)
    raise _Cut(f"the origin answered {status}")


def _align(answer: requests.Response, partial: Partial) -> None:
    """Go on where we were if that is what the origin sends; otherwise begin anew."""
    if answer.status_code == 200:
        partial.restart(_validator(answer))
        return
    begins = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    same = _validator(answer) in ("", partial.validator)
    if not same or not begins or int(begins[1]) != partial.size:
        partial.restart("")
        raise _Cut("the origin does not have the rest of what it began to send")


def _validator(answer: requests.Response) -> str:
    """A weak ETag promises no equal bytes, so it does not count."""
    etag: str = answer.headers.get("ETag", "")
    return etag if etag.startswith('"') else answer.headers.get("Last-Modified", "")


def _reason(error: requests.RequestException) -> str:
    """In our words: the library's own repeat the whole URL."""
    if isinstance(error, requests.exceptions.SSLError):
        return "its TLS certificate is not one that this node trusts, or TLS broke off"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.TooManyRedirects):
        return "it redirects without end"
    return "no connection to the origin, or it broke off"
