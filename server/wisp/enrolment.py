"""How a machine comes to be trusted: who shows a join token once has its certificate signed.

A token says where to ask, whom to believe there (the fingerprint of the authority's certificate), and a
secret of 256 bits. The store keeps only the secret's hash, on a lease; the transaction that lets the
machine in deletes it, so a token is good for one machine, whoever is faster, and through any API.

The same transaction records the node. So a name is taken from the moment its certificate is: of three
machines that were all installed as `debian` one is let in, and the others are told.
"""
from __future__ import annotations

import base64
import json
import logging
import re
import secrets
import uuid
from dataclasses import astuple, dataclass

from wisp import pki
from wisp.admission import SYSTEM, Caller
from wisp.conditions import condition
from wisp.config import NAME
from wisp.errors import Fault, Problem, refuse
from wisp.journal import Journal
from wisp.kinds.key import hashed
from wisp.resource import PREFIX, Intent, Json, Ref, dumps, node_key, node_ref, now
from wisp.store import Absent, At, Delete, Entry, Guard, Lost, Op, Put, Span, Store

log = logging.getLogger("wisp.audit")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Token:
    """`address`: of the API, HOST:PORT; `fingerprint`: of the authority's certificate."""

    address: str
    fingerprint: str
    secret: str

    def __str__(self) -> str:
        return base64.urlsafe_b64encode(json.dumps(astuple(self)).encode()).decode().rstrip("=")

    @classmethod
    def read(cls, text: str) -> Token:
        """Raises ValueError."""
        try:
            parts = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        except ValueError:
            parts = None
        if not (isinstance(parts, list) and len(parts) == 3 and all(isinstance(each, str) for each in parts)):
            raise ValueError("this is no join token; `wisp token` on the first machine makes one")
        return cls(*parts)


def invite(store: Store, ttl: int) -> str:
    """The secret of a new token, good for so many seconds."""
    secret = secrets.token_urlsafe(32)
    store.commit([], [Put(_record(secret), b"", store.grant(ttl))])
    return secret


def _record(secret: str) -> str:
    return f"{PREFIX}enrolment/{hashed(secret)}"


class Enrolment:
    def __init__(self, store: Store, journal: Journal, ca: pki.Identity, endpoints: tuple[str, ...]) -> None:
        """`endpoints`: of the store, for those who are let in."""
        self._store, self._journal = store, journal
        self._ca, self._endpoints = ca, endpoints

    @property
    def ca(self) -> str:
        return self._ca.certificate.decode()

    def caller(self, authorization: str | None) -> Caller:
        """Who has a token that is still good. Raises `unauthenticated`."""
        scheme, _, secret = (authorization or "").partition(" ")
        found = self._store.read(Span(_record(secret))).spans[0]
        if scheme.lower() != "bearer" or not found:
            raise Problem("unauthenticated", "The join token is wrong, used or expired; `wisp token` makes another.")
        return Caller(SYSTEM, "join", "a join token", found[0].key, found[0].revision)

    def enrol(self, caller: Caller, body: Json) -> Json:
        """`body`: the machine's `name` and its uid, `machine`, and a `csr`. Its certificate, and where the store is."""
        _check(body)
        ref = node_ref(body["name"])
        try:
            certificate = pki.sign(self._ca, body["csr"].encode(), ref.name)
        except ValueError as error:
            raise Problem("invalid", f"/csr: {error}.", [Fault("/csr", "invalid", f"{error}.")]) from error
        guards, ops = self._taken(ref, body["machine"])
        try:
            self._journal.write(ref, [*caller.guards(), *guards], [Delete(caller.record), *ops], ["let in by a token"])
        except Lost as lost:
            raise Problem("conflict", "The token or the node moved meanwhile; ask again.", retry_after=1) from lost
        log.info("%s: let in by a token", ref)
        return {"certificate": certificate.decode(), "endpoints": list(self._endpoints)}

    def _taken(self, ref: Ref, machine: str) -> tuple[list[Guard], list[Op]]:
        """The name, for this machine. Raises `in_use`."""
        key, status, alive = ref.key("intent"), f"{ref.key('status')}/{ref.name}", node_key(ref.name)
        spans = self._store.read(Span(key), Span(status), Span(alive)).spans
        known, said, lives = (span[0] if span else None for span in spans)
        if known and (why := _barred(Intent.load(ref, known.value), said, machine, bool(lives))):
            raise Problem("in_use", f"{why} Nothing was changed, and the token is still good.")
        guards: list[Guard] = [Absent(alive), At(key, known.revision) if known else Absent(key)]
        if known:
            return guards, []
        moment = now()
        waits = condition("Ready", "False", "Joined", "Its agent has not begun yet.", moment)
        status_said = {"machine": machine, "observed_generation": 1, "conditions": [waits]}
        intent = Intent(ref, str(uuid.uuid4()), 1, moment, moment, {})
        return guards, [Put(key, intent.dump()), Put(status, dumps(status_said))]


def _barred(was: Intent, said: Entry | None, machine: str, alive: bool) -> str:
    same = bool(said) and json.loads(said.value).get("machine") == machine  # type: ignore[union-attr]
    if alive:
        return f"The {was.ref} is alive."
    if same and was.retired:
        return f"This machine was the {was.ref}, which is gone for good: `wisp leave --purge`, then join again."
    if not same and not was.retired:
        return f"There is a {was.ref}, and it is another machine: give --name, or delete that node first."
    return ""


def _check(body: Json) -> None:
    """Raises `invalid`."""
    rules = {"name": NAME, "machine": UUID, "csr": re.compile(r".{1,10000}", re.DOTALL)}
    if not isinstance(body, dict) or body.keys() != rules.keys():
        refuse([Fault("", "invalid", "It takes name, machine and csr.")], "invalid")
    refuse([Fault(f"/{name}", "invalid", f"This is no {name}.") for name, rule in rules.items()
            if not (isinstance(body[name], str) and rule.fullmatch(body[name]))], "invalid")
