"""What a resource holds beside its own documents, and how that comes and goes with them. Pure.

A claim is the key of one scarce thing (an address, a VNI), absent until its owner takes it; a tie is one
per thing referred to, and keeps that from going, or takes the resource along when it goes. All of it is
written in the very transaction that records the resource and deleted in the one that forgets it, so that a
leak is a claim whose owner does not exist. A sum that must not grow past a limit (what a node carries,
what a namespace may hold) is no single key: there a fence is compared and bumped by everything that makes
the sum grow, and so two growths never pass at once.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from wisp.catalogue import Catalogue, Reference, Schema
from wisp.errors import Fault, Problem, refuse
from wisp.kinds import Asked, Bound, Kind
from wisp.resource import (
    CLUSTER,
    Ref,
    Resource,
    dumps,
    fence_key,
    namespace_ref,
    node_key,
    node_ref,
    nodes_of,
    refers_key,
)
from wisp.store import Absent, At, Clear, Delete, Empty, Guard, Op, Put
from wisp.world import World, target_of


@dataclass
class Draft:
    """A transaction in the making. `fenced`: it makes a sum grow."""

    guards: list[Guard] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)
    fenced: bool = False


class Holdings:
    """Over all kinds. `kinds` and `catalogue` have the same names."""

    def __init__(self, catalogue: Catalogue, kinds: Mapping[str, Kind]) -> None:
        self._catalogue, self._kinds = catalogue, kinds

    def refer(self, world: World, schema: Schema, asked: Asked, draft: Draft) -> None:
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
                owner = namespace_ref(target.namespace).key("intent")
                draft.guards.append(At(owner, world.revision_of(owner)))
            draft.ops.append(Put(self._tie(asked.ref, reference), b""))
        refuse(faults, "reference")
        draft.guards = list(dict.fromkeys(draft.guards))
        draft.ops.extend(Delete(before[target]) for target in sorted(before.keys() - named.keys()))

    def forgotten(self, world: World, was: Resource) -> Iterator[Op]:
        """Everything of it goes, whatever it holds."""
        ref, kind = was.ref, self._kinds[was.ref.kind]
        yield from (Delete(ref.key(document)) for document in ("intent", "binding"))
        yield from (Delete(key) for key in kind.keys(was, world))
        yield from (Delete(ref.key(name)) for name in sorted(kind.keeps))
        references = self._catalogue.kinds[ref.kind].references(was.spec)
        yield from (Delete(key) for key in sorted({self._tie(ref, each) for each in references}))
        yield from (Clear(ref.key(document) + "/") for document in ("event", "status"))

    def unheld(self, ref: Ref) -> tuple[Empty, ...]:
        """That no node has anything of it; of an imperative none ever has more than the result."""
        return () if self._catalogue.kinds[ref.kind].imperative else (Empty(ref.key("status") + "/"),)

    def released(self, world: World, was: Resource) -> tuple[Op, ...]:
        """Gives up references that are settled."""
        settled = set(self._kinds[was.ref.kind].settled(was))
        references = self._catalogue.kinds[was.ref.kind].references(was.spec)
        keys = {self._tie(was.ref, each) for each in references if each.kind in settled and each.when_gone == "detach"}
        return tuple(Delete(key) for key in sorted(keys) if world.taken(key))

    def _target(self, ref: Ref, reference: Reference) -> Ref:
        return target_of(reference.kind, reference.name, ref.namespace, self._catalogue.cluster_kinds)

    def _tie(self, ref: Ref, reference: Reference) -> str:
        """The key that says of a reference that it is there."""
        loose = reference.when_gone == "follow" or reference.kind in self._kinds[ref.kind].lets_go
        return refers_key(self._target(ref, reference), ref, "follow" if loose else "ref")


def take(world: World, after: Resource, was: Resource | None, bound: Bound, draft: Draft) -> None:
    """The binding, and the claims and fences that come with it."""
    ref = after.ref
    owner = {"kind": ref.kind, "namespace": ref.namespace, "name": ref.name, "uid": after.uid}
    for key in bound.claims:
        draft.guards.append(Absent(key))
        draft.ops.append(Put(key, dumps(owner)))
    draft.ops.extend(Delete(key) for key in bound.frees)
    arrives = nodes_of(bound.binding) - nodes_of(was.binding if was else {})
    for node in sorted(arrives.union(bound.grows)):
        draft.guards += there(world, node)
    for node in bound.grows:
        _bump(world, fence_key("node", node), draft)
    draft.ops.extend(Put(key, value) for key, value in bound.puts.items())
    if bound.binding and (was is None or was.binding != bound.binding):
        draft.ops.append(Put(ref.key("binding"), dumps(bound.binding)))


def _bump(world: World, key: str, draft: Draft) -> None:
    draft.guards.append(At(key, world.revision_of(key)))
    draft.ops.append(Put(key, b""))
    draft.fenced = True


def there(world: World, node: str) -> list[Guard]:
    """That the node is alive, and its document as it is."""
    alive, known = world.node(node), world.resource(node_ref(node))
    if not (alive and known):
        detail = f"The node {node} does not answer."
        raise Problem("no_capacity", detail, stage="nodes", requested={}, best_available={})
    return [At(node_key(node), alive.at), At(known.ref.key("intent"), known.at)]


def left(world: World, node: str) -> list[Guard]:
    """That the node is as it is now: there, or lost; and its document as it is."""
    if world.node(node):
        return there(world, node)
    known = world.resource(node_ref(node))
    return [Absent(node_key(node)), *([At(known.ref.key("intent"), known.at)] if known else [])]


def within_quota(world: World, kind: Kind, asked: Asked, draft: Draft) -> None:
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


def trusted(namespace: str, world: World) -> Iterable[str]:
    owner = world.resource(namespace_ref(namespace))
    return owner.spec["trusts"] if owner else ()


def _usable(target: Ref, ref: Ref, world: World) -> bool:
    return target.namespace in (ref.namespace, CLUSTER) or ref.namespace in trusted(target.namespace, world)
