"""Floating IPs: kept until they are deleted, and leading to whoever has the name that they are attached to."""
from __future__ import annotations

import threading
from functools import partial
from typing import Any

import pytest
from simulated import LAN, SMALL, Cloud, Make, at_once
from test_images import holding

from wisp.admission import Caller
from wisp.conditions import find
from wisp.errors import Problem, StepFailed
from wisp.fakes.fabric import FakeKernel
from wisp.host import Floating, Gateway, Segment
from wisp.resource import dumps
from wisp.service import ITSELF
from wisp.store import Put

POOL = {"cidr": "203.0.113.8/29"}
ON_LAN = {**SMALL, "networks": [{"network": "lan"}]}
EDITOR = Caller("web", "editor", "web/editor")


@pytest.fixture
def lan(cloud: Cloud) -> Cloud:
    """With a pool, and two instances on a network."""
    return furnished(cloud)


def furnished(cloud: Cloud) -> Cloud:
    cloud.put("pool", "public", POOL)
    cloud.put("network", "lan", LAN)
    for name in ("front", "back"):
        cloud.put("instance", name, ON_LAN)
        cloud.ready("instance", name)
    return cloud


def attach(cloud: Cloud, instance: str, name: str = "ip", **spec: Any) -> dict[str, Any]:
    cloud.put("floating-ip", name, {"pool": "public", "instance": instance, **spec}, EDITOR)
    return cloud.ready("floating-ip", name)


def inside(cloud: Cloud, instance: str) -> str:
    return str(cloud.get("instance", instance)["binding"]["interfaces"][0]["address"])


def where(cloud: Cloud) -> dict[str, list[tuple[str, str]]]:
    """On which nodes which addresses lead to which."""
    return {name: [(part.address, part.inside) for part in room.parts(Floating)]
            for name, room in cloud.rooms.items() if room.parts(Floating)}


def test_an_attached_address_leads_to_its_instance(lan: Cloud) -> None:
    shown = attach(lan, "front")
    part = lan.room.only(Floating)
    assert (part.address, part.inside) == (shown["binding"]["address"], inside(lan, "front"))
    assert part.network == lan.get("network", "lan")["uid"]
    assert find(shown["status"], "Ready")["reason"] == "Attached"
    assert lan.events("floating-ip", "ip")[0] == f"n1: build {part}"


def test_an_address_that_is_only_kept_leads_nowhere(lan: Cloud) -> None:
    shown = lan.put("floating-ip", "ip", {"pool": "public", "address": "203.0.113.8"}, EDITOR).document
    assert shown["binding"] == {"address": "203.0.113.8"} and lan.ready("floating-ip", "ip")
    lan.settle()
    assert where(lan) == {}


def test_moving_one_is_one_put_and_detaching_another(lan: Cloud) -> None:
    address = attach(lan, "front")["binding"]["address"]
    assert attach(lan, "back")["binding"]["address"] == address
    assert where(lan) == {"n1": [(address, inside(lan, "back"))]}
    lan.put("floating-ip", "ip", {"pool": "public"}, EDITOR)
    lan.settle()
    assert where(lan) == {} and lan.ready("floating-ip", "ip")["binding"]["address"] == address
    attach(lan, "front")
    attach(lan, "back", "other")


def test_one_moves_to_a_network_whose_gateway_is_elsewhere(clouds: Make) -> None:
    cloud = furnished(clouds(2))
    cloud.put("network", "far", LAN)
    cloud.put("instance", "far", {**SMALL, "networks": [{"network": "far"}]})
    nodes = [cloud.get("network", name)["binding"]["gateway"]["node"] for name in ("lan", "far")]
    assert sorted(nodes) == ["n1", "n2"]
    address = attach(cloud, "front")["binding"]["address"]
    assert where(cloud) == {nodes[0]: [(address, inside(cloud, "front"))]}
    attach(cloud, "far")
    cloud.settle()
    assert where(cloud) == {nodes[1]: [(address, inside(cloud, "far"))]}


def test_one_moves_to_another_network_of_the_same_node(lan: Cloud) -> None:
    lan.put("network", "near", LAN)
    lan.put("instance", "near", {**SMALL, "networks": [{"network": "near"}]})
    address = attach(lan, "front")["binding"]["address"]
    lan.room.done.clear()
    attach(lan, "near")
    assert where(lan) == {"n1": [(address, inside(lan, "near"))]}
    assert [verb for verb in lan.room.done if "floating" in verb] == ["remove_floating", "build_floating"]


