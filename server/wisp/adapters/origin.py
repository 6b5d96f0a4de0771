"""What an image's URL may be, and how it is shown. A URL may carry a password or a signed query;
neither ever gets into a condition, an event or a log."""
from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from wisp.errors import StepFailed


def accepted(url: str) -> SplitResult:
    """The URL's pieces; http and https are the only ways to an origin."""
    try:
        pieces = urlsplit(url)
        allowed = pieces.scheme in ("http", "https") and bool(pieces.hostname) and pieces.port != 0
    except ValueError:
        allowed = False
    if not allowed:
        raise StepFailed("OriginRefused", "An image comes from an http or https URL only.", patience=1)
    return pieces


def shown(url: str) -> str:
    """The URL without user, password, query and fragment."""
    pieces = accepted(url)
    return f"{pieces.scheme}://{pieces.netloc.rpartition('@')[2]}{pieces.path}"
