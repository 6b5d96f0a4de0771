"""What stands before the resources: what this is, whether it lives, whether its books balance."""
from __future__ import annotations

from collections.abc import Iterable

import falcon

from wisp import __version__
from wisp.api import request
from wisp.api.bearers import Bearers
from wisp.api.documents import answer
from wisp.resources import Resources


class Front:
    """`/`: for people with curl, and for clients that ask what they are talking to."""

    def __init__(self, links: Iterable[str]) -> None:
        self._links = sorted(links)

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        request.parameters(req, ())
        answer(resp, {"service": "wisp", "versions": ["v1"], "minor": 0, "build": __version__, "links": self._links})


class Alive:
    """`/livez`: the process answers; nothing else is asked."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        answer(resp, {"alive": True})


class Ready:
    """`/readyz`: the store answers and the mirror has caught up; otherwise 503 with the same document."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        health = self._resources.health()
        if not (health["store"] and health["mirror"]):
            resp.status = 503
            resp.set_header("Retry-After", "1")
        answer(resp, health)


class Audit:
    """`/v1/audit`: what nobody owns. For those who administer the cluster."""

    def __init__(self, resources: Resources, bearers: Bearers) -> None:
        self._resources, self._bearers = resources, bearers

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        caller = self._bearers.caller(req)
        request.without_body(req)
        request.parameters(req, ())
        answer(resp, self._resources.audit(caller))
