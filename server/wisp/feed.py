"""What moved after which revision: the memory behind `/v1/changes`.

Kept per resource, not per change, so it is as long as there are resources (and some that are gone), and
a client that was away for a while gets each of them once. What moved before this process began, or is
forgotten, is read from the store's own history, with nothing held: the store may be slow or away. That
history does not say what stood there before, so what follows from that is told to all whom it may concern.
A node that appears or is lost moves the view of whatever it holds, and what comes to a drained node or
leaves it moves the node's. Trust given or withdrawn moves no view, but whom it is shown to: who sees through it
cannot be told the difference from here, and has to begin again.
"""
from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from wisp.errors import Problem
from wisp.resource import PREFIX, Ref, namespace_ref, node_key, node_ref, nodes_of
from wisp.store import Compacted, Entry, Store
from wisp.store.mirror import Mirror
from wisp.world import World

MOVING = tuple(f"{PREFIX}{document}/" for document in ("intent", "binding", "status", "ref"))
NAMESPACES, NODES = (ref.key("intent") for ref in (namespace_ref(""), node_ref("")))
BINDINGS = f"{PREFIX}binding/"
LENGTH = 20_000
PATIENCE = 10.0
"""Seconds that the store's history may take."""


@dataclass(frozen=True, slots=True)
class Past:
    """What the store's history told: the keys that moved until a revision. `trusts`: that of the last namespace's."""

    until: int
    keys: tuple[str, ...] = ()
    trusts: int = 0


class Feed:
    def __init__(self, store: Store, mirror: Mirror, world: World) -> None:
        self._store, self._mirror, self._world = store, mirror, world
        self._moved: OrderedDict[Ref, int] = OrderedDict()
        self._trusted: dict[str, int] = {}
        self._begins = 0
        mirror.listen(self._heard)

    def past(self, since: int) -> Past:
        """What this memory does not hold of the time after a revision. Hold nothing. Raises `gone`."""
        reached = self._mirror.revision     # and not where the memory begins: that may move while history is read
        return self._history(since, reached) if since < self._begins else Past(since)

    def after(self, since: int, past: Past) -> list[Ref]:
        """What moved after a revision, in order. Hold the mirror, which must be at `since` or beyond. Raises `gone`."""
        if past.until < self._begins:
            raise Problem("gone", "More has moved since then than is remembered; begin again without `since`.")
        nodes = frozenset(entry.key.removeprefix(NODES) for entry in self._world.copy.scan(NODES))
        earlier = [ref for key in past.keys for ref in self._touched(key, nodes)]
        later = [ref for ref, revision in self._moved.items() if revision > since]
        return list(dict.fromkeys([*earlier, *later]))

    def regraded(self, namespace: str, past: Past) -> int:
        """The revision at which others last gave it their trust or withdrew it; 0 when that is not known."""
        return max(self._trusted.get(namespace, 0), past.trusts)

    def _heard(self, old: Entry | None, new: Entry | None) -> None:
        if not self._mirror.loaded:
            self._begins = self._mirror.arriving
            return
        key = (new or old).key  # type: ignore[union-attr]
        if key.startswith(NAMESPACES):
            self._trusted.update(dict.fromkeys(_trusts(old) ^ _trusts(new), self._mirror.arriving))
        nodes = _nodes(old) ^ _nodes(new) if key.startswith(BINDINGS) else frozenset[str]()
        for ref in self._touched(key, nodes):
            self._moved[ref] = self._mirror.arriving
            self._moved.move_to_end(ref)
        while len(self._moved) > LENGTH:
            self._begins = self._moved.popitem(last=False)[1]

    def _touched(self, key: str, nodes: frozenset[str]) -> Iterator[Ref]:
        """`nodes`: those that it may have come to or left, if it is a binding's."""
        if key.startswith(MOVING):
            yield (ref := Ref.of_key(key)[1])
            yield from self._world.bound_to(ref.name) if ref == node_ref(ref.name) else ()
            yield from filter(self._drained, map(node_ref, nodes)) if key.startswith(BINDINGS) else ()
        elif key.startswith(node_key("")):
            node = key.removeprefix(node_key(""))
            yield node_ref(node)
            yield from self._world.bound_to(node)
            yield from (each.ref for each in self._world.everything() if node in each.statuses)

    def _drained(self, node: Ref) -> bool:
        """Only then does its view say what is still there."""
        return bool((known := self._world.resource(node)) and known.spec.get("drained"))

    def _history(self, since: int, until: int) -> Past:
        stop, keys, trusts = threading.Event(), dict[str, None](), 0
        impatience = threading.Timer(PATIENCE, stop.set)
        impatience.start()
        try:
            for batch in self._store.watch(since, stop):
                keys.update(dict.fromkeys(change.key for change in batch.changes))
                if any(change.key.startswith(NAMESPACES) for change in batch.changes):
                    trusts = batch.revision
                if batch.revision >= until:
                    return Past(until, tuple(keys), trusts)
        except Compacted as compacted:
            detail = "What happened since then is no longer known; begin again without `since`."
            raise Problem("gone", detail) from compacted
        finally:
            stop.set()
            impatience.cancel()
        raise Problem("store_unavailable", "The store does not tell its history now; ask again.", retry_after=1)


def _trusts(namespace: Entry | None) -> set[str]:
    return set(json.loads(namespace.value)["spec"].get("trusts", ())) if namespace else set()


def _nodes(binding: Entry | None) -> frozenset[str]:
    return nodes_of(json.loads(binding.value)) if binding else frozenset()
