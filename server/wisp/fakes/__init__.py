"""The simulated world: fakes that ship with the product and refuse what the real things refuse."""
from __future__ import annotations

from wisp.fakes.depot import FakeDepot
from wisp.fakes.fabric import FakeFabric
from wisp.fakes.hypervisor import FakeHypervisor
from wisp.ports import Machine


def fake_machine() -> Machine:
    """A machine whose three sides know of one another."""
    fabric, depot = FakeFabric(), FakeDepot()
    return Machine(FakeHypervisor(fabric.has_bridge, depot.has_disk, depot.has_seed, fabric.kernel.taps), fabric, depot)
