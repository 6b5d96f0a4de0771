"""One contract, asked of the fake fabric and of the kernel's (in namespaces of the test's own; needs root)."""
from __future__ import annotations

import os
import queue
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fabricworld import (
    FAR,
    GATE,
    HERE,
    MAC,
    FakeWorld,
    KernelWorld,
    kernel_world,
    sh,
)

from wisp.errors import StepFailed
from wisp.host import Gateway, Lease, Segment

SEGMENT = Segment("u1", 0xA1, frozenset({"192.0.2.2"}), frozenset({HERE, GATE, FAR}))
GATEWAY = Gateway("u1", 0xA1, "10.1.0.1/24", "52:54:00:00:00:01", "100.64.0.1", dns=("192.0.2.53", "192.0.2.54"),
                  domain="shop.wisp.internal", leases=frozenset({Lease(MAC, "10.1.0.5", "web", "shop.wisp.internal")}))
OTHER, OTHER_GATEWAY = Segment("u2", 0xA2), replace(GATEWAY, uid="u2", vni=0xA2, transit="100.64.0.2")
WHOLE: list[Segment | Gateway] = [SEGMENT, GATEWAY]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: the kernel's fabric needs root")
real = [pytest.mark.machine, needs_root]


@pytest.fixture(params=["fake", pytest.param("kernel", marks=real)])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    if request.param == "fake":
        yield FakeWorld()
    else:
        with kernel_world(tmp_path) as world:
            yield world


def build(fabric: Any, *parts: Segment | Gateway) -> None:
    for part in parts:
        fabric.build_segment(part) if isinstance(part, Segment) else fabric.build_gateway(part)


def test_nothing_is_seen_where_nothing_was_built(world: Any) -> None:
    assert [list(world.fabric().observe(which)) for which in (None, [], ["u1"])] == [[], [], []]


def test_what_was_built_is_what_is_seen(world: Any) -> None:
    fabric = world.fabric()
    build(fabric, *WHOLE)
    assert list(fabric.observe(["u1"])) == WHOLE
    assert list(fabric.observe(None)) == WHOLE
    assert list(fabric.observe(["u2"])) == []


@pytest.mark.parametrize("changes", [{"nat": False}, {"dhcp": False, "dns": (), "domain": "", "leases": frozenset()}, {"dns": ()},
                                     {"leases": frozenset()}])
def test_every_shape_of_gateway_is_seen_as_it_was_asked_for(world: Any, changes: dict[str, Any]) -> None:
    fabric, gateway = world.fabric(), replace(GATEWAY, **changes)
    build(fabric, SEGMENT, gateway)
    assert list(fabric.observe(["u1"])) == [SEGMENT, gateway]


def test_another_agent_of_the_cluster_sees_the_same(world: Any) -> None:
    build(world.fabric(), *WHOLE)
    assert list(world.fabric().observe(None)) == WHOLE
    assert list(world.fabric().observe(["u1"])) == WHOLE


def test_building_twice_is_building_once(world: Any) -> None:
    fabric = world.fabric()
    build(fabric, *WHOLE)
    once = world.snapshot()
    build(fabric, *WHOLE)
    build(world.fabric(), *WHOLE)
    assert world.snapshot() == once


@pytest.mark.parametrize("peers", [set(), {"192.0.2.2", "192.0.2.3"}, {"192.0.2.4"}])
def test_peers_come_and_go(world: Any, peers: set[str]) -> None:
    fabric = world.fabric()
    build(fabric, SEGMENT, replace(SEGMENT, peers=frozenset(peers)))
    assert list(fabric.observe(["u1"])) == [replace(SEGMENT, peers=frozenset(peers))]


@pytest.mark.parametrize("changes", [{"nat": False}, {"dhcp": False, "dns": (), "domain": "", "leases": frozenset()}, {"dns": ()},
                                     {"leases": frozenset({Lease(MAC, "10.1.0.6", "web")})}, {"address": "10.2.0.1/16"},
                                     {"mac": "52:54:00:00:00:02"}, {"transit": "100.64.0.3"}])
def test_a_gateway_is_changed_where_it_stands_and_back(world: Any, changes: dict[str, Any]) -> None:
    fabric = world.fabric()
    for gateway in (GATEWAY, replace(GATEWAY, **changes), GATEWAY):
        build(fabric, SEGMENT, gateway)
        assert list(fabric.observe(["u1"])) == [SEGMENT, gateway]


def see_and_mend(world: Any, hand: Any) -> None:
    fabric = world.fabric()
    build(fabric, *WHOLE)
    assert list(fabric.observe(["u1"])) == WHOLE
    hand()
    seen = list(fabric.observe(["u1"]))
    assert seen and set(seen) != set(WHOLE)
    assert set(fabric.observe(None)) == set(seen)
    for part in WHOLE:
        if part not in fabric.observe(["u1"]):
            build(fabric, part)
    assert list(fabric.observe(["u1"])) == WHOLE


