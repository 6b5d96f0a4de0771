"""Deciding whether a write may be: from a world, to one transaction or a refusal. Pure.

Every fact that a decision rests on becomes one of its guards, so that the store turns the transaction
down if any of them moved meanwhile; then it is decided again. What exists already and is equal is looked
at first: asking twice is asking once, even when the quota is full by now. What comes with a resource, and
goes with it, is in `holdings`; what nobody has to ask for, in `upkeep`.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from wisp.catalogue import Catalogue, Schema
from wisp.errors import Fault, Problem, refuse
from wisp.holdings import Draft, Holdings, take, trusted, within_quota
from wisp.kinds import Asked, Kind
from wisp.resource import (
    CLUSTER,
    Intent,
    Json,
    Ref,
    Resource,
    claim_key,
    namespace_ref,
    refers_prefix,
    seal,
)
from wisp.store import Absent, At, Empty, Guard, Op, Put
from wisp.world import World

SYSTEM = "system"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the namespace and role of the key. `record`: where the key stands, "" for wisp itself; `proof`: the
    hash of the secret that was shown."""

    namespace: str
    role: str
    name: str
    record: str = ""
    at: int = 0
    proof: str = ""

    def guards(self) -> Iterator[At]:
        if self.record:
            yield At(self.record, self.at)


@dataclass(frozen=True, slots=True)
class Wish:
    """A PUT: what to record, under which preconditions. `drawn`: the uid it gets if it is new; `rehearsed`: it
    will not be written, so what would take a replacement is told instead of refused."""

    ref: Ref
    spec: Json
    metadata: Mapping[str, str]
    drawn: str
    now: str
    secret: Callable[[], str]
    if_match: str | None = None
    create_only: bool = False
    rehearsed: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """One transaction, and what will be recorded once it has passed. `effects`: see `_effects`."""

    after: Resource
    guards: tuple[Guard, ...]
    ops: tuple[Op, ...] = ()
    fenced: bool = False
    created: bool = False
    token: str = ""
    says: str = ""
    effects: Mapping[str, str] = field(default_factory=dict)


