"""Floating IPs: one contract, asked of the fake fabric and of the kernel's; and what only the wire can tell.

In the kernel's world `ul0` is the way out too, and the namespace `outside` a neighbour of the node on it.
"""
from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from fabricworld import OUTSIDE, UNDERLAY, FakeWorld, KernelWorld, kernel_world, sh, within

from wisp.adapters import arp, links
from wisp.adapters.fabric import KernelFabric
from wisp.errors import StepFailed
from wisp.host import Floating, Gateway, Part, Segment

LAN, GATEWAY = Segment("u1", 0xA1), Gateway("u1", 0xA1, "10.1.0.1/24", "52:54:00:00:00:01", "100.64.0.1", dhcp=False)
OTHER, OTHER_GATEWAY = Segment("u2", 0xA2), replace(GATEWAY, uid="u2", vni=0xA2, transit="100.64.0.2")
FLOATING = Floating("f1", "u1", 0xA1, "192.0.2.130", "10.1.0.5")
SECOND = Floating("f2", "u1", 0xA1, "192.0.2.131", "10.1.0.6")
ELSEWHERE = Floating("f1", "u2", 0xA2, "192.0.2.130", "10.1.0.5")
WHOLE = [LAN, GATEWAY, FLOATING]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: the kernel's fabric needs root")
real = [pytest.mark.machine, needs_root]


class Fake(FakeWorld):
    def __init__(self) -> None:
        super().__init__()
        self.hands: dict[str, Callable[[], object]] = {
            "gateway's namespace deleted": lambda: self.kernel.lose("gw-0000a1"),
            "outside plug deleted": lambda: self.kernel.lose("go-0000a1"),
            "bridge deleted": lambda: self.kernel.lose("br-0000a1"),
        }

    def traces(self) -> object:
        return super().snapshot(), sorted(map(str, self.kernel.floating.values()))

    def taken_outside(self, address: str) -> None:
        self.kernel.elsewhere.add(address)


class Kernel:
    """The kernel's world, whose fabrics have a way out."""

    def __init__(self, world: KernelWorld) -> None:
        self.world, self.plug = world, world.plug
        proxy = "192.0.2.130 dev ul0"
        def run(words: str) -> Callable[[], str]:
            return lambda: sh(*words.split())
        def meddle(verb: str, what: str) -> Callable[[], str]:
            return lambda: within("gw-0000a1", "nft", f"{verb} element ip wisp {what}")
        self.hands: dict[str, Callable[[], object]] = {
            "gateway's namespace deleted": run("ip netns del gw-0000a1"),
            "outside plug deleted": run("ip link del go-0000a1"),
            "bridge deleted": run("ip link del br-0000a1"),
            "route removed": run("ip route del 192.0.2.130"),
            "route led astray": lambda: (sh("ip", "route", "del", "192.0.2.130"), sh("ip", "route", "add", "192.0.2.130", "dev", "ul0")),
            "not answered for": run(f"ip neigh del proxy {proxy}"),
            "answered for elsewhere": run("ip neigh add proxy 192.0.2.130 dev lo protocol 119"),
            "way in removed": meddle("delete", "dnat4 { 192.0.2.130 }"),
            "way out removed": meddle("delete", "snat4 { 10.1.0.5 }"),
            "a second way in": meddle("add", 'dnat4 { 192.0.2.140 comment "f1" : 10.1.0.5 }'),
            "rules flushed": lambda: within("gw-0000a1", "nft", "flush", "ruleset"),
        }

    def fabric(self, cluster: str = "c1", egress: str = "ul0") -> KernelFabric:
        self.world._fabrics.append(KernelFabric(cluster, self.world.state / cluster, UNDERLAY, egress))
        return self.world._fabrics[-1]

    def traces(self) -> object:
        return self.world.snapshot(), sh("ip", "neigh", "show", "proxy")

    def taken_outside(self, address: str) -> None:
        within("outside", "ip", "addr", "add", f"{address}/24", "dev", "eth0")

    def guests(self, *networks: Segment) -> list[str]:
        """10.1.0.5 of each network; returns their names."""
        return [self.plug(segment.bridge, "10.1.0.5/24", "10.1.0.1", f"guest{number}")
                for number, segment in enumerate(networks, 1)]


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    with kernel_world(tmp_path) as world:
        yield Kernel(world)


