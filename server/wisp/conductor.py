"""The conductor forgets, gives up settled references, rebinds, and minds the time of what lapses by itself.

It is told of every change by the mirror and looks only at the resources that moved; what it does is a
guarded transaction, so any number of conductors may run, and one that stops in the middle leaves nothing
half done. Between changes it sleeps, until the next thing lapses if there is one.
"""
from __future__ import annotations

import heapq
import logging
import queue
import threading
import time
from datetime import datetime

from wisp.admission import Admission, Decision
from wisp.errors import Problem
from wisp.journal import LAG, Journal
from wisp.resource import PREFIX, Ref, Resource, now
from wisp.store import Entry, Lost
from wisp.store.mirror import Mirror
from wisp.world import World

log = logging.getLogger(__name__)
PAUSE = 1.0


class Conductor:
    def __init__(self, mirror: Mirror, world: World, admission: Admission, journal: Journal) -> None:
        self._mirror, self._world = mirror, world
        self._admission, self._journal = admission, journal
        self._moved: queue.SimpleQueue[Ref | None] = queue.SimpleQueue()
        self._lapsing: list[tuple[str, Ref]] = []
        self._minded: set[tuple[str, Ref]] = set()
        self._thread = threading.Thread(target=self._run, name="conductor", daemon=True)
        self._stopping = False

    def start(self) -> None:
        """Begins by looking at everything, once the mirror is loaded."""
        self._mirror.listen(self._heard)
        with self._mirror.held():
            for resource in self._world.everything():
                self._moved.put(resource.ref)
        self._thread.start()

    def stop(self) -> None:
        self._stopping = True
        self._moved.put(None)
        self._thread.join()

    def _heard(self, old: Entry | None, new: Entry | None) -> None:
        key = (new or old).key  # type: ignore[union-attr]
        if key.startswith((f"{PREFIX}intent/", f"{PREFIX}status/")):
            self._moved.put(Ref.of_key(key)[1])
        elif key.startswith(f"{PREFIX}node/") and old is None:
            for resource in self._world.everything():
                self._moved.put(resource.ref)

    def _run(self) -> None:
        while (ref := self._next()) is not None and not self._stopping:
            try:
                self._look(ref)
            except Exception as error:
                log.warning("%s: %r", ref, error, exc_info=not isinstance(error, Problem))
                again = threading.Timer(PAUSE, self._moved.put, [ref])
                again.daemon = True
                again.start()

    def _next(self) -> Ref | None:
        """What moved, or lapses now."""
        until = datetime.fromisoformat(self._lapsing[0][0]).timestamp() if self._lapsing else None
        try:
            return self._moved.get(timeout=until and max(0.0, until - time.time()))
        except queue.Empty:
            lapsed = heapq.heappop(self._lapsing)
            self._minded.discard(lapsed)
            return lapsed[1]

    def _look(self, ref: Ref) -> None:
        while not self._stopping:
            with self._mirror.held():
                resource = self._world.resource(ref)
                decision = (self._admission.tidy(self._world, resource) or self._lapsed(resource)) if resource else None
                followers = self._world.referrers(ref, "follow")
            if decision is None:
                for follower in followers:
                    self._moved.put(follower)
                return
            try:
                told = [decision.says] if decision.says else []
                self._journal.commit(ref, decision.guards, decision.ops, told)
            except Lost as lost:
                self._mirror.wait(lost.revision, LAG)

    def _lapsed(self, resource: Resource) -> Decision | None:
        """What is due of it now; what is later is looked at again then."""
        at, decision = self._admission.lapse(self._world, resource) or ("", None)
        if at <= now():
            return decision
        if (lapse := (at, resource.ref)) not in self._minded:
            self._minded.add(lapse)
            heapq.heappush(self._lapsing, lapse)
        return None
