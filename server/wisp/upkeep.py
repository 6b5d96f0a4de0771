"""What is to be done about a resource though nobody asked: one transaction at a time. Pure.

What is retired is forgotten once no node has anything of it; a reference that is settled is given up; a
binding is moved when its kind says so; what a node held that is gone for good is held no more; and what
lapses gets its last word, or goes. Each is guarded by the very documents it was decided from, so that it may
be decided twice, and by several at once.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from wisp.admission import Decision
from wisp.catalogue import Catalogue
from wisp.holdings import Draft, Holdings, left, take
from wisp.kinds import Kind
from wisp.resource import Resource, dumps, node_ref, nodes_of
from wisp.store import At, Delete, Empty, Guard, Put
from wisp.world import World


class Upkeep:
    """Over all kinds. `kinds` and `catalogue` have the same names."""

    def __init__(self, catalogue: Catalogue, kinds: Mapping[str, Kind]) -> None:
        self._kinds, self._holdings = kinds, Holdings(catalogue, kinds)

    def tidy(self, world: World, was: Resource) -> Decision | None:
        """The next thing to do about it; None when all is well."""
        if was.retired:
            return self._bury(world, was) or (None if was.statuses else self._forget(world, was))
        return self._release(world, was) or self._rebind(world, was) or self._bury(world, was)

    def _forget(self, world: World, was: Resource) -> Decision:
        """No node holds it any more: everything of it goes at once."""
        guards: tuple[Guard, ...] = (At(was.ref.key("intent"), was.at), *self._holdings.unheld(was.ref))
        return Decision(was, guards, tuple(self._holdings.forgotten(world, was)))

    def lapse(self, world: World, was: Resource) -> tuple[str, Decision] | None:
        """What is to be done about it by itself, and when ("" now)."""
        lapse = self._kinds[was.ref.kind].lapse(was, world)
        if lapse is None or not lapse.status:
            return (lapse.at, self._forget(world, was)) if lapse else None
        key, message = was.ref.key("status") + "/", lapse.status["conditions"][0]["message"]
        guards = (At(was.ref.key("intent"), was.at), Empty(key))
        status = Put(key + was.binding["node"], dumps(lapse.status))
        return lapse.at, Decision(was, guards, (status,), says=message)

    def _release(self, world: World, was: Resource) -> Decision | None:
        ops = self._holdings.released(world, was)
        return Decision(was, (At(was.ref.key("intent"), was.at),), ops) if ops else None

    def _rebind(self, world: World, was: Resource) -> Decision | None:
        """Moves a binding; None when it is right as it is."""
        bound = self._kinds[was.ref.kind].rebind(was, world)
        if bound is None:
            return None
        before, after, moved = nodes_of(was.binding), nodes_of(bound.binding), replace(was, binding=bound.binding)
        draft = Draft([At(was.ref.key("intent"), was.at), At(was.ref.key("binding"), was.bound_at),
                       *(guard for node in sorted(before - after) for guard in left(world, node))])
        take(world, moved, was, bound, draft)
        says = f"bound to {', '.join(sorted(after)) or 'no node'} instead of {', '.join(sorted(before)) or 'no node'}"
        return Decision(moved, tuple(draft.guards), tuple(draft.ops), says=says if before != after else "bound anew")

    def _bury(self, world: World, was: Resource) -> Decision | None:
        """What a node said of it that is gone for good holds it no more; what that said of itself stays."""
        gone = sorted(node for node in was.statuses if node_ref(node) != was.ref and world.gone(node))
        if not gone or not self._holdings.unheld(was.ref):
            return None
        guards = (At(was.ref.key("intent"), was.at), *(guard for node in gone for guard in left(world, node)))
        ops = tuple(Delete(f"{was.ref.key('status')}/{node}") for node in gone)
        return Decision(was, guards, ops, says=f"{', '.join(gone)} is gone for good, with what was there")
