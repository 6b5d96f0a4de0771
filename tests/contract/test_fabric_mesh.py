"""What only the wire can tell of a mesh: two nodes joined by an underlay, and guests behind taps, some of whom lie."""
from __future__ import annotations

import json
import queue
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from fabricworld import FAR, GATE, HERE, OUTSIDE, TAP, UNDERLAY, KernelWorld, sh, within
from test_fabric import GATEWAY, SEGMENT, build, needs_root
from test_wire import can_connect, carry

from wisp.adapters import dnsmasq, links
from wisp.host import Lease, Segment, Station

pytestmark = [pytest.mark.machine, needs_root]

THERE = replace(SEGMENT, peers=frozenset({UNDERLAY}), stations=frozenset({
    Station(FAR.mac, "10.1.0.6"), *(replace(each, address="", underlay=UNDERLAY) for each in (HERE, GATE))}))
TWIN = Segment("u2", 0xA2, stations=frozenset({Station("52:54:00:00:00:15", "10.1.0.5")}))
ALL, VICTIM = "ff:ff:ff:ff:ff:ff", "10.1.0.9"
ARP, IPV4, IPV6, VLAN = 0x0806, 0x0800, 0x86DD, 0x8100
HELLO = struct.pack("!IHBB", 6 << 28, 0, 59, 64) + socket.inet_pton(socket.AF_INET6, "fe80::1") + socket.inet_pton(socket.AF_INET6, "ff02::1")


@pytest.fixture
def mesh(kernel: KernelWorld) -> KernelWorld:
    """SEGMENT on two nodes, with HERE as `guest` and FAR as `far`."""
    kernel.fabric().build_segment(SEGMENT)
    links.inside("outside", lambda: kernel.fabric_outside().build_segment(THERE))
    kernel.plug(SEGMENT.bridge, "10.1.0.5/24", mac=HERE.mac)
    kernel.plug(SEGMENT.bridge, "10.1.0.6/24", name="far", node="outside", mac=FAR.mac)
    return kernel


def fdb(node: str = "") -> set[tuple[str, str]]:
    """(MAC, node that frames to it go to) of the VXLAN device, and nothing that was learned."""
    said = within(node, "bridge", "-j", "fdb", "show", "dev", "vx-0000a1") if node else sh("bridge", "-j", "fdb", "show", "dev", "vx-0000a1")
    entries = [each for each in json.loads(said) if "dst" in each]
    assert all(each["state"] == "permanent" for each in entries), entries
    return {(each["mac"], each["dst"]) for each in entries}


def port_of(mac: str) -> set[str]:
    """Where the bridge believes this MAC to be."""
    return {each["ifname"] for each in json.loads(sh("bridge", "-j", "fdb", "show", "br", SEGMENT.bridge))
            if each["mac"] == mac and "master" in each and each.get("state") != "permanent"}


# --- the mesh

def test_guests_on_two_nodes_reach_each_other_and_the_mesh_learns_nothing(mesh: KernelWorld) -> None:
    within("guest", "ping", "-qc1", "-W5", "10.1.0.6")
    assert carry("far", "10.1.0.6", "guest") == "10.1.0.5"
    assert fdb() == {(links.EVERYWHERE, OUTSIDE), (FAR.mac, OUTSIDE)}
    assert fdb("outside") == {(links.EVERYWHERE, UNDERLAY), (HERE.mac, UNDERLAY), (GATE.mac, UNDERLAY)}
    assert port_of(FAR.mac) == {"vx-0000a1"} and port_of(HERE.mac) == {TAP}, "the bridges do learn"


def test_who_moves_is_followed_and_a_peer_that_goes_leaves_no_entry(kernel: KernelWorld) -> None:
    fabric, other = kernel.fabric(), "192.0.2.3"
    fabric.build_segment(SEGMENT)
    fabric.build_segment(replace(SEGMENT, peers=frozenset({other}), stations=frozenset({HERE, replace(FAR, underlay=other)})))
    assert fdb() == {(links.EVERYWHERE, other), (FAR.mac, other)}
    fabric.build_segment(replace(SEGMENT, peers=frozenset(), stations=frozenset({HERE})))
    assert fdb() == set()


