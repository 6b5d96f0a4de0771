"""That a node is there, and what it is.

Its leased key lives as long as its agent renews the lease, on a thread of its own, so that a long turn
never looks like a death. Its facts are sizes that hardly ever move; they are its status, written when they
differ. A stopping agent leaves the lease to run out: a restart within that time is no loss of the node.
"""
from __future__ import annotations

import logging
import threading
import uuid
from dataclasses import asdict

from wisp.conditions import condition, kept
from wisp.errors import Problem
from wisp.ports import Facts
from wisp.resource import Intent, Ref, dumps, node_key, node_ref, now
from wisp.store import Absent, Born, Lost, Put, Store
from wisp.store.mirror import Mirror
from wisp.world import World

log = logging.getLogger(__name__)
TTL = 15
RENEW = 4.0
LAG = 5.0


class Presence:
    def __init__(self, node: str, facts: Facts, store: Store, mirror: Mirror, world: World) -> None:
        self._ref: Ref = node_ref(node)
        self._facts, self._store, self._mirror, self._world = facts, store, mirror, world
        self.incarnation = str(uuid.uuid4())
        self._lease = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=f"{node}-lease", daemon=True)

    def start(self) -> None:
        """Joins, says what the node is, and is alive from then on."""
        self._join()
        self._say()
        self._appear()
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _join(self) -> None:
        fresh = Intent(self._ref, str(uuid.uuid4()), 1, now(), now(), {"cordoned": False})
        key = self._ref.key("intent")
        if not self._world.taken(key):
            try:
                self._mirror.wait(self._store.commit([Absent(key)], [Put(key, fresh.dump())]), LAG)
            except Lost as lost:
                self._mirror.wait(lost.revision, LAG)

    def _say(self) -> None:
        with self._mirror.held():
            node = self._world.resource(self._ref)
        if node is None:
            raise Problem("conflict", f"The {self._ref} was deleted while its agent started.")
        before = node.statuses.get(self._ref.name, {})
        ready = condition("Ready", "True", "Alive", "", now())
        said = {**asdict(self._facts), "versions": dict(self._facts.versions),
                "observed_generation": node.intent.generation, "conditions": kept(before, [ready])}
        if said != before:
            key, alive = f"{self._ref.key('status')}/{self._ref.name}", Born(self._ref.key("intent"), node.born)
            self._mirror.wait(self._store.commit([alive], [Put(key, dumps(said))]), LAG)

    def _appear(self) -> None:
        self._lease = self._store.grant(TTL)
        value = dumps({"incarnation": self.incarnation})
        self._mirror.wait(self._store.commit([], [Put(node_key(self._ref.name), value, self._lease)]), LAG)

    def _renew(self) -> None:
        while not self._stop.wait(RENEW):
            try:
                if not self._store.keep(self._lease):
                    log.warning("%s: the lease ran out; taking a new one", self._ref)
                    self._appear()
            except Problem as problem:
                log.warning("%s: %s", self._ref, problem)
            except Exception:
                log.exception("%s: cannot renew the lease", self._ref)
