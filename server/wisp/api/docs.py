"""`/docs`: the API to read and to try, and the table of error codes that every problem's `type` points into.

The viewer is swagger-ui-dist 5.35.0 as its makers published it; a test knows its digests. The policy lets
the page load and ask this service alone, and run no script but the files served here.
"""
from __future__ import annotations

import re
from html import escape
from pathlib import Path

import falcon

from wisp.api import request
from wisp.api.problems import Registry
from wisp.catalogue import ErrorEntry
from wisp.errors import Problem

STATIC = Path(__file__).with_name("static")
SERVED = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css",
          "docs.js": "text/javascript", "docs.css": "text/css"}
POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
          "base-uri 'none'; form-action 'none'; frame-ancestors 'none'")


class Docs:
    """The page."""

    def __init__(self, registry: Registry) -> None:
        rows = "\n".join(_row(code, entry) for code, entry in registry.items())
        self._page = (STATIC / "docs.html").read_text().replace("<!-- codes -->", rows).encode()

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        request.parameters(req, ())
        resp.set_header("Content-Security-Policy", POLICY)
        resp.set_header("Referrer-Policy", "no-referrer")
        resp.content_type = "text/html; charset=utf-8"
        resp.data = self._page


class DocsFile:
    """What the page is made of."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, file: str) -> None:
        request.parameters(req, ())
        if file not in SERVED:
            raise Problem("not_found", "The page has no such part.")
        resp.content_type = f"{SERVED[file]}; charset=utf-8"
        resp.data = (STATIC / file).read_bytes()


def _row(code: str, entry: ErrorEntry) -> str:
    meaning = re.sub("`(.+?)`", r"<code>\1</code>", f"{escape(entry.title)}. {escape(entry.description)}")
    cells = [f"<code>{code}</code>", str(entry.status), "yes" if entry.retryable else "no", meaning]
    return f'<tr id="{code}">' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
