"""A world on paper: documents written by hand, decisions committed by hand, no thread and no machine."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from wisp import catalogue
from wisp.admission import SYSTEM, Admission, Caller, Decision, Wish
from wisp.kinds import KINDS
from wisp.resource import CLUSTER, CLUSTER_KEY, Intent, Ref, Resource, dumps, node_key, node_ref
from wisp.service import weigh
from wisp.store import Clear, Entry, Guard, Op, Put, Span, under
from wisp.store.memory import MemoryStore
from wisp.upkeep import Upkeep
from wisp.world import World

SCHEMAS = catalogue.load()
ADMISSION, UPKEEP = Admission(SCHEMAS, KINDS), Upkeep(SCHEMAS, KINDS)
WISP = Caller(SYSTEM, "admin", "wisp")
NOW = "2026-11-22T10:00:00Z"
SMALL: dict[str, Any] = {"cpus": 1, "memory_mib": 64, "disks": [{"size_gib": 1}]}
LAN = {"cidr": "10.1.0.0/24"}
IMAGE = {"source": {"kind": "url", "url": "http://images.example/guest"}, "sha256": "5" * 64}


class Copy:
    """A copy that never lags."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self._told: list[Callable[[Entry | None, Entry | None], None]] = []

    @property
    def revision(self) -> int:
        return self.store.revision()

    def get(self, key: str) -> Entry | None:
        return next(iter(self.store.read(Span(key)).spans[0]), None)

    def scan(self, prefix: str) -> Iterator[Entry]:
        return iter(self.store.read(under(prefix)).spans[0])

    def held(self) -> AbstractContextManager[None]:
        return nullcontext()

    def listen(self, callback: Callable[[Entry | None, Entry | None], None]) -> None:
        self._told.append(callback)

    def commit(self, guards: Sequence[Guard], ops: Sequence[Op]) -> None:
        keys = [key for op in ops for key in ([entry.key for entry in self.scan(op.prefix)] if isinstance(op, Clear) else [op.key])]
        before = {key: self.get(key) for key in keys}
        self.store.commit(guards, ops)
        for key, old in before.items():
            for told in self._told:
                if old or self.get(key):
                    told(old, self.get(key))


class Paper:
    """A cluster with the namespaces `web` and `shop`, and two nodes."""

    def __init__(self, **facts: int) -> None:
        self.copy = Copy()
        self.world = World(self.copy, weigh, SCHEMAS.filled)
        self.count = 0
        self.write(CLUSTER_KEY, {"uid": "cluster"})
        for name in ("web", "shop"):
            self.put(Ref("namespace", CLUSTER, name), {})
        for number, name in enumerate(("n1", "n2"), 1):
            self.put(node_ref(name), {})
            self.write(node_key(name), {"incarnation": "1"})
            size = {"cpus": 8, "memory_mib": 4096, "disk_gib": 105} | facts
            self.say(node_ref(name), name, **size, underlay=f"192.0.2.{number}", mtu=1450)

    def write(self, key: str, value: Any) -> None:
        self.copy.commit([], [Put(key, dumps(value))])

    def say(self, ref: Ref, node: str, **said: Any) -> None:
        ready = {"type": "Ready", "status": "True", "reason": "Realized", "message": "", "since": NOW}
        self.write(f"{ref.key('status')}/{node}", {"observed_generation": 1, "conditions": [ready], **said})

    def decide(self, ref: Ref, spec: Mapping[str, Any], caller: Caller = WISP, **wish: Any) -> Decision:
        self.count += 1
        schema = SCHEMAS.kinds[ref.kind]
        schema.validate({"spec": dict(spec)})
        uid = f"00000000-0000-4000-8000-{self.count:012}"
        return ADMISSION.admit(self.world, caller, Wish(ref, schema.filled(spec), wish.pop("metadata", {}), uid, NOW,
                                                        lambda: f"{self.count:064}", **wish))

    def commit(self, decision: Decision) -> None:
        self.copy.commit(decision.guards, decision.ops)

    def put(self, ref: Ref, spec: Mapping[str, Any], caller: Caller = WISP, **wish: Any) -> Resource:
        self.commit(self.decide(ref, spec, caller, **wish))
        found = self.world.resource(ref)
        assert found
        return found

    def retire(self, ref: Ref, caller: Caller = WISP) -> Decision:
        decision = ADMISSION.retire(self.world, caller, ref, None, NOW)
        assert decision
        return decision

    def lan(self, name: str = "lan", namespace: str = "web", **spec: Any) -> Resource:
        return self.put(Ref("network", namespace, name), {**LAN, **spec})

    def image(self, name: str = "guest", namespace: str = "web", **spec: Any) -> Resource:
        return self.put(Ref("image", namespace, name), {**IMAGE, **spec})

    def vm(self, name: str = "vm", namespace: str = "web", **spec: Any) -> Resource:
        return self.put(Ref("instance", namespace, name), {**SMALL, **spec})


def intent(ref: Ref, uid: str, **said: Any) -> Intent:
    return Intent(ref, uid, 1, NOW, NOW, said)
