"""What wakes who looks after things: the names of those that may have moved, or that all should be looked at.

A bell carries no instruction. Rung ten times before it is heard, it is heard once. It can be rung for
later, which is how a failed step backs off and how what lapses is minded; and when nobody rings, it tells
that a look at everything is due.
"""
from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Iterable

from wisp.resource import Ref

NEVER = threading.TIMEOUT_MAX


class Bell:
    """Where a subject is named, None names all of them."""

    def __init__(self) -> None:
        self._rung = threading.Condition()
        self._refs: set[Ref | None] = set()
        self._later: list[tuple[float, str, Ref | None]] = []
        self._stopped = False

    def ring(self, refs: Iterable[Ref | None]) -> None:
        with self._rung:
            self._refs.update(refs)
            self._rung.notify()

    def ring_all(self) -> None:
        self.ring([None])

    def ring_later(self, ref: Ref | None, delay: float) -> None:
        """After `delay` seconds."""
        with self._rung:
            heapq.heappush(self._later, (time.monotonic() + delay, str(ref), ref))
            self._rung.notify()

    def stop(self) -> None:
        with self._rung:
            self._stopped = True
            self._rung.notify()

    def listen(self, due: float = NEVER) -> set[Ref] | None:
        """Waits to be rung, at most until `due` (monotonic seconds): the subjects, or None for all of them."""
        with self._rung:
            while True:
                now = time.monotonic()
                while self._later and self._later[0][0] <= now:
                    self._refs.add(heapq.heappop(self._later)[2])
                if self._refs or self._stopped or now >= due:
                    break
                self._rung.wait(min([due] + [at for at, *_ in self._later[:1]]) - now)
            refs, self._refs = self._refs, set()
            named = {ref for ref in refs if ref}
            return None if now >= due or len(named) < len(refs) else named
