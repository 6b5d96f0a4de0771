"""What a network over two nodes costs: TCP between two guests' taps, beside TCP over the underlay alone.

Both in one run, by turns, with packets of the same size inside: the underlay's route is given the network's MTU. The nodes are
network namespaces joined by a veth pair, the guests namespaces behind taps; the segment is built by the agent's own fabric, its
rules for taps and all.
"""
from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from contract.fabricworld import FAR, GATE, HERE, OUTSIDE, UNDERLAY, KernelWorld, kernel_world, sh, within
from wisp.adapters import links
from wisp.host import Segment, Station

ROUNDS, SECONDS = 5, 1.5
MTU = "1450"
PUMP = str(Path(__file__).with_name("pump.py"))
SEGMENT = Segment("u1", 0xA1, frozenset({OUTSIDE}), frozenset({HERE, GATE, FAR}))
THERE = replace(SEGMENT, peers=frozenset({UNDERLAY}), stations=frozenset({
    Station(FAR.mac, "10.1.0.6"), *(replace(each, address="", underlay=UNDERLAY) for each in (HERE, GATE))}))


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[KernelWorld]:
    with kernel_world(tmp_path) as world:
        yield world


def test_a_network_over_two_nodes_beside_the_bare_underlay(kernel: KernelWorld) -> None:
    kernel.fabric().build_segment(SEGMENT)
    links.inside("outside", lambda: kernel.fabric_outside().build_segment(THERE))
    kernel.plug(SEGMENT.bridge, "10.1.0.5/24", mac=HERE.mac)
    kernel.plug(SEGMENT.bridge, "10.1.0.6/24", name="far", node="outside", mac=FAR.mac)
    sh("ip", "route", "change", "192.0.2.0/24", "dev", "ul0", "src", UNDERLAY, "mtu", MTU)
    within("outside", "ip", "route", "change", "192.0.2.0/24", "dev", "eth0", "src", OUTSIDE, "mtu", MTU)
    rounds = [(pumped("guest", "far", "10.1.0.6"), pumped("", "outside", OUTSIDE))
              for _ in range(ROUNDS)]
    vxlan, bare = (statistics.median(each) for each in zip(*rounds, strict=True))
    print(f"\nTCP, packets of {MTU}: guest to guest over VXLAN {gigabits(vxlan)}, bare underlay {gigabits(bare)}; "
          f"ratio {vxlan / bare:.2f} (aim 0.7)")


def pumped(source: str, sink: str, address: str) -> float:
    """Bytes a second from one namespace to another."""
    enter = ["ip", "netns", "exec", sink, sys.executable, PUMP]
    with subprocess.Popen([*enter, "drink", address], stdout=subprocess.PIPE, text=True) as drinking:
        assert drinking.stdout
        port = drinking.stdout.readline().strip()
        (within if source else lambda _, *words: sh(*words))(source, sys.executable, PUMP, "pour", address, port, str(SECONDS))
        return float(drinking.stdout.readline())


def gigabits(rate: float) -> str:
    return f"{rate * 8e-9:.1f} Gbit/s"
