"""Reading a request strictly: whatever this API does not know is refused, and the refusal points at it.

A parameter that is silently ignored is a typo that works until the day it matters. Weak and listed
entity tags are refused too, rather than called stale: a proxy that compresses weakens tags, and its
user should hear that instead of "somebody else changed it".
"""
from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any, TypeVar

import falcon

from wisp.api.problems import refused
from wisp.errors import Problem

BODY_LIMIT = 1 << 20
N = TypeVar("N", int, float)
_ETAG = re.compile(r'"[\x21\x23-\x7e]+"')
_VERSION = re.compile(r"1\.(0|[1-9][0-9]{0,3})")
_WRITTEN = {int: "[0-9]{1,15}", float: r"[0-9]{1,9}(\.[0-9]{1,20})?(e-[0-9]{1,3})?"}


def parameters(req: falcon.Request, known: Collection[str], prefix: str | None = None) -> dict[str, str]:
    """The query as it stands; names outside `known` may only begin with `prefix`."""
    asked: dict[str, str] = {}
    for name, value in req.params.items():
        if name not in known and not (prefix and name.startswith(prefix) and name != prefix):
            expected = ", ".join([*sorted(known), *([f"{prefix}KEY"] if prefix else [])]) or "no parameters"
            raise refused("unknown_parameter", f"There is no parameter `{name}` here; this address takes {expected}.",
                          f"?{name}")
        if isinstance(value, list):
            raise refused("unknown_parameter", f"`{name}` is given more than once.", f"?{name}")
        asked[name] = value
    return asked


def number(name: str, text: str, form: type[N], low: int, high: int) -> N:
    if not re.fullmatch(_WRITTEN[form], text, re.ASCII) or not low <= form(text) <= high:
        raise refused("unknown_parameter", f"`{name}` is a number from {low} to {high}.", f"?{name}")
    return form(text)


def choice(name: str, text: str, choices: Collection[str]) -> str:
    if text not in choices:
        raise refused("unknown_parameter", f"`{name}` is {' or '.join(choices)}.", f"?{name}")
    return text


def without_body(req: falcon.Request) -> None:
    if req.content_length or req.get_header("Transfer-Encoding"):
        raise refused("malformed", f"{req.method} takes no body.", "")


def body(req: falcon.Request, loads: Callable[[bytes], Any]) -> Any:
    media_type, _, rest = (req.content_type or "").lower().partition(";")
    charset = rest.replace(" ", "").replace('"', "")
    if media_type.strip() != "application/json" or charset not in ("", "charset=utf-8"):
        raise Problem("unsupported_media_type", "Send the body as `Content-Type: application/json`, in UTF-8.")
    if req.get_header("Content-Encoding", default="identity") != "identity":
        raise Problem("unsupported_media_type", "Send the body as it is, without a Content-Encoding.")
    raw = req.bounded_stream.read(BODY_LIMIT + 1)
    if len(raw) > BODY_LIMIT:
        raise Problem("too_large", f"The body is longer than {BODY_LIMIT} bytes.")
    return loads(raw)


def if_match(req: falcon.Request) -> str | None:
    """`*`, one strong entity tag with its quotes, or None."""
    given: str | None = req.get_header("If-Match")
    if given is None or given == "*" or _ETAG.fullmatch(given):
        return given
    raise Problem("unknown_parameter", 'If-Match is `*` or one strong entity tag in quotes, as `ETag` gave it: `"…"`.')


def create_only(req: falcon.Request) -> bool:
    given = req.get_header("If-None-Match")
    if given not in (None, "*"):
        raise Problem("unknown_parameter", "If-None-Match is `*` or absent.")
    if given and req.get_header("If-Match"):
        raise Problem("unknown_parameter", "If-Match and If-None-Match exclude each other.")
    return given is not None


def minor(req: falcon.Request, released: Collection[int]) -> int | None:
    """The minor version of v1 that the client was written for; None for the newest here, which a later one is too."""
    given = req.get_header("Wisp-Version")
    if given is None:
        return None
    if not _VERSION.fullmatch(given):
        raise Problem("unknown_parameter", "Wisp-Version is a version of v1, such as `1.0`.")
    wanted = int(given.partition(".")[2])
    return wanted if wanted in released else None
