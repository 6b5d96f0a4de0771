"""Actions: what they do, what may be asked of whom, and how they go."""
from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from simulated import BOOTED, IMAGE, LAN, PATIENCE, REBOOT, Cloud, Make, machine
from test_images import holding

from wisp.conditions import find, has_failed, is_ready
from wisp.errors import Problem
from wisp.store import Put

CONSOLE = {"do": "console_log", "instance": "vm"}


def ping(address: str, network: str = "lan") -> dict[str, str]:
    return {"do": "ping", "network": network, "address": address}


def failed(cloud: Cloud, name: str) -> dict[str, Any]:
    """Its condition `Failed`, once it has one."""
    found: dict[str, Any] = cloud.until(lambda: find(cloud.get("action", name)["status"], "Failed"), f"{name} to fail")
    return found


# --- what they do

def test_a_reboot_is_done_and_says_so(cloud: Cloud, vm: dict[str, Any]) -> None:
    made = cloud.put("action", "again", REBOOT).document
    assert made["binding"] == {"node": "n1", "target": vm["uid"]} and "mode" not in made["spec"]
    status = cloud.ready("action", "again")["status"]
    assert find(status, "Ready")["reason"] == "Done" and status["started_at"] <= status["finished_at"]
    assert "incarnation" not in status
    assert cloud.room.hypervisor.reboots == [(vm["uid"], False)]
    assert cloud.events("action", "again") == ["n1: soft reboot", "n1: begins: soft reboot", "created"]


def test_a_hard_reboot_is_a_reset(cloud: Cloud, vm: dict[str, Any]) -> None:
    cloud.put("action", "again", {**REBOOT, "mode": "hard"})
    cloud.ready("action", "again")
    assert cloud.room.hypervisor.reboots == [(vm["uid"], True)]


def test_what_does_not_run_is_not_rebooted_and_the_action_has_failed_for_good(cloud: Cloud) -> None:
    machine(cloud, power="off")
    cloud.put("action", "again", REBOOT)
    found = failed(cloud, "again")
    assert found["reason"] == "RebootFailed" and "not running" in found["message"]
    shown = cloud.get("action", "again")
    assert has_failed(shown) and not is_ready(shown) and "finished_at" in shown["status"]
    cloud.turn()
    assert cloud.room.done.count("reboot") == 1


def test_a_ping_counts_the_answers_and_none_is_a_result_too(cloud: Cloud) -> None:
    cloud.put("network", "lan", LAN)
    cloud.put("image", "guest", IMAGE)
    vm = cloud.put("instance", "vm", BOOTED).document
    cloud.ready("instance", "vm")
    cloud.ready("network", "lan")
    for name, address, received in (("one", vm["binding"]["interfaces"][0]["address"], 3), ("none", "10.1.0.254", 0)):
        cloud.put("action", name, ping(address))
        status = cloud.ready("action", name)["status"]
        assert (status["sent"], status["received"], len(status["rtt_us"])) == (3, received, received)


def test_the_end_of_the_console_is_shown_and_no_more(cloud: Cloud, vm: dict[str, Any]) -> None:
    cloud.room.depot.consoles[vm["uid"]] = b"BIOS" + b"." * 20_000 + b"\xff\x00login:"
    cloud.put("action", "look", CONSOLE)
    output = cloud.ready("action", "look")["status"]["output"]
    assert output.endswith("..\ufffd\x00login:") and len(output) == 16 * 1024


# --- what may be asked

@pytest.mark.parametrize(("spec", "pointers"), [
    ({"do": "reboot"}, ["/spec/instance"]),
    ({"do": "console_log", "address": "10.1.0.5"}, ["/spec/instance", "/spec/address"]),
    ({"do": "console_log", "instance": "vm", "mode": "hard"}, ["/spec/mode"]),
    ({"do": "reboot", "instance": "vm", "network": "lan"}, ["/spec/network"]),
    ({"do": "ping", "network": "lan"}, ["/spec/address"]),
    ({"do": "ping", "instance": "vm", "network": "lan", "address": "10.1.0.5"}, ["/spec/instance"]),
    ({"do": "ping", "network": "lan", "address": "10.1.0.5", "mode": "soft"}, ["/spec/mode"]),
    ({"do": "ping", "network": "lan", "address": "192.0.2.1"}, ["/spec/address"]),
    ({"do": "ping", "network": "lan", "address": "10.1.0.255"}, ["/spec/address"]),
    ({"do": "ping", "network": "closed", "address": "10.1.0.5"}, ["/spec/network"])])
