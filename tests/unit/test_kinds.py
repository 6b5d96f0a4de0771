"""What each kind makes of a world: who is given what, and which parts a node should have because of it."""
from __future__ import annotations

import ipaddress
import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paper import IMAGE, SMALL, Paper

from wisp.errors import Problem
from wisp.host import Disk, Domain, Floating, Gateway, Host, Part, Seed, Segment
from wisp.kinds import KINDS
from wisp.kinds.kind import upward
from wisp.resource import Ref, Resource, node_key
from wisp.store import Delete


def manifest(paper: Paper, resource: Resource, node: str) -> Host:
    found = paper.world.resource(resource.ref)
    assert found
    return Host.of(KINDS[found.ref.kind].manifest(found, paper.world, node))


def one(kind: type[Part], host: Host) -> Any:
    (part,) = (part for part in host if isinstance(part, kind))
    return part


def places(paper: Paper, resource: Resource) -> frozenset[str]:
    found = paper.world.resource(resource.ref)
    assert found
    return KINDS[found.ref.kind].places(found, paper.world)


def refusal(call: Any, *args: Any, **kwargs: Any) -> Problem:
    with pytest.raises(Problem) as refused:
        call(*args, **kwargs)
    return refused.value


# --- finding what is free

@given(st.text(), st.integers(1, 300), st.integers(0, 50))
def test_going_upward_visits_each_number_once(seed: str, count: int, first: int) -> None:
    assert sorted(upward(seed, first + count, first)) == list(range(first, first + count))


@given(st.text(), st.integers(2, 300))
def test_going_upward_begins_where_the_seed_says_and_goes_on_by_one(seed: str, size: int) -> None:
    way = list(upward(seed, size))
    assert way == list(upward(seed, size))
    assert all((after - before) % size == 1 for before, after in pairwise(way))


@given(st.sampled_from(["10.0.0.0/8", "10.1.0.0/16", "10.1.0.0/24", "10.1.0.8/29"]), st.from_regex(r"[a-z]{1,8}", fullmatch=True))
def test_an_address_is_a_hosts_and_never_the_gateways(cidr: str, name: str) -> None:
    paper = Paper()
    lan = paper.lan(cidr=cidr)
    given = paper.vm(name, networks=[{"network": "lan"}]).binding["interfaces"][0]
    network = ipaddress.IPv4Network(cidr)
    assert ipaddress.IPv4Address(given["address"]) in network
    assert given["address"] not in {str(network[0]), lan.binding["gateway"]["address"], str(network[-1])}
    assert lan.binding["gateway"]["address"] == str(network[1])
    assert int(given["mac"][:2], 16) & 3 == 2, "a unicast address, locally administered"


def test_asking_beforehand_foretells_the_address() -> None:
    paper = Paper()
    paper.lan()
    spec = {**SMALL, "networks": [{"network": "lan"}]}
    ref = Ref("instance", "web", "vm")
    foretold = paper.decide(ref, spec).after.binding
    assert paper.put(ref, spec).binding == foretold


def test_two_clusters_give_the_same_name_different_macs() -> None:
    one, two = Paper(), Paper()
    two.write("/wisp/v1/cluster", {"uid": "another"})
    for paper in (one, two):
        paper.lan()
    first, second = (paper.vm(networks=[{"network": "lan"}]).binding["interfaces"][0] for paper in (one, two))
    assert first["address"] == second["address"] and first["mac"] != second["mac"]


# --- placement

def test_the_emptiest_node_is_chosen_and_the_fullest_is_not() -> None:
    paper = Paper()
    given = [paper.vm(f"vm-{n}", memory_mib=1024).binding["node"] for n in range(4)]
    assert sorted(given) == ["n1", "n1", "n2", "n2"]


@pytest.mark.parametrize(("spec", "stage", "best"), [
    ({"cpus": 25}, "cpus", 24), ({"memory_mib": 4097}, "memory_mib", 4096), ({"disks": [{"size_gib": 60}, {"size_gib": 41}]}, "disk_gib", 100)])
def test_a_refusal_names_the_stage_and_the_best_there_is(spec: dict[str, Any], stage: str, best: int) -> None:
    problem = refusal(Paper().vm, **spec)
    assert problem.code == "no_capacity" and problem.extra["stage"] == stage and problem.extra["best_available"] == {stage: best}


