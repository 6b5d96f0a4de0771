"""Whom each node takes to be on a network, and where: what FDB entries, spoofing rules, leases and names come from."""
from __future__ import annotations

import json
from typing import Any

import pytest
from paper import Paper

from wisp.host import Gateway, Host, Lease, Seed, Segment, Station
from wisp.kinds import KINDS
from wisp.resource import Ref, Resource
from wisp.steps import plan

UNDERLAY = {"n1": "192.0.2.1", "n2": "192.0.2.2"}


@pytest.fixture
def paper() -> Paper:
    return Paper()


def part(paper: Paper, kind: Any, resource: Resource, node: str) -> Any:
    found = paper.world.resource(resource.ref)
    assert found
    (one,) = (each for each in KINDS[found.ref.kind].manifest(found, paper.world, node) if isinstance(each, kind))
    return one


def stations(paper: Paper, lan: Resource, node: str) -> frozenset[Station]:
    segment: Segment = part(paper, Segment, lan, node)
    return segment.stations


def on(paper: Paper, node: str, name: str, network: str = "lan", **spec: Any) -> dict[str, Any]:
    """What the one interface of a new instance on this node was given."""
    given: dict[str, Any] = paper.vm(name, networks=[{"network": network}], placement={"node": node}, **spec).binding["interfaces"][0]
    return given


def test_who_is_here_has_an_address_and_who_is_elsewhere_a_node(paper: Paper) -> None:
    lan = paper.lan(nat=False, dhcp=False)
    mine, other = on(paper, "n1", "mine"), on(paper, "n2", "other")
    assert stations(paper, lan, "n1") == {Station(mine["mac"], mine["address"]), Station(other["mac"], underlay=UNDERLAY["n2"])}
    assert stations(paper, lan, "n2") == {Station(other["mac"], other["address"]), Station(mine["mac"], underlay=UNDERLAY["n1"])}


def test_the_gateway_is_known_to_be_on_the_node_it_is_bound_to(paper: Paper) -> None:
    lan = paper.lan()
    gateway = lan.binding["gateway"]
    away, = {"n1", "n2"} - {gateway["node"]}
    on(paper, away, "vm")
    assert Station(gateway["mac"]) in stations(paper, lan, gateway["node"])
    assert Station(gateway["mac"], underlay=UNDERLAY[gateway["node"]]) in stations(paper, lan, away)


def test_a_network_without_a_gateway_knows_none(paper: Paper) -> None:
    lan = paper.lan(nat=False, dhcp=False)
    mine = on(paper, "n1", "mine")
    assert stations(paper, lan, "n1") == {Station(mine["mac"], mine["address"])}


def test_each_interface_counts_on_its_own_network(paper: Paper) -> None:
    lan, dmz = paper.lan(nat=False, dhcp=False), paper.lan("dmz", cidr="10.2.0.0/24", nat=False, dhcp=False)
    vm = paper.vm(networks=[{"network": name} for name in ("lan", "dmz", "lan")])
    first, second, third = (Station(given["mac"], given["address"]) for given in vm.binding["interfaces"])
    node = vm.binding["node"]
    assert (stations(paper, lan, node), stations(paper, dmz, node)) == ({first, third}, {second})


def test_who_is_being_taken_down_is_still_there(paper: Paper) -> None:
    lan = paper.lan(nat=False, dhcp=False)
    vm = Ref("instance", "web", "vm")
    on(paper, "n1", vm.name)
    paper.say(vm, "n1")
    before = stations(paper, lan, "n1")
    paper.commit(paper.retire(vm))
    assert stations(paper, lan, "n1") == before != set()


def test_a_node_that_has_not_said_where_it_is_is_left_out(paper: Paper) -> None:
    lan = paper.lan(nat=False, dhcp=False)
    on(paper, "n1", "mine"), on(paper, "n2", "other")
    paper.write("/wisp/v1/status/-/node/n2/n2", {})
    segment = part(paper, Segment, lan, "n1")
    assert segment.peers == frozenset() and [station.underlay for station in segment.stations] == [""]


def test_a_machine_does_not_start_before_its_segment_knows_it(paper: Paper) -> None:
    lan = paper.lan()
    vm = paper.vm(networks=[{"network": "lan"}])
    node = vm.binding["node"]
    want, segment = Host.of(KINDS["instance"].manifest(vm, paper.world, node)), part(paper, Segment, lan, node)
    bare = Host.of([Segment(segment.uid, segment.vni, segment.peers)])
    assert [wait.what for wait in plan(want, Host(), bare).waits] == [f"segment {segment.bridge}"]
    assert "start domain" in str(plan(want, Host(), Host.of([segment])).steps[-1])


# --- names

def test_a_lease_says_in_which_namespace_its_instance_is(paper: Paper) -> None:
    lan = paper.lan(dns_servers=["9.9.9.9"])
    paper.put(Ref("namespace", "-", "web"), {"trusts": ["shop"]})
    mine, theirs = on(paper, "n1", "mine"), paper.vm("theirs", "shop", networks=[{"network": "web/lan"}]).binding["interfaces"][0]
    gateway = part(paper, Gateway, lan, lan.binding["gateway"]["node"])
    assert gateway.domain == "web.wisp.internal" and gateway.dns == ("9.9.9.9",)
    assert gateway.leases == {Lease(mine["mac"], mine["address"], "mine", "web.wisp.internal"),
                              Lease(theirs["mac"], theirs["address"], "theirs", "shop.wisp.internal")}


def test_without_dhcp_a_gateway_serves_nothing_whatever_is_wished(paper: Paper) -> None:
    lan = paper.lan(dhcp=False, dns_servers=["9.9.9.9"])
    on(paper, "n1", "vm")
    gateway = part(paper, Gateway, lan, lan.binding["gateway"]["node"])
    assert (gateway.dns, gateway.domain, gateway.leases) == ((), "", frozenset())


@pytest.mark.parametrize(("dhcp", "told"), [(True, ["10.1.0.1"]), (False, ["9.9.9.9", "9.9.9.10"])])
def test_the_config_drive_names_the_gateway_for_dns_or_without_dhcp_the_wished_servers(paper: Paper, dhcp: bool, told: list[str]) -> None:
    paper.lan(dhcp=dhcp, dns_servers=["9.9.9.9", "9.9.9.10"])
    seed = part(paper, Seed, paper.vm(networks=[{"network": "lan"}]), "n1")
    services = json.loads(dict(seed.files)["openstack/latest/network_data.json"])["services"]
    assert [service["address"] for service in services] == told