def test_each_action_takes_its_own_fields(cloud: Cloud, vm: dict[str, Any], spec: dict[str, str], pointers: list[str]) -> None:
    cloud.put("network", "lan", LAN)
    cloud.put("network", "closed", {**LAN, "nat": False, "dhcp": False})
    problem = cloud.refusal("action", "x", spec)
    assert (problem.code, [fault.pointer for fault in problem.faults]) == ("invalid", pointers)


def test_what_is_not_there_cannot_be_acted_on(cloud: Cloud) -> None:
    for spec in (REBOOT, ping("10.1.0.5")):
        assert cloud.refusal("action", "x", spec).code == "reference"


def test_a_network_whose_gateway_nobody_carries_yet_cannot_ping(clouds: Make) -> None:
    cloud = clouds(nodes=0)
    cloud.put("network", "lan", LAN)
    assert cloud.refusal("action", "x", ping("10.1.0.5")).code == "no_capacity"


def test_on_a_lost_node_nothing_is_begun_and_nothing_is_promised(cloud: Cloud, vm: dict[str, Any]) -> None:
    cloud.lose("n1")
    assert cloud.refusal("action", "x", REBOOT).code == "no_capacity"


def test_trust_shares_networks_to_ping_and_never_instances_to_reboot(cloud: Cloud, vm: dict[str, Any]) -> None:
    cloud.put("network", "lan", LAN)
    cloud.ready("network", "lan")
    cloud.put("namespace", "shop", {})
    stranger = cloud.key("boss", "admin", namespace="shop")
    shared = ping("10.1.0.1", "web/lan")
    assert cloud.refusal("action", "look", shared, stranger, namespace="shop").code == "reference"
    cloud.put("namespace", "web", {"trusts": ["shop"]})
    assert cloud.put("action", "look", shared, stranger, namespace="shop").created
    assert cloud.ready("action", "look", namespace="shop")["status"]["received"] == 3
    foreign = cloud.refusal("action", "again", {**REBOOT, "instance": "web/vm"}, stranger, namespace="shop")
    assert (foreign.code, foreign.faults[0].pointer) == ("invalid", "/spec/instance")
    assert cloud.refusal("action", "again", REBOOT, stranger, namespace="shop").code == "reference"
    for kind, name in (("instance", "vm"), ("action", "again")):
        with pytest.raises(Problem) as unseen:
            cloud.get(kind, name, stranger)
        assert unseen.value.code == "not_found"
    assert cloud.refusal("action", "again", REBOOT, stranger).code == "not_found"


def test_editors_act_and_viewers_look(cloud: Cloud, vm: dict[str, Any]) -> None:
    viewer, editor = (cloud.key(role, role) for role in ("viewer", "editor"))
    assert cloud.refusal("action", "again", REBOOT, viewer).code == "forbidden"
    assert cloud.put("action", "again", REBOOT, editor).created
    cloud.ready("action", "again")
    assert cloud.get("action", "again", viewer)["name"] == "again"


# --- how they go

@pytest.fixture
def deaf(cloud: Cloud, vm: dict[str, Any]) -> Cloud:
    """A cloud whose only agent hears nothing, though its lease still stands."""
    cloud.service.agents["n1"].stop()
    return cloud


