"""A small life, told the same way each time, and what a power failure or a stumble may do to it.

The life has three chapters: a network, an image, an instance and its floating IP are made, changed, and deleted. Its teller
is a client as good ones are: what it gets no answer to it asks again. `Trouble` strikes once, at one chosen
moment: a moment is a step of the machine or a commit of the store. When it was the power, nothing works from
that instant on, until a new service stands over the same store and the same machine.
"""
from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Literal

from simulated import BOOTED, IMAGE, LAN, VERBS, Cloud, Wire

from wisp.conditions import find, is_ready
from wisp.errors import Problem, StepFailed
from wisp.host import Disk, Domain, Floating, Gateway, Part, Seed, Segment
from wisp.resource import dumps, refers_prefix
from wisp.store import Guard, Lost, Op

How = Literal["crash before", "crash after", "stumble before", "stumble after", "twice", "lost race"]
Where = Literal["step", "commit"]
VM = {**BOOTED, "user_data": "#!/bin/sh"}
IP = {"pool": "public", "instance": "vm"}
RESOURCES = (("pool", "public"), ("network", "lan"), ("image", "guest"), ("floating-ip", "ip"), ("instance", "vm"))


class PowerCut(Exception):
    """To the teller: the service is gone."""


class Trouble:
    """Strikes at the moment numbered `at`, counted from 1 among the moments of its place."""

    def __init__(self, where: Where, how: How, at: int) -> None:
        self.where, self.how, self.at = where, how, at
        self.struck = self.dark = False
        self._count = 0
        self._lock = threading.Lock()

    def step(self, verb: str, args: tuple[Any, ...], go_on: Callable[[], Any]) -> Any:
        failed = StepFailed("Injected", f"{verb} did not work out.")
        return self._meet("step", go_on, failed) if verb in VERBS else self._lit(go_on, failed)

    def commit(self, guards: Sequence[Guard], ops: Sequence[Op], go_on: Callable[[], int]) -> int:
        silent = Problem("store_unavailable", "The store does not answer.")
        answer: int = self._meet("commit", go_on, silent)
        return answer

    def _lit(self, go_on: Callable[[], Any], failed: Exception) -> Any:
        if self.dark:
            raise failed
        return go_on()

    def _meet(self, where: Where, go_on: Callable[[], Any], failed: Exception) -> Any:
        with self._lock:
            mine = self._mine(where)
            if mine and self.how == "crash before":
                self.dark = True
        if not mine or self.dark:
            return self._lit(go_on, failed)
        match self.how:
            case "stumble before":
                raise failed
            case "lost race":
                raise Lost(0)
            case "twice":
                go_on()
                return go_on()
            case _:
                go_on()
                self.dark = self.how == "crash after"
                raise failed

    def _mine(self, where: Where) -> bool:
        self._count += where == self.where and not self.struck
        mine = where == self.where and not self.struck and self._count == self.at
        self.struck = self.struck or mine
        return mine


class Story:
    """A cloud of one node with trouble ahead."""

    def __init__(self, cloud: Cloud, trouble: Trouble) -> None:
        self.cloud, self.trouble = cloud, trouble
        self.before = cloud.recorded()
        cloud.heartbeat = self._heartbeat
        cloud.room.between = trouble.step
        wire = cloud.store
        assert isinstance(wire, Wire)
        wire.mind = trouble.commit

    def tell(self) -> list[dict[str, Any]]:
        """How things stand at the end of each chapter."""
        return [self.made(), self.changed(), self.deleted()]

    def made(self) -> dict[str, Any]:
        put = self.cloud.put
        self._all(lambda: put("network", "lan", LAN), lambda: put("image", "guest", IMAGE),
                  lambda: put("pool", "public", {"cidr": "203.0.113.8/29"}), lambda: put("instance", "vm", VM),
                  lambda: put("floating-ip", "ip", IP), self._ready, self.cloud.settle)
        return self.snapshot()

    def changed(self) -> dict[str, Any]:
        put = self.cloud.put
        self._all(lambda: put("instance", "vm", {**BOOTED, "memory_mib": 128}, metadata={"a": "b"}), self._ready, self.cloud.settle,
                  lambda: put("network", "lan", {**LAN, "dns_servers": ["9.9.9.9"]}), self._ready, self.cloud.settle)
        return self.snapshot()

    def deleted(self) -> dict[str, Any]:
        delete = self.cloud.delete
        for kind, name in reversed(RESOURCES):
            self._all(lambda: delete(kind, name), lambda: self._gone(kind, name))  # noqa: B023
        self._all(self.cloud.settle)
        return self.snapshot()

    def snapshot(self) -> dict[str, Any]:
        """Documents and machine, with names in place of what chance decided."""
        world = self.cloud.service.world
        found = [each for each in map(world.resource, (self.cloud.ref(*each) for each in RESOURCES)) if each]
        names = {each.uid: str(each.ref) for each in found}
        documents = {}
        for each in found:
            said = [(node, find(status, "Ready")["reason"], status["observed_generation"])
                    for node, status in sorted(each.statuses.items())]
            given = [nic["address"] for nic in each.binding.get("interfaces", ())]
            documents[str(each.ref)] = (each.intent.generation, dumps(each.spec), dumps(each.intent.metadata), given, said)
        return {"documents": documents, "machine": sorted(map(str, (plain(part, names) for part in self.cloud.room.host()))),
                "drives": sorted(len(files) for files in self.cloud.room.depot.written.values()),
                "taps": len(self.cloud.room.kernel.taps), "orphans": self.cloud.orphans(), "dangling": self.cloud.dangling(),
                "keys": len(self.cloud.recorded() - self.before - self._events())}

    def _events(self) -> set[str]:
        return {key for key in self.cloud.recorded() if key.startswith("/wisp/v1/event/")}

    # --- the teller

    def _all(self, *acts: Callable[[], Any]) -> None:
        """Each act until it is answered; when the power goes, a new service is there for the next try."""
        for act in acts:
            while True:
                try:
                    act()
                    break
                except PowerCut:
                    pass
                except Problem as problem:
                    assert problem.code == "store_unavailable" and self.trouble.struck, problem
                if self.trouble.dark:
                    self.cloud.service.stop()
                    self.trouble.dark = False
                    self.cloud.start()

    def _heartbeat(self) -> None:
        if self.trouble.dark:
            raise PowerCut

    def _ready(self) -> None:
        self.cloud.until(lambda: all(is_ready(self.cloud.get(kind, name)) for kind, name in RESOURCES), "all is ready")
        image = refers_prefix(self.cloud.ref("image", "guest"))
        self.cloud.until(lambda: not any(key.startswith(image) for key in self.cloud.recorded()), "the image is let go of")

    def _gone(self, kind: str, name: str) -> None:
        self.cloud.until(lambda: self.cloud.service.world.resource(self.cloud.ref(kind, name)) is None, f"the {kind} is gone")


def plain(part: Part, names: dict[str, str]) -> tuple[Any, ...]:
    owner = names.get(getattr(part, "uid", ""), "nobody")
    match part:
        case Segment():
            return "segment", owner, part.peers, part.busy
        case Gateway():
            return "gateway", owner, part.address, part.nat, part.dhcp, part.dns, len(part.leases)
        case Floating():
            return "floating", owner, part.address
        case Disk():
            return "disk", owner, part.index, part.size_gib, part.sha256
        case Seed():
            return "drive", owner
        case Domain():
            return "domain", owner, part.cpus, part.memory_mib, part.power, [nic.plugged for nic in part.nics]
        case image:
            return "image", image.sha256
