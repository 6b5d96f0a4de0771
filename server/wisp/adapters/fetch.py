"""Downloads: the door of `requests`.

A download is proven by its SHA-256 alone; everything else here only saves bytes. What has come lies
in a `.part`, and the origin's validator (a strong ETag, else Last-Modified) beside it. After a cut,
or a crash, the rest is asked for with `Range` and `If-Range`: an origin whose content has changed,
or that knows no ranges, sends all of it, and we begin anew. Without a validator nothing is resumed.
The digest is taken as bytes arrive, so a whole file is never read a second time.
"""
from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import requests

from wisp.adapters import layout, origin
from wisp.errors import StepFailed

TIMEOUT = (10, 30)
"""Seconds to connect, and of silence."""
PAUSES = (0.2, 0.5, 1.0)
"""Seconds between attempts within one call; the caller's own backoff comes after."""
LIMIT = 256 << 30
CHUNK = 1 << 16
"""Bytes; what a cut may lose of what had come."""
PASSING = frozenset({408, 425, 429})
"""Statuses of the 4xx that say "later" and not "no"."""


class _Cut(Exception):
    """An attempt ended early; asking again may help. Its text says why."""


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


def download(url: str, part: Path, sha256: str, *, limit: int = LIMIT, pauses: Sequence[float] = PAUSES) -> None:
    """Fill `part` with the content of this digest, going on with what is there. Bytes proven wrong do not stay."""
    shown = origin.shown(url)
    with layout.filesystem(), Partial(part) as partial, requests.Session() as session:
        _persist(session, url, shown, partial, sha256, limit, pauses)
        if partial.is_whole(sha256):
            return
        discard(part)
    raise StepFailed("ChecksumMismatch", f"What {shown} sends does not have the SHA-256 {sha256}.", patience=3)


def _persist(session: requests.Session, url: str, shown: str, partial: Partial, sha256: str, limit: int,
             pauses: Sequence[float]) -> None:
    for pause in (*pauses, None):
        if partial.is_whole(sha256):
            return
        try:
            _attempt(session, url, shown, partial, limit)
            return
        except _Cut as cut:
            if pause is None:
                raise StepFailed("DownloadFailed", f"The download from {shown} failed: {cut}.") from cut
            time.sleep(pause)


def _attempt(session: requests.Session, url: str, shown: str, partial: Partial, limit: int) -> None:
    """One request, its answer streamed into `partial`; returns when the origin says that was all."""
    try:
        with session.get(url, headers=_headers(partial), stream=True, timeout=TIMEOUT) as answer:
            _judge(answer, shown)
            _align(answer, partial)
            for chunk in answer.iter_content(CHUNK):
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
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection was cut"
    return "no connection to the origin, or it broke off"