def test_what_nobody_begins_in_time_expires_and_is_not_done_later(deaf: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wisp.kinds.action.BEGUN_WITHIN", 0.2)
    deaf.put("action", "again", REBOOT)
    assert find(deaf.get("action", "again")["status"], "Ready")["reason"] in ("Pending", "Expired")
    assert failed(deaf, "again")["reason"] == "Expired" and has_failed(deaf.get("action", "again"))
    assert deaf.events("action", "again") == ["The node n1 did not begin it within 0.2 seconds.", "created"]
    deaf.restart()
    deaf.settle()
    assert find(deaf.get("action", "again")["status"], "Ready")["reason"] == "Expired"
    assert deaf.room.hypervisor.reboots == []


def test_an_agent_that_comes_back_in_time_does_it(deaf: Cloud) -> None:
    deaf.put("action", "again", REBOOT)
    deaf.restart()
    deaf.ready("action", "again")
    assert len(deaf.room.hypervisor.reboots) == 1


def test_what_expired_while_nobody_was_there_is_not_done_by_who_comes_first(deaf: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    deaf.put("action", "again", REBOOT)
    deaf.service.stop()
    monkeypatch.setattr("wisp.kinds.action.BEGUN_WITHIN", 0)
    deaf.start()
    assert failed(deaf, "again")["reason"] == "Expired"
    deaf.settle()
    assert deaf.room.hypervisor.reboots == []


def test_an_agent_does_not_begin_what_is_too_late_though_nobody_has_said_so(
        cloud: Cloud, vm: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    cloud.service.conductor.stop()
    monkeypatch.setattr("wisp.kinds.action.BEGUN_WITHIN", 0)
    cloud.put("action", "again", REBOOT)
    cloud.settle()
    assert "reboot" not in cloud.room.done


def test_a_day_later_it_is_forgotten_without_a_trace_and_may_be_asked_for_anew(
        cloud: Cloud, vm: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    cloud.settle()
    before = cloud.recorded()
    monkeypatch.setattr("wisp.kinds.action.KEPT", 0.5)
    first = cloud.put("action", "again", REBOOT).document
    cloud.ready("action", "again")
    cloud.gone("action", "again")
    cloud.settle()
    assert cloud.recorded() == before
    assert cloud.put("action", "again", REBOOT).document["uid"] != first["uid"]
    cloud.until(lambda: len(cloud.room.hypervisor.reboots) == 2)


def test_while_nothing_lapses_nothing_is_written(cloud: Cloud, vm: dict[str, Any]) -> None:
    cloud.put("action", "again", REBOOT)
    cloud.ready("action", "again")
    cloud.settle()
    revision = cloud.store.revision()
    time.sleep(0.3)
    assert cloud.store.revision() == revision


def test_an_action_goes_with_its_instance_and_does_not_hold_it(cloud: Cloud) -> None:
    cloud.put("network", "lan", LAN)
    cloud.ready("network", "lan")
    cloud.settle()
    before = cloud.recorded()
    machine(cloud)
    for name, spec in (("again", REBOOT), ("look", CONSOLE)):
        cloud.put("action", name, spec)
        cloud.ready("action", name)
    cloud.delete("instance", "vm")
    for kind, name in (("action", "again"), ("action", "look"), ("instance", "vm")):
        cloud.gone(kind, name)
    cloud.settle()
    assert cloud.recorded() == before


def test_a_ping_goes_with_its_network(cloud: Cloud) -> None:
    before = cloud.recorded()
    cloud.put("network", "lan", LAN)
    cloud.ready("network", "lan")
    cloud.put("action", "look", ping("10.1.0.1"))
    cloud.ready("action", "look")
    cloud.delete("network", "lan")
    cloud.gone("action", "look")
    cloud.gone("network", "lan")
    cloud.settle()
    assert cloud.recorded() == before


def test_it_is_not_done_to_another_of_the_same_name(cloud: Cloud, vm: dict[str, Any]) -> None:
    """Nobody forgets it here: the conductor is gone, and the agent sees for itself."""
    cloud.service.conductor.stop()
    go_on, begun = threading.Event(), threading.Event()

    def considering(verb: str, args: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        if verb == "observe" and not begun.is_set():
            begun.set()
            assert go_on.wait(PATIENCE)
        return run()
    cloud.room.between = considering
    cloud.service.agents["n1"].bell.ring_all()
    assert begun.wait(PATIENCE)
    cloud.put("action", "again", REBOOT)
    instance = cloud.ref("instance", "vm")
    meant = cloud.service.world.resource(instance)
    assert meant
    other = meant.intent.revised(uid="00000000-0000-4000-8000-000000000000")
    cloud.service.mirror.wait(cloud.store.commit([], [Put(instance.key("intent"), other.dump())]), PATIENCE)
    go_on.set()
    cloud.settle()
    assert "reboot" not in cloud.room.done


def test_one_that_is_deleted_while_it_runs_leaves_nothing_and_its_name_is_free(cloud: Cloud, vm: dict[str, Any]) -> None:
    cloud.settle()
    before = cloud.recorded()
    go_on = threading.Event()
    cloud.room.between = holding("reboot", go_on)
    cloud.put("action", "again", REBOOT)
    cloud.until(lambda: cloud.room.done.count("reboot") == 1)
    cloud.delete("action", "again")
    assert cloud.recorded() == before
    cloud.put("action", "again", {**REBOOT, "mode": "hard"})
    cloud.until(lambda: cloud.room.done.count("reboot") == 2)
    go_on.set()
    cloud.ready("action", "again")
    cloud.settle()
    assert sorted(hard for _, hard in cloud.room.hypervisor.reboots) == [False, True]
    cloud.delete("action", "again")
    assert cloud.recorded() == before


def test_a_namespace_with_an_action_is_in_use_until_that_is_deleted(cloud: Cloud) -> None:
    cloud.put("network", "lan", LAN)
    cloud.ready("network", "lan")
    cloud.put("namespace", "web", {"trusts": ["shop"]})
    cloud.put("namespace", "shop", {})
    cloud.put("action", "look", ping("10.1.0.1", "web/lan"), namespace="shop")
    assert cloud.refused_delete("namespace", "shop").code == "in_use"
    cloud.delete("action", "look", namespace="shop")
    cloud.delete("namespace", "shop")
