"""What happened to each resource, as sentences: 32 slots, overwritten in turn, and all of it expires.

Events ride along in the transaction of what they tell of, so none is told that did not happen. They are
attached to a lease that is granted once per process and hour and never renewed: what nobody overwrites
is gone a day later, and an idle cloud writes nothing.
"""
from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from wisp.resource import Ref, dumps, now
from wisp.store import Put, Store
from wisp.world import World

SLOTS = 32
LIFE = 24 * 3600
HOUR = 3600


class Journal:
    def __init__(self, store: Store, world: World, actor: str) -> None:
        self._store, self._world, self._actor = store, world, actor
        self._lock = threading.Lock()
        self._lease, self._granted = 0, -HOUR * 2.0

    def notes(self, ref: Ref, sentences: Iterable[str], actor: str = "") -> list[Put]:
        """Puts for the transaction that makes them true. Takes the mirror's lock; may grant a lease."""
        sentences = list(sentences)[-SLOTS:]
        if not sentences:
            return []
        lease, prefix = self._current_lease(), ref.key("event") + "/"
        with self._world.copy.held():
            used = {entry.key: entry.revision for entry in self._world.copy.scan(prefix)}
        slots = sorted((f"{prefix}{slot:02}" for slot in range(SLOTS)), key=lambda key: (used.get(key, 0), key))
        return [Put(key, dumps({"at": now(), "actor": actor or self._actor, "text": text}), lease)
                for key, text in zip(slots, sentences, strict=False)]

    def _current_lease(self) -> int:
        with self._lock:
            if time.monotonic() - self._granted > HOUR:
                self._lease, self._granted = self._store.grant(LIFE), time.monotonic()
            return self._lease
