"""What only the kernel and its wires can tell of a fabric: who gets an address, who reaches whom (needs root)."""
from __future__ import annotations

import errno
import queue
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from fabricworld import (
    MAC,
    OUTSIDE,
    UNDERLAY,
    KernelWorld,
    ask_dhcp,
    sh,
    within,
)
from test_fabric import GATEWAY, OTHER, OTHER_GATEWAY, SEGMENT, WHOLE, build, needs_root

from wisp.adapters import links
from wisp.adapters.fabric import KernelFabric
from wisp.errors import StepFailed
from wisp.host import Lease

pytestmark = [pytest.mark.machine, needs_root]


def test_dhcp_answers_whom_it_knows_and_nobody_else(kernel: KernelWorld) -> None:
    build(kernel.fabric(), *WHOLE)
    answers = ask_dhcp(kernel.plug(SEGMENT.bridge), "52:54:00:00:00:66", MAC)
    assert answers.keys() == {MAC}
    assert socket.inet_ntoa(answers[MAC]["address"]) == "10.1.0.5"
    assert answers[MAC] | {"address": b""} == answers[MAC] | {
        "address": b"", 1: b"\xff\xff\xff\0", 3: socket.inet_aton("10.1.0.1"), 12: b"web", 26: b"\x05\xaa",
        6: socket.inet_aton("10.1.0.1"), 15: b"shop.wisp.internal"}


def test_without_nat_dhcp_names_no_way_out(kernel: KernelWorld) -> None:
    build(kernel.fabric(), SEGMENT, replace(GATEWAY, nat=False, dns=()))
    assert 3 not in ask_dhcp(kernel.plug(SEGMENT.bridge), MAC)[MAC]


def test_an_address_serves_the_next_instance_at_once(kernel: KernelWorld) -> None:
    fabric, guest, heir = kernel.fabric(), "guest", "52:54:00:00:00:06"
    build(fabric, *WHOLE)
    ask_dhcp(kernel.plug(SEGMENT.bridge, name=guest), MAC)
    fabric.build_gateway(replace(GATEWAY, leases=frozenset({Lease(heir, "10.1.0.5", "db")})))
    assert socket.inet_ntoa(ask_dhcp(guest, heir)[heir]["address"]) == "10.1.0.5"


@pytest.mark.parametrize("hand", ["inside plug deleted", "namespace deleted", "dnsmasq killed"])
def test_dhcp_answers_again_once_it_is_mended(kernel: KernelWorld, hand: str) -> None:
    fabric = kernel.fabric()
    build(fabric, *WHOLE)
    kernel.gateway_hands[hand]()
    build(fabric, GATEWAY)
    assert MAC in ask_dhcp(kernel.plug(SEGMENT.bridge), MAC)


def test_a_new_lease_does_not_start_dnsmasq_anew(kernel: KernelWorld) -> None:
    fabric, newcomer = kernel.fabric(), "52:54:00:00:00:06"
    build(fabric, *WHOLE)
    before = kernel.processes()
    fabric.build_gateway(replace(GATEWAY, leases=GATEWAY.leases | {Lease(newcomer, "10.1.0.6", "db")}))
    assert kernel.processes() == before
    assert socket.inet_ntoa(ask_dhcp(kernel.plug(SEGMENT.bridge), newcomer)[newcomer]["address"]) == "10.1.0.6"


def seen_outside(guest: str) -> str:
    """The address from which a connection of the guest reaches the outside."""
    return carry("outside", OUTSIDE, guest)


def carry(server: str, address: str, client: str) -> str:
    """Sends 100,000 bytes from one namespace to another; returns the address they seem to come from."""
    with (links.inside(server, lambda: socket.create_server((address, 0))) as listening,
          links.inside(client, lambda: socket.create_connection(listening.getsockname(), 10)) as sending):
        receiving, peer = listening.accept()
        with receiving:
            sending.sendall(b"x" * 100_000)
            sending.shutdown(socket.SHUT_WR)
            assert sum(len(chunk) for chunk in iter(lambda: receiving.recv(65536), b"")) == 100_000
    return str(peer[0])


def test_nat_carries_a_guest_outside_as_the_node(kernel: KernelWorld) -> None:
    build(kernel.fabric(), *WHOLE)
    assert seen_outside(kernel.plug(SEGMENT.bridge, "10.1.0.5/24", "10.1.0.1")) == UNDERLAY


def test_guests_with_the_same_address_on_two_networks_both_get_out(kernel: KernelWorld) -> None:
    build(kernel.fabric(), *WHOLE, OTHER, OTHER_GATEWAY)
    for name, segment in (("g1", SEGMENT), ("g2", OTHER)):
        assert seen_outside(kernel.plug(segment.bridge, "10.1.0.5/24", "10.1.0.1", name)) == UNDERLAY