@pytest.mark.parametrize("mtu", [1500, 9000])
def test_the_underlay_decides_how_large_a_frame_may_be(kernel: KernelWorld, mtu: int) -> None:
    sh("ip", "link", "set", "ul0", "mtu", str(mtu))
    within("outside", "ip", "link", "set", "eth0", "mtu", str(mtu))
    fabric = kernel.fabric()
    build(fabric, SEGMENT, GATEWAY)
    assert fabric.mtu() == mtu - 50
    assert {link["mtu"] for link in json.loads(sh("ip", "-j", "link")) if link["ifname"][:3] in ("br-", "vx-", "gi-", "go-")} == {mtu - 50}
    assert list(fabric.observe(None)) == [SEGMENT, GATEWAY]


def test_networks_of_equal_addresses_are_kept_apart_on_one_node(kernel: KernelWorld) -> None:
    build(kernel.fabric(), replace(SEGMENT, stations=frozenset({HERE, Station(FAR.mac, "10.1.0.6")})), TWIN)
    kernel.plug(SEGMENT.bridge, "10.1.0.5/24", name="one", mac=HERE.mac)
    kernel.plug(SEGMENT.bridge, "10.1.0.6/24", name="two", mac=FAR.mac)
    kernel.plug(TWIN.bridge, "10.1.0.5/24", name="twin", mac="52:54:00:00:00:15")
    assert can_connect("one", "10.1.0.6") and not can_connect("twin", "10.1.0.6")


# --- who lies

def frame(source: str, kind: int, body: bytes, to: str = ALL) -> bytes:
    return bytes.fromhex((to + source).replace(":", "")) + struct.pack("!H", kind) + body


def arp(source: str, mac: str, address: str) -> bytes:
    return frame(source, ARP, struct.pack("!HHBBH6s4s6s4s", 1, IPV4, 6, 4, 1, bytes.fromhex(mac.replace(":", "")),
                                          socket.inet_aton(address), b"", socket.inet_aton(VICTIM)))


def udp(address: str, ports: tuple[int, int] = (999, 999)) -> bytes:
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 0, 0, 64, 17, 0, socket.inet_aton(address), socket.inet_aton(VICTIM))
    return head + struct.pack("!HHHH", *ports, 8, 0)


HONEST = {
    "IPv4": frame(HERE.mac, IPV4, udp("10.1.0.5")),
    "ARP": arp(HERE.mac, HERE.mac, "10.1.0.5"),
    "an ARP probe": arp(HERE.mac, HERE.mac, "0.0.0.0"),
    "a DHCP question": frame(HERE.mac, IPV4, udp("0.0.0.0", (68, 67))),
    "IPv6": frame(HERE.mac, IPV6, HELLO),
}
LIES = {
    "another's MAC": frame(FAR.mac, IPV4, udp("10.1.0.5")),
    "the gateway's MAC": frame(GATE.mac, IPV6, HELLO),
    "another's address": frame(HERE.mac, IPV4, udp("10.1.0.6")),
    "the gateway's address": frame(HERE.mac, IPV4, udp("10.1.0.1")),
    "no address, and no DHCP": frame(HERE.mac, IPV4, udp("0.0.0.0")),
    "ARP with another's address": arp(HERE.mac, HERE.mac, "10.1.0.1"),
    "ARP with another's MAC": arp(HERE.mac, GATE.mac, "10.1.0.5"),
    "an address under a VLAN tag": frame(HERE.mac, VLAN, struct.pack("!HH", 0, IPV4) + udp("10.1.0.1")),
    "an unknown protocol": frame(HERE.mac, 0x88B5, b"hello"),
}


