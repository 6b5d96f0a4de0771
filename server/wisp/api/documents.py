"""The same four verbs for every kind: what differs between kinds stands in their schemas.

A kind has two addresses, the collection and the document, and beside the document its events.
Cluster kinds stand under `/v1/`, the others under a namespace; Falcon wants one name for what stands
at one position of all its routes, so the parts of an address are called `outer` and `inner`.
"""
from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import falcon

from wisp.admission import Caller
from wisp.api import request
from wisp.api.bearers import Bearers
from wisp.api.problems import refused
from wisp.catalogue import Schema
from wisp.dialect import loads
from wisp.errors import Problem
from wisp.resource import CLUSTER, Ref
from wisp.resources import Resources

LONGEST_WAIT = 60
LONGEST_PAGE = 500
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


def answer(resp: falcon.Response, shown: Any) -> None:
    resp.content_type = "application/json"
    resp.data = json.dumps(shown, separators=(",", ":")).encode()


class Seats:
    """How many requests may be held at a time: each occupies a thread, and others need some too."""

    def __init__(self, count: int) -> None:
        self._free = threading.BoundedSemaphore(count)

    @contextmanager
    def seat(self) -> Iterator[None]:
        if not self._free.acquire(blocking=False):
            raise Problem("busy", "Too many requests are waiting already; ask again.", retry_after=1)
        try:
            yield
        finally:
            self._free.release()


class Kind:
    """What the routes of one kind share: the kind, who asks, and which document is meant."""

    def __init__(self, schema: Schema, resources: Resources, bearers: Bearers, seats: Seats) -> None:
        self.schema = schema
        self.resources = resources
        self.caller = bearers.caller
        self.seats = seats

    def ref(self, outer: str, inner: str | None = None) -> Ref:
        namespace, name = (CLUSTER, outer) if inner is None else (outer, inner)
        return Ref(self.schema.kind, namespace, name)

    def published(self, address: str) -> str:
        """The address with the names that clients know its parts by."""
        outer = "{name}" if self.schema.cluster else "{namespace}"
        return address.replace("{outer}", outer).replace("{inner}", "{name}")

    def existing(self, **at: str) -> Ref:
        """For what can only exist already: a name that cannot be is one that is not there."""
        if misnamed(**at):
            raise Problem("not_found", f"There is no such {self.schema.kind}.")
        return self.ref(**at)


def misnamed(outer: str, inner: str | None = None) -> list[str]:
    """Pointers to the parts of the address that are no names."""
    parts = {"/name": outer} if inner is None else {"/namespace": outer, "/name": inner}
    return [pointer for pointer, name in parts.items() if not _NAME.fullmatch(name)]


class Collection(Kind):
    def on_get(self, req: falcon.Request, resp: falcon.Response, outer: str = CLUSTER) -> None:
        caller = self.caller(req)
        request.without_body(req)
        query = request.parameters(req, ("limit", "after"), prefix="metadata.")
        if not self.schema.cluster and not _NAME.fullmatch(outer):
            raise Problem("not_found", "There is no such namespace.")
        limit = request.number("limit", query.pop("limit", "50"), int, 1, LONGEST_PAGE)
        after = query.pop("after", None)
        tags = {name.removeprefix("metadata."): value for name, value in query.items()}
        answer(resp, self.resources.list(caller, self.schema.kind, outer, limit=limit, after=after, metadata=tags))


class Document(Kind):
    def on_get(self, req: falcon.Request, resp: falcon.Response, **at: str) -> None:
        caller = self.caller(req)
        request.without_body(req)
        query = request.parameters(req, ("wait", "timeout"))
        ref = self.existing(**at)
        if "timeout" in query and "wait" not in query:
            raise refused("unknown_parameter", "`timeout` goes with `wait`.", "?timeout")
        shown = self._held(caller, ref, query) if "wait" in query else self.resources.get(caller, ref)
        resp.set_header("ETag", self.resources.etag(shown))
        answer(resp, shown)

    def _held(self, caller: Caller, ref: Ref, query: dict[str, str]) -> dict[str, Any]:
        until = request.choice("wait", query["wait"], ("ready", "absent"))
        timeout = request.number("timeout", query.get("timeout", "30"), float, 0, LONGEST_WAIT)
        with self.seats.seat():
            shown = self.resources.wait(caller, ref, until, timeout)
        if shown is None:
            raise Problem("not_found", f"There is no {ref}.")
        return shown

    def on_put(self, req: falcon.Request, resp: falcon.Response, **at: str) -> None:
        caller = self.caller(req)
        query = request.parameters(req, ("dry_run",))
        rehearsed = request.choice("dry_run", query.get("dry_run", "false"), ("true", "false")) == "true"
        for pointer in misnamed(**at):
            raise refused("invalid", "A name is 1 to 63 lower-case letters, digits and hyphens; it begins with a "
                          "letter and does not end with a hyphen.", pointer, "pattern")
        outcome = self.resources.put(caller, self.ref(**at), request.body(req, loads),
                                     if_match=request.if_match(req), create_only=request.create_only(req),
                                     rehearsed=rehearsed, minor=request.minor(req, self.resources.catalogue.released))
        resp.status = 201 if outcome.created else 200
        if not rehearsed:
            resp.set_header("ETag", outcome.etag)
        if outcome.created:
            resp.set_header("Location", req.path)
        answer(resp, outcome.document)

    def on_delete(self, req: falcon.Request, resp: falcon.Response, **at: str) -> None:
        caller = self.caller(req)
        request.without_body(req)
        request.parameters(req, ())
        self.resources.delete(caller, self.existing(**at), if_match=request.if_match(req))
        resp.status = 204


class Changes:
    """`/v1/changes`: a long poll over everything the caller may see."""

    def __init__(self, resources: Resources, bearers: Bearers, seats: Seats) -> None:
        self._resources, self._bearers, self._seats = resources, bearers, seats

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        caller = self._bearers.caller(req)
        request.without_body(req)
        query = request.parameters(req, ("since", "wait"))
        since = request.number("since", query["since"], int, 0, 10 ** 15) if "since" in query else None
        timeout = request.number("wait", query.get("wait", "0"), float, 0, LONGEST_WAIT)
        with self._seats.seat():
            answer(resp, self._resources.changes(caller, since, timeout))


class Events(Kind):
    def on_get(self, req: falcon.Request, resp: falcon.Response, **at: str) -> None:
        caller = self.caller(req)
        request.without_body(req)
        request.parameters(req, ())
        answer(resp, self.resources.events(caller, self.existing(**at)))
