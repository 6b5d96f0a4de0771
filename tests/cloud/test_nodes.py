"""Nodes are lost, return, are drained, are gone for good, and join again."""
from __future__ import annotations

from typing import Any

import pytest
from simulated import IMAGE, ITSELF, LAN, SMALL, Cloud, Make, at_once, codes

from wisp.conditions import find, has_failed
from wisp.host import Disk, Domain, Gateway, Segment
from wisp.resource import node_ref

NODES = ("n1", "n2", "n3")


@pytest.fixture
def cloud(clouds: Make) -> Cloud:
    return clouds(nodes=3)


def boot(cloud: Cloud, name: str, node: str, **spec: Any) -> dict[str, Any]:
    cloud.put("instance", name, {**SMALL, "placement": {"node": node}, **spec})
    return cloud.ready("instance", name)


def says(cloud: Cloud, kind: str, name: str, type_: str) -> dict[str, Any]:
    return dict(find(cloud.get(kind, name)["status"], type_))


def sound(cloud: Cloud) -> None:
    assert cloud.orphans() == [] and cloud.dangling() == []


def give_up(cloud: Cloud, node: str) -> None:
    """It is lost, and declared gone for good; what follows has been done."""
    cloud.lose(node)
    cloud.delete("node", node)
    cloud.until(lambda: [key for key in cloud.recorded() if "/status/" in key and key.endswith(f"/{node}")]
                == [f"{node_ref(node).key('status')}/{node}"], f"{node} to be forgotten")


# --- lost, and back

def test_what_a_lost_node_holds_is_unknown_until_it_returns(cloud: Cloud) -> None:
    boot(cloud, "vm", "n1")
    cloud.lose("n1")
    assert says(cloud, "instance", "vm", "Ready") | {"since": ""} == {
        "type": "Ready", "status": "Unknown", "reason": "NodeLost", "message": "The node n1 does not answer.", "since": ""}
    cloud.rooms["n1"].done.clear()
    cloud.join("n1")
    cloud.ready("instance", "vm")
    cloud.settle()
    assert cloud.rooms["n1"].done == [], "adopted as it is"
    sound(cloud)


def test_what_was_retired_while_its_node_was_lost_goes_when_that_returns(cloud: Cloud) -> None:
    boot(cloud, "vm", "n1")
    cloud.lose("n1")
    cloud.delete("instance", "vm")
    assert says(cloud, "instance", "vm", "Deleting")["reason"] == "NodeLost"
    cloud.join("n1")
    cloud.gone("instance", "vm")
    assert cloud.rooms["n1"].parts(Disk) == []
    sound(cloud)


# --- drained

def test_a_drained_node_says_what_is_still_there_and_each_of_those_why(cloud: Cloud) -> None:
    boot(cloud, "vm", "n1")
    cloud.put("network", "lan", {**LAN})
    cloud.put("node", "n1", {"drained": True})
    cloud.until(lambda: says(cloud, "node", "n1", "Draining").get("message") == "Still there: instance web/vm.")
    assert says(cloud, "instance", "vm", "Draining")["reason"] == "DisksStay"
    assert says(cloud, "instance", "vm", "Ready")["reason"] == "Running"
    cloud.remove("instance", "vm")
    assert says(cloud, "node", "n1", "Draining")["status"] == "False"
    cloud.put("node", "n1", {})
    assert says(cloud, "node", "n1", "Draining") == {}
    sound(cloud)


def test_whoever_follows_the_changes_hears_of_an_instance_that_its_node_is_drained(cloud: Cloud) -> None:
    boot(cloud, "vm", "n1")
    cloud.settle()
    since = cloud.service.resources.changes(ITSELF, None, 0)["revision"]
    cloud.put("node", "n1", {"drained": True})
    told = cloud.service.resources.changes(ITSELF, since, 1)["items"]
    assert "DisksStay" in [find(each["status"], "Draining").get("reason") for each in told if each["kind"] == "instance"]


# --- gone for good

def test_a_node_that_is_there_cannot_be_deleted(cloud: Cloud) -> None:
    assert cloud.refused_delete("node", "n1").code == "in_use"