class Admission:
    """The rules, over all kinds. `kinds` and `catalogue` have the same names."""

    def __init__(self, catalogue: Catalogue, kinds: Mapping[str, Kind]) -> None:
        self._catalogue, self._kinds, self._holdings = catalogue, kinds, Holdings(catalogue, kinds)

    # --- who may what

    def may_see(self, caller: Caller, ref: Ref, world: World) -> bool:
        if caller.namespace in (SYSTEM, ref.namespace):
            return True
        if ref == namespace_ref(caller.namespace):
            return True
        return ref.kind in self._catalogue.shareable and caller.namespace in trusted(ref.namespace, world)

    def known(self, caller: Caller, world: World) -> Caller:
        """The caller as its key stands in this world: the role may be another by now, the secret must be the same."""
        if not caller.record:
            return caller
        record = world.record(caller.record)
        if record is None or record["hash"] != caller.proof:
            raise Problem("unauthenticated", "The key was revoked or rotated just now.")
        return replace(caller, role=record["role"], at=world.revision_of(caller.record))

    def must_see(self, caller: Caller, ref: Ref, world: World) -> Caller:
        caller = self.known(caller, world)
        if not self.may_see(caller, ref, world):
            raise Problem("not_found", f"There is no {ref}.")
        return caller

    def must_write(self, caller: Caller, ref: Ref, world: World) -> Caller:
        """Editors write what is their namespace's; only admins write keys and what is the cluster's."""
        caller = self.must_see(caller, ref, world)
        own = caller.namespace in (SYSTEM, ref.namespace)
        privileged = ref.namespace == CLUSTER or self._kinds[ref.kind].privileged
        if not own or caller.role == "viewer" or (privileged and caller.role != "admin"):
            raise Problem("forbidden", f"This key ({caller.role} of {caller.namespace}) may not change the {ref}.")
        return caller

    # --- recording

    def admit(self, world: World, caller: Caller, wish: Wish) -> Decision:
        caller = self.must_write(caller, wish.ref, world)
        was = world.resource(wish.ref)
        _preconditions(wish, was)
        schema, uid = self._catalogue.kinds[wish.ref.kind], was.uid if was else wish.drawn
        hidden = {name: value for name, value in wish.spec.items() if name in schema.hidden}
        sealed = {**(was.intent.sealed if was else {}), **{name: seal(uid, value) for name, value in hidden.items()}}
        spec = {name: value for name, value in wish.spec.items() if name not in schema.hidden}
        if was and _same(schema, was.intent, spec, wish.metadata, sealed):
            return Decision(was, (*caller.guards(), At(wish.ref.key("intent"), was.at)),
                            effects=_effects(schema, self._kinds[wish.ref.kind], was.intent, was.intent))
        if was:
            _demand(world, wish.ref, wish.if_match)
        intent = (was.intent.revised(spec=spec, metadata=wish.metadata, sealed=sealed, updated_at=wish.now) if was else
                  Intent(wish.ref, uid, 1, wish.now, wish.now, spec, wish.metadata, sealed))
        asked = Asked(wish.ref, uid, spec, was, wish.metadata, hidden, wish.secret)
        return self._record(world, caller, schema, asked, intent, wish.rehearsed)

    def _record(self, world: World, caller: Caller, schema: Schema, asked: Asked, intent: Intent,
                rehearsed: bool) -> Decision:
        ref, was, kind = asked.ref, asked.was, self._kinds[asked.ref.kind]
        if kind.appears and caller.record and not was:
            refuse([Fault("/name", "appears", f"A {ref.kind} appears by itself; it cannot be made.")], "invalid")
        if was and not rehearsed:
            refuse(list(schema.immutable(_unsealed(was.intent), _unsealed(intent))), "immutable")
        draft = Draft([*caller.guards(), At(ref.key("intent"), was.at) if was else Absent(ref.key("intent"))])
        self._inside(world, ref, draft)
        self._holdings.refer(world, schema, asked, draft)
        refuse(list(kind.check(asked, world)), "invalid")
        within_quota(world, kind, asked, draft)
        bound = kind.bind(asked, world)
        intent = replace(intent, sealed={n: seal for n, seal in intent.sealed.items() if n not in bound.unseals})
        after = replace(was, intent=intent, binding=bound.binding) if was else Resource(intent, 0, 0, bound.binding)
        take(world, after, was, bound, draft)
        draft.ops.extend(Put(ref.key(name), asked.hidden[name].encode()) for name in kind.keeps & asked.hidden.keys())
        draft.ops.append(Put(ref.key("intent"), intent.dump()))
        return Decision(after, tuple(draft.guards), tuple(draft.ops), draft.fenced, not was, bound.token,
                        "changed" if was else "created", _effects(schema, kind, was.intent, intent) if was else {})

    def _inside(self, world: World, ref: Ref, draft: Draft) -> None:
        """The namespace must be there, and not on its way out."""
        if ref.namespace == CLUSTER:
            return
        home = world.resource(namespace_ref(ref.namespace))
        if home is None or home.retired:
            raise Problem("not_found", f"There is no namespace {ref.namespace}.")
        draft.guards.append(At(home.ref.key("intent"), home.at))

    # --- letting go

    def retire(self, world: World, caller: Caller, ref: Ref, if_match: str | None, now: str) -> Decision | None:
        """None when there is nothing to do."""
        caller = self.must_write(caller, ref, world)
        was = world.resource(ref)
        if was is None:
            return None
        if if_match not in (None, "*", was.intent.etag):
            raise Problem("precondition_failed", f"The {ref} is at {was.intent.etag} by now.")
        if was.retired:
            return None
        _demand(world, ref, if_match)
        self._refuse_used(world, was)
        guards: tuple[Guard, ...] = (*caller.guards(), At(ref.key("intent"), was.at), Empty(refers_prefix(ref)),
                                     *self._kinds[ref.kind].stays_while(was))
        gone = replace(was, intent=was.intent.revised(retired=now, updated_at=now))
        unheld = self._holdings.unheld(ref)
        if not (was.statuses and unheld):
            return Decision(gone, (*guards, *unheld), tuple(self._holdings.forgotten(world, was)))
        return Decision(gone, guards, (Put(ref.key("intent"), gone.intent.dump()),), says="retired")

    def _refuse_used(self, world: World, was: Resource) -> None:
        users: list[Ref | str] = [*world.referrers(was.ref)]
        for guard in self._kinds[was.ref.kind].stays_while(was):
            if isinstance(guard, Empty):
                users += [Ref.of_key(entry.key)[1] for entry in world.copy.scan(guard.prefix)]
            elif world.taken(guard.key):
                users.append("its agent, which is alive")
        if users:
            listed = ", ".join(map(str, users[:5])) + (f" and {len(users) - 5} more" if len(users) > 5 else "")
            raise Problem("in_use", f"The {was.ref} is in use by {listed}. Delete that first.")