def test_an_instance_goes_without_asking_and_its_address_stays_detached(lan: Cloud) -> None:
    address = attach(lan, "front")["binding"]["address"]
    lan.delete("instance", "front")
    lan.gone("instance", "front")
    detached = lan.said("floating-ip", "ip", "Ready", "Detached")
    assert detached["status"] == "False" and "front" in detached["message"]
    lan.until(lambda: where(lan) == {}, "it leads nowhere")
    assert lan.get("floating-ip", "ip")["binding"]["address"] == address
    assert lan.orphans() == []


def test_what_comes_in_the_place_of_an_instance_has_its_address_without_a_write(lan: Cloud) -> None:
    before = attach(lan, "front")
    lan.delete("instance", "front")
    lan.gone("instance", "front")
    lan.put("instance", "front", {**SMALL, "networks": [{"network": "lan", "address": "10.1.0.77"}]})
    leads = {"n1": [(before["binding"]["address"], "10.1.0.77")]}
    lan.until(lambda: where(lan) == leads, "it leads there")
    after = lan.ready("floating-ip", "ip")
    assert after["generation"] == before["generation"] and after["uid"] == before["uid"]


def test_an_instance_being_taken_down_is_let_go_at_once(lan: Cloud) -> None:
    attach(lan, "front")
    go_on = threading.Event()
    lan.room.between = holding("undefine", go_on)
    lan.delete("instance", "front")
    lan.until(lambda: where(lan) == {}, "it leads nowhere")
    lan.said("floating-ip", "ip", "Ready", "Detached")
    assert lan.refusal("floating-ip", "late", {"pool": "public", "instance": "front"}).code == "reference"
    go_on.set()
    lan.gone("instance", "front")


def test_whoever_follows_the_changes_hears_of_the_detachment(lan: Cloud) -> None:
    attach(lan, "front")
    since = lan.service.resources.changes(ITSELF, None, 0)["revision"]
    lan.delete("instance", "front")
    lan.until(lambda: where(lan) == {})
    lan.settle()
    told = {item["kind"]: item for item in lan.service.resources.changes(ITSELF, since, 0)["items"]}
    assert find(told["floating-ip"]["status"], "Ready")["reason"] == "Detached"


def test_nat_that_is_switched_off_detaches_and_switched_on_attaches(lan: Cloud) -> None:
    attach(lan, "front")
    lan.put("network", "lan", {**LAN, "nat": False})
    assert lan.said("floating-ip", "ip", "Failed", "NoNat")["status"] == "True"
    lan.until(lambda: where(lan) == {}, "it leads nowhere")
    lan.put("network", "lan", LAN)
    lan.until(lambda: where(lan), "it leads there again")
    lan.ready("floating-ip", "ip")


def test_a_replacement_without_that_interface_is_said(lan: Cloud) -> None:
    lan.put("instance", "two", {**SMALL, "networks": [{"network": "lan"}, {"network": "lan"}]})
    attach(lan, "two", interface=1)
    lan.delete("instance", "two")
    lan.gone("instance", "two")
    lan.put("instance", "two", ON_LAN)
    lan.said("floating-ip", "ip", "Failed", "NoInterface")


def test_a_lost_gateway_comes_back_with_what_leads_through_it(lan: Cloud) -> None:
    attach(lan, "front")
    part = lan.room.only(Floating)
    for lost in (f"gw-{part.vni:06x}", f"go-{part.vni:06x}", lan.room.only(Segment).bridge):
        lan.room.kernel.lose(lost)
        lan.until(lambda: lan.room.parts(Floating) == [part], f"it is back after {lost}")
        lan.ready("floating-ip", "ip")
    assert lan.room.looked < 20, "and that needs no turn over everything"


def test_an_address_waits_for_the_gateway_of_its_network(cloud: Cloud) -> None:
    go_on = threading.Event()
    cloud.room.between = holding("build_gateway", go_on)
    cloud.put("pool", "public", POOL)
    cloud.put("network", "lan", LAN)
    cloud.put("instance", "front", ON_LAN)
    cloud.put("floating-ip", "ip", {"pool": "public", "instance": "front"})
    waiting = cloud.said("floating-ip", "ip", "Ready", "Waiting")
    assert waiting["message"] == f"Waits for gateway {cloud.get('network', 'lan')['binding']['vni']:06x}."
    go_on.set()
    cloud.ready("floating-ip", "ip")
    assert len(where(cloud)["n1"]) == 1