def test_a_node_without_an_agent_or_with_a_cordon_takes_nothing() -> None:
    paper = Paper()
    paper.copy.commit([], [Delete(node_key("n1"))])
    assert paper.vm("one").binding["node"] == "n2"
    paper.put(Ref("node", "-", "n2"), {"cordoned": True})
    assert refusal(paper.vm, "two").extra["stage"] == "nodes"
    assert "n1" in refusal(paper.vm, "two", placement={"node": "n1"}).detail


def test_room_is_not_made_of_nodes_put_together() -> None:
    paper = Paper()
    paper.vm("one", memory_mib=4000)
    paper.vm("two", memory_mib=4000)
    assert refusal(paper.vm, "three", memory_mib=128).extra["best_available"] == {"memory_mib": 96}


# --- networks

def test_a_network_stands_where_its_instances_are_and_where_its_gateway_is() -> None:
    paper = Paper()
    lan = paper.lan()
    carrier = lan.binding["gateway"]["node"]
    assert places(paper, lan) == {carrier}
    (other,) = {"n1", "n2"} - {carrier}
    paper.vm(networks=[{"network": "lan"}], placement={"node": other})
    assert places(paper, lan) == {"n1", "n2"}
    here, there = manifest(paper, lan, carrier), manifest(paper, lan, other)
    assert one(Segment, here).peers == {paper.world.facts(other)["underlay"]}
    assert one(Gateway, here).nat and not [part for part in there if isinstance(part, Gateway)]


def test_a_network_without_nat_and_dhcp_needs_no_gateway_and_no_place_of_its_own() -> None:
    paper = Paper()
    lan = paper.lan(nat=False, dhcp=False)
    assert places(paper, lan) == frozenset()
    vm = paper.vm(networks=[{"network": "lan"}])
    assert [type(part) for part in manifest(paper, lan, vm.binding["node"])] == [Segment]


def test_gateways_are_spread_over_the_nodes() -> None:
    paper = Paper()
    carriers = [paper.lan(f"lan-{n}").binding["gateway"]["node"] for n in range(4)]
    assert sorted(carriers) == ["n1", "n1", "n2", "n2"]


def test_two_networks_of_equal_addresses_are_kept_apart() -> None:
    paper = Paper()
    one, two = paper.lan("one"), paper.lan("two", "shop")
    assert one.binding["vni"] != two.binding["vni"]
    assert all(one.binding["gateway"][what] != two.binding["gateway"][what] for what in ("mac", "transit"))


def test_a_network_made_while_no_node_lives_gets_its_gateway_when_one_does() -> None:
    paper = Paper()
    for node in ("n1", "n2"):
        paper.copy.commit([], [Delete(node_key(node))])
    lan = paper.lan()
    assert "node" not in lan.binding["gateway"] and places(paper, lan) == frozenset()
    assert KINDS["network"].rebind(lan, paper.world) is None
    paper.write(node_key("n2"), {"incarnation": "2"})
    assert KINDS["network"].rebind(lan, paper.world).binding["gateway"]["node"] == "n2"  # type: ignore[union-attr]


def test_a_lease_is_for_each_interface_also_of_those_who_name_the_network_in_full() -> None:
    paper = Paper()
    lan = paper.lan()
    paper.put(Ref("namespace", "-", "web"), {"trusts": ["shop"]})
    mine = paper.vm("mine", networks=[{"network": "lan"}, {"network": "web/lan"}])
    theirs = paper.vm("theirs", "shop", networks=[{"network": "web/lan"}])
    gateway = one(Gateway, manifest(paper, lan, lan.binding["gateway"]["node"]))
    given = {nic["address"] for vm in (mine, theirs) for nic in vm.binding["interfaces"]}
    assert {lease.address for lease in gateway.leases} == given and len(given) == 3


def test_a_lease_is_not_for_another_network_of_the_same_name() -> None:
    paper = Paper()
    lan, other = paper.lan(), paper.lan("lan", "shop", cidr="10.2.0.0/24")
    paper.put(Ref("namespace", "-", "web"), {"trusts": ["shop"]})
    paper.vm("vm", "shop", networks=[{"network": "lan"}, {"network": "web/lan"}])
    for network, prefix in ((lan, "10.1."), (other, "10.2.")):
        (lease,) = one(Gateway, manifest(paper, network, network.binding["gateway"]["node"])).leases
        assert lease.address.startswith(prefix)


# --- floating IPs

def served(paper: Paper) -> Resource:
    """An instance on a network, and a pool."""
    paper.put(Ref("pool", "-", "public"), {"cidr": "203.0.113.8/29"})
    paper.lan()
    return paper.vm(networks=[{"network": "lan"}])


