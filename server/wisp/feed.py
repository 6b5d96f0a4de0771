"""What moved after which revision: the memory behind `/v1/changes`.

Kept per resource, not per change, so it is as long as there are resources (and some that are gone), and
a client that was away for a while gets each of them once. What moved before this process began is read
from the store's own history. A node that appears or is lost moves the view of whatever it holds, though
nothing of that is written.
"""
from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator

from wisp.errors import Problem
from wisp.resource import PREFIX, Ref, node_key, node_ref
from wisp.store import Compacted, Entry, Store
from wisp.store.mirror import Mirror
from wisp.world import World

MOVING = tuple(f"{PREFIX}{document}/" for document in ("intent", "binding", "status", "ref"))
LENGTH = 20_000


class Feed:
    def __init__(self, store: Store, mirror: Mirror, world: World) -> None:
        self._store, self._mirror, self._world = store, mirror, world
        self._moved: OrderedDict[Ref, int] = OrderedDict()
        self._begins = 0
        mirror.listen(self._heard)

    def after(self, since: int) -> list[Ref]:
        """What moved after a revision, in order. Hold the mirror, which must be at `since` or beyond. Raises `gone`."""
        earlier = self._history(since) if since < self._begins else []
        later = [ref for ref, revision in self._moved.items() if revision > since]
        return list(dict.fromkeys([*earlier, *later]))

    def _heard(self, old: Entry | None, new: Entry | None) -> None:
        if not self._mirror.loaded:
            self._begins = self._mirror.arriving
            return
        for ref in self._touched((new or old).key):  # type: ignore[union-attr]
            self._moved[ref] = self._mirror.arriving
            self._moved.move_to_end(ref)
        while len(self._moved) > LENGTH:
            self._begins = self._moved.popitem(last=False)[1]

    def _touched(self, key: str) -> Iterator[Ref]:
        if key.startswith(MOVING):
            yield (ref := Ref.of_key(key)[1])
            yield from self._world.bound_to(ref.name) if ref == node_ref(ref.name) else ()
        elif key.startswith(node_key("")):
            node = key.removeprefix(node_key(""))
            yield node_ref(node)
            yield from self._world.bound_to(node)
            yield from (each.ref for each in self._world.everything() if node in each.statuses)

    def _history(self, since: int) -> list[Ref]:
        stop, found = threading.Event(), list[Ref]()
        try:
            for batch in self._store.watch(since, stop):
                found += [ref for change in batch.changes for ref in self._touched(change.key)]
                if batch.revision >= self._begins:
                    stop.set()
                    return found
        except Compacted as compacted:
            detail = "What happened since then is no longer known; begin again without `since`."
            raise Problem("gone", detail) from compacted
        return found
