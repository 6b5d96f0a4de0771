"""What stands before the resources: what this is, whether it lives, whether its books balance."""
from __future__ import annotations

from collections.abc import Iterable

import falcon

from wisp import __version__
from wisp.api import request
from wisp.api.bearers import Bearers
from wisp.api.documents import answer
from wisp.dialect import loads
from wisp.enrolment import Enrolment
from wisp.resources import Resources


class Front:
    """`/`: for people with curl, and for clients that ask what they are talking to."""

    def __init__(self, minor: int, links: Iterable[str]) -> None:
        self._minor, self._links = minor, sorted(links)

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        request.parameters(req, ())
        answer(resp, {"service": "wisp", "versions": ["v1"], "minor": self._minor, "build": __version__,
                      "links": self._links})


class Alive:
    """`/livez`: the process answers; nothing else is asked."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        request.parameters(req, ())
        answer(resp, {"alive": True})


class Ready:
    """`/readyz`: the store answers and the mirror has caught up; otherwise 503 with the same document."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        request.parameters(req, ())
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


class Join:
    """`/join`: a machine becomes a node, by a token. It is between two halves of one program, so no part of v1."""

    def __init__(self, enrolment: Enrolment) -> None:
        self._enrolment, self._bearers = enrolment, Bearers(enrolment.caller)

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Who signs here: for those who know the fingerprint, and cannot believe anything else yet."""
        answer(resp, {"ca": self._enrolment.ca})

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        caller = self._bearers.caller(req)
        request.parameters(req, ())
        answer(resp, self._enrolment.enrol(caller, request.body(req, loads)))
