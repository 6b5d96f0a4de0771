"""A whole cloud in one process, over the store in memory and fake machines, for a test to live in.

Store and machines outlive the service, as they do in the world: `restart` puts a new service over the same
ones. Between an agent and its machine stands a `Room`: it writes down each step that is done, and lets a
test come in between (`between`), be it to hold a step up, to make it fail, or to cut the power. What others
do to a machine is done on `room.hypervisor`, `room.kernel` and `room.depot` themselves.
"""
from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from wisp.admission import Caller
from wisp.catalogue import _inlined, directory, load
from wisp.conditions import find
from wisp.dialect import FORMATS, Validator
from wisp.errors import Problem
from wisp.fakes.depot import FakeDepot
from wisp.fakes.fabric import FakeFabric, FakeKernel
from wisp.fakes.hypervisor import FakeHypervisor
from wisp.host import Domain, Host, Part
from wisp.ports import Facts, Machine
from wisp.resource import CLUSTER, PREFIX, Ref, namespace_ref, node_key
from wisp.resources import Outcome
from wisp.service import ITSELF, NodeParts, Service
from wisp.store import Guard, Op, Store, under
from wisp.store.memory import MemoryStore

PATIENCE = 20.0
"""Seconds after which what is waited for is not coming."""
SIZE = {"cpus": 64, "memory_mib": 262144, "disk_gib": 4005}
VERBS = {"define", "start", "stop", "shutdown", "suspend", "resume", "undefine",
         "build_segment", "remove_segment", "build_gateway", "remove_gateway", "build_floating",
         "remove_floating", "plug",
         "fetch", "drop_image", "create_disk", "drop_disk", "write_seed", "drop_seed", "reboot", "ping", "console"}
SHA = "5" * 64
SMALL: dict[str, Any] = {"cpus": 1, "memory_mib": 64, "disks": [{"size_gib": 1}]}
REBOOT = {"do": "reboot", "instance": "vm"}
LAN = {"cidr": "10.1.0.0/24"}
IMAGE = {"source": {"kind": "url", "url": "http://images.example/guest.qcow2"}, "sha256": SHA}
BOOTED = {**SMALL, "disks": [{"image": "guest", "size_gib": 1}], "networks": [{"network": "lan"}]}

COMMON = json.loads((directory() / "v1/common.json").read_text())
SCHEMAS = load()

Between = Callable[[str, tuple[Any, ...], Callable[[], Any]], Any]
"""(verb or "observe", its arguments, go on) -> what the agent is answered."""


def as_promised(shown: dict[str, Any]) -> dict[str, Any]:
    """The document, once it is what the schema files say of what is shown."""
    promised = SCHEMAS.kinds[shown["kind"]].document["x-status"]
    status = {**COMMON["$defs"]["status"]["properties"], **promised["status"]["properties"]}
    for schema, part in ((COMMON["$defs"]["envelope"], shown), (promised["binding"], shown["binding"]),
                         ({**COMMON["$defs"]["status"], "properties": status, "additionalProperties": False}, shown["status"])):
        faults = [error.message for error in Validator(_inlined(schema, COMMON), format_checker=FORMATS).iter_errors(part)]
        assert faults == [], f"{shown['kind']} {shown['name']}: {faults}"
    return shown


def undisturbed(verb: str, args: tuple[Any, ...], go_on: Callable[[], Any]) -> Any:
    return go_on()


class Side:
    """One side of a machine as its agent reaches it."""

    def __init__(self, room: Room, real: Any) -> None:
        self._room, self._real = room, real

    def __getattr__(self, name: str) -> Any:
        reached = getattr(self._real, name)
        if name != "observe" and name not in VERBS:
            return reached
        return lambda *args: self._room.meet(name, args, lambda: reached(*args))


class Room:
    """A node: its fakes, the machine its agent sees, and `done`, the steps that were run."""

    def __init__(self, cluster: str = "simulated", kernel: FakeKernel | None = None) -> None:
        self.kernel = kernel or FakeKernel()
        self.fabric, self.depot = FakeFabric(cluster, self.kernel), FakeDepot()
        self.hypervisor = FakeHypervisor(self.fabric.has_bridge, self.depot.has_disk, self.depot.has_seed, self.kernel.taps)
        self.machine = Machine(Side(self, self.hypervisor), Side(self, self.fabric), Side(self, self.depot))
        self.between: Between = undisturbed
        self.done: list[str] = []
        self.looked = 0
        self.uid = str(uuid.uuid4())

    def meet(self, verb: str, args: tuple[Any, ...], go_on: Callable[[], Any]) -> Any:
        if verb == "observe":
            self.looked += args == (None,)
        else:
            self.done.append(verb)
        return self.between(verb, args, go_on)

    def host(self) -> Host:
        return Host.of([*self.hypervisor.observe(None), *self.fabric.observe(None), *self.depot.observe(None)])

    def parts(self, kind: type[Part]) -> list[Any]:
        return sorted((part for part in self.host() if isinstance(part, kind)), key=str)

    def only(self, kind: type[Part]) -> Any:
        (part,) = self.parts(kind)
        return part