def say(namespace: str, *frames: bytes) -> None:
    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as speaking:
            speaking.bind(("eth0", 0))
            for each in frames:
                speaking.send(each)
    links.inside(namespace, send)


@contextmanager
def ear(namespace: str) -> Iterator[Callable[[bytes], set[bytes]]]:
    """To be called with the last frame that will come: all that came until then."""
    def listen() -> socket.socket:
        listening = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        listening.bind(("eth0", 3))
        listening.settimeout(10)
        return listening
    with links.inside(namespace, listen) as listening:
        def until(last: bytes) -> set[bytes]:
            heard: set[bytes] = set()
            while last not in heard:
                heard.add(listening.recv(2048))
            return heard
        yield until


LAST = frame("52:54:00:00:00:77", 0x88B5, b"the last")


def heard(kernel: KernelWorld, guest: str, bridge: str, *said: bytes) -> set[bytes]:
    """Of what a guest says, what arrives at another port of the bridge. The last word is somebody's whom nobody minds."""
    kernel.plug(bridge, name="ear")
    kernel.plug(bridge, name="crier")
    with ear("ear") as until:
        say(guest, *said)
        say("crier", LAST)
        return until(LAST) & set(said)


def test_what_a_guest_says_of_itself_passes_and_lies_do_not(mesh: KernelWorld) -> None:
    passed = heard(mesh, "guest", SEGMENT.bridge, *LIES.values(), *HONEST.values())
    assert {name for name, said in {**LIES, **HONEST}.items() if said in passed} == HONEST.keys()


def test_lies_do_not_reach_another_node_either(mesh: KernelWorld) -> None:
    mesh.plug(SEGMENT.bridge, name="crier")
    with ear("far") as until:
        say("guest", *LIES.values(), HONEST["IPv4"])
        say("crier", LAST)
        assert until(LAST) & {*LIES.values(), *HONEST.values()} == {HONEST["IPv4"]}


def test_a_lie_moves_nobody_in_the_bridge(mesh: KernelWorld) -> None:
    within("guest", "ping", "-qc1", "-W5", "10.1.0.6")
    say("guest", *LIES.values())
    within("guest", "ping", "-qc1", "-W5", "10.1.0.6")
    assert (port_of(FAR.mac), port_of(GATE.mac), port_of(HERE.mac)) == ({"vx-0000a1"}, set(), {TAP})


def test_nothing_passes_from_a_tap_that_nobody_told_of(mesh: KernelWorld) -> None:
    stranger = "52:54:00:00:00:44"
    mesh.plug(SEGMENT.bridge, name="stranger", mac=stranger)
    with ear("guest") as until, ear("far") as until_there:
        say("stranger", frame(stranger, IPV6, HELLO), frame(stranger, IPV4, udp("10.1.0.44")))
        mesh.plug(SEGMENT.bridge, name="crier")
        say("crier", LAST)
        assert not [said for said in until(LAST) | until_there(LAST) if said[6:12].hex(":") == stranger]


def test_who_is_here_does_not_speak_from_elsewhere(mesh: KernelWorld) -> None:
    """A gateway that has moved here and does not know it yet there: its frames come by VXLAN, and are not believed."""
    mesh.plug(SEGMENT.bridge, name="stale", node="outside")
    stale = frame(GATE.mac, IPV6, HELLO)
    with ear("guest") as until:
        say("stale", stale, LAST)
        assert stale not in until(LAST)
    assert port_of(GATE.mac) == set()


def test_a_segment_that_goes_leaves_the_others_their_rules(mesh: KernelWorld) -> None:
    fabric = mesh.fabric()
    fabric.build_segment(TWIN)
    mesh.plug(TWIN.bridge, "10.1.0.5/24", name="twin", mac="52:54:00:00:00:15")
    fabric.remove_segment(SEGMENT)
    assert list(fabric.observe(None)) == [TWIN]
    lie = frame("52:54:00:00:00:15", IPV4, udp("10.1.0.1"))
    assert heard(mesh, "twin", TWIN.bridge, lie) == set()


