"""An agent between its documents and its machine: what it saw may be old by the time it plans.

Looking at a machine takes a moment, in which steps end. These tests stretch that moment.
"""
from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from simulated import IMAGE, LAN, PATIENCE, SHA, SMALL, Cloud, Make, Wire
from test_images import DISKED

from wisp.errors import Problem, StepFailed
from wisp.host import Domain, Image, Segment
from wisp.store import Guard


class Slow:
    """The machine's answer to one look, held back until steps that were under way have ended."""

    def __init__(self, cloud: Cloud, verb: str, look: Callable[[Any], bool]) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self._cloud, self._verb, self._look = cloud, verb, look
        self._held = False

    def __call__(self, verb: str, args: tuple[Any, ...], go_on: Callable[[], Any]) -> Any:
        if verb == self._verb:
            self.begun.set()
            assert self.go_on.wait(PATIENCE)
            return go_on()
        answer = go_on()
        if verb == "observe" and self.begun.is_set() and not self._held and self._look(args[0]):
            self._held = True
            self.go_on.set()
            self._cloud.until(lambda: not self._cloud.service.agents["n1"]._memory.busy())
        return answer


@pytest.mark.parametrize("name", ["guest", "twin"])
def test_who_looks_for_an_image_just_as_it_arrives_does_not_wait_for_ever(cloud: Cloud, name: str) -> None:
    slow = Slow(cloud, "fetch", lambda tokens: tokens is not None and f"sha256:{SHA}" in tokens and len(tokens) > 2)
    cloud.room.between = slow
    cloud.put("image", "guest", IMAGE)
    cloud.put("image", "twin", IMAGE)
    cloud.put("instance", "first", DISKED)
    assert slow.begun.wait(PATIENCE)
    cloud.put("instance", "second", {**SMALL, "disks": [{"image": name, "size_gib": 1}]})
    cloud.ready("instance", "second")
    cloud.ready("instance", "first")


def test_what_was_seen_before_a_restart_does_not_restart_it_again(cloud: Cloud) -> None:
    cloud.put("instance", "vm", SMALL)
    cloud.ready("instance", "vm")
    cloud.settle()
    slow = Slow(cloud, "define", lambda tokens: True)
    cloud.room.between = slow
    cloud.room.done.clear()
    cloud.put("instance", "vm", {**SMALL, "memory_mib": 128})
    assert slow.begun.wait(PATIENCE)
    cloud.put("instance", "vm", {**SMALL, "memory_mib": 128}, metadata={"look": "again"})
    cloud.settle()
    assert cloud.room.done == ["shutdown", "define", "start"]


def test_what_was_made_while_its_absence_was_noted_is_taken_down_all_the_same(cloud: Cloud) -> None:
    slow = Slow(cloud, "create_disk", lambda tokens: True)
    cloud.room.between = slow
    cloud.put("instance", "vm", SMALL)
    assert slow.begun.wait(PATIENCE)
    cloud.remove("instance", "vm")
    assert not cloud.room.host().parts, "forgotten, and left behind on the machine"


def test_nothing_is_built_for_a_wish_that_has_just_changed(clouds: Make) -> None:
    wire = Wire()
    cloud = clouds(store=wire)
    held = f"{cloud.ref('instance', 'vm').key('status')}/n1"

    def mind(guards: Sequence[Guard], ops: Sequence[Any], go_on: Callable[[], int]) -> int:
        if any(op.key == held for op in ops):
            wire.mind = None
            cloud.put("instance", "vm", {**SMALL, "power": "off"})
        return go_on()
    wire.mind = mind
    cloud.put("instance", "vm", SMALL)
    cloud.until(lambda: wire.mind is None)
    cloud.settle()
    assert cloud.room.done == ["create_disk", "write_seed", "define"]


def test_a_machine_that_cannot_be_looked_at_is_looked_at_again(cloud: Cloud) -> None:
    back, tried = threading.Event(), 0

    def between(verb: str, args: tuple[Any, ...], go_on: Callable[[], Any]) -> Any:
        nonlocal tried
        if verb == "observe" and not back.is_set():
            tried += 1
            raise StepFailed("Unreachable", "The daemon is restarting.")
        return go_on()
    cloud.room.between = between
    cloud.put("instance", "vm", SMALL)
    cloud.until(lambda: tried >= 3)
    assert cloud.room.done == []
    back.set()
    cloud.ready("instance", "vm")


def test_a_fault_in_a_step_is_said_and_holds_up_nobody_else(cloud: Cloud) -> None:
    def between(verb: str, args: tuple[Any, ...], go_on: Callable[[], Any]) -> Any:
        if verb == "define" and args[0].name.startswith("web.sick"):
            raise ZeroDivisionError
        return go_on()
    cloud.room.between = between
    cloud.put("instance", "sick", SMALL)
    cloud.put("instance", "well", SMALL)
    cloud.ready("instance", "well")
    assert "ZeroDivision" not in cloud.said("instance", "sick", "Ready", "InternalError")["message"]


def test_while_the_store_is_down_nothing_is_taken_down_and_nothing_is_asked_in_a_frenzy(clouds: Make, monkeypatch: Any) -> None:
    wire = Wire()
    cloud = clouds(store=wire)
    cloud.put("network", "lan", LAN)
    cloud.put("instance", "vm", {**SMALL, "networks": [{"network": "lan"}]})
    cloud.ready("instance", "vm")
    cloud.settle()
    monkeypatch.setattr("wisp.agent.agent.PAUSE", 0.2)
    at: list[float] = []

    def down(go_on: Callable[[], int]) -> int:
        at.append(time.monotonic())
        raise Problem("store_unavailable", "The store does not answer.")
    wire.mind = lambda guards, ops, go_on: down(go_on) if any("/status/" in op.key for op in ops) else go_on()
    cloud.put("network", "more", {"cidr": "10.3.0.0/24"})
    cloud.until(lambda: len(at) >= 3)
    assert at[1] - at[0] >= 0.1 and at[2] - at[1] >= 0.1
    assert cloud.room.only(Domain).power == "on" and len(cloud.room.parts(Segment)) == 1
    wire.mind = None
    cloud.ready("network", "more")


def test_steps_of_different_subjects_run_side_by_side(cloud: Cloud) -> None:
    together = threading.Barrier(4)

    def between(verb: str, args: tuple[Any, ...], go_on: Callable[[], Any]) -> Any:
        if verb == "create_disk":
            together.wait(PATIENCE)
        return go_on()
    cloud.room.between = between
    for n in range(4):
        cloud.put("instance", f"vm-{n}", SMALL)
    for n in range(4):
        cloud.ready("instance", f"vm-{n}")


def test_two_images_of_one_content_are_never_fetched_at_the_same_time(cloud: Cloud) -> None:
    busy = threading.Lock()

    def between(verb: str, args: tuple[Any, ...], go_on: Callable[[], Any]) -> Any:
        if verb == "fetch":
            if not busy.acquire(blocking=False):
                raise StepFailed("Together", "Two at the same time.", patience=1)
            try:
                return go_on()
            finally:
                busy.release()
        return go_on()
    cloud.room.between = between
    names = [f"guest-{n}" for n in range(6)]
    for name in names:
        cloud.put("image", name, IMAGE)
    cloud.put("instance", "vm", {**SMALL, "disks": [{"image": name, "size_gib": 1} for name in names]})
    cloud.ready("instance", "vm")
    assert len(cloud.room.parts(Image)) == 1
    assert not any("Together" in text for name in names for text in cloud.events("image", name))
