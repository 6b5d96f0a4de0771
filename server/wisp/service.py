"""What a process is made of, put together: agents alone, or a service of front and conductor with them.

Read top to bottom this is the wiring. What differs between a real cloud, a simulated one and a test is
only which store and which machines are handed in.
"""
from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from wisp.admission import SYSTEM, Caller
from wisp.agent import Agent, Presence
from wisp.catalogue import Catalogue
from wisp.catalogue import load as load_catalogue
from wisp.conductor import Conductor
from wisp.errors import Problem
from wisp.feed import Feed
from wisp.journal import Journal
from wisp.kinds import KINDS
from wisp.metrics import Metrics
from wisp.ports import Facts, Machine
from wisp.resource import CLUSTER_KEY, Json, Ref, dumps, namespace_ref, now
from wisp.resources import Resources
from wisp.store import Absent, Lost, Put, Store
from wisp.store.mirror import Mirror
from wisp.upkeep import Upkeep
from wisp.world import World

log = logging.getLogger(__name__)
LOADING = 30.0
ITSELF = Caller(SYSTEM, "admin", "wisp")


@dataclass(frozen=True, slots=True)
class NodeParts:
    """A machine to be looked after. `belongs`: whether a cluster's uid is the one it remembers; `uid`: its own, kept
    for as long as it is the same machine."""

    machine: Machine
    facts: Facts
    belongs: Callable[[str], bool] = lambda uid: True
    uid: str = ""


def weigh(kind: str, spec: Json) -> Mapping[str, int]:
    return KINDS[kind].weigh(spec)


class Agents:
    """A copy of the store, and by it an agent for each machine that is handed in."""

    def __init__(self, store: Store, name: str = "wisp") -> None:
        """`name`: of this process, in the events that it writes."""
        self.metrics = Metrics()
        self.store = store = self.metrics.timed(store)
        self.catalogue: Catalogue = load_catalogue()
        self.mirror = Mirror(store)
        self.world = World(self.mirror, weigh, self.catalogue.filled)
        self.metrics.ask(store, self.mirror, self.world)
        self.journal = Journal(store, self.mirror, name)
        self.agents: dict[str, Agent] = {}
        self._presences: list[Presence] = []
        self._begun = ExitStack()

    def follow(self) -> None:
        """Loads the mirror."""
        self.mirror.start()
        self._begun.callback(self.mirror.stop)
        if not self.mirror.wait(1, LOADING):
            raise Problem("store_unavailable", "The store does not answer.")

    def join(self, node: str, parts: NodeParts) -> None:
        """Begins to look after a machine."""
        presence = Presence(node, parts.uid, parts.facts, parts.machine.fabric, parts.belongs, self.store, self.journal)
        presence.start()
        self._presences.append(presence)
        agent = Agent(node, parts.machine, self.store, self.mirror, self.world, self.catalogue, self.journal,
                      parts.belongs, self.metrics.turn, self.metrics.step, presence.incarnation)
        agent.start()
        self.agents[node] = agent

    def stop(self) -> None:
        for agent in self.agents.values():
            agent.stop()
        for presence in self._presences:
            presence.stop()
        self._begun.close()


class Service(Agents):
    """The front and the conductor, beside the agents of the same process, if any."""

    def __init__(self, store: Store, name: str = "wisp") -> None:
        super().__init__(store, name)
        self.resources = Resources(self.store, self.mirror, self.world, self.catalogue, self.journal,
                                   Feed(self.store, self.mirror, self.world))
        self.conductor = Conductor(self.mirror, self.world, Upkeep(self.catalogue, KINDS), self.journal)

    def start(self, cluster_uid: str) -> None:
        """Loads the mirror; an empty store becomes the cluster `cluster_uid`."""
        self.follow()
        if not self.world.taken(CLUSTER_KEY):
            self._found(cluster_uid)
        self.conductor.start()
        self._begun.callback(self.conductor.stop)

    def _found(self, uid: str) -> None:
        record = dumps({"uid": uid, "secret": secrets.token_hex(32)})
        try:
            self.mirror.wait(self.store.commit([Absent(CLUSTER_KEY)], [Put(CLUSTER_KEY, record)]), LOADING)
        except Lost as lost:
            self.mirror.wait(lost.revision, LOADING)

    def ensure_namespace(self, name: str) -> None:
        if not self.world.resource(namespace_ref(name)):
            self.resources.put(ITSELF, namespace_ref(name), {"spec": {}})

    def admin_token(self) -> str:
        """A fresh secret for the key `system/admin`; the old one is refused from now on."""
        made = self.resources.put(ITSELF, Ref("key", SYSTEM, "admin"), {"spec": {"role": "admin", "rotation": now()}})
        return str(made.document["token"])
