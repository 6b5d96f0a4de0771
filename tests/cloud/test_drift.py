"""What others do to a machine is found and made good, said as an event, and what is not ours is let be."""
from __future__ import annotations

from dataclasses import replace

import pytest
from simulated import BOOTED, IMAGE, SMALL, Cloud, Make, boot

from wisp.fakes.fabric import FakeKernel
from wisp.host import Disk, Domain, Gateway, Image, Seed, Segment


@pytest.fixture
def vm(cloud: Cloud) -> Domain:
    """A running instance on a network, all at rest."""
    return boot(cloud)


def test_a_machine_somebody_destroyed_runs_again_and_an_event_says_so(cloud: Cloud, vm: Domain) -> None:
    cloud.room.hypervisor.destroy(vm.uid)
    cloud.until(lambda: cloud.room.only(Domain).power == "on")
    cloud.settle()
    assert cloud.room.done == ["start"]
    assert cloud.events("instance", "vm")[0] == f"n1: start {vm}"
    cloud.ready("instance", "vm")


def test_a_machine_that_crashed_or_stands_still_is_started_again(cloud: Cloud, vm: Domain) -> None:
    cloud.room.hypervisor.crash(vm.uid)
    cloud.until(lambda: cloud.room.only(Domain).power == "on")
    cloud.room.hypervisor.stall(vm.uid)
    cloud.until(lambda: cloud.room.only(Domain).power == "on")
    cloud.settle()
    assert cloud.room.done == ["start", "stop", "start"]


def test_a_machine_that_should_be_off_and_was_started_is_shut_down(cloud: Cloud, vm: Domain) -> None:
    cloud.put("instance", "vm", {**BOOTED, "power": "off"})
    cloud.until(lambda: cloud.room.only(Domain).power == "off")
    cloud.settle()
    cloud.room.hypervisor.start(vm)
    cloud.until(lambda: cloud.room.only(Domain).power == "off")


def test_a_definition_somebody_edited_is_as_it_was_asked_for(cloud: Cloud, vm: Domain) -> None:
    cloud.room.hypervisor.edit(replace(vm, memory_mib=9999))
    cloud.until(lambda: cloud.room.only(Domain).memory_mib == 64)
    cloud.settle()
    assert cloud.room.done == ["shutdown", "define", "start"]


def test_a_lost_bridge_is_rebuilt_with_its_gateway_and_the_guest_is_plugged_in_again(cloud: Cloud, vm: Domain) -> None:
    segment = cloud.room.only(Segment)
    cloud.room.kernel.lose(segment.bridge)
    assert not cloud.room.only(Domain).nics[0].plugged
    cloud.until(lambda: cloud.room.only(Domain).nics[0].plugged, "the guest is plugged in")
    cloud.settle()
    assert set(cloud.room.done) == {"build_segment", "build_gateway", "plug"}, "and the guest never stopped"
    assert cloud.room.only(Segment) == segment
    said = cloud.events("network", "lan")
    assert f"n1: build {segment}" in said and f"n1: build {cloud.room.only(Gateway)}" in said
    assert cloud.events("instance", "vm")[0] == f"n1: plug {vm}"


def test_a_lost_gateway_is_rebuilt_and_the_segment_left_alone(cloud: Cloud, vm: Domain) -> None:
    gateway = cloud.room.only(Gateway)
    cloud.room.kernel.lose(gateway.namespace)
    cloud.until(lambda: cloud.room.parts(Gateway) == [gateway])
    cloud.settle()
    assert cloud.room.done == ["build_gateway"]


def test_a_machine_and_its_bridge_lost_together_come_back_together(cloud: Cloud, vm: Domain) -> None:
    cloud.room.hypervisor.destroy(vm.uid)
    cloud.room.kernel.lose(cloud.room.only(Segment).bridge)
    cloud.settle()
    now = cloud.room.only(Domain)
    assert now.power == "on" and now.nics[0].plugged
    cloud.ready("instance", "vm")


@pytest.mark.parametrize("power", ["on", "off"])
def test_a_lost_disk_is_said_and_nothing_is_made_anew(cloud: Cloud, vm: Domain, power: str) -> None:
    cloud.put("instance", "vm", {**BOOTED, "power": power})
    cloud.settle()
    cloud.room.done.clear()
    cloud.room.depot.lose(cloud.room.only(Disk))
    cloud.settle()
    failed = cloud.said("instance", "vm", "Failed", "DiskLost")
    assert failed["message"] == "Disk 0 existed and cannot be found."
    assert cloud.room.done == [] and cloud.room.parts(Disk) == []
    cloud.restart()
    cloud.settle()
    assert cloud.room.done == [] and cloud.said("instance", "vm", "Ready", "DiskLost")["status"] == "False"
    cloud.remove("instance", "vm")


def test_a_lost_config_drive_is_written_again(cloud: Cloud, vm: Domain) -> None:
    seed = cloud.room.only(Seed)
    cloud.room.depot.drop_seed(seed)
    cloud.settle()
    assert cloud.room.only(Seed) == seed and cloud.room.done == ["write_seed"]


def test_what_bears_no_mark_of_ours_is_not_touched(cloud: Cloud) -> None:
    foreign = Domain("11111111-2222-4333-8444-555555555555", "theirs", 1, 64, (), (), "")
    cloud.room.hypervisor.intrude(foreign)
    cloud.room.kernel.marks.update({"br-00beef": "other:net", "vx-00beef": "other:net", "gw-00beef": "other:net"})
    boot(cloud)
    cloud.remove("instance", "vm")
    cloud.settle()
    assert not {"br-00beef", "vx-00beef", "gw-00beef"} - cloud.room.kernel.marks.keys()
    assert cloud.room.hypervisor._entries[foreign.uid].shape == foreign


def test_two_clouds_share_one_kernel_in_peace(clouds: Make) -> None:
    kernel = FakeKernel()
    one, two = clouds(kernels=[kernel], cluster="one"), clouds(kernels=[kernel], cluster="two")
    for cloud in (one, two):
        boot(cloud)
    theirs = {name: mark for name, mark in kernel.marks.items() if mark.startswith("two:")}
    taps = set(kernel.taps.values())
    assert len(theirs) == 5 and len(taps) == 2
    one.remove("instance", "vm")
    one.remove("network", "lan")
    one.settle()
    two.settle()
    assert {name: mark for name, mark in kernel.marks.items() if not mark.startswith("two:")} == {}
    assert kernel.marks == theirs and two.room.done == []
    assert set(kernel.taps.values()) == {two.room.only(Segment).bridge}


def test_a_device_of_ours_that_nothing_wants_is_reaped(cloud: Cloud, vm: Domain) -> None:
    cloud.room.fabric.build_segment(Segment("11111111-2222-4333-8444-555555555555", 0xBEEF))
    cloud.room.fabric.build_gateway(Gateway("11111111-2222-4333-8444-555555555555", 0xBEEF, "10.9.0.1/24", "02:00:00:00:00:09", "100.64.0.9"))
    cloud.room.depot.fetch(Image("9" * 64, url="http://images.example/other"))
    cloud.settle()
    assert not any(name.endswith("00beef") for name in cloud.room.kernel.marks)
    assert [image.sha256 for image in cloud.room.parts(Image)] == [IMAGE["sha256"]]
    assert cloud.room.done == ["remove_gateway", "remove_segment", "drop_image"]


def test_an_instance_without_networks_or_image_needs_neither(cloud: Cloud) -> None:
    cloud.put("instance", "bare", SMALL)
    cloud.ready("instance", "bare")
    assert cloud.room.done == ["create_disk", "write_seed", "define", "start"]