def can_connect(namespace: str, address: str) -> bool:
    """Whether an answer, even a refusal, comes back."""
    def attempt() -> bool:
        try:
            socket.create_connection((address, 9), 1).close()
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
        return True
    return links.inside(namespace, attempt)


def test_a_guest_reaches_the_world_but_no_other_network(kernel: KernelWorld) -> None:
    build(kernel.fabric(), *WHOLE, OTHER, OTHER_GATEWAY)
    guest = kernel.plug(SEGMENT.bridge, "10.1.0.5/24", "10.1.0.1")
    assert [can_connect(guest, to) for to in (OUTSIDE, OTHER_GATEWAY.transit)] == [True, False]


def test_the_outside_does_not_come_in(kernel: KernelWorld) -> None:
    build(kernel.fabric(), *WHOLE)
    kernel.plug(SEGMENT.bridge, "10.1.0.5/24", "10.1.0.1")
    within("outside", "ip", "route", "add", "10.1.0.0/24", "via", UNDERLAY)
    sh("ip", "route", "add", "10.1.0.0/24", "via", GATEWAY.transit)
    assert not can_connect("outside", "10.1.0.5")


def test_without_nat_nothing_leaves(kernel: KernelWorld) -> None:
    build(kernel.fabric(), SEGMENT, replace(GATEWAY, nat=False))
    assert not can_connect(kernel.plug(SEGMENT.bridge, "10.1.0.5/24", "10.1.0.1"), OUTSIDE)


def test_two_nodes_carry_one_network_and_no_frame_too_large(kernel: KernelWorld) -> None:
    here, there = kernel.fabric(), kernel.fabric_outside()
    here.build_segment(SEGMENT)
    links.inside("outside", lambda: there.build_segment(replace(SEGMENT, peers=frozenset({UNDERLAY}))))
    near = kernel.plug(SEGMENT.bridge, "10.1.0.5/24")
    far = kernel.plug(SEGMENT.bridge, "10.1.0.6/24", name="far", node="outside")
    assert carry(far, "10.1.0.6", near) == "10.1.0.5"
    within(near, "ping", "-qc1", "-Mdo", "-s1422", "10.1.0.6")
    with pytest.raises(subprocess.CalledProcessError):
        within(near, "ping", "-qc1", "-Mdo", "-s1423", "10.1.0.6")


def test_a_lone_node_stands_on_loopback(kernel: KernelWorld) -> None:
    fabric = KernelFabric("c1", kernel.state, "127.0.0.1")
    build(fabric, SEGMENT)
    assert (fabric.mtu(), list(fabric.observe(None))) == (1450, [SEGMENT])


def test_an_underlay_address_that_nothing_carries_is_said(kernel: KernelWorld) -> None:
    with pytest.raises(StepFailed, match=r"no link carries the underlay address 192\.0\.2\.99"):
        KernelFabric("c1", kernel.state, "192.0.2.99").mtu()


def test_work_cut_off_before_its_mark_is_taken_on(kernel: KernelWorld) -> None:
    sh("ip", "link", "add", SEGMENT.bridge, "type", "bridge")
    sh("ip", "link", "add", "vx-0000a1", "type", "vxlan", "id", "161", "local", UNDERLAY, "dstport", "4789",
       "dev", "ul0", "nolearning")
    sh("ip", "netns", "add", GATEWAY.namespace)
    fabric = kernel.fabric()
    build(fabric, *WHOLE)
    assert list(fabric.observe(None)) == WHOLE


def test_who_listens_to_the_kernel_stumbles_and_goes_on(kernel: KernelWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "PAUSE", 0.01)
    told: queue.Queue[str | None] = queue.Queue()
    stumbles = [OSError(errno.EMFILE, "Too many open files")]

    def heard(alias: str | None) -> None:
        if stumbles:
            raise stumbles.pop()
        told.put(alias)

    watcher = links.Watcher(heard)
    sh("ip", "link", "set", "lo", "mtu", "1400")
    assert told.get(timeout=20) is None
    sh("ip", "link", "set", "ul0", "alias", "after all")
    while told.get(timeout=20) != "after all":
        pass
    watcher.close()


def test_frames_of_guests_pass_no_iptables_of_the_node_and_that_is_said_once(
        kernel: KernelWorld, caplog: pytest.LogCaptureFixture) -> None:
    switch = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if not switch.exists():
        pytest.skip("NOT TESTED: the kernel passes no bridged frames to iptables")
    switch.write_text("1")
    build(kernel.fabric(), SEGMENT, OTHER)
    assert switch.read_text() == "0\n"
    assert [record.getMessage().split()[0] for record in caplog.records] == ["bridge-nf-call-iptables"]