def test_an_instance_says_what_was_lost_with_its_node_and_is_deleted_at_once(cloud: Cloud) -> None:
    cloud.put("network", "lan", LAN)
    boot(cloud, "vm", "n1", networks=[{"network": "lan"}])
    give_up(cloud, "n1")
    cloud.said("instance", "vm", "Failed", "NodeGone")
    shown = cloud.get("instance", "vm")
    assert has_failed(shown) and shown["binding"]["lost"] == "n1" and "node" not in shown["binding"]
    cloud.delete("instance", "vm")
    cloud.gone("instance", "vm")
    assert boot(cloud, "vm", "n2", networks=[{"network": "lan"}])["binding"]["interfaces"] == shown["binding"]["interfaces"]
    sound(cloud)


def test_what_waited_for_a_lost_node_goes_when_that_is_gone_for_good(cloud: Cloud) -> None:
    cloud.put("image", "guest", IMAGE)
    cloud.put("network", "lan", LAN)
    boot(cloud, "vm", "n1", networks=[{"network": "lan"}], disks=[{"image": "guest", "size_gib": 1}])
    cloud.lose("n1")
    for kind, name in (("instance", "vm"), ("image", "guest")):
        cloud.delete(kind, name)
        assert says(cloud, kind, name, "Deleting")["reason"] == "NodeLost"
    cloud.delete("node", "n1")
    for kind, name in (("instance", "vm"), ("image", "guest")):
        cloud.gone(kind, name)
    cloud.remove("network", "lan")
    assert says(cloud, "node", "n1", "Deleting")["reason"] == "NodeGone"
    sound(cloud)


def test_the_gateways_of_a_node_that_is_gone_have_moved_and_nobody_sends_frames_there(cloud: Cloud) -> None:
    cloud.put("network", "lan", LAN)
    old = cloud.ready("network", "lan")["binding"]["gateway"]["node"]
    other = next(name for name in NODES if name != old)
    boot(cloud, "here", other, networks=[{"network": "lan"}])
    boot(cloud, "there", old, networks=[{"network": "lan"}])
    give_up(cloud, old)
    cloud.until(lambda: sum(len(cloud.rooms[name].parts(Gateway)) for name in NODES if name != old) == 1)
    underlay = f"192.0.2.{old[1:]}"
    cloud.until(lambda: all(underlay not in part.peers for name in NODES if name != old for part in cloud.rooms[name].parts(Segment)))
    sound(cloud)


def test_a_machine_that_returns_though_its_node_is_gone_stands_down_and_keeps_its_disks(cloud: Cloud) -> None:
    cloud.put("network", "lan", LAN)
    boot(cloud, "vm", "n1", networks=[{"network": "lan"}])
    give_up(cloud, "n1")
    cloud.join("n1")
    room = cloud.rooms["n1"]
    cloud.until(lambda: [domain.power for domain in room.parts(Domain)] == ["off"])
    cloud.until(lambda: room.parts(Gateway) == [])
    assert len(room.parts(Disk)) == 1
    assert cloud.service.world.node("n1") is None, "it is not alive"
    assert says(cloud, "instance", "vm", "Failed")["reason"] == "NodeGone"
    assert cloud.refusal("instance", "more", {**SMALL, "placement": {"node": "n1"}}).code == "no_capacity"


def test_another_machine_may_join_under_the_name_of_one_that_is_gone(cloud: Cloud) -> None:
    boot(cloud, "vm", "n1")
    before = cloud.get("node", "n1")["uid"]
    give_up(cloud, "n1")
    cloud.rooms["n1"] = type(cloud.rooms["n1"])()
    cloud.join("n1")
    shown = cloud.ready("node", "n1")
    assert shown["uid"] != before and shown["spec"] == cloud.get("node", "n2")["spec"]
    cloud.settle()
    assert says(cloud, "instance", "vm", "Failed")["reason"] == "NodeGone", "its disks did not come along"
    assert cloud.rooms["n1"].parts(Disk) == []
    assert boot(cloud, "new", "n1")["binding"]["node"] == "n1"
    cloud.remove("instance", "vm")
    sound(cloud)


# --- placed apart, at once

def test_those_that_must_keep_apart_never_meet_however_many_come_at_once(cloud: Cloud) -> None:
    spec = {**SMALL, "placement": {"anti_affinity": [{"metadata": {"role": "db"}}]}}
    results = at_once(lambda n=n: cloud.put("instance", f"db-{n}", spec, metadata={"role": "db"}) for n in range(8))
    made = [result.document["binding"]["node"] for result in results if not isinstance(result, Exception)]
    assert sorted(made) == list(NODES) and codes(results) == ["no_capacity"] * 5
    sound(cloud)
