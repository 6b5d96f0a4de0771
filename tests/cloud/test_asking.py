"""What a caller can rely on when asking: once is enough, many at once are no worse, and limits are exact."""
from __future__ import annotations

import ipaddress
from collections import Counter
from functools import partial

import pytest
from simulated import BOOTED, IMAGE, LAN, SMALL, Cloud, Make, at_once, codes

from wisp.errors import Problem
from wisp.host import Domain
from wisp.resource import PREFIX
from wisp.store import under


def test_asking_twice_is_asking_once(cloud: Cloud) -> None:
    for kind, name, spec in (("network", "lan", LAN), ("image", "guest", IMAGE), ("instance", "vm", BOOTED)):
        first = cloud.put(kind, name, spec)
        cloud.ready(kind, name)
        cloud.settle()
        revision = cloud.store.revision()
        again = cloud.put(kind, name, spec)
        assert (again.etag, again.created) == (first.etag, False)
        assert cloud.store.revision() == revision


def test_a_default_written_out_is_no_change(cloud: Cloud) -> None:
    first = cloud.put("network", "lan", LAN)
    assert cloud.put("network", "lan", {**LAN, "dhcp": True, "nat": True, "dns_servers": []}).etag == first.etag


def test_fifty_who_ask_for_one_name_get_one_instance(cloud: Cloud) -> None:
    cloud.put("network", "lan", LAN)
    spec = {**SMALL, "networks": [{"network": "lan"}]}
    outcomes = at_once([partial(cloud.put, "instance", "vm", spec)] * 50)
    assert codes(outcomes) == []
    assert Counter(outcome.created for outcome in outcomes) == {True: 1, False: 49}
    assert len({outcome.document["uid"] for outcome in outcomes}) == 1
    cloud.ready("instance", "vm")
    assert len(cloud.room.parts(Domain)) == 1


def test_fifty_who_ask_for_different_things_under_one_name_all_find_their_turn(cloud: Cloud) -> None:
    outcomes = at_once([partial(cloud.put, "network", "lan", LAN, metadata={"turn": str(n)}) for n in range(50)])
    assert codes(outcomes) == []
    assert cloud.get("network", "lan")["generation"] == 50


def test_a_full_network_has_given_every_usable_address_once_and_never_the_gateways(cloud: Cloud) -> None:
    cidr = ipaddress.IPv4Network("10.9.0.0/29")
    usable = {str(address) for address in cidr.hosts()} - {str(cidr[1])}
    cloud.put("network", "tiny", {"cidr": str(cidr)})
    spec = {**SMALL, "networks": [{"network": "tiny"}]}
    outcomes = at_once([partial(cloud.put, "instance", f"vm-{n}", spec) for n in range(8)])
    given = [outcome.document["binding"]["interfaces"][0]["address"] for outcome in outcomes if not isinstance(outcome, Problem)]
    assert sorted(given) == sorted(usable)
    assert codes(outcomes) == ["addresses_exhausted"] * 3
    assert cloud.refusal("instance", "late", spec).code == "addresses_exhausted"
    names = [outcome.document["name"] for outcome in outcomes if not isinstance(outcome, Problem)]
    for name in names:
        cloud.delete("instance", name)
    for name in names:
        cloud.gone("instance", name)
    assert not any(key.startswith(f"{PREFIX}claim/address/") for key in cloud.recorded())
    assert cloud.orphans() == []
    again = at_once([partial(cloud.put, "instance", f"again-{n}", spec) for n in range(5)])
    assert {outcome.document["binding"]["interfaces"][0]["address"] for outcome in again} == usable


@pytest.mark.parametrize("address", ["10.1.0.0", "10.1.0.1", "10.1.0.255", "10.2.0.5"])
def test_a_wished_address_must_be_a_hosts(cloud: Cloud, address: str) -> None:
    cloud.put("network", "lan", LAN)
    problem = cloud.refusal("instance", "vm", {**SMALL, "networks": [{"network": "lan", "address": address}]})
    assert (problem.code, problem.faults[0].pointer) == ("invalid", "/spec/networks/0/address")


def test_a_wished_address_is_given_once(cloud: Cloud) -> None:
    cloud.put("network", "lan", LAN)
    spec = {**SMALL, "networks": [{"network": "lan", "address": "10.1.0.77"}]}
    outcomes = at_once([partial(cloud.put, "instance", f"vm-{n}", spec) for n in range(10)])
    assert codes(outcomes) == ["address_taken"] * 9
    problem = next(outcome for outcome in outcomes if isinstance(outcome, Problem))
    assert problem.faults[0].pointer == "/spec/networks/0/address"


def test_what_one_interface_wishes_for_is_not_given_to_another_of_the_same_instance(cloud: Cloud) -> None:
    cloud.put("network", "lan", LAN)
    foretold = cloud.put("instance", "vm", {**SMALL, "networks": [{"network": "lan"}]}, rehearsed=True).document
    (likely,) = foretold["binding"]["interfaces"]
    made = cloud.put("instance", "vm", {**SMALL, "networks": [{"network": "lan"}, {"network": "lan", **likely}]}).document
    first, second = made["binding"]["interfaces"]
    assert second == likely and first["address"] != likely["address"] and first["mac"] != likely["mac"]