def _same(schema: Schema, was: Intent, spec: Json, metadata: Mapping[str, str], sealed: Mapping[str, str]) -> bool:
    equal = (was.metadata, was.sealed) == (metadata, sealed)
    return equal and bool(schema.canonical(was.spec) == schema.canonical(spec))


def _preconditions(wish: Wish, was: Resource | None) -> None:
    if was and was.retired:
        raise Problem("deleting", f"The {wish.ref} is being deleted; ask again when it is gone.")
    if wish.create_only and was:
        raise Problem("precondition_failed", f"The {wish.ref} exists already.")
    if wish.if_match is not None and (was is None or wish.if_match not in ("*", was.intent.etag)):
        detail = f"The {wish.ref} is at {was.intent.etag} by now." if was else f"There is no {wish.ref}."
        raise Problem("precondition_failed", detail)


def _demand(world: World, ref: Ref, if_match: str | None) -> None:
    """A namespace may want to hear from everybody that they have seen what they overwrite."""
    home = world.resource(namespace_ref(ref.namespace))
    if if_match is None and home and home.spec.get("require_if_match"):
        detail = f"The namespace {ref.namespace} asks for If-Match; read the {ref} and send the ETag that you saw."
        raise Problem("precondition_required", detail)


def _effects(schema: Schema, kind: Kind, was: Intent, intent: Intent) -> dict[str, str]:
    """Pointer of each field -> `none`, `in_place`, `restart` (of what runs) or `replace` (delete and create anew)."""
    old, new = _unsealed(was), _unsealed(intent)
    had, has = schema.canonical(old), schema.canonical(new)
    moved = {name for name in old.keys() | new.keys() if had.get(name) != has.get(name)}
    fixed = {fault.pointer.split("/")[2] for fault in schema.immutable(old, new)}
    def effect(name: str) -> str:
        if name not in moved:
            return "none"
        return "replace" if name in fixed else "restart" if name in kind.restarts else "in_place"
    fields = {f"/spec/{name}": effect(name) for name in sorted(old.keys() | new.keys())}
    return {"/metadata": "none" if was.metadata == intent.metadata else "in_place", **fields}


def _unsealed(intent: Intent) -> Json:
    """The spec with digests where write-only fields stand, for comparing."""
    return {**intent.spec, **intent.sealed}


def stray_claims(world: World) -> list[dict[str, Any]]:
    """Claims whose owner does not exist: there are none, unless something leaked."""
    claims = ((entry.key, world.record(entry.key)) for entry in world.copy.scan(claim_key("")))
    return [{"claim": key.removeprefix(claim_key("")), "owner": owner}
            for key, owner in claims if owner and not _owns(world, owner)]


def _owns(world: World, owner: Json) -> bool:
    found = world.resource(Ref(owner["kind"], owner["namespace"], owner["name"]))
    return bool(found and found.uid == owner["uid"])
