"""What wakes an agent: the names of subjects that may have moved, or that all should be looked at.

A bell carries no instruction. Rung ten times before it is heard, it is heard once. It can be rung for
later, which is how a failed step backs off; and when nobody rings, it tells that the safety turn is due.
"""
from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Iterable

from wisp.resource import Ref


class Bell:
    def __init__(self) -> None:
        self._rung = threading.Condition()
        self._refs: set[Ref] = set()
        self._all = False
        self._later: list[tuple[float, Ref]] = []
        self._stopped = False

    def ring(self, refs: Iterable[Ref]) -> None:
        with self._rung:
            self._refs.update(refs)
            self._rung.notify()

    def ring_all(self) -> None:
        with self._rung:
            self._all = True
            self._rung.notify()

    def ring_later(self, ref: Ref, delay: float) -> None:
        """After `delay` seconds."""
        with self._rung:
            heapq.heappush(self._later, (time.monotonic() + delay, ref))
            self._rung.notify()

    def stop(self) -> None:
        with self._rung:
            self._stopped = True
            self._rung.notify()

    def listen(self, due: float) -> set[Ref] | None:
        """Waits to be rung, at most until `due` (monotonic seconds): the subjects, or None for all of them."""
        with self._rung:
            while True:
                now = time.monotonic()
                while self._later and self._later[0][0] <= now:
                    self._refs.add(heapq.heappop(self._later)[1])
                if self._refs or self._all or self._stopped or now >= due:
                    break
                self._rung.wait(min([due] + [at for at, _ in self._later[:1]]) - now)
            refs, everything = self._refs, self._all or now >= due
            self._refs, self._all = set(), False
            return None if everything else refs
