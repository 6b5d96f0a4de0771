"""What fails, and what goes on meanwhile: nodes, their cables, the store, agents, and what agents have built. Real guests watch.

The order does not matter: which node carries the gateway is looked up. Pauses are printed (`pytest -s`), and not judged.
"""
from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest

from machine.conftest import until

from .conftest import NODES, Cluster
from .kernel import Facts, agreed, seen
from .town import OUTSIDE, Guest, Town, page, town

__all__ = ["town"]
LEASE = 15.0
MEMBERS = ("etcd1", "etcd2", "etcd3")


def others(*nodes: str) -> list[str]:
    return [node for node in NODES if node not in nodes]


def witness(town: Town) -> Guest:
    """One of lan's, not where its gateway is; the floating IP leads there."""
    found = next(guest for guest in (town.b, town.a) if guest.node != town.carrier())
    town.lead(found.name)
    until(lambda: page(town.cloud, "outside", town.floating) == found.name, "the floating IP leads to the witness")
    return found


def boots(town: Town) -> dict[str, int]:
    return {guest.name: town.cloud.console(guest.shown).count("GUEST: READY") for guest in town.guests.values()}


def given(town: Town) -> dict[str, object]:
    """Addresses and MACs."""
    gateways = [town.cloud.get("networks", name)["binding"]["gateway"] for name in ("lan", "twin")]
    return {guest.name: town.cloud.get("instances", guest.name)["binding"] for guest in town.guests.values()} | {
        "gateways": [(gateway["address"], gateway["mac"], gateway["transit"]) for gateway in gateways],
        "floating": town.cloud.get("floating-ips", "front")["binding"]}


def moved(town: Town, old: str) -> str:
    until(lambda: town.carrier() != old, f"lan's gateway leaves {old}")
    return town.carrier()


def everybody_reaches_everything(town: Town, through: str) -> None:
    """`through`: the guest that the floating IP leads to."""
    assert town.a.reaches(town.b.address) and town.b.page(town.a.address) == "a"
    assert all("guest.qcow2" in guest.page(OUTSIDE) for guest in town.guests.values())
    assert page(town.cloud, "outside", town.floating) == through


@contextmanager
def paused(town: Town, what: str) -> Iterator[None]:
    """Asks the floating IP from outside all the while, and prints the longest time between two answers."""
    ask = 'stdbuf -oL ping -n -D -i 0.2 "$0" & cat; kill $!; wait'
    words = town.cloud.place("outside").argv("bash", "-c", ask, town.floating)
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as pinging:
        try:
            yield
        finally:
            said = pinging.communicate()[0]
    at = [float(moment) for moment in re.findall(r"^\[([0-9.]+)\] .*bytes from", said, re.MULTILINE)]
    print(f"\npause: floating IP, {what}: {max((after - before for before, after in pairwise(at)), default=-1):.1f} s")


@pytest.fixture(autouse=True)
def whole(cloud: Cluster) -> Iterator[None]:
    """Whatever a failing test leaves broken is not the next one's."""
    yield
    cloud.mend()


# --- a node is lost

def answers(guest: Guest) -> list[int]:
    """Numbers of the pings that were answered it."""
    return [int(number) for number in re.findall(r"seq=(\d+)", guest.run("cat /run/nat"))]


def test_what_leads_through_a_lost_node_leads_through_another_and_all_is_once_when_it_returns(town: Town) -> None:
    cloud, lost, found = town.cloud, town.carrier(), witness(town)
    before, booted = given(town), boots(town)
    there = [guest for guest in town.guests.values() if guest.node == lost]
    found.run(f"ping {OUTSIDE} > /run/nat 2>&1 & echo $! > /run/nat.pid")
    until(lambda: answers(found), "the outside answers")
    with paused(town, "the power off where its gateway is"):
        cloud.power_off(lost)
        new = moved(town, lost)
        until(lambda: page(cloud, "outside", town.floating) == found.name, "the floating IP leads there again")
        until(lambda: "guest.qcow2" in found.page(OUTSIDE), "the guest reaches the outside again")
    enough = len(answers(found))
    until(lambda: len(answers(found)) > enough, "it still asks, and is answered")
    found.run("kill $(cat /run/nat.pid)")
    print(f"pause: NAT, one ping a second: {max(after - before for before, after in pairwise(answers(found))) - 1} lost")
    agreed(cloud, *others(lost))
    for guest in there:
        assert cloud.get("instances", guest.name)["status"]["conditions"][0]["status"] == "Unknown"
        guest.hang_up()
    cloud.power_on(lost)
    for guest in there:
        cloud.booted(guest.shown, booted[guest.name] + 1)
    agreed(cloud)
    assert town.carrier() == new, "nothing moves back by itself"
    assert given(town) == before
    everybody_reaches_everything(town, found.name)