def test_taps_of_another_cluster_and_of_nobody_are_not_minded(mesh: KernelWorld) -> None:
    sh("ip", "link", "add", "br0", "type", "bridge")
    sh("ip", "link", "set", "br0", "up")
    mesh.plug("br0", name="foreign", mac="52:54:00:00:00:15")
    lie = frame("52:54:00:00:00:99", IPV4, udp("10.1.0.1"))
    assert heard(mesh, "foreign", "br0", lie) == {lie}
    mesh.fabric("c2").build_segment(TWIN)
    sh("ip", "link", "set", "t-525400000015", "master", TWIN.bridge)
    truth = frame("52:54:00:00:00:15", IPV4, udp("10.1.0.5"))
    for name in ("ear", "crier"):
        sh("ip", "link", "set", f"p-{name}", "master", TWIN.bridge)
    with ear("ear") as until:
        say("foreign", lie, truth)
        say("crier", LAST)
        assert until(LAST) & {lie, truth} == {truth}


def test_what_devices_left_behind_is_found_and_goes(kernel: KernelWorld) -> None:
    before = kernel.snapshot()
    kernel.fabric().build_segment(SEGMENT)
    for name in ("vx-0000a1", SEGMENT.bridge):
        sh("ip", "link", "del", name)
    fabric = kernel.fabric()
    (left,) = fabric.observe(None)
    assert isinstance(left, Segment) and left.uid == "u1" and left != SEGMENT
    fabric.remove_segment(left)
    assert kernel.snapshot() == before


def test_an_interface_that_changed_networks_speaks_on_the_new_one_alone(kernel: KernelWorld) -> None:
    fabric = kernel.fabric()
    build(fabric, SEGMENT)
    moved = replace(TWIN, stations=frozenset({HERE}))
    build(fabric, moved)
    assert moved in fabric.observe(None) and SEGMENT not in fabric.observe(None)
    build(fabric, replace(SEGMENT, stations=frozenset({FAR})))
    assert set(fabric.observe(None)) == {moved, replace(SEGMENT, stations=frozenset({FAR}))}


# --- names

def resolve(namespace: str, name: str) -> tuple[int, str]:
    """(code, address) that the gateway answers; code 0: there is one, 3: there is none, 5: it knows nobody to ask."""
    labels = b"".join(bytes([len(each)]) + each.encode() for each in name.split("."))

    def ask() -> tuple[int, str]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(1)
            for _ in range(30):
                asking.sendto(b"\x12\x34\x01\x00\0\1\0\0\0\0\0\0" + labels + b"\0\0\1\0\1", ("10.1.0.1", 53))
                with suppress(TimeoutError):
                    answer = asking.recv(512)
                    return answer[3] & 15, socket.inet_ntoa(answer[-4:]) if answer[7] else ""
            raise AssertionError("no answer")
    return links.inside(namespace, ask)


