"""Actions are done at most once, whatever breaks when, and what is told of them is what happened."""
from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent.parent / "breakage"))
from scenario import How, PowerCut, Trouble, Where
from simulated import REBOOT, Cloud, Make, Wire, machine
from test_images import holding

from wisp.conditions import condition, find, has_failed, is_ready
from wisp.errors import Problem
from wisp.resource import dumps, node_key, now
from wisp.store import Guard, Put
from wisp.store.memory import MemoryStore


def test_the_same_put_runs_nothing(cloud: Cloud, vm: dict[str, Any]) -> None:
    first = cloud.put("action", "again", REBOOT)
    cloud.ready("action", "again")
    cloud.settle()
    revision = cloud.store.revision()
    second = cloud.put("action", "again", REBOOT)
    assert not second.created and second.etag == first.etag and is_ready(second.document)
    assert cloud.refusal("action", "again", {**REBOOT, "mode": "hard"}).code == "immutable"
    cloud.settle()
    assert cloud.store.revision() == revision and len(cloud.room.hypervisor.reboots) == 1


def test_tags_may_change_and_what_was_done_stays_done(cloud: Cloud, vm: dict[str, Any]) -> None:
    cloud.put("action", "again", REBOOT)
    cloud.ready("action", "again")
    cloud.put("action", "again", REBOOT, metadata={"why": "kernel"})
    assert is_ready(cloud.get("action", "again"))
    cloud.settle()
    cloud.restart()
    cloud.settle()
    assert is_ready(cloud.get("action", "again")) and len(cloud.room.hypervisor.reboots) == 1


def test_what_an_agent_that_ended_had_begun_is_interrupted_and_not_done_again(clouds: Make) -> None:
    cloud = clouds(store=Wire())
    machine(cloud)
    tell(cloud, trouble := Trouble("step", "crash after", 1), "again")
    assert trouble.struck and len(cloud.room.hypervisor.reboots) == 1
    shown = cloud.get("action", "again")
    assert find(shown["status"], "Failed")["reason"] == "Interrupted" and has_failed(shown)
    assert not cloud.put("action", "again", REBOOT).created
    cloud.settle()
    assert len(cloud.room.hypervisor.reboots) == 1


def tell(cloud: Cloud, trouble: Trouble, name: str) -> dict[str, Any]:
    """Asks for a reboot until it is answered, and waits for what comes of it; when the power goes, a new service goes on."""
    cloud.room.between, cloud.heartbeat = trouble.step, lambda: _dark(trouble)
    assert isinstance(cloud.store, Wire)
    cloud.store.mind = trouble.commit

    def over() -> dict[str, Any] | None:
        shown = cloud.get("action", name)
        return shown if is_ready(shown) or has_failed(shown) else None
    for act in (lambda: cloud.put("action", name, REBOOT), lambda: cloud.until(over, "the end of it"), cloud.settle):
        until_answered(cloud, trouble, act)
    return cloud.get("action", name)


def until_answered(cloud: Cloud, trouble: Trouble, act: Callable[[], Any]) -> None:
    while True:
        try:
            act()
            return
        except PowerCut:
            pass
        except Problem as problem:
            assert problem.code == "store_unavailable" and trouble.struck, problem
        if trouble.dark:
            cloud.service.stop()
            trouble.dark = False
            cloud.start()


def _dark(trouble: Trouble) -> None:
    if trouble.dark:
        raise PowerCut


TROUBLES: list[tuple[Where, How, set[tuple[str, int]]]] = [
    ("step", "crash before", {("Interrupted", 0)}), ("step", "crash after", {("Interrupted", 1)}),
    ("step", "stumble before", {("Injected", 0)}), ("step", "stumble after", {("Injected", 1)}),
    ("commit", "crash before", {("Done", 1), ("Interrupted", 1)}), ("commit", "crash after", {("Done", 1), ("Interrupted", 0)}),
    ("commit", "stumble before", {("Done", 1)}), ("commit", "stumble after", {("Done", 1)}), ("commit", "lost race", {("Done", 1)})]


@pytest.mark.parametrize(("where", "how", "ends"), TROUBLES)
def test_trouble_at_any_moment_never_does_it_twice_and_is_told_as_it_was(clouds: Make, where: Where, how: How,
                                                                        ends: set[tuple[str, int]]) -> None:
    cloud = clouds(store=Wire())
    machine(cloud)
    seen, at, struck = set[tuple[str, int]](), 0, True
    while struck:
        cloud.settle()
        at += 1
        cloud.room.hypervisor.reboots.clear()
        status = tell(cloud, trouble := Trouble(where, how, at), f"again-{at}")["status"]
        struck = trouble.struck
        if struck:
            seen.add((find(status, "Ready")["reason"], len(cloud.room.hypervisor.reboots)))
    assert seen == ends and at > (1 if where == "step" else 3)


def test_two_actions_at_once_are_two(cloud: Cloud, vm: dict[str, Any]) -> None:
    go_on = threading.Event()
    cloud.room.between = holding("reboot", go_on)
    for name in ("one", "two"):
        cloud.put("action", name, REBOOT)
    cloud.until(lambda: cloud.room.done.count("reboot") == 2)
    cloud.turn()
    assert find(cloud.get("action", "one")["status"], "Ready")["reason"] == "Started"
    go_on.set()
    for name in ("one", "two"):
        cloud.ready("action", name)
    assert len(cloud.room.hypervisor.reboots) == 2


@pytest.mark.parametrize("meanwhile", ["expired", "begun by another incarnation"])
def test_who_comes_second_does_nothing(clouds: Make, meanwhile: str) -> None:
    cloud = clouds(store=Wire())
    machine(cloud)
    cloud.service.conductor.stop()
    key = f"{cloud.ref('action', 'again').key('status')}/n1"
    first = condition("Ready", "False", meanwhile.split()[0].title(), "", now())
    said = {"observed_generation": 1, "incarnation": "another", "conditions": [first]}
    said |= {"finished_at": now()} if meanwhile == "expired" else {}

    def faster(guards: Sequence[Guard], ops: Sequence[Any], go_on: Callable[[], int]) -> int:
        if any(getattr(op, "key", "") == key for op in ops) and key not in cloud.raw_keys():
            MemoryStore.commit(cloud.store, [], [Put(key, dumps(said))])  # type: ignore[arg-type]
        return go_on()
    cloud.store.mind = faster  # type: ignore[attr-defined]
    cloud.put("action", "again", REBOOT)
    reason = "Expired" if meanwhile == "expired" else "Interrupted"
    cloud.said("action", "again", "Ready", reason)
    cloud.settle()
    cloud.said("action", "again", "Ready", reason)
    assert "reboot" not in cloud.room.done


def test_what_is_done_stays_done_when_its_node_is_lost_and_what_runs_is_unknown(cloud: Cloud, vm: dict[str, Any]) -> None:
    cloud.put("action", "done", REBOOT)
    cloud.ready("action", "done")
    go_on = threading.Event()
    cloud.room.between = holding("reboot", go_on)
    cloud.put("action", "runs", REBOOT)
    cloud.said("action", "runs", "Ready", "Started")
    entry = cloud.service.mirror.get(node_key("n1"))
    assert entry
    cloud.store.revoke(entry.lease)
    assert cloud.said("action", "runs", "Ready", "NodeLost")["status"] == "Unknown"
    assert find(cloud.get("action", "done")["status"], "Ready")["reason"] == "Done"
    go_on.set()
    cloud.said("action", "runs", "Ready", "Done")