def float_to(paper: Paper, name: str = "ip", **spec: Any) -> Resource:
    return paper.put(Ref("floating-ip", "web", name), {"pool": "public", **spec})


def lack(paper: Paper, resource: Resource) -> str:
    found = KINDS["floating-ip"].lack(resource, paper.world)
    return found.reason if found else ""


def test_a_floating_ip_stands_where_the_gateway_of_its_instances_network_is() -> None:
    paper = Paper()
    vm = served(paper)
    ip = float_to(paper, instance="vm")
    lan = paper.world.resource(Ref("network", "web", "lan"))
    assert lan and places(paper, ip) == {lan.binding["gateway"]["node"]} and lack(paper, ip) == ""
    part = one(Floating, manifest(paper, ip, lan.binding["gateway"]["node"]))
    assert part == Floating(ip.uid, lan.uid, lan.binding["vni"], ip.binding["address"], vm.binding["interfaces"][0]["address"])


def test_a_floating_ip_of_no_instance_has_no_place_and_lacks_nothing() -> None:
    paper = Paper()
    served(paper)
    ip = float_to(paper)
    assert places(paper, ip) == frozenset() and lack(paper, ip) == ""


def test_a_floating_ip_says_why_it_leads_nowhere() -> None:
    paper = Paper()
    vm = served(paper)
    ip = float_to(paper, instance="vm")
    paper.lan(nat=False)
    assert lack(paper, ip) == "NoNat"
    paper.lan()
    bound = dict(paper.world.record("/wisp/v1/binding/web/network/lan") or {})
    paper.write("/wisp/v1/binding/web/network/lan", {**bound, "gateway": {**bound["gateway"], "node": ""}})
    assert lack(paper, ip) == "Waiting"
    paper.commit(paper.retire(vm.ref))
    assert lack(paper, ip) == "Detached" and places(paper, ip) == frozenset()
    paper.vm()
    assert lack(paper, ip) == "NoInterface"


@pytest.mark.parametrize(("spec", "pointer"), [
    ({"address": "203.0.113.16"}, "/spec/address"), ({"instance": "vm", "interface": 1}, "/spec/interface"),
    ({"instance": "closed"}, "/spec/interface")])
def test_a_floating_ip_that_could_lead_nowhere_is_refused(spec: dict[str, Any], pointer: str) -> None:
    paper = Paper()
    served(paper)
    paper.lan("dark", nat=False)
    paper.vm("closed", networks=[{"network": "dark"}])
    problem = refusal(float_to, paper, **spec)
    assert problem.code == "invalid" and [fault.pointer for fault in problem.faults] == [pointer]


def test_a_detached_floating_ip_can_still_be_changed() -> None:
    paper = Paper()
    vm = served(paper)
    float_to(paper, instance="vm")
    paper.commit(paper.retire(vm.ref))
    assert float_to(paper, instance="vm", interface=3).spec["interface"] == 3
    assert refusal(float_to, paper, "late", instance="vm").code == "reference"


def test_every_address_of_a_pool_is_given_and_each_once() -> None:
    paper = Paper()
    served(paper)
    given = {float_to(paper, f"ip-{number}").binding["address"] for number in range(8)}
    assert given == {f"203.0.113.{number}" for number in range(8, 16)}
    assert refusal(float_to, paper, "late").code == "addresses_exhausted"
    assert refusal(float_to, paper, "late", address="203.0.113.8").code == "address_taken"


def test_a_floating_ip_gives_back_what_it_leaves() -> None:
    paper = Paper()
    served(paper)
    before = {entry.key for entry in paper.copy.scan("/wisp/v1/claim/")}
    paper.vm("other", networks=[{"network": "lan"}])
    ip = float_to(paper, instance="vm")
    assert refusal(float_to, paper, "second", instance="vm").code == "in_use"
    float_to(paper, instance="other")
    second = float_to(paper, "second", instance="vm")
    for each in (ip, second, Ref("instance", "web", "other")):
        paper.commit(paper.retire(each if isinstance(each, Ref) else each.ref))
    assert {entry.key for entry in paper.copy.scan("/wisp/v1/claim/")} == before


@pytest.mark.parametrize("cidr", ["100.64.0.0/24", "127.0.0.0/8", "224.0.0.0/24"])
def test_a_pool_of_addresses_with_a_meaning_of_their_own_is_refused(cidr: str) -> None:
    assert refusal(Paper().put, Ref("pool", "-", "public"), {"cidr": cidr}).code == "invalid"