@contextmanager
def name_server(address: str, says: str) -> Iterator[None]:
    """One in the world outside that knows one address for every name."""
    within("outside", "ip", "addr", "add", f"{address}/32", "dev", "lo")
    sh("ip", "route", "add", address, "via", OUTSIDE)

    def serve() -> None:
        while len(asked := listening.recvfrom(512)[0:2]) == 2 and asked[0]:
            listening.sendto(asked[0][:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + asked[0][12:asked[0].index(b"\0", 12) + 5]
                             + b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton(says), asked[1])
    with links.inside("outside", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as listening:
        listening.bind((address, 53))
        serving = threading.Thread(target=serve)
        serving.start()
        yield
        with links.inside("outside", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as ending:
            ending.sendto(b"", (address, 53))
        serving.join()


def test_names_of_a_networks_instances_are_known_inside_it(kernel: KernelWorld) -> None:
    theirs = Lease(FAR.mac, "10.1.0.6", "db", "web.wisp.internal")
    fabric = kernel.fabric()
    build(fabric, SEGMENT, replace(GATEWAY, dns=(), nat=False, leases=GATEWAY.leases | {theirs}))
    guest = kernel.plug(SEGMENT.bridge, "10.1.0.5/24", mac=HERE.mac)
    assert [resolve(guest, name) for name in ("web", "web.shop.wisp.internal", "db.web.wisp.internal")] == [
        (0, "10.1.0.5"), (0, "10.1.0.5"), (0, "10.1.0.6")]
    assert resolve(guest, "db") == (3, ""), "a bare name is the network's own instances'"
    assert [resolve(guest, name) for name in ("gone.shop.wisp.internal", "example.org")] == [(3, ""), (5, "")]
    newcomer = Lease("52:54:00:00:00:07", "10.1.0.7", "db", "shop.wisp.internal")
    build(fabric, replace(GATEWAY, dns=(), nat=False, leases=GATEWAY.leases | {theirs, newcomer}))
    assert resolve(guest, "db") == (0, "10.1.0.7")


def test_other_names_are_asked_of_the_wished_servers_in_their_order(kernel: KernelWorld) -> None:
    build(kernel.fabric(), SEGMENT, GATEWAY)
    guest = kernel.plug(SEGMENT.bridge, "10.1.0.5/24", mac=HERE.mac)
    with name_server(GATEWAY.dns[0], "203.0.113.1"), name_server(GATEWAY.dns[1], "203.0.113.2"):
        assert resolve(guest, "example.org") == (0, "203.0.113.1")
        assert resolve(guest, "web") == (0, "10.1.0.5")
        assert resolve(guest, "nobody.shop.wisp.internal") == (3, ""), "no name of ours is asked elsewhere"


def test_without_a_wish_the_nodes_own_servers_are_asked(kernel: KernelWorld, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 192.0.2.53\n")
    monkeypatch.setattr(dnsmasq, "RESOLVERS", [tmp_path / "none", tmp_path / "resolv.conf"])
    build(kernel.fabric(), SEGMENT, replace(GATEWAY, dns=()))
    with name_server("192.0.2.53", "203.0.113.1"):
        assert resolve(kernel.plug(SEGMENT.bridge, "10.1.0.5/24", mac=HERE.mac), "example.org") == (0, "203.0.113.1")


def test_names_are_not_told_outside(kernel: KernelWorld) -> None:
    build(kernel.fabric(), SEGMENT, GATEWAY)
    listening = within(GATEWAY.namespace, "ss", "-Hlnu", "sport = 53").split()
    assert [each for each in listening if each.endswith(":53")] == ["10.1.0.1:53"]


def test_the_bell_rings_when_who_serves_them_ends(kernel: KernelWorld) -> None:
    fabric = kernel.fabric()
    build(fabric, SEGMENT, GATEWAY)
    rung: queue.Queue[str | None] = queue.Queue()
    fabric.watch(rung.put)
    for _ in range(2):
        assert list(fabric.observe(["u1"])) == [SEGMENT, GATEWAY]
        kernel.gateway_hands["dnsmasq killed"]()
        assert rung.get(timeout=20) == "u1"
        build(fabric, GATEWAY)
    fabric.close()


# --- the node itself

def test_a_guest_reaches_nothing_of_the_node_itself(kernel: KernelWorld) -> None:
    build(kernel.fabric(), SEGMENT, GATEWAY)
    guest = kernel.plug(SEGMENT.bridge, "10.1.0.5/24", "10.1.0.1", mac=HERE.mac)
    assert [can_connect(guest, to) for to in (OUTSIDE, UNDERLAY)] == [True, False]
    sh("ping", "-qc1", "-W5", GATEWAY.transit)