SEGMENT_HANDS = sorted(FakeWorld().segment_hands)
GATEWAY_HANDS = sorted(FakeWorld().gateway_hands)
KERNEL_SEGMENT_HANDS = sorted(KernelWorld(Path()).segment_hands.keys() - set(SEGMENT_HANDS))
KERNEL_HANDS = sorted(KernelWorld(Path()).gateway_hands.keys() - set(GATEWAY_HANDS))


@pytest.mark.parametrize("hand", SEGMENT_HANDS)
def test_meddling_with_a_segment_is_seen_and_mended(world: Any, hand: str) -> None:
    see_and_mend(world, world.segment_hands[hand])


@pytest.mark.parametrize("hand", GATEWAY_HANDS)
def test_meddling_with_a_gateway_is_seen_and_mended(world: Any, hand: str) -> None:
    see_and_mend(world, world.gateway_hands[hand])


@pytest.mark.machine
@needs_root
@pytest.mark.parametrize("hand", KERNEL_HANDS)
def test_meddling_with_the_kernel_is_seen_and_mended(kernel: KernelWorld, hand: str) -> None:
    see_and_mend(kernel, kernel.gateway_hands[hand])


@pytest.mark.machine
@needs_root
@pytest.mark.parametrize("hand", KERNEL_SEGMENT_HANDS)
def test_meddling_with_what_only_the_kernel_has_of_a_segment_is_seen_and_mended(kernel: KernelWorld, hand: str) -> None:
    see_and_mend(kernel, kernel.segment_hands[hand])


def test_two_clusters_do_not_see_each_other(world: Any) -> None:
    ours, theirs = world.fabric("c1"), world.fabric("c2")
    build(ours, *WHOLE)
    build(theirs, OTHER, OTHER_GATEWAY)
    assert [list(fabric.observe(None)) for fabric in (ours, theirs)] == [WHOLE, [OTHER, OTHER_GATEWAY]]
    assert list(ours.observe(["u2"])) == []
    ours.remove_gateway(replace(OTHER_GATEWAY))
    ours.remove_segment(OTHER)
    ours.remove_gateway(GATEWAY)
    ours.remove_segment(SEGMENT)
    assert list(theirs.observe(None)) == [OTHER, OTHER_GATEWAY]


@pytest.mark.parametrize("uid, cluster", [("u1", "c2"), ("u9", "c1")])
def test_a_taken_vni_is_refused_and_left_alone(world: Any, uid: str, cluster: str) -> None:
    ours, theirs = world.fabric("c1"), world.fabric(cluster)
    build(ours, SEGMENT)
    with pytest.raises(StepFailed) as refused:
        theirs.build_segment(replace(SEGMENT, uid=uid))
    assert refused.value.reason == "VniTaken"
    assert list(ours.observe(None)) == [SEGMENT]


def test_a_taken_transit_address_is_refused(world: Any) -> None:
    ours, theirs = world.fabric("c1"), world.fabric("c2")
    build(ours, *WHOLE)
    with pytest.raises(StepFailed) as refused:
        build(theirs, OTHER, replace(OTHER_GATEWAY, transit=GATEWAY.transit))
    assert refused.value.reason == "TransitTaken"
    assert list(ours.observe(None)) == WHOLE


def test_a_transit_address_given_up_is_free(world: Any) -> None:
    fabric = world.fabric()
    build(fabric, *WHOLE, replace(GATEWAY, transit="100.64.0.9"))
    build(fabric, OTHER, replace(OTHER_GATEWAY, transit=GATEWAY.transit))
    assert len(list(fabric.observe(None))) == 4


def test_two_networks_may_have_the_same_addresses(world: Any) -> None:
    fabric = world.fabric()
    build(fabric, *WHOLE, OTHER, OTHER_GATEWAY)
    assert list(fabric.observe(None)) == [*WHOLE, OTHER, OTHER_GATEWAY]


def test_a_gateway_without_its_segment_is_refused(world: Any) -> None:
    with pytest.raises(StepFailed) as refused:
        world.fabric().build_gateway(GATEWAY)
    assert refused.value.reason == "SegmentMissing"
    assert list(world.fabric().observe(None)) == []