def test_two_interfaces_on_one_network_have_two_addresses_and_one_reference(cloud: Cloud) -> None:
    cloud.put("network", "lan", LAN)
    made = cloud.put("instance", "vm", {**SMALL, "networks": [{"network": "lan"}, {"network": "web/lan"}]}).document
    first, second = made["binding"]["interfaces"]
    assert first["address"] != second["address"] and first["mac"] != second["mac"]
    cloud.ready("instance", "vm")
    assert len([key for key in cloud.recorded() if key.startswith(f"{PREFIX}ref/web/network/lan/")]) == 1


def test_a_quota_is_exact_however_many_ask_at_once(cloud: Cloud) -> None:
    cloud.put("namespace", "web", {"quotas": {"instances": 100}})
    outcomes = at_once([partial(cloud.put, "instance", f"vm-{n}", SMALL) for n in range(200)])
    assert codes(outcomes) == ["quota_exceeded"] * 100
    intents = cloud.store.read(under(f"{PREFIX}intent/web/instance/")).spans[0]
    assert len(intents) == 100
    taken = next(outcome.document["name"] for outcome in outcomes if not isinstance(outcome, Problem))
    assert not cloud.put("instance", taken, SMALL).created, "an equal PUT is answered at full quota too"


def test_what_is_deleted_gives_its_quota_back(cloud: Cloud) -> None:
    cloud.put("namespace", "web", {"quotas": {"networks": 1}})
    cloud.put("network", "one", LAN)
    assert cloud.refusal("network", "two", LAN).code == "quota_exceeded"
    cloud.remove("network", "one")
    assert cloud.put("network", "two", LAN).created


def test_nodes_are_filled_to_the_brim_and_not_beyond(clouds: Make) -> None:
    cloud = clouds(nodes=2, size={"memory_mib": 640})
    outcomes = at_once([partial(cloud.put, "instance", f"vm-{n}", SMALL) for n in range(40)])
    made = [outcome.document for outcome in outcomes if not isinstance(outcome, Problem)]
    assert Counter(document["binding"]["node"] for document in made) == {"n1": 10, "n2": 10}
    assert codes(outcomes) == ["no_capacity"] * 20
    problem = cloud.refusal("instance", "late", SMALL)
    assert problem.extra == {"stage": "memory_mib", "requested": {"memory_mib": 64}, "best_available": {"memory_mib": 0}}
    assert not cloud.put("instance", made[0]["name"], SMALL).created, "what exists needs no room"
    for document in made:
        cloud.ready("instance", document["name"])


def test_growing_in_place_needs_room_on_its_node(clouds: Make) -> None:
    cloud = clouds(size={"memory_mib": 192})
    cloud.put("instance", "one", SMALL)
    cloud.put("instance", "two", SMALL)
    grown = {**SMALL, "memory_mib": 192}
    assert cloud.refusal("instance", "one", grown).extra["stage"] == "memory_mib"
    assert cloud.put("instance", "one", {**SMALL, "memory_mib": 128}).document["generation"] == 2
    assert cloud.put("instance", "one", SMALL).document["generation"] == 3
    cloud.remove("instance", "two")
    assert cloud.put("instance", "one", grown).document["generation"] == 4


def test_many_growing_at_once_do_not_outgrow_their_node(clouds: Make) -> None:
    cloud = clouds(size={"memory_mib": 1024})
    for n in range(8):
        cloud.put("instance", f"vm-{n}", SMALL)
    outcomes = at_once([partial(cloud.put, "instance", f"vm-{n}", {**SMALL, "memory_mib": 192}) for n in range(8)])
    assert codes(outcomes) == ["no_capacity"] * 4


def test_growing_in_place_needs_quota_and_the_refusal_points_at_what_grew(cloud: Cloud) -> None:
    cloud.put("namespace", "web", {"quotas": {"memory_mib": 100, "cpus": 1}})
    cloud.put("instance", "vm", SMALL)
    problem = cloud.refusal("instance", "vm", {**SMALL, "memory_mib": 128})
    assert (problem.code, problem.faults[0].pointer) == ("quota_exceeded", "/spec/memory_mib")
    assert cloud.put("instance", "vm", {**SMALL, "memory_mib": 100}).document["generation"] == 2
    assert cloud.refusal("instance", "vm", {**SMALL, "memory_mib": 100, "cpus": 2}).faults[0].pointer == "/spec/cpus"


def test_a_quota_below_what_is_held_refuses_growth_and_nothing_else(cloud: Cloud) -> None:
    cloud.put("instance", "vm", {**SMALL, "memory_mib": 512})
    cloud.put("namespace", "web", {"quotas": {"memory_mib": 100}})
    assert cloud.put("instance", "vm", {**SMALL, "memory_mib": 256}).document["generation"] == 2
    assert cloud.put("instance", "vm", {**SMALL, "memory_mib": 256, "power": "off"}).document["generation"] == 3


def test_a_cordoned_node_takes_nothing_new_and_a_wished_node_is_obeyed(clouds: Make) -> None:
    cloud = clouds(nodes=2)
    assert cloud.put("instance", "there", {**SMALL, "placement": {"node": "n2"}}).document["binding"]["node"] == "n2"
    cloud.put("node", "n2", {"cordoned": True})
    assert cloud.refusal("instance", "more", {**SMALL, "placement": {"node": "n2"}}).extra["stage"] == "nodes"
    assert cloud.put("instance", "more", SMALL).document["binding"]["node"] == "n1"
    cloud.ready("instance", "there")
