"""Networks over several nodes, with real guests: together where they belong together, apart where not, floating IPs that
answer everybody; nobody speaks as another; and every kernel as the documents say."""
from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from machine.conftest import small, until

from . import wire
from .kernel import agreed
from .town import OUTSIDE, Guest, Town, page, town

__all__ = ["town"]
STRANGER = "10.1.0.66"


# --- one network on several nodes, several networks on one

def test_guests_of_one_network_on_two_nodes_ping_each_other_and_speak_tcp(town: Town) -> None:
    assert town.a.reaches(town.b.address) and town.b.reaches(town.a.address)
    assert town.a.page(town.b.address) == "b" and town.b.page(town.a.address) == "a"


def test_what_fits_the_networks_mtu_passes_whole_and_nothing_longer(town: Town) -> None:
    assert "mtu 1450" in town.a.run("ip link show eth0")
    for guest in (town.a, town.b):
        assert town.cloud.reaches(town.cloud.get("networks", "lan"), guest.shown, "-M", "do", "-s", "1422")
        assert not town.cloud.reaches(town.cloud.get("networks", "lan"), guest.shown, "-M", "do", "-s", "1423")


def test_networks_of_equal_addresses_see_only_their_own(town: Town) -> None:
    assert town.a.page("10.1.0.8") == "b"
    assert town.c.page("10.1.0.8") == "c"
    assert not town.c.reaches("10.1.0.7"), "that one is on the other network"
    assert "c" in town.cloud.page(town.twin, town.c.shown) and "b" in town.cloud.page(town.lan, town.b.shown)


# --- the outside

def clients(cloud_log: Path) -> str:
    """Who asked the outside's web server last."""
    return cloud_log.read_text().splitlines()[-1].split()[0]


def test_guests_reach_the_outside_as_their_node_or_as_their_floating_ip(town: Town) -> None:
    log = town.cloud.directory / "log/web.log"
    for guest, comes_from in ((town.a, "192.0.2.11"), (town.b, town.floating), (town.c, "192.0.2.12")):
        assert "guest.qcow2" in guest.page(OUTSIDE)
        assert clients(log) == comes_from


def test_a_floating_ip_answers_the_outside_another_network_its_own_and_its_owner(town: Town) -> None:
    assert page(town.cloud, "outside", town.floating) == "b"
    assert [guest.page(town.floating) for guest in (town.c, town.a, town.b)] == ["b", "b", "b"]
    agreed(town.cloud)


def test_one_put_moves_a_floating_ip_to_another_network_and_gateway(town: Town) -> None:
    for name in ("c", "a", "b"):
        town.lead(name)
        assert page(town.cloud, "outside", town.floating) == name
        agreed(town.cloud)


def test_a_floating_ip_whose_instance_is_deleted_leads_nowhere_until_it_is_attached_again(town: Town) -> None:
    cloud = town.cloud
    cloud.put("instances", "brief", **small(power="off", disks=[{"size_gib": 1}]))
    town.lead("brief")
    agreed(cloud)
    cloud.gone("instances", "brief")
    agreed(cloud)
    assert cloud.get("floating-ips", "front")["binding"]["address"] == town.floating
    assert page(cloud, "outside", town.floating) == ""
    town.lead("b")
    assert page(cloud, "outside", town.floating) == "b"


def test_networks_that_come_and_go_leave_nothing(town: Town) -> None:
    cloud = town.cloud
    before = cloud.traces()
    for number in range(3):
        cloud.put("networks", f"brief-{number}", cidr="10.1.0.0/24", nat=number != 1, dhcp=number != 2)
        cloud.put("instances", f"brief-{number}", **small(
            power="off", disks=[{"size_gib": 1}], networks=[{"network": f"brief-{number}"}], placement={"node": f"n{number + 1}"}))
        cloud.ready("instances", f"brief-{number}")
    agreed(cloud)
    for kind in ("instances", "networks"):
        for number in range(3):
            cloud.gone(kind, f"brief-{number}")
    agreed(cloud)
    assert cloud.traces() == before


# --- who one is

def heard(guest: Guest, script: str) -> set[tuple[str, str, str]]:
    """(device, MAC, address) of every sender that was heard on the guest's node while it ran this."""
    words = guest.cloud.place(guest.node).argv(sys.executable, wire.__file__)
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as listening:
        assert listening.stdout and listening.stdout.readline() == "listening\n"
        guest.run(script)
        # an end mark may get lost, as any frame; one more is none too many
        until(lambda: (guest.run(f"ping -c 1 -W 2 -s {wire.LAST} 10.1.0.8"), listening.poll() is not None)[1], "the end mark is heard")
        return {(device, mac, address) for device, mac, address in (line.split(" ") for line in listening.stdout.read().splitlines())}


LIES = {
    "another MAC": lambda guest: (
        "ip link set eth0 down; ip link set eth0 address 02:66:66:66:66:66; ip link set eth0 up; ping -c 2 -W 1 10.1.0.8; "
        f"ip link set eth0 down; ip link set eth0 address {guest.mac}; ip link set eth0 up; ip route add default via 10.1.0.1"),
    "another address, said by ARP": lambda guest: (
        f"ip addr add {STRANGER}/32 dev eth0; ip neigh flush dev eth0; ping -c 2 -W 1 -I {STRANGER} 10.1.0.8; ip addr del {STRANGER}/32 dev eth0"),
    "another address, in a packet": lambda guest: (
        f"ping -c 1 -W 4 10.1.0.8; ip addr add {STRANGER}/32 dev eth0; ping -c 2 -W 1 -I {STRANGER} 10.1.0.8; ip addr del {STRANGER}/32 dev eth0"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_about_who_one_is_does_not_leave_the_tap(town: Town, lie: str) -> None:
    told: Callable[[Guest], str] = LIES[lie]
    senders = heard(town.a, told(town.a))
    lies = {device for device, mac, address in senders if mac == "02:66:66:66:66:66" or address == STRANGER}
    truth = {device for device, mac, address in senders if mac == town.a.mac and address == town.a.address}
    assert lies == {town.a.tap}
    assert truth > lies, "what is true does leave it"
    assert town.a.reaches(town.b.address)
