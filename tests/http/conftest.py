"""A cloud to tell stories about: the real application over the store in memory, one node, no agent.

Without an agent nothing becomes ready by itself and nothing that a node holds is taken down, so a story
can look at every state in between for as long as it likes. `web` and `shop` are two tenants.
"""
from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from falcon import testing

from wisp import catalogue
from wisp.admission import SYSTEM, Caller
from wisp.api import build
from wisp.api.problems import refusal
from wisp.feed import Feed
from wisp.journal import Journal
from wisp.kinds import KINDS
from wisp.listener import Listener
from wisp.resource import CLUSTER, CLUSTER_KEY, Intent, Ref, dumps, node_key, node_ref, now
from wisp.resources import Resources
from wisp.store import Put
from wisp.store.memory import MemoryStore
from wisp.store.mirror import Mirror
from wisp.world import World

SCHEMAS = catalogue.load()
WISP = Caller(SYSTEM, "admin", "wisp")
KEYS = {"root": (SYSTEM, "admin"), "admin": ("web", "admin"), "editor": ("web", "editor"), "viewer": ("web", "viewer"),
        "stranger": ("shop", "admin")}


class Cloud:
    def __init__(self) -> None:
        self.store = MemoryStore()
        self.mirror = Mirror(self.store)
        self.mirror.start()
        world = World(self.mirror, lambda kind, spec: KINDS[kind].weigh(spec), SCHEMAS.filled)
        self.resources = Resources(self.store, self.mirror, world, SCHEMAS, Journal(self.store, self.mirror, "api"), Feed(self.store, self.mirror, world))
        self.app = build(self.resources, SCHEMAS, held=2)
        self.tokens = {"forger": "wisp_0123456789abcdef_" + "f" * 64}
        self.write(Put(CLUSTER_KEY, dumps({"uid": "here", "secret": "of this store"})))
        self._begin()

    def _begin(self) -> None:
        for name in (SYSTEM, "web", "shop"):
            self.put(Ref("namespace", CLUSTER, name), {})
        for who, (namespace, role) in KEYS.items():
            self.tokens[who] = self.put(Ref("key", namespace, who), {"role": role})["token"]
        self.write(Put(node_ref("n1").key("intent"), Intent(node_ref("n1"), "00000000-0000-4000-8000-000000000001", 1, now(), now(), {"cordoned": False}).dump()))
        facts = {"cpus": 8, "memory_mib": 65536, "disk_gib": 1000, "underlay": "192.0.2.1"}
        self.write(Put(node_key("n1"), dumps({"underlay": "192.0.2.1", "incarnation": "1"})))
        self.hold(node_ref("n1"), **facts)

    def put(self, ref: Ref, spec: dict[str, Any]) -> dict[str, Any]:
        return self.resources.put(WISP, ref, {"spec": spec}).document

    def write(self, *ops: Put) -> None:
        self.mirror.wait(self.store.commit([], ops), 5)

    def hold(self, ref: Ref, **said: Any) -> None:
        """The node's word on it, as an agent puts it before its first step."""
        ready = {"type": "Ready", "status": "True", "reason": "Realized", "message": "", "since": now()}
        status = {"observed_generation": 1, "conditions": [ready], **said}
        self.write(Put(f"{ref.key('status')}/n1", dumps(status)))

    def revision(self) -> int:
        return self.store.revision()

    def ask(self, who: str, method: str, path: str, body: str | None = None,
            headers: dict[str, str] | None = None) -> Any:
        known = {} if who == "nobody" else {"Authorization": f"Bearer {self.tokens[who]}"}
        path, _, query = path.partition("?")
        return testing.TestClient(self.app).simulate_request(
            method, path, query_string=query, body=body, headers=known | (headers or {}))


class Served:
    """The cloud behind its real door, on loopback."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.listener = Listener(cloud.app, "127.0.0.1", 0, refusal(SCHEMAS.errors), threads=8, grace=60)
        self.thread = threading.Thread(target=self.listener.run)
        self.thread.start()
        self.url = "http://{}:{}".format(*self.listener.address)

    def close(self) -> None:
        self.listener.close()
        self.thread.join()


@pytest.fixture
def served(cloud: Cloud) -> Iterator[Served]:
    made = Served(cloud)
    yield made
    made.close()


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    made = Cloud()
    yield made
    made.mirror.stop()