@pytest.fixture(params=["fake", pytest.param("kernel", marks=real)])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    if request.param == "fake":
        yield Fake()
    else:
        with kernel_world(tmp_path) as world:
            yield Kernel(world)


def build(fabric: Any, *parts: Part) -> None:
    for part in parts:
        {Segment: fabric.build_segment, Gateway: fabric.build_gateway, Floating: fabric.build_floating}[type(part)](part)  # type: ignore[index]


def floating(fabric: Any, *tokens: str) -> list[Floating]:
    return [part for part in fabric.observe(tokens or None) if isinstance(part, Floating)]


def test_what_was_built_is_what_is_seen(world: Any) -> None:
    fabric = world.fabric()
    build(fabric, *WHOLE, SECOND)
    assert floating(fabric) == floating(fabric, "f1", "f2") == [FLOATING, SECOND]
    assert floating(fabric, "f2") == [SECOND] and floating(fabric, "u1") == floating(fabric, "f3") == []
    assert list(fabric.observe(["u1"])) == [LAN, GATEWAY], "its gateway is whole with it"


def test_another_agent_of_the_cluster_sees_the_same(world: Any) -> None:
    build(world.fabric(), *WHOLE)
    assert floating(world.fabric(), "f1") == floating(world.fabric()) == [FLOATING]


def test_building_twice_is_building_once(world: Any) -> None:
    fabric = world.fabric()
    build(fabric, *WHOLE)
    once = world.traces()
    build(fabric, *WHOLE)
    build(world.fabric(), *WHOLE)
    assert world.traces() == once and floating(fabric) == [FLOATING]


def test_one_without_a_gateway_that_leads_out_is_refused(world: Any) -> None:
    fabric = world.fabric()
    for before in ((LAN,), (replace(GATEWAY, nat=False),)):
        build(fabric, *before)
        with pytest.raises(StepFailed) as refused:
            build(fabric, FLOATING)
        assert refused.value.reason == "GatewayMissing"
    assert floating(fabric) == []


def test_an_address_leads_to_another_guest_and_back(world: Any) -> None:
    fabric = world.fabric()
    build(fabric, *WHOLE)
    for inside in ("10.1.0.9", "10.1.0.5"):
        build(fabric, replace(FLOATING, inside=inside))
        assert floating(fabric) == floating(fabric, "f1") == [replace(FLOATING, inside=inside)]


@pytest.mark.parametrize("other", [replace(SECOND, address=FLOATING.address), replace(SECOND, inside=FLOATING.inside),
                                   replace(ELSEWHERE, uid="f2")], ids=["address", "guest", "network"])
def test_what_is_taken_is_refused_and_the_first_goes_on(world: Any, other: Floating) -> None:
    fabric = world.fabric()
    build(fabric, *WHOLE, OTHER, OTHER_GATEWAY)
    with pytest.raises(StepFailed) as refused:
        build(fabric, other)
    assert refused.value.reason == "AddressTaken"
    assert floating(fabric, "f1") == [FLOATING]


def test_two_clusters_do_not_see_each_others(world: Any) -> None:
    ours, theirs = world.fabric("c1"), world.fabric("c2")
    build(ours, *WHOLE)
    build(theirs, OTHER, OTHER_GATEWAY, replace(SECOND, network="u2", vni=0xA2))
    with pytest.raises(StepFailed):
        build(theirs, replace(ELSEWHERE, inside="10.1.0.7"))
    theirs.remove_floating(FLOATING)
    ours.remove_floating(replace(SECOND, network="u2", vni=0xA2))
    assert floating(ours) == [FLOATING]
    assert floating(theirs, "f2") == [replace(SECOND, network="u2", vni=0xA2)]