# --- instances

def test_an_instance_is_disks_a_config_drive_and_a_domain() -> None:
    paper = Paper()
    lan, _ = paper.lan(), paper.image()
    vm = paper.vm(disks=[{"image": "guest", "size_gib": 4}, {"size_gib": 2, "bus": "scsi"}], networks=[{"network": "lan", "model": "e1000"}])
    parts = manifest(paper, vm, vm.binding["node"])
    assert sorted((part.index, part.size_gib, part.sha256, part.made) for part in parts if isinstance(part, Disk)) == [
        (0, 4, IMAGE["sha256"], False), (1, 2, "", False)]
    domain, seed = one(Domain, parts), one(Seed, parts)
    assert domain.disks == ("virtio", "scsi") and domain.seed == seed.digest and seed.user_data == ""
    assert domain.nics[0].bridge == f"br-{lan.binding['vni']:06x}" and domain.nics[0].model == "e1000"
    assert domain.name == f"web.vm.{vm.uid[:8]}"


def test_a_disk_that_its_node_has_made_is_known_to_have_been_made() -> None:
    paper = Paper()
    vm = paper.vm(disks=[{"size_gib": 1}, {"size_gib": 1}])
    paper.say(vm.ref, vm.binding["node"], disks_made=[1])
    parts = manifest(paper, vm, vm.binding["node"])
    assert sorted((part.index, part.made) for part in parts if isinstance(part, Disk)) == [(0, False), (1, True)]
    found = paper.world.resource(vm.ref)
    assert found and list(KINDS["instance"].settled(found)) == []
    paper.say(vm.ref, vm.binding["node"], disks_made=[0, 1])
    found = paper.world.resource(vm.ref)
    assert found and list(KINDS["instance"].settled(found)) == ["image"]


def test_the_config_drive_is_another_when_what_it_says_is_another() -> None:
    paper = Paper()
    paper.lan()
    vm = paper.vm(networks=[{"network": "lan"}])
    first = one(Seed, manifest(paper, vm, "n1")).digest
    paper.vm(networks=[{"network": "lan"}], power="off", memory_mib=128)
    assert one(Seed, manifest(paper, vm, "n1")).digest == first
    paper.lan(nat=False)
    assert one(Seed, manifest(paper, vm, "n1")).digest != first


def test_other_user_data_is_another_config_drive_and_its_text_is_not_in_it() -> None:
    digests = set()
    for text in ("one-secret", "two-secret", ""):
        paper = Paper()
        vm = paper.vm(**({"user_data": text} if text else {}))
        seed = one(Seed, manifest(paper, vm, "n1"))
        digests.add(seed.digest)
        assert "secret" not in str(seed) + str(seed.files) and bool(seed.user_data) == bool(text)
    assert len(digests) == 3


def test_only_the_first_network_with_nat_gets_the_default_route() -> None:
    paper = Paper()
    for name, nat in (("closed", False), ("one", True), ("two", True)):
        paper.lan(name, nat=nat)
    vm = paper.vm(networks=[{"network": "closed"}, {"network": "one"}, {"network": "two"}])
    files = dict(one(Seed, manifest(paper, vm, vm.binding["node"])).files)
    network_data = json.loads(files["openstack/latest/network_data.json"])
    assert [len(each["routes"]) for each in network_data["networks"]] == [0, 1, 0]
    assert [link["ethernet_mac_address"] for link in network_data["links"]] == [nic["mac"] for nic in vm.binding["interfaces"]]


def test_what_a_kind_is_given_goes_when_it_is_forgotten() -> None:
    paper = Paper()
    before = {entry.key for entry in paper.copy.scan("/wisp/v1/claim/")}
    lan, key = paper.lan(), paper.put(Ref("key", "web", "k"), {})
    vm = paper.vm(networks=[{"network": "lan"}, {"network": "lan"}], user_data="#!/bin/sh")
    assert len({entry.key for entry in paper.copy.scan("/wisp/v1/claim/")} - before) == 6
    for ref in (vm.ref, lan.ref, key.ref):
        paper.commit(paper.retire(ref))
    left = {entry.key for entry in paper.copy.scan("/wisp/v1/")}
    assert not [key for key in left if any(f"/{what}/" in key for what in ("claim", "ref", "key", "user_data")) and "/intent/" not in key]