class Wire(MemoryStore):
    """A store whose line can be minded: `mind(guards, ops, go_on)` stands before each commit."""

    def __init__(self) -> None:
        super().__init__()
        self.mind: Callable[[Sequence[Guard], Sequence[Any], Callable[[], int]], int] | None = None

    def commit(self, guards: Sequence[Guard], ops: Sequence[Op]) -> int:
        if self.mind is None:
            return super().commit(guards, ops)
        return self.mind(guards, ops, lambda: super(Wire, self).commit(guards, ops))


class Cloud:
    def __init__(self, nodes: int = 1, size: Mapping[str, int] | None = None, store: Store | None = None,
                 kernels: Iterable[FakeKernel] = (), cluster: str = "simulated") -> None:
        """`kernels`: of the first nodes, to be shared with another cloud; `cluster`: the uid that it is given."""
        self.store: Store = store or MemoryStore()
        self.size = {**SIZE, **(size or {})}
        names = [f"n{number}" for number in range(1, nodes + 1)]
        shared = iter(kernels)
        self.rooms = {name: Room(cluster, next(shared, None)) for name in names}
        self.cluster = cluster
        self.belongs: Callable[[str], bool] = lambda uid: True
        self.heartbeat: Callable[[], None] = lambda: None
        self.start()

    # --- its life

    def start(self) -> None:
        self.service = Service(self.store)
        self.service.start(self.cluster)
        for name in ("system", "web"):
            self.service.ensure_namespace(name)
        for name in self.rooms:
            self.join(name)

    def join(self, name: str) -> None:
        facts = Facts(self.size["cpus"], self.size["memory_mib"], self.size["disk_gib"], 1450, f"192.0.2.{name[1:]}", "qemu", "Simulated.")
        self.service.join(name, NodeParts(self.rooms[name].machine, facts, lambda uid: self.belongs(uid), self.rooms[name].uid))

    def restart(self) -> None:
        self.service.stop()
        self.start()

    def lose(self, name: str) -> None:
        """The node's agent stops, and its lease runs out."""
        self.service.agents[name].stop()
        entry = self.service.mirror.get(node_key(name))
        assert entry
        for presence in self.service._presences:
            if presence._ref.name == name:
                presence.stop()
        self.store.revoke(entry.lease)
        self.until(lambda: self.service.world.node(name) is None)

    @property
    def room(self) -> Room:
        """The only node."""
        (room,) = self.rooms.values()
        return room

    # --- asking

    def put(self, kind: str, name: str, spec: Mapping[str, Any], caller: Caller = ITSELF, **said: Any) -> Outcome:
        namespace = said.pop("namespace", "web")
        body = {"spec": dict(spec), **({"metadata": said.pop("metadata")} if "metadata" in said else {})}
        outcome = self.service.resources.put(caller, self.ref(kind, name, namespace), body, **said)
        as_promised(outcome.document)
        return outcome

    def get(self, kind: str, name: str, caller: Caller = ITSELF, namespace: str = "web") -> dict[str, Any]:
        return as_promised(self.service.resources.get(caller, self.ref(kind, name, namespace)))

    def delete(self, kind: str, name: str, caller: Caller = ITSELF, namespace: str = "web", **said: Any) -> None:
        self.service.resources.delete(caller, self.ref(kind, name, namespace), **said)

    def ref(self, kind: str, name: str, namespace: str = "web") -> Ref:
        return Ref(kind, CLUSTER if SCHEMAS.kinds[kind].cluster else namespace, name)

    def refusal(self, kind: str, name: str, spec: Mapping[str, Any], caller: Caller = ITSELF, **said: Any) -> Problem:
        """The problem that a PUT ends with."""
        try:
            self.put(kind, name, spec, caller, **said)
        except Problem as problem:
            return problem
        raise AssertionError(f"the {kind} {name} was taken")

    def refused_delete(self, kind: str, name: str, caller: Caller = ITSELF, namespace: str = "web") -> Problem:
        try:
            self.delete(kind, name, caller, namespace)
        except Problem as problem:
            return problem
        raise AssertionError(f"the {kind} {name} was retired")

    def bearer(self, token: str) -> Caller:
        return self.service.resources.authenticate(f"Bearer {token}")

    def key(self, name: str, role: str, namespace: str = "web", **spec: Any) -> Caller:
        """A caller with a fresh key."""
        return self.bearer(self.put("key", name, {"role": role, **spec}, namespace=namespace).document["token"])

    def events(self, kind: str, name: str) -> list[str]:
        shown = self.service.resources.events(ITSELF, self.ref(kind, name))
        return [event["text"] for event in shown["items"]]

    def orphans(self) -> list[Any]:
        found: list[Any] = self.service.resources.audit(ITSELF)["orphans"]
        return found

    # --- waiting

    def until(self, holds: Callable[[], Any], what: str = "") -> Any:
        """Waits until it holds, looking whenever the store moved (and now and then, for the machines move too)."""
        end = time.monotonic() + PATIENCE
        while not (held := holds()):
            self.heartbeat()
            assert time.monotonic() < end, f"it did not come about: {what or holds}"
            mirror = self.service.mirror
            mirror.wait(mirror.revision + 1, 0.001)
        return held

    def ready(self, kind: str, name: str, namespace: str = "web") -> dict[str, Any]:
        ref = self.ref(kind, name, namespace)
        shown = self.service.resources.wait(ITSELF, ref, "ready", PATIENCE)
        assert shown, f"the {ref} is gone"
        as_promised(shown)
        assert find(shown["status"], "Ready")["status"] == "True", shown["status"]
        return shown

    def said(self, kind: str, name: str, type_: str, reason: str) -> dict[str, Any]:
        """Waits for a condition with this reason."""
        def condition() -> Any:
            found = find(self.get(kind, name)["status"], type_)
            return found if found.get("reason") == reason else None
        found: dict[str, Any] = self.until(condition, f"{kind} {name}: {type_} {reason}")
        return found

    def gone(self, kind: str, name: str, namespace: str = "web") -> None:
        ref = self.ref(kind, name, namespace)
        assert self.service.resources.wait(ITSELF, ref, "absent", PATIENCE) is None, f"the {ref} is still there"

    def remove(self, kind: str, name: str, namespace: str = "web") -> None:
        """Deletes it, and waits until it is gone."""
        self.delete(kind, name, namespace=namespace)
        self.gone(kind, name, namespace)

    def turn(self) -> None:
        """Every agent looks at everything, and what follows from that has been done."""
        for name, agent in self.service.agents.items():
            room = self.rooms[name]
            for _ in range(2):          # when the second has begun, the first is over
                seen = room.looked
                agent.bell.ring_all()
                self.until(lambda: room.looked >= seen + 3, f"a turn of {name}")  # noqa: B023
            self.until(lambda: not agent._memory.busy(), f"{name} to end its steps")  # noqa: B023

    def settle(self) -> None:
        """Turns until nothing moves any more, neither the store nor a machine, and nothing is to be tried again."""
        before: Any = None
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            now = self.store.revision(), [len(room.done) for room in self.rooms.values()]
            if now == before and not any(agent.bell._later for agent in self.service.agents.values()):
                return
            before = now
            self.turn()
        raise AssertionError("it does not come to rest")

    # --- looking

    def raw_keys(self) -> set[str]:
        return {entry.key for entry in self.store.read(under("")).spans[0]}

    def recorded(self) -> set[str]:
        """Every key of the store but the nodes' and namespaces' own: fences and events."""
        own = (f"{PREFIX}fence/", *(Ref(kind, CLUSTER, "").key("event") for kind in ("node", "namespace")))
        return {key for key in self.raw_keys() if not key.startswith(own)}

    def dangling(self) -> list[str]:
        """References of which one end does not exist."""
        keys = self.recorded()
        found = []
        for key in sorted(key for key in keys if key.startswith(f"{PREFIX}ref/")):
            _, target, referrer = Ref.of_key(key)
            namespace, kind, name = referrer.split("/")
            if not {target.key("intent"), Ref(kind, namespace, name).key("intent")} <= keys:
                found.append(key)
        return found

    def stop(self) -> None:
        self.service.stop()
        self.store.close()