FAKE_HANDS = sorted(Fake().hands)


@pytest.mark.parametrize("hand", FAKE_HANDS)
def test_meddling_is_seen_and_mended(world: Any, hand: str) -> None:
    see_and_mend(world, hand)


@pytest.mark.machine
@needs_root
@pytest.mark.parametrize("hand", ["route removed", "route led astray", "not answered for", "answered for elsewhere",
                                  "way in removed", "way out removed", "a second way in", "rules flushed"])
def test_meddling_with_the_kernel_is_seen_and_mended(kernel: Kernel, hand: str) -> None:
    see_and_mend(kernel, hand)


def see_and_mend(world: Any, hand: str) -> None:
    fabric = world.fabric()
    build(fabric, *WHOLE)
    assert floating(fabric, "f1") == [FLOATING]
    world.hands[hand]()
    assert {*fabric.observe(["u1", "f1"])} != {*WHOLE}
    if hand == "route led astray":
        sh("ip", "route", "del", "192.0.2.130")     # another's; it is refused until that goes
    for part in WHOLE:
        if part not in fabric.observe(["u1", "f1"]):
            build(fabric, part)
    assert floating(fabric, "f1") == floating(fabric) == [FLOATING]


def test_removing_leaves_nothing(world: Any) -> None:
    fabric = world.fabric()
    build(fabric, LAN, GATEWAY)
    before = world.traces()
    build(fabric, FLOATING, SECOND)
    for _ in range(2):
        fabric.remove_floating(FLOATING)
        assert floating(fabric) == [SECOND]
    fabric.remove_floating(SECOND)
    assert world.traces() == before


@pytest.mark.parametrize("hand", [None, *FAKE_HANDS])
def test_a_gateway_takes_what_leads_through_it_along(world: Any, hand: str | None) -> None:
    before = world.traces()
    fabric = world.fabric()
    build(fabric, *WHOLE, SECOND)
    if hand:
        world.hands[hand]()
    fabric.remove_gateway(GATEWAY)
    assert hand or floating(fabric) == [], "none of it is left to be found"
    fabric.remove_segment(LAN)
    for part in floating(fabric):       # what nobody's gateway leads to any more
        fabric.remove_floating(part)
    assert floating(fabric) == floating(fabric, "f1", "f2") == [] and world.traces() == before


def test_nobody_else_has_an_address_until_somebody_has(world: Any) -> None:
    fabric = world.fabric()
    build(fabric, *WHOLE)
    assert not fabric.held_elsewhere(FLOATING.address)
    world.taken_outside(FLOATING.address)
    assert fabric.held_elsewhere(FLOATING.address)


# what only the wire can tell


def speaks(client: str, address: str, server: str, at: str = "10.1.0.5", port: int = 7777) -> str:
    """Carries 100,000 bytes from a client (a namespace, "" the node) to an address, where a server in another namespace
    takes them; returns from which address they seem to come."""
    def connect() -> socket.socket:
        return socket.create_connection((address, port), 10)
    with links.inside(server, lambda: socket.create_server((at, port))) as listening, \
            links.inside(client, connect) if client else connect() as sending:
        listening.settimeout(10)
        receiving, peer = listening.accept()
        with receiving:
            sending.sendall(b"x" * 100_000)
            sending.shutdown(socket.SHUT_WR)
            assert sum(len(chunk) for chunk in iter(lambda: receiving.recv(65536), b"")) == 100_000
    return str(peer[0])


@pytest.mark.machine
@needs_root
def test_the_outside_reaches_the_guest_and_is_seen_as_it_is(kernel: Kernel) -> None:
    build(kernel.fabric(), *WHOLE)
    (guest,) = kernel.guests(LAN)
    assert speaks("outside", FLOATING.address, guest) == OUTSIDE


