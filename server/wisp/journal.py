"""What happened to each resource, as sentences: 32 slots, overwritten in turn, and all of it expires.

Events ride along in the transaction of what they tell of, so none is told that did not happen. They are
attached to a lease that is granted once per process and hour and never renewed: what nobody overwrites
is gone a day later, and an idle cloud writes nothing.
"""
from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from itertools import chain

from wisp.resource import Ref, dumps, now
from wisp.store import Guard, LeaseGone, Op, Put, Store
from wisp.store.mirror import Mirror

SLOTS = 32
LIFE = 24 * 3600
HOUR = 3600
LAG = 5.0
"""Seconds that a writer waits to see its own write in the mirror."""


class Journal:
    """Commits, and tells."""

    def __init__(self, store: Store, mirror: Mirror, actor: str) -> None:
        self._store, self._mirror, self._actor = store, mirror, actor
        self._lock = threading.Lock()
        self._lease, self._granted = 0, -HOUR * 2.0

    def commit(self, ref: Ref, guards: Sequence[Guard], ops: Sequence[Op], says: Iterable[str] = (),
               actor: str = "") -> int:
        """As `write`; returns when the mirror shows it."""
        revision = self.write(ref, guards, ops, says, actor)
        self._mirror.wait(revision, LAG)
        return revision

    def write(self, ref: Ref, guards: Sequence[Guard], ops: Sequence[Op], says: Iterable[str] = (),
              actor: str = "") -> int:
        """One transaction, with a sentence for each event of `ref`; the revision it made. Raises Lost."""
        sentences = list(says)[-SLOTS:]
        try:
            return self._store.commit(guards, [*ops, *self._notes(ref, sentences, actor)])
        except LeaseGone:
            self._granted = -HOUR * 2.0
            return self._store.commit(guards, [*ops, *self._notes(ref, sentences, actor)])

    def _notes(self, ref: Ref, sentences: list[str], actor: str) -> list[Put]:
        if not sentences:
            return []
        lease, prefix = self._current_lease(), ref.key("event") + "/"
        used = {entry.key: entry.revision for entry in self._mirror.scan(prefix)}
        free = (key for slot in range(SLOTS) if (key := f"{prefix}{slot:02}") not in used)
        slots = chain(free, sorted(used, key=lambda key: (used[key], key)))
        return [Put(key, dumps({"at": now(), "actor": actor or self._actor, "text": text}), lease)
                for text, key in zip(sentences, slots, strict=False)]

    def _current_lease(self) -> int:
        with self._lock:
            if time.monotonic() - self._granted > HOUR:
                self._lease, self._granted = self._store.grant(LIFE), time.monotonic()
            return self._lease
