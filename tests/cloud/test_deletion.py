"""Letting go: what is retired says so until it is gone, and nothing of it is left."""
from __future__ import annotations

import threading
from functools import partial
from typing import Any

import pytest
from simulated import BOOTED, IMAGE, LAN, SMALL, Cloud, at_once
from test_images import failing, holding

from wisp.conditions import find
from wisp.errors import Problem, StepFailed
from wisp.host import Disk, Domain, Image
from wisp.resource import node_ref
from wisp.service import ITSELF

EVERYTHING: list[tuple[str, str, dict[str, Any]]] = [("network", "lan", LAN), ("image", "guest", IMAGE), ("instance", "vm", {**BOOTED, "user_data": "#!/bin/sh"}),
              ("key", "k", {"role": "viewer"})]


def make_everything(cloud: Cloud) -> None:
    for kind, name, spec in EVERYTHING:
        cloud.put(kind, name, spec)
    for kind, name, _ in EVERYTHING:
        cloud.ready(kind, name)


def delete_everything(cloud: Cloud) -> None:
    for kind, name, _ in reversed(EVERYTHING):
        cloud.remove(kind, name)


def test_after_everything_is_deleted_nothing_is_left_in_store_or_machine(cloud: Cloud) -> None:
    before = cloud.recorded()
    make_everything(cloud)
    assert len(cloud.recorded()) > len(before) + 10
    delete_everything(cloud)
    cloud.settle()
    assert cloud.recorded() == before
    assert not cloud.room.host().parts and not cloud.room.kernel.marks and not cloud.room.kernel.taps
    assert cloud.orphans() == []


def test_a_namespace_goes_with_all_that_was_kept_for_it(cloud: Cloud) -> None:
    before = cloud.raw_keys()
    cloud.put("namespace", "brief", {"quotas": {"networks": 3}})
    cloud.put("network", "lan", LAN, namespace="brief")
    assert cloud.refused_delete("namespace", "brief").code == "in_use"
    cloud.remove("network", "lan", namespace="brief")
    cloud.remove("namespace", "brief")
    cloud.settle()
    assert cloud.raw_keys() == before


def test_what_was_never_there_can_be_deleted(cloud: Cloud) -> None:
    revision = cloud.store.revision()
    cloud.delete("network", "nothing")
    assert cloud.store.revision() == revision


def test_what_is_retired_says_so_and_its_name_is_taken_until_it_is_gone(cloud: Cloud) -> None:
    cloud.put("instance", "vm", SMALL)
    cloud.ready("instance", "vm")
    go_on = threading.Event()
    cloud.room.between = holding("undefine", go_on)
    cloud.delete("instance", "vm")
    shown = cloud.get("instance", "vm")
    assert find(shown["status"], "Deleting")["message"] == "Waits for n1."
    assert find(shown["status"], "Ready")["reason"] == "Deleting"
    revision = cloud.store.revision()
    cloud.delete("instance", "vm")
    assert cloud.store.revision() == revision, "retiring twice is retiring once"
    assert cloud.refusal("instance", "vm", SMALL).code == "deleting"
    assert cloud.refusal("instance", "vm", SMALL, create_only=True).code == "deleting"
    go_on.set()
    cloud.gone("instance", "vm")
    made = cloud.put("instance", "vm", SMALL).document
    assert made["uid"] != shown["uid"]
    cloud.ready("instance", "vm")


def test_what_no_node_holds_yet_goes_at_once(cloud: Cloud) -> None:
    cloud.put("image", "guest", IMAGE)
    cloud.delete("image", "guest")
    assert cloud.ref("image", "guest").key("intent") not in cloud.raw_keys()


def test_a_stale_etag_deletes_nothing(cloud: Cloud) -> None:
    old = cloud.put("network", "lan", LAN).etag
    new = cloud.put("network", "lan", LAN, metadata={"a": "b"}).etag
    with pytest.raises(Problem, match="by now"):
        cloud.delete("network", "lan", if_match=old)
    cloud.delete("network", "lan", if_match=new)
    cloud.gone("network", "lan")