@pytest.mark.machine
@needs_root
def test_what_the_guest_sends_outside_comes_from_its_floating_address(kernel: Kernel) -> None:
    build(kernel.fabric(), *WHOLE)
    (guest,) = kernel.guests(LAN)
    neighbour = kernel.plug(LAN.bridge, "10.1.0.6/24", "10.1.0.1", "neighbour")
    assert speaks(guest, OUTSIDE, "outside", OUTSIDE) == FLOATING.address
    assert speaks(neighbour, OUTSIDE, "outside", OUTSIDE) == UNDERLAY, "and no other guest's does"


@pytest.mark.machine
@needs_root
def test_a_guest_of_another_network_reaches_it(kernel: Kernel) -> None:
    build(kernel.fabric(), *WHOLE, OTHER, OTHER_GATEWAY)
    guest, stranger = kernel.guests(LAN, OTHER)
    assert speaks(stranger, FLOATING.address, guest) == OTHER_GATEWAY.transit
    build(kernel.fabric(), replace(ELSEWHERE, uid="f2", address="192.0.2.131"))
    assert speaks(stranger, FLOATING.address, guest, port=7778) == "192.0.2.131"


@pytest.mark.machine
@needs_root
def test_its_neighbours_and_the_guest_itself_reach_it_by_way_of_the_gateway(kernel: Kernel) -> None:
    build(kernel.fabric(), *WHOLE, SECOND)
    (guest,) = kernel.guests(LAN)
    neighbour = kernel.plug(LAN.bridge, "10.1.0.6/24", "10.1.0.1", "neighbour")
    for client in (neighbour, guest):
        assert speaks(client, FLOATING.address, guest) == "10.1.0.1"
    told = within(GATEWAY.namespace, "nstat", "-asz", "IcmpOutRedirects").split()
    assert told[told.index("IcmpOutRedirects") + 1] == "0", "and nobody is told of a shorter way"


@pytest.mark.machine
@needs_root
def test_the_node_itself_reaches_it_and_without_an_egress_link_too(kernel: Kernel) -> None:
    fabric = kernel.fabric(egress="")
    build(fabric, *WHOLE)
    assert floating(fabric) == [FLOATING] and not fabric.held_elsewhere(FLOATING.address)
    (guest,) = kernel.guests(LAN)
    assert speaks("", FLOATING.address, guest)
    assert sh("ip", "neigh", "show", "proxy") == ""


@pytest.mark.machine
@needs_root
def test_a_removed_one_answers_nobody(kernel: Kernel) -> None:
    fabric = kernel.fabric()
    build(fabric, *WHOLE)
    (guest,) = kernel.guests(LAN)
    speaks("outside", FLOATING.address, guest)
    fabric.remove_floating(FLOATING)
    with pytest.raises(OSError):
        speaks("outside", FLOATING.address, guest)
    assert speaks(guest, OUTSIDE, "outside", OUTSIDE) == UNDERLAY


