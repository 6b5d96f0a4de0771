"""Deciding whether a write may be: from a world, to one transaction or a refusal. Pure.

Every fact that a decision rests on becomes one of its guards, so that the store turns the transaction
down if any of them moved meanwhile; then it is decided again. A sum that must not grow past a limit
(what a node carries, what a namespace may hold) is no single key: there a fence is compared and bumped
by everything that makes the sum grow, and so two growths never pass at once. What exists already and is
equal is looked at first: asking twice is asking once, even when the quota is full by now.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from wisp.catalogue import Catalogue, Reference, Schema
from wisp.errors import Fault, Problem
from wisp.kinds import Asked, Bound, Kind
from wisp.resource import (
    CLUSTER,
    Intent,
    Json,
    Ref,
    Resource,
    claim_key,
    dumps,
    fence_key,
    namespace_ref,
    node_key,
    node_ref,
    nodes_of,
    refers_key,
    refers_prefix,
    seal,
)
from wisp.store import Absent, At, Clear, Delete, Empty, Guard, Op, Put
from wisp.world import World, target_of

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


@dataclass
class _Draft:
    guards: list[Guard] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)
    fenced: bool = False


class Admission:
    """The rules, over all kinds. `kinds` and `catalogue` have the same names."""

    def __init__(self, catalogue: Catalogue, kinds: Mapping[str, Kind]) -> None:
        self._catalogue = catalogue
        self._kinds = kinds

    # --- who may what

    def may_see(self, caller: Caller, ref: Ref, world: World) -> bool:
        if caller.namespace in (SYSTEM, ref.namespace):
            return True
        if ref == namespace_ref(caller.namespace):
            return True
        return ref.kind in self._catalogue.shareable and caller.namespace in _trusted(ref.namespace, world)

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
        intent = (was.intent.revised(spec=spec, metadata=wish.metadata, sealed=sealed, updated_at=wish.now) if was else
                  Intent(wish.ref, uid, 1, wish.now, wish.now, spec, wish.metadata, sealed))
        asked = Asked(wish.ref, uid, spec, was, hidden, wish.secret)
        return self._record(world, caller, schema, asked, intent, wish.rehearsed)

    def _record(self, world: World, caller: Caller, schema: Schema, asked: Asked, intent: Intent,
                rehearsed: bool) -> Decision:
        ref, was, kind = asked.ref, asked.was, self._kinds[asked.ref.kind]
        if kind.appears and caller.record and not was:
            _refuse([Fault("/name", "appears", f"A {ref.kind} appears by itself; it cannot be made.")], "invalid")
        if was and not rehearsed:
            _refuse(list(schema.immutable(_unsealed(was.intent), _unsealed(intent))), "immutable")
        draft = _Draft([*caller.guards(), At(ref.key("intent"), was.at) if was else Absent(ref.key("intent"))])
        self._inside(world, ref, draft)
        self._refer(world, schema, asked, draft)
        _refuse(list(kind.check(asked, world)), "invalid")
        self._within_quota(world, kind, asked, draft)
        bound = kind.bind(asked, world)
        intent = replace(intent, sealed={n: seal for n, seal in intent.sealed.items() if n not in bound.unseals})
        after = replace(was, intent=intent, binding=bound.binding) if was else Resource(intent, 0, 0, bound.binding)
        _give(world, after, was, bound, draft)
        draft.ops.extend(Put(ref.key(name), asked.hidden[name].encode()) for name in kind.keeps & asked.hidden.keys())
        draft.ops.append(Put(ref.key("intent"), intent.dump()))
        return Decision(after, tuple(draft.guards), tuple(draft.ops), draft.fenced, not was, bound.token,
                        "changed" if was else "created", _effects(schema, kind, was.intent, intent) if was else {})

    def _inside(self, world: World, ref: Ref, draft: _Draft) -> None:
        """The namespace must be there, and not on its way out."""
        if ref.namespace == CLUSTER:
            return
        home = world.resource(namespace_ref(ref.namespace))
        if home is None or home.retired:
            raise Problem("not_found", f"There is no namespace {ref.namespace}.")
        draft.guards.append(At(home.ref.key("intent"), home.at))

    def _refer(self, world: World, schema: Schema, asked: Asked, draft: _Draft) -> None:
        """Each new reference must exist and be ours to use; each old one is given up."""
        old = list(schema.references(asked.was.spec)) if asked.was else []
        before = {self._target(asked.ref, each): self._tie(asked.ref, each) for each in old}
        named = {self._target(asked.ref, each): each for each in schema.references(asked.spec)}
        faults = []
        for target, reference in named.items():
            if target in before:
                continue
            found = world.resource(target)
            if found is None or found.retired or not _usable(target, asked.ref, world):
                faults.append(Fault(reference.pointer, "reference", f"There is no {target} that may be used here."))
                continue
            draft.guards.append(At(target.key("intent"), found.at))
            if target.namespace not in (asked.ref.namespace, CLUSTER):
                owner = world.resource(namespace_ref(target.namespace))
                draft.guards.append(At(namespace_ref(target.namespace).key("intent"), owner.at if owner else 0))
            draft.ops.append(Put(self._tie(asked.ref, reference), b""))
        _refuse(faults, "reference")
        draft.guards = list(dict.fromkeys(draft.guards))
        draft.ops.extend(Delete(before[target]) for target in sorted(before.keys() - named.keys()))

    def _target(self, ref: Ref, reference: Reference) -> Ref:
        return target_of(reference.kind, reference.name, ref.namespace, self._catalogue.cluster_kinds)

    def _tie(self, ref: Ref, reference: Reference) -> str:
        """The key that says of a reference that it is there."""
        return refers_key(self._target(ref, reference), ref, "follow" if reference.when_gone == "follow" else "ref")

    def _within_quota(self, world: World, kind: Kind, asked: Asked, draft: _Draft) -> None:
        home = world.resource(namespace_ref(asked.ref.namespace))
        before = kind.weigh(asked.was.spec) if asked.was else {}
        more = {what: value - before.get(what, 0) for what, value in kind.weigh(asked.spec).items()}
        limits = home.spec["quotas"] if home else {}
        growing = {what for what in limits if more.get(what, 0) > 0}
        for what in sorted(growing):
            limit, held = limits[what], world.held_by(asked.ref.namespace).get(what, 0)
            if held + more[what] > limit:
                detail = f"{asked.ref.namespace} holds {held} {what} of {limit}; this needs {more[what]} more."
                pointer = f"/spec/{what}" if what in asked.spec else "/spec"
                raise Problem("quota_exceeded", detail, [Fault(pointer, "quota_exceeded", detail)])
        if growing:
            _bump(world, fence_key("namespace", asked.ref.namespace), draft)

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
        self._refuse_used(world, was)
        guards: tuple[Guard, ...] = (*caller.guards(), At(ref.key("intent"), was.at), Empty(refers_prefix(ref)),
                                     *self._kinds[ref.kind].stays_while(was))
        gone = replace(was, intent=was.intent.revised(retired=now, updated_at=now))
        unheld = self._unheld(ref)
        if not (was.statuses and unheld):
            return Decision(gone, (*guards, *unheld), tuple(self._forgotten(world, was)))
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

    # --- tidying up, which nobody asked for

    def tidy(self, world: World, was: Resource) -> Decision | None:
        """The next thing that the conductor should do about it; None when all is well."""
        if was.retired:
            return None if was.statuses else self._forget(world, was)
        return self._release(world, was) or self._rebind(world, was)

    def _forget(self, world: World, was: Resource) -> Decision:
        """No node holds it any more: everything of it goes at once."""
        guards: tuple[Guard, ...] = (At(was.ref.key("intent"), was.at), *self._unheld(was.ref))
        return Decision(was, guards, tuple(self._forgotten(world, was)))

    def _unheld(self, ref: Ref) -> tuple[Empty, ...]:
        """That no node has anything of it; of an imperative none ever has more than the result."""
        return () if self._catalogue.kinds[ref.kind].imperative else (Empty(ref.key("status") + "/"),)

    def lapse(self, world: World, was: Resource) -> tuple[str, Decision] | None:
        """What is to be done about it by itself, and when ("" now)."""
        lapse = self._kinds[was.ref.kind].lapse(was, world)
        if lapse is None or not lapse.status:
            return (lapse.at, self._forget(world, was)) if lapse else None
        key, message = was.ref.key("status") + "/", lapse.status["conditions"][0]["message"]
        guards = (At(was.ref.key("intent"), was.at), Empty(key))
        status = Put(key + was.binding["node"], dumps(lapse.status))
        return lapse.at, Decision(was, guards, (status,), says=message)

    def _forgotten(self, world: World, was: Resource) -> Iterator[Op]:
        ref, kind = was.ref, self._kinds[was.ref.kind]
        yield from (Delete(ref.key(document)) for document in ("intent", "binding"))
        yield from (Delete(key) for key in kind.keys(was, world))
        yield from (Delete(ref.key(name)) for name in sorted(kind.keeps))
        references = self._catalogue.kinds[ref.kind].references(was.spec)
        yield from (Delete(key) for key in sorted({self._tie(ref, each) for each in references}))
        yield from (Clear(ref.key(document) + "/") for document in ("event", "status"))

    def _release(self, world: World, was: Resource) -> Decision | None:
        """Gives up references that are settled; None when there are none."""
        settled = set(self._kinds[was.ref.kind].settled(was))
        references = self._catalogue.kinds[was.ref.kind].references(was.spec)
        keys = {self._tie(was.ref, each) for each in references
                if each.kind in settled and each.when_gone == "detach"}
        ops = tuple(Delete(key) for key in sorted(keys) if world.taken(key))
        return Decision(was, (At(was.ref.key("intent"), was.at),), ops) if ops else None

    def _rebind(self, world: World, was: Resource) -> Decision | None:
        """Moves a binding; None when it is right as it is."""
        binding = self._kinds[was.ref.kind].rebind(was, world)
        if binding is None:
            return None
        key = was.ref.key("binding")
        nodes = sorted(nodes_of(binding) - nodes_of(was.binding))
        guards = (At(was.ref.key("intent"), was.at), At(key, was.bound_at),
                  *(guard for node in nodes for guard in _there(world, node)))
        return Decision(replace(was, binding=binding), guards, (Put(key, dumps(binding)),), says="bound anew")


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


def _refuse(faults: list[Fault], code: str) -> None:
    if faults:
        raise Problem(code, f"{faults[0].pointer}: {faults[0].detail}", faults)


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


def _trusted(namespace: str, world: World) -> Iterable[str]:
    owner = world.resource(namespace_ref(namespace))
    return owner.spec["trusts"] if owner else ()


def _usable(target: Ref, ref: Ref, world: World) -> bool:
    return target.namespace in (ref.namespace, CLUSTER) or ref.namespace in _trusted(target.namespace, world)


def _give(world: World, after: Resource, was: Resource | None, bound: Bound, draft: _Draft) -> None:
    """The binding, and the claims and fences that come with it."""
    ref = after.ref
    owner = {"kind": ref.kind, "namespace": ref.namespace, "name": ref.name, "uid": after.uid}
    for key in bound.claims:
        draft.guards.append(Absent(key))
        draft.ops.append(Put(key, dumps(owner)))
    arrives = nodes_of(bound.binding) - nodes_of(was.binding if was else {})
    for node in sorted(arrives.union(bound.grows)):
        draft.guards += _there(world, node)
    for node in bound.grows:
        _bump(world, fence_key("node", node), draft)
    draft.ops.extend(Put(key, value) for key, value in bound.puts.items())
    if bound.binding and (was is None or was.binding != bound.binding):
        draft.ops.append(Put(ref.key("binding"), dumps(bound.binding)))


def _there(world: World, node: str) -> list[Guard]:
    """That the node is alive, and its document as it is."""
    alive, known = world.node(node), world.resource(node_ref(node))
    if not (alive and known):
        detail = f"The node {node} does not answer."
        raise Problem("no_capacity", detail, stage="nodes", requested={}, best_available={})
    return [At(node_key(node), alive.at), At(known.ref.key("intent"), known.at)]


def _bump(world: World, key: str, draft: _Draft) -> None:
    entry = world.entry(key)
    draft.guards.append(At(key, entry.revision) if entry else Absent(key))
    draft.ops.append(Put(key, b""))
    draft.fenced = True


def stray_claims(world: World) -> list[dict[str, Any]]:
    """Claims whose owner does not exist: there are none, unless something leaked."""
    claims = ((entry.key, world.record(entry.key)) for entry in world.copy.scan(claim_key("")))
    return [{"claim": key.removeprefix(claim_key("")), "owner": owner}
            for key, owner in claims if owner and not _owns(world, owner)]


def _owns(world: World, owner: Json) -> bool:
    found = world.resource(Ref(owner["kind"], owner["namespace"], owner["name"]))
    return bool(found and found.uid == owner["uid"])