def test_a_gateway_bound_anew_takes_its_addresses_along(clouds: Make) -> None:
    cloud = furnished(clouds(2))
    address = attach(cloud, "front")["binding"]["address"]
    network = cloud.service.world.resource(cloud.ref("network", "lan"))
    assert network
    old = network.binding["gateway"]["node"]
    (new,) = {"n1", "n2"} - {old}
    moved = {**network.binding, "gateway": {**network.binding["gateway"], "node": new}}
    cloud.store.commit([], [Put(network.ref.key("binding"), dumps(moved))])
    cloud.until(lambda: where(cloud) == {new: [(address, inside(cloud, "front"))]}, "it moved")
    cloud.ready("floating-ip", "ip")
    assert cloud.rooms[old].parts(Gateway) == []


def test_a_deleted_one_is_free_again_and_nothing_is_left(lan: Cloud) -> None:
    before = lan.recorded()
    attach(lan, "front", address="203.0.113.9")
    assert lan.refusal("floating-ip", "other", {"pool": "public", "address": "203.0.113.9"}).code == "address_taken"
    lan.delete("floating-ip", "ip")
    lan.gone("floating-ip", "ip")
    lan.settle()
    assert lan.recorded() == before and where(lan) == {} and lan.orphans() == []
    attach(lan, "front", "other", address="203.0.113.9")


def test_every_address_of_a_pool_is_given_once_and_then_there_are_none(lan: Cloud) -> None:
    made = at_once([partial(lan.put, "floating-ip", f"ip-{n}", {"pool": "public"}) for n in range(10)])
    given = [outcome.document["binding"]["address"] for outcome in made if not isinstance(outcome, Problem)]
    assert sorted(given) == sorted(f"203.0.113.{n}" for n in range(8, 16))
    assert [problem.code for problem in made if isinstance(problem, Problem)] == ["addresses_exhausted"] * 2


def test_two_addresses_for_one_interface_is_one_too_many(lan: Cloud) -> None:
    attach(lan, "front")
    second = {"pool": "public", "instance": "front"}
    problem = lan.refusal("floating-ip", "other", second)
    assert (problem.code, problem.faults[0].pointer) == ("in_use", "/spec/interface") and "floating IP ip" in problem.detail
    lan.put("floating-ip", "other", {"pool": "public"})
    assert lan.refusal("floating-ip", "other", second).code == "in_use"
    lan.delete("floating-ip", "ip")
    lan.gone("floating-ip", "ip")
    attach(lan, "front", "other")


def test_a_pool_stays_while_addresses_of_it_are_in_use(lan: Cloud) -> None:
    attach(lan, "front")
    assert lan.refused_delete("pool", "public").code == "in_use"
    lan.delete("floating-ip", "ip")
    lan.gone("floating-ip", "ip")
    lan.delete("pool", "public")
    lan.gone("pool", "public")


def test_a_namespace_has_as_many_as_its_quota_says(lan: Cloud) -> None:
    lan.put("namespace", "web", {"quotas": {"floating_ips": 1}})
    attach(lan, "front")
    assert lan.refusal("floating-ip", "other", {"pool": "public"}).code == "quota_exceeded"


def test_two_pools_may_overlap_and_give_no_address_twice(lan: Cloud) -> None:
    lan.put("pool", "same", POOL)
    lan.put("floating-ip", "one", {"pool": "public", "address": "203.0.113.9"})
    assert lan.refusal("floating-ip", "two", {"pool": "same", "address": "203.0.113.9"}).code == "address_taken"


def test_a_refused_address_is_said_and_tried_again(lan: Cloud) -> None:
    lan.room.fabric.failures.append(StepFailed("AddressTaken", "203.0.113.9 leads somewhere else already"))
    attach(lan, "front")
    assert any("AddressTaken" in text for text in lan.events("floating-ip", "ip"))


def test_what_leads_to_a_guest_for_nobody_is_reaped(lan: Cloud) -> None:
    gateway = lan.room.only(Gateway)
    lan.room.fabric.build_floating(Floating("11111111-2222-4333-8444-555555555555", gateway.uid, gateway.vni, "203.0.113.9", "10.1.0.5"))
    lan.settle()
    assert where(lan) == {} and lan.room.parts(Gateway) == [gateway]


def test_two_clouds_on_one_kernel_do_not_take_each_others_addresses(clouds: Make) -> None:
    kernel = FakeKernel()
    one, two = (furnished(clouds(kernels=[kernel], cluster=cluster)) for cluster in ("one", "two"))
    attach(one, "front", address="203.0.113.9")
    two.put("floating-ip", "ip", {"pool": "public", "instance": "front", "address": "203.0.113.9"})
    assert two.said("floating-ip", "ip", "Ready", "AddressTaken")["status"] == "False"
    assert len(where(one)["n1"]) == 1 and where(two) == {}
