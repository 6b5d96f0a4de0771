"""The front of the house: resources as callers see them, and every write one transaction.

A decision is taken on the mirror and proved by its guards; when another was faster, it is taken again
on what the store says now. A refusal has no guard to prove it, so it is spoken only from a mirror that
has caught up with the store since the request came. Growth that a fence covers passes one at a time
within a process: without that, two hundred at once would mostly undo each other.
"""
from __future__ import annotations

import base64
import binascii
import hmac
import json
import logging
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from wisp.admission import SYSTEM, Admission, Caller, Decision, Wish, stray_claims
from wisp.catalogue import Catalogue
from wisp.conditions import addressed, document, has_failed, is_ready
from wisp.errors import Fault, Problem
from wisp.feed import Feed
from wisp.journal import Journal
from wisp.kinds import KINDS
from wisp.kinds.key import hashed, record_key
from wisp.resource import CLUSTER, CLUSTER_KEY, PREFIX, Ref, Resource, now
from wisp.store import Compacted, Entry, Lost, Span, Store, beyond, under
from wisp.store.mirror import Mirror
from wisp.world import World

audit = logging.getLogger("wisp.audit")
PATIENCE = 10.0
"""Seconds for which lost races are run again."""
GLANCE = 1.0
"""Seconds after which one who waits sees that the service is closing."""
CHUNK = 50
"""Resources that are read at a time for a list, at least: a filter may leave few of them, or none."""
LAG = 5.0
"""Seconds a mirror may need to catch up with the store before that is a failure."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a PUT did. `document`: as shown, with `token` when a key was made or rotated."""

    document: dict[str, Any]
    etag: str
    created: bool