@pytest.mark.machine
@needs_root
def test_a_client_that_never_pauses_is_taken_along_to_the_next_guest(kernel: Kernel) -> None:
    fabric = kernel.fabric()
    build(fabric, *WHOLE)
    guests = {"10.1.0.5": kernel.plug(LAN.bridge, "10.1.0.5/24", "10.1.0.1", "first"),
              "10.1.0.6": kernel.plug(LAN.bridge, "10.1.0.6/24", "10.1.0.1", "second")}
    heard = {at: links.inside(name, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for at, name in guests.items()}
    client = links.inside("outside", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    for at in ("10.1.0.5", "10.1.0.6", "10.1.0.5"):
        fabric.build_floating(replace(FLOATING, inside=at))
        if not heard[at].getsockname()[1]:
            for each in heard.values():
                each.bind(("0.0.0.0", 7777))
                each.settimeout(10)
        client.sendto(at.encode(), (FLOATING.address, 7777))
        assert heard[at].recv(100) == at.encode()
    for each in (client, *heard.values()):
        each.close()


@pytest.mark.machine
@needs_root
def test_one_that_moves_to_another_node_is_announced_there_and_held_elsewhere_here(kernel: Kernel) -> None:
    for words in ("ip link add sw0 type bridge", "ip link set sw0 up", "ip addr del 192.0.2.2/24 dev eth0", "ip link set eth0 master sw0",
                  "ip addr add 192.0.2.2/24 dev sw0", "ip link add port2 type veth peer name up0", "ip link set port2 master sw0 up"):
        within("outside", *words.split())
    sh("ip", "netns", "add", "node2")
    within("outside", "ip", "link", "set", "up0", "netns", "node2")
    for words in ("ip link set lo up", "ip addr add 192.0.2.3/24 dev up0", "ip link set up0 up"):
        within("node2", *words.split())
    here, there = kernel.fabric(), KernelFabric("c1", kernel.world.state / "node2", "192.0.2.3", "up0")
    build(here, *WHOLE)
    links.inside("node2", lambda: build(there, OTHER, OTHER_GATEWAY))
    (guest,) = kernel.guests(LAN)
    assert speaks("outside", FLOATING.address, guest) == OUTSIDE
    assert known_outside() == mac("", "ul0")
    links.inside("node2", lambda: build(there, ELSEWHERE))
    assert known_outside() == mac("node2", "up0"), "though the old one still stands"
    assert here.held_elsewhere(FLOATING.address)
    assert links.inside("node2", lambda: there.held_elsewhere(FLOATING.address))
    here.remove_floating(FLOATING)
    assert not links.inside("node2", lambda: there.held_elsewhere(FLOATING.address))
    within("outside", "ip", "neigh", "flush", "to", FLOATING.address)
    heir = kernel.plug(OTHER.bridge, "10.1.0.5/24", "10.1.0.1", "heir", node="node2")
    assert speaks("outside", FLOATING.address, heir) == OUTSIDE


def known_outside() -> str:
    (entry,) = json.loads(within("outside", "ip", "-j", "neigh", "show", "to", FLOATING.address))
    return str(entry["lladdr"])


def mac(namespace: str, link: str) -> str:
    told = within(namespace, "ip", "-j", "link", "show", link) if namespace else sh("ip", "-j", "link", "show", link)
    return str(json.loads(told)[0]["address"])


@pytest.mark.machine
@needs_root
def test_an_egress_link_that_is_not_there_is_said(kernel: Kernel) -> None:
    fabric = kernel.fabric(egress="none0")
    build(fabric, LAN, GATEWAY)
    with pytest.raises(StepFailed) as refused:
        build(fabric, FLOATING)
    assert (refused.value.reason, refused.value.message) == ("EgressMissing", "there is no link none0")
    assert floating(fabric)[0].inside == "?broken: none0 is missing"


@pytest.mark.machine
@needs_root
def test_what_lost_its_mark_is_nobodys_but_another_clusters_is_left_alone(kernel: Kernel) -> None:
    ours, theirs = kernel.fabric("c1"), kernel.fabric("c2")
    build(ours, *WHOLE)
    build(theirs, OTHER, OTHER_GATEWAY, replace(SECOND, network="u2", vni=0xA2))
    sh("ip", "netns", "del", "gw-0000a1")
    (stray,) = floating(ours)
    assert (stray.address, stray.uid) == (FLOATING.address, f"stray {FLOATING.address}")
    ours.remove_floating(stray)
    assert floating(ours) == [] and floating(theirs) == [replace(SECOND, network="u2", vni=0xA2)]
    assert sh("ip", "neigh", "show", "proxy").split()[0] == SECOND.address


def test_a_question_nobody_answers_ends(tmp_path: Path) -> None:
    assert arp.TRIES * arp.PAUSE < 1