def test_a_network_goes_only_after_its_instances(cloud: Cloud) -> None:
    make_everything(cloud)
    problem = cloud.refused_delete("network", "lan")
    assert problem.code == "in_use" and "instance web/vm" in problem.detail
    go_on = threading.Event()
    cloud.room.between = holding("undefine", go_on)
    cloud.delete("instance", "vm")
    assert cloud.refused_delete("network", "lan").code == "in_use", "an instance being taken down still stands on it"
    go_on.set()
    cloud.gone("instance", "vm")
    cloud.remove("network", "lan")


def test_an_instance_deleted_while_it_is_built_leaves_nothing(cloud: Cloud) -> None:
    for verb in ("create_disk", "write_seed", "define", "start"):
        go_on = threading.Event()
        cloud.room.between = holding(verb, go_on)
        cloud.put("instance", "vm", SMALL)
        cloud.until(lambda: verb in cloud.room.done)  # noqa: B023
        cloud.delete("instance", "vm")
        go_on.set()
        cloud.gone("instance", "vm")
        assert not cloud.room.host().parts
        cloud.room.done.clear()


def test_a_failed_take_down_is_tried_until_it_works(cloud: Cloud) -> None:
    cloud.put("instance", "vm", SMALL)
    cloud.ready("instance", "vm")
    cloud.room.between = failing("drop_disk", StepFailed("DropFailed", "The file system is read-only."))
    cloud.delete("instance", "vm")
    cloud.until(lambda: cloud.room.done.count("drop_disk") >= 3)
    assert cloud.events("instance", "vm")[0].endswith("drop disk 0 failed: DropFailed: The file system is read-only.")
    assert find(cloud.get("instance", "vm")["status"], "Deleting")
    cloud.room.between = lambda verb, args, go_on: go_on()
    cloud.gone("instance", "vm")


def test_an_instance_on_a_lost_node_stays_retired_and_says_so_until_the_node_returns(cloud: Cloud) -> None:
    make_everything(cloud)
    cloud.lose("n1")
    ready = find(cloud.get("instance", "vm")["status"], "Ready")
    assert (ready["status"], ready["reason"], ready["message"]) == ("Unknown", "NodeLost", "The node n1 does not answer.")
    cloud.delete("instance", "vm")
    deleting = find(cloud.get("instance", "vm")["status"], "Deleting")
    assert deleting["reason"] == "NodeLost" and "lost: n1" in deleting["message"]
    assert cloud.room.only(Domain).power == "on", "nobody can take it down"
    assert cloud.refusal("instance", "vm", BOOTED).code == "deleting"
    assert cloud.refusal("instance", "other", SMALL).extra["stage"] == "nodes"
    cloud.restart()
    cloud.gone("instance", "vm")
    assert cloud.room.parts(Domain) == []


def test_a_cached_image_goes_with_the_next_whole_turn_after_its_last_user(cloud: Cloud) -> None:
    make_everything(cloud)
    cloud.remove("instance", "vm")
    cloud.settle()
    assert len(cloud.room.parts(Image)) == 1 and cloud.room.parts(Disk) == []
    cloud.remove("image", "guest")
    cloud.settle()
    assert cloud.room.parts(Image) == []


def test_a_hundred_instances_come_and_go(cloud: Cloud) -> None:
    cloud.put("network", "lan", LAN)
    before, spec = cloud.recorded(), {**SMALL, "networks": [{"network": "lan"}]}
    at_once([partial(cloud.put, "instance", f"vm-{n}", spec) for n in range(100)])
    for n in range(100):
        cloud.ready("instance", f"vm-{n}")
    at_once([partial(cloud.delete, "instance", f"vm-{n}") for n in range(100)])
    for n in range(100):
        cloud.gone("instance", f"vm-{n}")
    cloud.settle()
    of_the_network = (cloud.ref("network", "lan").key("event"), cloud.ref("network", "lan").key("status"))
    assert {key for key in cloud.recorded() - before if not key.startswith(of_the_network)} == set()
    assert cloud.room.parts(Domain) == []


def test_a_node_whose_agent_is_alive_cannot_be_deleted(cloud: Cloud) -> None:
    with pytest.raises(Problem) as refused:
        cloud.service.resources.delete(ITSELF, node_ref("n1"))
    assert refused.value.code == "in_use" and "alive" in refused.value.detail