def test_removing_leaves_nothing(world: Any) -> None:
    before = world.snapshot()
    fabric = world.fabric()
    build(fabric, *WHOLE, OTHER, OTHER_GATEWAY)
    for gateway, segment in ((GATEWAY, SEGMENT), (OTHER_GATEWAY, OTHER)):
        fabric.remove_gateway(gateway)
        fabric.remove_segment(segment)
        fabric.remove_gateway(gateway)
        fabric.remove_segment(segment)
    assert world.snapshot() == before
    assert list(fabric.observe(None)) == list(fabric.observe(["u1", "u2"])) == []


@pytest.mark.parametrize("hand", GATEWAY_HANDS)
def test_removing_what_is_broken_leaves_nothing(world: Any, hand: str) -> None:
    before = world.snapshot()
    fabric = world.fabric()
    build(fabric, *WHOLE)
    world.gateway_hands[hand]()
    for part in list(fabric.observe(None)):
        fabric.remove_segment(part) if isinstance(part, Segment) else fabric.remove_gateway(part)
    assert world.snapshot() == before


def test_the_bell_rings_for_our_devices_and_not_for_looking(world: Any) -> None:
    fabric, other = world.fabric("c1"), world.fabric("c2")
    build(fabric, *WHOLE)
    rung: queue.Queue[str | None] = queue.Queue()
    fabric.watch(rung.put)
    other.watch(lambda token: rung.put(f"wrongly {token}"))
    assert list(fabric.observe(None)) == WHOLE
    build(other, OTHER)
    assert rung.get(timeout=10) == "wrongly u2"
    world.segment_hands["bridge deleted"]()
    while (heard := rung.get(timeout=10)) != "u1":
        assert heard == "wrongly u2"
    fabric.close()
    other.close()


@pytest.mark.machine
@needs_root
def test_the_bell_rings_for_an_address_that_goes(kernel: KernelWorld) -> None:
    fabric = kernel.fabric()
    build(fabric, *WHOLE)
    rung: queue.Queue[str | None] = queue.Queue()
    fabric.watch(rung.put)
    sh("ip", "addr", "flush", "dev", "go-0000a1")
    assert rung.get(timeout=10) == "u1"


def test_a_tap_is_plugged_in_and_seen_to_keep_the_segment_busy(world: Any) -> None:
    fabric = world.fabric()
    build(fabric, *WHOLE)
    assert [part.busy for part in fabric.observe(["u1"]) if part == SEGMENT] == [False]
    world.tap("t-525400000005")
    for _ in range(2):
        fabric.plug("t-525400000005", SEGMENT.bridge)
    assert world.bridge_of("t-525400000005") == SEGMENT.bridge
    assert [part.busy for part in fabric.observe(["u1"]) if part == SEGMENT] == [True]


def test_a_tap_is_back_in_its_bridge_once_that_is_mended(world: Any) -> None:
    fabric = world.fabric()
    build(fabric, *WHOLE)
    world.tap("t-525400000005")
    fabric.plug("t-525400000005", SEGMENT.bridge)
    world.segment_hands["bridge deleted"]()
    assert world.bridge_of("t-525400000005") == ""
    build(fabric, SEGMENT)
    fabric.plug("t-525400000005", SEGMENT.bridge)
    assert world.bridge_of("t-525400000005") == SEGMENT.bridge


def test_a_tap_that_is_gone_is_no_error_and_a_bridge_that_is_not_ours_is(world: Any) -> None:
    fabric = world.fabric()
    build(fabric, SEGMENT)
    build(world.fabric("c2"), OTHER)
    fabric.plug("t-525400000009", SEGMENT.bridge)
    world.tap("t-525400000005")
    for bridge in (OTHER.bridge, "br-0000a3"):
        with pytest.raises(StepFailed) as refused:
            fabric.plug("t-525400000005", bridge)
        assert refused.value.reason == "SegmentMissing"


def test_a_ping_from_the_gateway_is_answered_by_who_is_there(world: Any) -> None:
    fabric = world.fabric()
    build(fabric, *WHOLE)
    assert fabric.ping(GATEWAY, "10.1.0.6", 2) == []
    world.guest(SEGMENT.bridge, "10.1.0.5/24")
    for address, count in (("10.1.0.5", 3), ("10.1.0.1", 2)):
        answers = fabric.ping(GATEWAY, address, count)
        assert len(answers) == count and all(0 < each < 2_000_000 for each in answers)


def test_nobody_pings_from_a_gateway_that_is_not_here_or_not_ours(world: Any) -> None:
    build(world.fabric("c2"), OTHER, OTHER_GATEWAY)
    for gateway in (GATEWAY, OTHER_GATEWAY):
        with pytest.raises(StepFailed) as refused:
            world.fabric().ping(gateway, "10.1.0.1", 1)
        assert refused.value.reason == "GatewayMissing"


def test_segments_leave_room_for_their_envelope(world: Any) -> None:
    assert world.fabric().mtu() == 1450