Make = Callable[..., Cloud]


@contextmanager
def clouds() -> Iterator[Make]:
    made: list[Cloud] = []

    def make(*args: Any, **kwargs: Any) -> Cloud:
        made.append(Cloud(*args, **kwargs))
        return made[-1]
    try:
        yield make
    finally:
        for cloud in made:
            cloud.stop()


def at_once(calls: Iterable[Callable[[], Any]]) -> list[Any]:
    """Makes the calls side by side, all let go at the same moment: results, or the problems they ended with."""
    calls = list(calls)
    gate = threading.Barrier(len(calls))

    def go(call: Callable[[], Any]) -> Any:
        gate.wait(PATIENCE)
        try:
            return call()
        except Problem as problem:
            return problem
    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(go, calls))


def codes(results: Iterable[Any]) -> list[str]:
    return sorted(result.code for result in results if isinstance(result, Problem))


def namespace(name: str) -> Ref:
    return namespace_ref(name)


def machine(cloud: Cloud, **spec: Any) -> dict[str, Any]:
    cloud.put("instance", "vm", {**SMALL, **spec})
    return cloud.ready("instance", "vm")


def boot(cloud: Cloud) -> Domain:
    """An instance that runs, from an image and on a network; all at rest."""
    cloud.put("network", "lan", LAN)
    cloud.put("image", "guest", IMAGE)
    cloud.put("instance", "vm", BOOTED)
    cloud.ready("instance", "vm")
    cloud.settle()
    cloud.room.done.clear()
    domain: Domain = cloud.room.only(Domain)
    return domain