# --- a node that the store does not hear

def outside_facts(facts: Facts) -> set[str]:
    """All that is said without the floating addresses."""
    return {f"{kind} {line}" for kind, lines in facts.items() for line in lines if "192.0.2.1" not in line}


def test_a_node_cut_from_the_store_yields_its_addresses_and_keeps_the_rest(town: Town) -> None:
    cloud, cut, found = town.cloud, town.carrier(), witness(town)
    agreed(cloud)
    before, booted, bound = seen(cloud, cut), boots(town), given(town)
    assert before["answers"]
    cloud.cut(cut, "store")
    with paused(town, "its gateway cut from the store"):
        moved(town, cut)
        until(lambda: not seen(cloud, cut)["answers"], "the old carrier answers no more")
        until(lambda: page(cloud, "outside", town.floating) == found.name, "the new one does")
    assert outside_facts(seen(cloud, cut)) == outside_facts(before), "nothing else changed there"
    agreed(cloud, *others(cut))
    everybody_reaches_everything(town, found.name)
    cloud.heal(cut)
    agreed(cloud)
    everybody_reaches_everything(town, found.name)
    assert (boots(town), given(town)) == (booted, bound)


# --- no store at all

def test_without_the_store_all_that_is_there_goes_on(town: Town) -> None:
    cloud, carrier, found = town.cloud, town.carrier(), witness(town)
    agreed(cloud)
    before, booted, bound = [seen(cloud, node) for node in NODES], boots(town), given(town)
    with paused(town, "the store away"):
        for member in MEMBERS:
            cloud.kill(member)
        time.sleep(1.5 * LEASE)         # as long as it takes until every lease would be over
        assert cloud.call("GET", "/nodes").status_code == 503
        everybody_reaches_everything(town, found.name)
        assert [seen(cloud, node) for node in NODES] == before
        cloud.mend()
        until(lambda: cloud.call("GET", "/nodes").status_code == 200, "the store answers again")
    agreed(cloud)
    assert town.carrier() == carrier
    assert (boots(town), given(town)) == (booted, bound)


# --- agents, and what they have built

@pytest.mark.parametrize("how", [Cluster.stop, Cluster.kill], ids=["stopped", "killed"])
def test_an_agent_that_starts_again_finds_all_as_it_was_and_takes_no_step(town: Town, how: object) -> None:
    cloud, booted = town.cloud, boots(town)
    agreed(cloud)
    told = [cloud.events(kind, name) for kind, name in (("networks", "lan"), ("networks", "twin"), ("instances", "a"), ("instances", "c"))]
    assert callable(how)
    how(cloud, "agent1")
    assert town.a.reaches(town.b.address)
    cloud.start("agent1")
    until(lambda: all(cloud.ready("instances", name) for name in ("a", "c")), "the agent has looked at its guests")
    agreed(cloud)
    assert [cloud.events(kind, name) for kind, name in (("networks", "lan"), ("networks", "twin"), ("instances", "a"), ("instances", "c"))] == told
    assert boots(town) == booted


WIPE = """
pkill dnsmasq
for space in $(ip netns | cut -d' ' -f1); do ip netns del $space; done
for link in $(ip -o link | sed -n 's/^[0-9]*: \\(\\(br\\|vx\\|gi\\|go\\)-[0-9a-f]*\\).*/\\1/p'); do ip link del $link 2> /dev/null; done
for address in $(ip neigh show proxy | cut -d' ' -f1); do ip neigh del proxy $address dev eth1; done
nft flush ruleset
sysctl -qw net.ipv4.ip_forward=0
"""


def test_an_agent_that_finds_its_devices_wiped_makes_them_as_they_were_without_a_restart(town: Town) -> None:
    cloud, booted, bound = town.cloud, boots(town), given(town)
    agreed(cloud)
    for node in sorted({"n1", town.carrier()}):
        before = seen(cloud, node)
        cloud.stop(f"agent{node[1]}")
        cloud.place(node).run("bash", "-c", WIPE)
        assert not [line for line in seen(cloud, node)["links"] if line.startswith(("br-", "vx-", "go-", "gi-"))]
        cloud.start(f"agent{node[1]}")
        agreed(cloud)
        assert seen(cloud, node) == before
    until(lambda: page(cloud, "outside", town.floating), "the floating IP answers")
    everybody_reaches_everything(town, page(cloud, "outside", town.floating))
    assert (boots(town), given(town)) == (booted, bound)
