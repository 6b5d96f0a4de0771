"""From a `Problem` to what goes over the wire: `application/problem+json` (RFC 9457).

The registry alone says which status and title a code has, so a code cannot mean two things. Falcon's
own refusals (no such route, method not taken) and anything unforeseen take the same way out; of the
unforeseen nothing is shown but the request id, under which the log has the rest.
"""
from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import falcon

from wisp.catalogue import ErrorEntry
from wisp.errors import Fault, Problem

MEDIA_TYPE = "application/problem+json"
log = logging.getLogger("wisp.api")
Registry = Mapping[str, ErrorEntry]


def refused(code: str, detail: str, pointer: str, rule: str = "") -> Problem:
    """A problem with one thing wrong in one place."""
    return Problem(code, detail, [Fault(pointer, rule or code, detail)])


def document(problem: Problem, registry: Registry, request_id: str, path: str = "") -> dict[str, Any]:
    entry = registry[problem.code]
    shown: dict[str, Any] = {
        "type": f"/docs#{problem.code}",
        "title": entry.title,
        "status": entry.status,
        "detail": problem.detail,
        "code": problem.code,
        "retryable": entry.retryable,
        "request_id": request_id,
    }
    if path:
        shown["instance"] = path
    if problem.faults:
        shown["errors"] = [{"pointer": f.pointer, "code": f.code, "detail": f.detail} for f in problem.faults]
    return {**shown, **problem.extra}


def of_status(status: int, registry: Registry, detail: str) -> Problem:
    """A refusal that is only known by its HTTP status: the registry's first code for it."""
    code = next((code for code, entry in registry.items() if entry.status == status), None)
    return Problem(code or "malformed", detail)


class Answers:
    """The error handlers of the application."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def problem(self, req: falcon.Request, resp: falcon.Response, problem: Problem, params: Any) -> None:
        shown = document(problem, self._registry, req.context.request_id, req.path)
        resp.status = shown["status"]
        resp.content_type = MEDIA_TYPE
        resp.data = json.dumps(shown).encode()
        if problem.retry_after is not None or resp.status_code in (429, 503):
            resp.set_header("Retry-After", str(problem.retry_after or 1))
        if resp.status_code == 401:
            resp.set_header("WWW-Authenticate", 'Bearer realm="wisp"')

    def falcon_error(self, req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError, params: Any) -> None:
        allowed = dict(error.headers or {}).get("Allow")
        if allowed:
            resp.set_header("Allow", allowed)
        detail = {404: "There is nothing at this address.",
                  405: f"{req.method} does not belong here; this address takes {allowed}."}
        said = detail.get(error.status_code, "The request is not valid HTTP.")
        self.problem(req, resp, of_status(error.status_code, self._registry, said), params)

    def unforeseen(self, req: falcon.Request, resp: falcon.Response, error: Exception, params: Any) -> None:
        log.error("unforeseen: %s", type(error).__name__, exc_info=error,
                  extra={"fields": {"request_id": req.context.request_id}})
        said = "Something went wrong inside; the service's log has the request id."
        self.problem(req, resp, Problem("internal", said), params)


def refusal(registry: Registry) -> Callable[[int, str], tuple[str, str, bytes]]:
    """For what a server refuses by itself: HTTP status and reason -> status line, media type, body."""
    def worded(status: int, reason: str) -> tuple[str, str, bytes]:
        problem = of_status(status, registry, f"The server refuses the request: {reason}.")
        shown = document(problem, registry, uuid.uuid4().hex)
        return f"{shown['status']} {shown['title']}", MEDIA_TYPE, json.dumps(shown).encode()
    return worded
