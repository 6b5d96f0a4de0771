"""The conductor forgets, gives up settled references, and rebinds.

It is told of every change by the mirror and looks only at the resources that moved; what it does is a
guarded transaction, so any number of conductors may run, and one that stops in the middle leaves nothing
half done.
"""
from __future__ import annotations

import logging
import queue
import threading

from wisp.admission import Admission
from wisp.errors import Problem
from wisp.journal import LAG, Journal
from wisp.resource import PREFIX, Ref
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
        while (ref := self._moved.get()) is not None and not self._stopping:
            try:
                self._look(ref)
            except Problem as problem:
                log.warning("%s: %s", ref, problem)
                threading.Timer(PAUSE, self._moved.put, [ref]).start()

    def _look(self, ref: Ref) -> None:
        while not self._stopping:
            with self._mirror.held():
                resource = self._world.resource(ref)
                decision = self._admission.tidy(self._world, resource) if resource else None
            if decision is None:
                return
            try:
                told = [decision.says] if decision.says else []
                self._journal.commit(ref, decision.guards, decision.ops, told)
            except Lost as lost:
                self._mirror.wait(lost.revision, LAG)
