"""One suite for the hypervisor's port: the fake, libvirt's test driver, and QEMU by emulation.

What the test driver does not look at (whether bridge and disk are there) is asked of the other two.
"""
from __future__ import annotations

import queue
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from hypervisorworld import QEMU, defined, domain, made, refusal, seen, started, state

from wisp.host import Nic


@pytest.fixture(params=["fake", "test", QEMU])
def rig(request: pytest.FixtureRequest) -> Iterator[Any]:
    with made(request.param, request) as rig:
        yield rig


@pytest.fixture(params=["fake", QEMU])
def careful(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Those that look whether what a start needs is there."""
    with made(request.param, request) as rig:
        yield rig


def test_what_is_defined_is_seen_as_it_was_wanted(rig: Any) -> None:
    it = defined(rig, generation=7)
    found = seen(rig, it)
    assert found == it and found.generation == 7


SHAPES: dict[str, dict[str, Any]] = {
    "mixed disks": {"disks": ("scsi", "virtio", "sata", "virtio")}, "no disk": {"disks": ()},
    "uefi": {"disks": ("sata",), "firmware": "uefi"}, "vga": {"video": "vga"}, "virtio video": {"video": "virtio"},
    "no interface": {"nics": ()}, "three processors": {"cpus": 3, "memory_mib": 100},
    "16 virtio": {"disks": ("virtio",) * 16}, "16 scsi": {"disks": ("scsi",) * 16},
    "16 sata": {"disks": ("sata",) * 16}}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_starts_and_is_seen_as_it_was_wanted(rig: Any, shape: str) -> None:
    it = started(rig, **SHAPES[shape])
    assert seen(rig, it) == replace(it, power="on")


def test_sixteen_interfaces_keep_their_order(rig: Any) -> None:
    models = ("virtio", "e1000", "e1000e", "rtl8139") * 4
    uid = str(uuid4())
    nics = tuple(Nic(f"02:{uid[:2]}:{uid[2:4]}:{uid[4:6]}:00:{16 - number:02x}", f"br-{number % 3:06x}", model)
                 for number, model in enumerate(models))
    it = started(rig, nics=nics)
    found = seen(rig, it)
    assert found is not None and found.nics == nics and found.power == "on"


def test_a_look_at_everything_and_a_look_at_one_see_the_same(rig: Any) -> None:
    one, two = defined(rig), started(rig)
    everything = {found.uid: found for found in rig.hypervisor.observe(None)}
    assert everything == {one.uid: one, two.uid: replace(two, power="on")}
    assert [found.uid for found in rig.hypervisor.observe((two.uid, "sha256:" + "0" * 64, str(uuid4())))] == [two.uid]


def test_asking_twice_is_asking_once(rig: Any) -> None:
    it = defined(rig)
    hypervisor = rig.hypervisor
    for verb, power in ((hypervisor.define, "off"), (hypervisor.start, "on"), (hypervisor.suspend, "paused"),
                        (hypervisor.resume, "on"), (hypervisor.stop, "off"), (hypervisor.shutdown, "off"),
                        (hypervisor.undefine, "gone")):
        verb(it)
        assert state(rig, it)[0] == power
        verb(it)
        assert state(rig, it)[0] == power


def test_what_is_not_there_needs_no_stopping(rig: Any) -> None:
    for verb in (rig.hypervisor.stop, rig.hypervisor.shutdown, rig.hypervisor.undefine):
        verb(domain())


def test_what_is_not_there_cannot_be_started(rig: Any) -> None:
    for verb in (rig.hypervisor.start, rig.hypervisor.suspend, rig.hypervisor.resume):
        assert refusal(partial(verb, domain())).reason == "NotDefined"


def test_what_is_off_is_neither_suspended_nor_resumed(rig: Any) -> None:
    it = defined(rig)
    assert refusal(lambda: rig.hypervisor.suspend(it)).reason == "SuspendFailed"
    assert refusal(lambda: rig.hypervisor.resume(it)).reason == "ResumeFailed"


@pytest.mark.parametrize("hard", [False, True])
def test_a_reboot_leaves_it_running_and_what_is_off_off(rig: Any, hard: bool) -> None:
    it, still = started(rig), defined(rig)
    rig.hypervisor.reboot(it.uid, hard)
    assert state(rig, it)[0] == "on"
    assert refusal(lambda: rig.hypervisor.reboot(still.uid, hard)).reason == "RebootFailed"
    assert state(rig, still)[0] == "off"


def test_neither_what_is_not_there_nor_anothers_is_rebooted(rig: Any) -> None:
    foreign = domain(nics=())
    rig.intrude(foreign)
    for uid in (str(uuid4()), foreign.uid):
        assert refusal(lambda: rig.hypervisor.reboot(uid, False)).reason == "NotDefined"  # noqa: B023


def test_the_guest_is_asked_before_it_is_cut_off(rig: Any) -> None:
    it = started(rig)
    rig.hypervisor.shutdown(it)
    assert state(rig, it)[0] == "off"


def test_a_paused_guest_cannot_answer_and_is_not_waited_for(rig: Any) -> None:
    it = started(rig)
    rig.hypervisor.suspend(it)
    rig.hypervisor.shutdown(it)
    assert state(rig, it) == ("off", "destroyed")


def test_a_new_definition_does_not_disturb_what_runs(rig: Any) -> None:
    it = started(rig)
    larger = replace(it, cpus=2, memory_mib=96, generation=2, power="on")
    rig.hypervisor.define(larger)
    assert seen(rig, it) == larger
    rig.hypervisor.stop(it)
    rig.hypervisor.start(it)
    assert seen(rig, it) == larger


def test_a_name_belongs_to_one_domain(rig: Any) -> None:
    it = defined(rig)
    failed = refusal(lambda: rig.hypervisor.define(domain(name=it.name)))
    assert failed.reason == "DefineFailed" and it.uid in failed.message


def test_a_domain_that_was_renamed_gets_its_name_back(rig: Any) -> None:
    it = defined(rig)
    rig.hypervisor.define(replace(it, name="elsewhere"))
    assert seen(rig, it) == replace(it, name="elsewhere")


def test_what_runs_keeps_its_name(rig: Any) -> None:
    it = started(rig)
    assert refusal(lambda: rig.hypervisor.define(replace(it, name="elsewhere"))).reason == "DefineFailed"


WRONG: dict[str, dict[str, Any]] = {
    "markup for a model": {"nics": (Nic("02:00:00:00:00:01", "br-1", "x'/><y z='"),)},
    "a path for a name": {"name": "a/b"},
    "unknown bus": {"disks": ("wooden",)}, "no processor": {"cpus": 0}, "unknown video": {"video": "wooden"}}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_shape_that_cannot_be_is_refused_at_once(rig: Any, wrong: str) -> None:
    failed = refusal(lambda: rig.hypervisor.define(domain(**WRONG[wrong])))
    assert failed.reason == "DefineFailed" and failed.patience in (1, 3)


def test_what_runs_is_not_undefined(rig: Any) -> None:
    it = started(rig)
    assert refusal(lambda: rig.hypervisor.undefine(it)).reason == "UndefineFailed"
    assert state(rig, it)[0] == "on"


def test_an_outsiders_destroy_is_seen_with_its_reason(rig: Any) -> None:
    it = started(rig)
    rig.destroy(it.uid)
    assert state(rig, it) == ("off", "destroyed")


def test_an_outsiders_edit_is_seen_as_a_difference(rig: Any) -> None:
    it = defined(rig)
    rig.edit(replace(it, memory_mib=72))
    assert seen(rig, it) == replace(it, memory_mib=72)


def test_the_domain_of_another_cloud_is_neither_seen_nor_touched(rig: Any) -> None:
    theirs = domain()
    rig.intrude(theirs)
    assert not list(rig.hypervisor.observe(None)) and seen(rig, theirs) is None
    for verb in (rig.hypervisor.stop, rig.hypervisor.shutdown, rig.hypervisor.undefine):
        verb(theirs)
    assert refusal(lambda: rig.hypervisor.start(theirs)).reason == "NotDefined"
    assert "not ours" in refusal(lambda: rig.hypervisor.define(theirs)).message


def test_the_bell_names_who_moved(rig: Any) -> None:
    rung: queue.Queue[str | None] = queue.Queue()
    rig.hypervisor.watch(rung.put)
    it = started(rig)
    assert rung.get(timeout=60) == it.uid
    while not rung.empty():
        rung.get()
    rig.destroy(it.uid)
    assert rung.get(timeout=60) == it.uid


def test_it_says_what_runs_guests_and_why(rig: Any) -> None:
    virt, why = rig.hypervisor.virt_type()
    assert virt in ("qemu", "test") and why.endswith(".")


def test_a_start_without_its_bridge_fails_by_name(careful: Any) -> None:
    it = domain(nics=(Nic("02:00:5e:00:00:01", "br-0000aa"),))
    careful.add_files(it)
    careful.hypervisor.define(it)
    failed = refusal(lambda: careful.hypervisor.start(it))
    assert failed.reason == "StartFailed" and failed.patience == 5 and "br-0000aa" in failed.message
    assert state(careful, it) == ("off", "failed to start")


def test_a_start_without_its_disk_fails(careful: Any) -> None:
    it = defined(careful)
    careful.lose_disk(it)
    assert refusal(lambda: careful.hypervisor.start(it)).reason == "StartFailed"


def test_what_runs_needs_nothing_more_to_be_started(careful: Any) -> None:
    it = started(careful)
    careful.lose_disk(it)
    careful.hypervisor.start(it)
    assert state(careful, it)[0] == "on"


def test_a_crash_is_told_and_started_from(careful: Any) -> None:
    rung: queue.Queue[str | None] = queue.Queue()
    it = started(careful)
    careful.hypervisor.watch(rung.put)
    careful.crash(it.uid)
    while state(careful, it)[0] == "on":
        assert rung.get(timeout=60) == it.uid
    assert state(careful, it) == ("off", "crashed")
    careful.hypervisor.start(it)
    assert state(careful, it)[0] == "on"


def test_a_tap_taken_off_its_bridge_is_seen(careful: Any) -> None:
    it = started(careful)
    careful.unplug(it.nics[0])
    found = seen(careful, it)
    assert found is not None and not found.nics[0].plugged


def test_a_guest_that_stands_still_unasked_counts_as_crashed_and_starts_anew(careful: Any) -> None:
    it = started(careful)
    careful.stall(it.uid)
    power, note = state(careful, it)
    assert power == "crashed" and note.startswith("stopped ")
    careful.hypervisor.start(it)
    assert state(careful, it) == ("on", "")
