"""The same walk with agents over fake machines, which bring about each operation before the next.

What agents do meanwhile has no fixed place in the order, so nothing overlaps here, and transactions are not
counted. After each operation the machines must hold what the documents say, and nothing else.
"""
from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from hypothesis.stateful import rule
from model import Model, agree
from operations import Operations
from simulated import Cloud
from wishes import Draft, doors, operations

from wisp.service import Service
from wisp.store.memory import MemoryStore

SIZE = {"cpus": 2, "memory_mib": 640, "disk_gib": 12}


class Settled(Operations):
    nodes: ClassVar[dict[str, Any]] = {"n1": SIZE, "n2": SIZE}

    def __init__(self) -> None:
        store = MemoryStore()
        super().__init__([store, store])

    def opened(self) -> list[Service]:
        self.cloud = Cloud(nodes=2, size=SIZE, store=self.lines[0], cluster="fuzz")     # type: ignore[arg-type]
        self.cloud.settle()
        return [self.cloud.service, self.open(self.lines[1])]

    def wrote(self, what: str, before: int, transactions: int) -> None:
        self.cloud.settle()
        self.model = at_rest(self.model)

    @rule(first=operations, other=operations, door=doors)
    def overlap(self, first: Draft, other: Draft, door: int) -> None:
        """One after the other, at different doors."""
        for at, draft in ((door, first), (1 - door, other)):
            self.done(at, draft(self))

    @rule()
    def behind_the_doors(self) -> None:
        self.restart(1)

    def nothing_leaked_and_every_sum_is_right(self) -> None:
        super().nothing_leaked_and_every_sum_is_right()
        for name, room in self.cloud.rooms.items():
            wanted = {doc.uid for ref, doc in self.model.docs.items() if ref.kind == "instance" and doc.binding["node"] == name}
            agree(f"the machines on {name}", {part.uid for part in room.hypervisor.observe(None)}, wanted)


def at_rest(model: Model) -> Model:
    """What was going is gone, and disks are made."""
    docs = {ref: replace(doc, held=ref.kind == "instance", made=ref.kind == "instance")
            for ref, doc in model.docs.items() if not doc.deleting}
    return replace(model, docs=docs)
