"""Who asked what, and how it went: a request id for everyone, one log line and one measure for each request.

The id is the caller's own where it is harmless to repeat, so that one id follows a request through
a provider, a proxy and this log. The line names the route as `/openapi.json` has it, not the query, and
the key by its namespace and name; there is no body and no secret in it.
"""
from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable
from typing import Any

import falcon

from wisp import logs
from wisp.api.documents import Kind

Measure = Callable[[str, str, int, float], None]
"""Of a request: method, route, status, seconds."""
_HARMLESS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}", re.ASCII)
log = logging.getLogger("wisp.access")


class Access:
    """Falcon middleware."""

    def __init__(self, measure: Measure) -> None:
        self._measure = measure

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        given = req.get_header("X-Request-Id", default="")
        req.context.request_id = given if _HARMLESS.fullmatch(given) else uuid.uuid4().hex
        req.context.began = time.monotonic()
        logs.asking.set({"request_id": req.context.request_id, "actor": None})
        resp.set_header("X-Request-Id", req.context.request_id)
        resp.set_header("Cache-Control", "no-store")
        resp.set_header("X-Content-Type-Options", "nosniff")

    def process_response(self, req: falcon.Request, resp: falcon.Response, resource: Any, succeeded: bool) -> None:
        seconds = time.monotonic() - req.context.began
        waited = "?wait" if "wait" in req.params else ""
        route = req.uri_template
        if route and isinstance(resource, Kind):
            route = resource.published(route)
        self._measure(req.method, f"{route or '-'}{waited}", resp.status_code, seconds)
        log.info("%s %s %d", req.method, route, resp.status_code, extra={"fields": {
            **logs.asking.get(), "method": req.method, "route": route, "path": req.path,
            "status": resp.status_code, "ms": round(1000 * seconds, 1)}})
