"""A network over three simulated nodes: every node that holds a part of it knows who is where, at once."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from simulated import LAN, SMALL, Cloud, Make

from wisp.fakes.fabric import FakeKernel
from wisp.host import Domain, Gateway, Segment, Station
from wisp.resource import claim_key

NODES = ("n1", "n2", "n3")
UNDERLAYS = {name: f"192.0.2.{name[1:]}" for name in NODES}


@pytest.fixture
def cloud(clouds: Make) -> Cloud:
    return clouds(nodes=3)


def boot(cloud: Cloud, name: str, node: str, network: str = "lan", **spec: Any) -> dict[str, Any]:
    """What its interface was given."""
    cloud.put("instance", name, {**SMALL, "networks": [{"network": network}], "placement": {"node": node}, **spec})
    given: dict[str, Any] = cloud.ready("instance", name)["binding"]["interfaces"][0]
    return given


def segment(cloud: Cloud, node: str) -> Segment:
    part: Segment = cloud.rooms[node].only(Segment)
    return part


def knows(cloud: Cloud, node: str, *stations: Station) -> None:
    cloud.until(lambda: [part.stations for part in cloud.rooms[node].parts(Segment)] == [frozenset(stations)], f"{node} to know")


def undisturbed(cloud: Cloud) -> None:
    """From now on nobody looks at everything: what is found is found because somebody rang."""
    cloud.settle()
    for agent in cloud.service.agents.values():
        agent.bell.ring_all = lambda: None  # type: ignore[method-assign]


def test_who_comes_to_one_node_is_known_on_the_others_without_anybody_looking(cloud: Cloud) -> None:
    cloud.put("network", "lan", {**LAN, "nat": False, "dhcp": False})
    one = boot(cloud, "one", "n1")
    knows(cloud, "n1", Station(one["mac"], one["address"]))
    undisturbed(cloud)
    two = boot(cloud, "two", "n2")
    knows(cloud, "n1", Station(one["mac"], one["address"]), Station(two["mac"], underlay=UNDERLAYS["n2"]))
    knows(cloud, "n2", Station(two["mac"], two["address"]), Station(one["mac"], underlay=UNDERLAYS["n1"]))
    assert (segment(cloud, "n1").peers, segment(cloud, "n2").peers) == ({UNDERLAYS["n2"]}, {UNDERLAYS["n1"]})
    assert cloud.rooms["n3"].parts(Segment) == []


def test_who_goes_is_forgotten_on_the_others(cloud: Cloud) -> None:
    cloud.put("network", "lan", {**LAN, "nat": False, "dhcp": False})
    one = boot(cloud, "one", "n1")
    boot(cloud, "two", "n2")
    undisturbed(cloud)
    cloud.delete("instance", "two")
    cloud.gone("instance", "two")
    knows(cloud, "n1", Station(one["mac"], one["address"]))
    cloud.until(lambda: segment(cloud, "n1").peers == set())
    cloud.until(lambda: cloud.rooms["n2"].parts(Segment) == [])


def test_everybody_knows_where_the_gateway_is(cloud: Cloud) -> None:
    gateway = cloud.put("network", "lan", LAN).document["binding"]["gateway"]
    (away, *_) = sorted(set(NODES) - {gateway["node"]})
    undisturbed(cloud)
    given = boot(cloud, "vm", away)
    knows(cloud, away, Station(given["mac"], given["address"]), Station(gateway["mac"], underlay=UNDERLAYS[gateway["node"]]))
    knows(cloud, gateway["node"], Station(given["mac"], underlay=UNDERLAYS[away]), Station(gateway["mac"]))


def test_a_network_of_the_same_addresses_knows_only_its_own(cloud: Cloud) -> None:
    for name in ("lan", "twin"):
        cloud.put("network", name, {**LAN, "nat": False, "dhcp": False})
    mine, theirs = boot(cloud, "mine", "n1"), boot(cloud, "theirs", "n1", "twin")
    cloud.settle()
    assert {part.stations for part in cloud.rooms["n1"].parts(Segment)} == {
        frozenset({Station(mine["mac"], mine["address"])}), frozenset({Station(theirs["mac"], theirs["address"])})}


def test_what_others_do_to_stations_is_made_good(cloud: Cloud) -> None:
    cloud.put("network", "lan", LAN)
    boot(cloud, "one", "n1")
    cloud.settle()
    before = segment(cloud, "n1")
    cloud.rooms["n1"].kernel.stations.clear()
    cloud.settle()
    assert segment(cloud, "n1") == before and cloud.rooms["n1"].only(Domain).power == "on"


# --- another cloud on the same host

def occupy(cloud: Cloud, node: str, verb: str, take: Callable[[FakeKernel, Any], None]) -> None:
    """Somebody else takes what the next step of this kind on a node would have taken, just before."""
    room, first = cloud.rooms[node], [True]

    def between(done: str, args: tuple[Any, ...], go_on: Callable[[], Any]) -> Any:
        if done == verb and first:
            first.clear()
            take(room.kernel, args[0])
        return go_on()
    room.between = between


def take_vni(kernel: FakeKernel, segment: Segment) -> None:
    kernel.marks[f"vx-{segment.vni:06x}"] = "another:u9"


def take_transit(kernel: FakeKernel, gateway: Gateway) -> None:
    kernel.gateways["gw-ffffff"] = replace(gateway, uid="u9", vni=0xFFFFFF)


def test_a_vni_that_another_cloud_has_is_drawn_again(cloud: Cloud) -> None:
    occupy(cloud, "n1", "build_segment", take_vni)
    drawn = cloud.put("network", "lan", LAN).document["binding"]["vni"]
    shown = cloud.ready("network", "lan")
    assert shown["binding"]["vni"] != drawn
    assert segment(cloud, "n1").vni == shown["binding"]["vni"]
    assert "bound anew" in cloud.events("network", "lan")
    assert claims(cloud, "vni") == {str(shown["binding"]["vni"])} and cloud.orphans() == []


def test_a_transit_address_that_another_cloud_has_is_drawn_again(cloud: Cloud) -> None:
    occupy(cloud, "n1", "build_gateway", take_transit)
    drawn = cloud.put("network", "lan", LAN).document["binding"]["gateway"]["transit"]
    shown = cloud.ready("network", "lan")["binding"]["gateway"]["transit"]
    assert shown != drawn and claims(cloud, "transit") == {shown} and cloud.orphans() == []


def test_a_new_vni_takes_the_old_segment_away_elsewhere(cloud: Cloud) -> None:
    gateway = cloud.put("network", "lan", LAN).document["binding"]["gateway"]
    old = cloud.ready("network", "lan")["binding"]["vni"]
    (away, *_) = sorted(set(NODES) - {gateway["node"]})
    occupy(cloud, away, "build_segment", take_vni)
    boot(cloud, "vm", away)
    new = cloud.ready("network", "lan")["binding"]["vni"]
    assert new != old
    cloud.settle()
    for node in (gateway["node"], away):
        assert [part.vni for part in cloud.rooms[node].parts(Segment)] == [new]
    assert cloud.rooms[gateway["node"]].only(Gateway).vni == new
    assert cloud.rooms[away].only(Domain).nics[0].bridge == f"br-{new:06x}"


def test_no_vni_is_drawn_again_under_a_machine_that_runs(cloud: Cloud) -> None:
    cloud.put("network", "lan", {**LAN, "nat": False, "dhcp": False})
    boot(cloud, "one", "n1")
    vni = cloud.get("network", "lan")["binding"]["vni"]
    occupy(cloud, "n2", "build_segment", take_vni)
    cloud.put("instance", "two", {**SMALL, "networks": [{"network": "lan"}], "placement": {"node": "n2"}})
    cloud.said("network", "lan", "Ready", "VniTaken")
    cloud.said("instance", "two", "Ready", "Waiting")
    assert cloud.get("network", "lan")["binding"]["vni"] == vni
    cloud.put("instance", "one", {**SMALL, "networks": [{"network": "lan"}], "placement": {"node": "n1"}, "power": "off"})
    cloud.ready("instance", "one")
    cloud.put("network", "lan", {**LAN, "nat": False, "dhcp": False}, metadata={"now": "please"})
    cloud.ready("instance", "two")
    assert cloud.get("network", "lan")["binding"]["vni"] != vni


def claims(cloud: Cloud, what: str) -> set[str]:
    prefix = claim_key(what, "")
    return {key.removeprefix(prefix) for key in cloud.raw_keys() if key.startswith(prefix)}
