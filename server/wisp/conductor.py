"""The conductor forgets, gives up settled references, rebinds, and minds the time of what lapses by itself.

It is told of every change by the mirror and looks only at the resources that moved, and at all when a node
came, went or is wished otherwise; what it does is a
guarded transaction, so any number of conductors may run, and one that stops in the middle leaves nothing
half done. Between changes it sleeps, until the next thing lapses if there is one.
"""
from __future__ import annotations

import logging
import threading
import time
from datetime import datetime

from wisp.admission import Decision
from wisp.bell import Bell
from wisp.errors import Problem
from wisp.journal import LAG, Journal
from wisp.resource import PREFIX, Ref, Resource, node_key, node_ref, now
from wisp.store import Entry, Lost
from wisp.store.mirror import Mirror
from wisp.upkeep import Upkeep
from wisp.world import World

log = logging.getLogger(__name__)
PAUSE = 1.0


class Conductor:
    def __init__(self, mirror: Mirror, world: World, upkeep: Upkeep, journal: Journal) -> None:
        self._mirror, self._world = mirror, world
        self._upkeep, self._journal = upkeep, journal
        self._bell = Bell()
        self._lapsing: dict[Ref, float] = {}
        self._thread = threading.Thread(target=self._run, name="conductor", daemon=True)
        self._stopping = False

    def start(self) -> None:
        """Begins by looking at everything, once the mirror is loaded."""
        self._mirror.listen(self._heard)
        self._bell.ring_all()
        self._thread.start()

    def stop(self) -> None:
        self._stopping = True
        self._bell.stop()
        self._thread.join()

    def _heard(self, old: Entry | None, new: Entry | None) -> None:
        key = (new or old).key  # type: ignore[union-attr]
        if key.startswith((node_key(""), node_ref("").key("intent"))):
            self._bell.ring_all()
        elif key.startswith((f"{PREFIX}intent/", f"{PREFIX}status/")):
            self._bell.ring([Ref.of_key(key)[1]])

    def _run(self) -> None:
        while not self._stopping:
            refs = self._bell.listen()
            if refs is None:
                with self._mirror.held():
                    refs = {resource.ref for resource in self._world.everything()}
            for ref in refs:
                try:
                    self._look(ref)
                except Exception as error:
                    log.warning("%s: %r", ref, error, exc_info=not isinstance(error, Problem))
                    self._bell.ring_later(ref, PAUSE)

    def _look(self, ref: Ref) -> None:
        while not self._stopping:
            with self._mirror.held():
                resource = self._world.resource(ref)
                decision = (self._upkeep.tidy(self._world, resource) or self._lapsed(resource)) if resource else None
                followers = self._world.referrers(ref, "follow")
            if decision is None:
                if resource is None:
                    self._lapsing.pop(ref, None)
                self._bell.ring(followers)
                return
            try:
                told = [decision.says] if decision.says else []
                self._journal.commit(ref, decision.guards, decision.ops, told)
            except Lost as lost:
                self._mirror.wait(lost.revision, LAG)

    def _lapsed(self, resource: Resource) -> Decision | None:
        """What is due of it now; what is later is looked at again then, once, however often it is looked at before."""
        at, decision = self._upkeep.lapse(self._world, resource) or ("", None)
        if at <= now():
            return decision
        moment = time.monotonic()
        due = moment + datetime.fromisoformat(at).timestamp() - time.time()
        if not moment < self._lapsing.get(resource.ref, 0.0) < due + PAUSE:
            self._lapsing[resource.ref] = due
            self._bell.ring_later(resource.ref, due - moment)
        return None