class Resources:
    def __init__(self, store: Store, mirror: Mirror, world: World, catalogue: Catalogue, journal: Journal,
                 feed: Feed) -> None:
        self.catalogue, self._feed = catalogue, feed
        self.admission = Admission(catalogue, KINDS)
        self._store, self._mirror, self._world, self._journal = store, mirror, world, journal
        self._growing, self._written, self._noting = _Turnstile(), 0, threading.Lock()
        self._closing = False

    # --- who asks

    def authenticate(self, authorization: str | None) -> Caller:
        """The caller of `Authorization: Bearer wisp_<key id>_<secret>`. Raises `unauthenticated`."""
        self._see_own()
        caller = self._bearer(authorization or "")
        if caller is None and authorization:
            self._catch_up()        # another server may have made the key just now
            caller = self._bearer(authorization)
        if caller is None:
            raise Problem("unauthenticated", "The request carries no valid API key.")
        return caller

    def _bearer(self, authorization: str) -> Caller | None:
        scheme, _, token = authorization.partition(" ")
        mark, _, rest = token.strip().partition("_")
        key_id, _, secret = rest.partition("_")
        with self._mirror.held():
            entry = self._mirror.get(record_key(key_id)) if key_id.isalnum() else None
            record = json.loads(entry.value) if entry else {"hash": "", "expires_at": ""}
        good = hmac.compare_digest(hashed(secret), record["hash"])
        ours = scheme.lower() == "bearer" and mark == "wisp"
        if not (ours and entry and good and not _expired(record["expires_at"])):
            return None
        name = f"{record['namespace']}/{record['name']}"
        return Caller(record["namespace"], record["role"], name, entry.key, entry.revision, record["hash"])

    # --- writing

    def put(self, caller: Caller, ref: Ref, body: Any, *, if_match: str | None = None, create_only: bool = False,
            rehearsed: bool = False, minor: int | None = None) -> Outcome:
        """`rehearsed`: everything but the write; the answer then has `changes`. `minor`: the caller's version of v1."""
        schema = self.catalogue.kinds[ref.kind]
        schema.validate(body)
        asked, drawn, moment = body["spec"], str(uuid.uuid4()), now()

        def decide() -> Decision:
            spec = schema.filled(self.catalogue.carried(ref.kind, minor, asked, self._recorded(ref)))
            return self.admission.admit(self._world, caller, Wish(
                ref, spec, body.get("metadata", {}), drawn, moment, lambda: secrets.token_hex(32),
                if_match, create_only, rehearsed))

        if rehearsed:
            self._catch_up()
            with self._mirror.held():
                decision = decide()
            return Outcome({**self._shown(decision.after), "changes": dict(decision.effects)},
                           decision.after.intent.etag, False)
        settled = self._write("put", ref, decide, caller)
        assert settled
        decision, shown = settled, self._shown(settled.after)
        token = {"token": decision.token} if decision.token else {}
        return Outcome({**shown, **token}, decision.after.intent.etag, decision.created)

    def _recorded(self, ref: Ref) -> Mapping[str, Any]:
        was = self._world.resource(ref)
        return was.spec if was else {}

    def delete(self, caller: Caller, ref: Ref, *, if_match: str | None = None) -> None:
        self._write("delete", ref, lambda: self.admission.retire(self._world, caller, ref, if_match, now()), caller)

    def _write(self, verb: str, ref: Ref, decide: Callable[[], Decision | None], caller: Caller) -> Decision | None:
        """Settles it, and says in one line of the audit log what came of it: `done`, or the code of the refusal."""
        line: dict[str, Any] = {"actor": caller.name, "verb": verb, "resource": str(ref), "outcome": "internal"}
        try:
            decision = self._settle(decide, caller)
            if decision:
                after = decision.after.intent.generation
                line |= {"before": 0 if decision.created else after - bool(decision.ops), "after": after}
            line["outcome"] = "done"
            return decision
        except Problem as problem:
            line["outcome"] = problem.code
            raise
        finally:
            audit.info("%s %s: %s", verb, ref, line["outcome"], extra={"fields": line})

    def _settle(self, decide: Callable[[], Decision | None], caller: Caller) -> Decision | None:
        """Decides and commits until it holds. Raises the refusal, or `conflict` when out of patience."""
        until, caught_up = time.monotonic() + PATIENCE, 0
        with ExitStack() as alone:
            while time.monotonic() < until:
                self._see_own()
                try:
                    with self._mirror.held():
                        revision = self._mirror.revision
                        decision = decide()
                except Problem:
                    if caught_up and revision >= caught_up:
                        raise
                    caught_up = self._catch_up()
                    continue
                if decision is None:
                    if caught_up and revision >= caught_up:
                        return None
                    caught_up = self._catch_up()
                    continue
                if decision.fenced and not self._growing.held():
                    alone.enter_context(self._growing)
                    if max(self._mirror.revision, self._written) > revision:
                        continue
                try:
                    self._commit(decision, caller)
                    return decision
                except Lost as lost:
                    self._mirror.wait(lost.revision, LAG)
        raise Problem("conflict", "Others changed the same things for too long; ask again.", retry_after=1)

    def _commit(self, decision: Decision, caller: Caller) -> None:
        told = [decision.says] if decision.says else []
        revision = self._journal.write(decision.after.ref, decision.guards, decision.ops, told, caller.name)
        with self._noting:      # who wrote earlier may come here later
            self._written = max(self._written, revision)

    def _see_own(self) -> None:
        """Waits until the mirror shows what was written here: no answer waits for that, what is asked next does."""
        if not self._mirror.wait(self._written, LAG):
            self._written = 0       # a store that was restored may never come so far

    def _catch_up(self, seen: int = 0) -> int:
        """Waits until the mirror shows what the store holds now, or at `seen`; that revision."""
        revision = seen or self._store.revision()
        if not self._mirror.wait(revision, LAG):
            raise Problem("store_unavailable", "This server lags behind the store; ask again.", retry_after=1)
        return revision

    # --- reading

    def get(self, caller: Caller, ref: Ref) -> dict[str, Any]:
        view = self._store.read(Span(ref.key("intent")), Span(ref.key("binding")), under(ref.key("status") + "/"))
        self._catch_up(view.revision)
        with self._mirror.held():
            self.admission.must_see(caller, ref, self._world)
        if not view.spans[0]:
            raise Problem("not_found", f"There is no {ref}.")
        return self._shown(self._resource(view.spans[0][0], *view.spans[1], statuses=view.spans[2]))

    def list(self, caller: Caller, kind: str, namespace: str, *, limit: int = 50, after: str | None = None,
             metadata: Mapping[str, str] | None = None) -> dict[str, Any]:
        """A page, oldest name first; all pages of a walk are of one revision."""
        prefix = f"{PREFIX}intent/{namespace}/{kind}/"
        revision, name = self._read_token(after, prefix) if after else (0, "")
        self._catch_up()
        with self._mirror.held():
            self.admission.known(caller, self._world)
            if namespace != CLUSTER:
                self._must_see_into(caller, kind, namespace)
        items: list[dict[str, Any]] = []
        start, chunk = f"{prefix}{name}\0" if name else prefix, max(limit, CHUNK)
        while True:
            end = self._mirror.ahead(start, beyond(prefix), chunk)
            try:
                page = self._store.read(Span(start, end, chunk), revision=revision)
                revision = page.revision
                found = self._together(page.spans[0], revision)
            except Compacted as compacted:
                raise Problem("gone", "The list went on for too long; begin again.") from compacted
            for resource in found:
                name = resource.ref.name
                if self._listed(caller, resource, metadata or {}):
                    items.append(self._shown(resource))
                if len(items) == limit:
                    break
            more = page.more[0] or end < beyond(prefix) or (found and name != found[-1].ref.name)
            if not more:
                return {"items": items, "revision": revision}
            if len(items) == limit:
                return {"items": items, "revision": revision, "next": self._token(revision, name, prefix)}
            start = f"{prefix}{name}\0" if page.more[0] else end

    def _must_see_into(self, caller: Caller, kind: str, namespace: str) -> None:
        if not self.admission.may_see(caller, Ref(kind, namespace, ""), self._world):
            raise Problem("not_found", f"There is no namespace {namespace}.")

    def _token(self, revision: int, name: str, prefix: str) -> str:
        """Opaque and signed: a page token is good for the walk that it came from, and nothing else."""
        said = json.dumps([revision, name]).encode()
        return base64.urlsafe_b64encode(self._signed(said, prefix) + said).decode()

    def _read_token(self, token: str, prefix: str) -> tuple[int, str]:
        try:
            raw = base64.urlsafe_b64decode(token.encode())
        except (ValueError, binascii.Error):
            raw = b""
        if not hmac.compare_digest(raw[:16], self._signed(raw[16:], prefix)):
            raise Problem("unknown_parameter", "The page token is not one of this list's.",
                          [Fault("?after", "unknown_parameter", "Take it from `next` of the page before, as it is.")])
        revision, name = json.loads(raw[16:])
        return int(revision), str(name)

    def _signed(self, said: bytes, prefix: str) -> bytes:
        secret = (self._world.record(CLUSTER_KEY) or {})["secret"]
        return hmac.digest(secret.encode(), prefix.encode() + said, "sha256")[:16]

    def _listed(self, caller: Caller, resource: Resource, metadata: Mapping[str, str]) -> bool:
        with self._mirror.held():
            seen = self.admission.may_see(caller, resource.ref, self._world)
        return seen and metadata.items() <= resource.intent.metadata.items()

    def _together(self, intents: Sequence[Entry], revision: int) -> Sequence[Resource]:
        """The resources of a page, their other documents read in one go at the same revision."""
        if not intents:
            return []
        first, last = Ref.of_key(intents[0].key)[1], Ref.of_key(intents[-1].key)[1]
        told = [f"{Ref.of_key(entry.key)[1].key('status')}/" for entry in intents]      # `a-b/` comes before `a/`
        view = self._store.read(Span(first.key("binding"), last.key("binding") + "\0"),
                                Span(min(told), beyond(max(told))), revision=revision)
        bindings = {Ref.of_key(entry.key)[1]: entry for entry in view.spans[0]}
        statuses: dict[Ref, list[Entry]] = {}
        for entry in view.spans[1]:
            statuses.setdefault(Ref.of_key(entry.key)[1], []).append(entry)
        refs = [(Ref.of_key(entry.key)[1], entry) for entry in intents]
        return [self._resource(entry, *filter(None, [bindings.get(ref)]), statuses=statuses.get(ref, ()))
                for ref, entry in refs]

    def _resource(self, intent: Entry, *binding: Entry, statuses: Collection[Entry]) -> Resource:
        said = {Ref.of_key(entry.key)[2]: json.loads(entry.value) for entry in statuses}
        bound = binding[0] if binding else None
        return Resource(self._world.read(intent), intent.revision, intent.created,
                        json.loads(bound.value) if bound else {}, bound.revision if bound else 0, said)

    def wait(self, caller: Caller, ref: Ref, until: str, timeout: float) -> dict[str, Any] | None:
        """Held until it is `ready` (or has failed for good) or `absent`, or time is up; None when it is gone."""
        end = time.monotonic() + timeout
        self._catch_up()
        while True:
            with self._mirror.held():
                revision = self._mirror.revision
                self._still_good(caller)
                self.admission.must_see(caller, ref, self._world)
                resource = self._world.resource(ref)
                shown = self._shown(resource) if resource else None
            if shown is None or (until == "ready" and (is_ready(shown) or has_failed(shown))):
                return shown
            if self._closing or time.monotonic() >= end:
                return shown
            self._mirror.wait(revision + 1, min(end - time.monotonic(), GLANCE))

    def _still_good(self, caller: Caller) -> None:
        """Of one whose request is held: the key was neither withdrawn meanwhile, nor did its time run out."""
        self.admission.known(caller, self._world)
        if _expired((self._world.record(caller.record) or {"expires_at": ""})["expires_at"]):
            raise Problem("unauthenticated", "The key has expired by now.")

    def close(self) -> None:
        """Whoever waits gets the document as it is, within a second."""
        self._closing = True

    def changes(self, caller: Caller, since: int | None, timeout: float) -> dict[str, Any]:
        """Views that the caller may see and that moved after a revision; held until there is one, or time is up."""
        end, latest = time.monotonic() + timeout, self._catch_up()
        if since is None:
            return {"revision": latest, "items": [], "gone": []}
        if since > latest:
            raise Problem("gone", "That revision is of another history; begin again without `since`.")
        while True:
            past = self._feed.past(since)
            with self._mirror.held():
                revision = self._mirror.revision
                self._still_good(caller)
                moved = self._feed.after(since, past)
                if caller.namespace != SYSTEM and self._feed.regraded(caller.namespace, past) > since:
                    raise Problem("gone", "What you may see has changed since then; begin again without `since`.")
                refs = [ref for ref in moved if self.admission.may_see(caller, ref, self._world)]
                found = [(ref, self._world.resource(ref)) for ref in refs]
                items = [self._shown(resource) for _, resource in found if resource]
            if refs or self._closing or time.monotonic() >= end:
                gone = [addressed(ref) for ref, it in found if not it]
                return {"revision": revision, "items": items, "gone": gone}
            since = revision
            self._mirror.wait(revision + 1, min(end - time.monotonic(), GLANCE))

    def events(self, caller: Caller, ref: Ref) -> dict[str, Any]:
        """What happened to it, the newest first."""
        self.get(caller, ref)
        view = self._store.read(under(ref.key("event") + "/"))
        told = sorted((json.loads(entry.value) for entry in view.spans[0]), key=lambda each: str(each["at"]))
        return {"items": told[::-1], "revision": view.revision}

    def audit(self, caller: Caller) -> dict[str, Any]:
        """Claims whose owner does not exist."""
        self._catch_up()
        with self._mirror.held():
            caller = self.admission.known(caller, self._world)
            if (caller.namespace, caller.role) != (SYSTEM, "admin"):
                raise Problem("forbidden", "Only an admin of the system namespace may audit.")
            return {"revision": self._mirror.revision, "orphans": stray_claims(self._world)}

    def health(self) -> dict[str, Any]:
        """Whether the store answers and the mirror is current; the store's revision."""
        try:
            revision = self._store.revision()
        except Problem:
            return {"store": False, "mirror": False, "revision": 0}
        return {"store": True, "mirror": self._mirror.wait(revision, 1), "revision": revision}

    def etag(self, shown: Mapping[str, Any]) -> str:
        return f'"{shown["uid"]}-{shown["generation"]}"'

    def _shown(self, resource: Resource) -> dict[str, Any]:
        with self._mirror.held():
            kind = KINDS[resource.ref.kind]
            places, lack = kind.places(resource, self._world), kind.lack(resource, self._world)
            remarks = list(kind.remarks(resource, self._world))
            live: Collection[str] = {node.name for node in self._world.live_nodes()}
        return document(resource, places, live, self.catalogue.kinds[resource.ref.kind].hidden, lack, remarks)


class _Turnstile:
    """A lock that knows whether this thread has it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._mine = threading.local()

    def held(self) -> bool:
        return getattr(self._mine, "held", False)

    def __enter__(self) -> None:
        self._lock.acquire()
        self._mine.held = True

    def __exit__(self, *_: object) -> None:
        self._mine.held = False
        self._lock.release()


def _expired(at: str) -> bool:
    return bool(at) and datetime.fromisoformat(at).timestamp() <= time.time()
