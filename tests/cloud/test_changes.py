"""Changing what exists: in place where that can be, refused where it cannot, and no more than was asked for."""
from __future__ import annotations

from typing import Any

import pytest
from simulated import BOOTED, IMAGE, LAN, SMALL, Cloud, boot

from wisp.host import Domain, Gateway, Seed
from wisp.store import under

SECRET = "#!/bin/sh\necho a-secret-that-nobody-sees"


@pytest.fixture
def vm(cloud: Cloud) -> Cloud:
    boot(cloud)
    return cloud


def change(cloud: Cloud, **said: Any) -> list[str]:
    """The steps that a change of the instance takes."""
    metadata = {"metadata": said.pop("metadata")} if "metadata" in said else {}
    cloud.room.done.clear()
    cloud.put("instance", "vm", {**BOOTED, **said}, **metadata)
    cloud.ready("instance", "vm")
    cloud.settle()
    return list(cloud.room.done)


def test_power_follows_what_was_asked_for(vm: Cloud) -> None:
    ways = {}
    now = "on"
    for power in ("paused", "on", "off", "paused", "off", "on"):
        ways[now, power] = change(vm, power=power)
        assert vm.room.only(Domain).power == power == vm.get("instance", "vm")["status"]["power"]
        now = power
    assert ways == {("on", "paused"): ["suspend"], ("paused", "on"): ["resume"], ("on", "off"): ["shutdown"],
                    ("off", "paused"): ["start", "suspend"], ("paused", "off"): ["stop"], ("off", "on"): ["start"]}


def test_more_memory_means_one_restart(vm: Cloud) -> None:
    assert change(vm, memory_mib=128) == ["shutdown", "define", "start"]
    assert vm.room.only(Domain).memory_mib == 128


def test_more_memory_and_off_means_no_start(vm: Cloud) -> None:
    assert change(vm, memory_mib=128, power="off") == ["shutdown", "define"]
    assert change(vm, memory_mib=256, power="off") == ["define"]
    assert change(vm, memory_mib=256) == ["start"]


def test_metadata_is_nobodys_business_but_yours(vm: Cloud) -> None:
    assert change(vm, metadata={"role": "front"}) == []
    shown = vm.get("instance", "vm")
    assert shown["metadata"] == {"role": "front"} and shown["generation"] == 2
    assert change(vm) == []
    assert vm.get("instance", "vm")["metadata"] == {}


@pytest.mark.parametrize(("kind", "name", "spec", "pointer"), [
    ("network", "lan", {"cidr": "10.2.0.0/24"}, "/spec/cidr"),
    ("image", "guest", {**IMAGE, "sha256": "6" * 64}, "/spec/sha256"),
    ("image", "guest", {**IMAGE, "format": "raw"}, "/spec/format"),
    ("instance", "vm", {**BOOTED, "disks": [{"image": "guest", "size_gib": 2}]}, "/spec/disks"),
    ("instance", "vm", {**BOOTED, "networks": []}, "/spec/networks"),
    ("instance", "vm", {**BOOTED, "ssh_keys": ["ssh-ed25519 AAAA me"]}, "/spec/ssh_keys"),
    ("instance", "vm", {**BOOTED, "firmware": "uefi"}, "/spec/firmware"),
    ("instance", "vm", {**BOOTED, "placement": {"node": "n1"}}, "/spec/placement"),
    ("instance", "vm", {**BOOTED, "user_data": SECRET}, "/spec/user_data"),
])
def test_what_cannot_change_is_refused_with_its_place(vm: Cloud, kind: str, name: str, spec: dict[str, Any], pointer: str) -> None:
    problem = vm.refusal(kind, name, spec)
    assert (problem.code, [fault.pointer for fault in problem.faults]) == ("immutable", [pointer])


def test_user_data_reaches_the_guest_and_stands_nowhere_else(cloud: Cloud) -> None:
    first = cloud.put("instance", "vm", {**SMALL, "user_data": SECRET})
    cloud.ready("instance", "vm")
    assert cloud.put("instance", "vm", SMALL).etag == first.etag, "left out, it keeps its value"
    assert cloud.put("instance", "vm", {**SMALL, "user_data": SECRET}).etag == first.etag
    assert cloud.refusal("instance", "vm", {**SMALL, "user_data": "other"}).code == "immutable"
    cloud.put("instance", "vm", {**SMALL, "power": "off"})
    cloud.settle()
    (seed,) = cloud.room.depot.written.values()
    assert seed["openstack/latest/user_data"] == SECRET
    kept = [entry.key for entry in cloud.store.read(under("")).spans[0] if b"a-secret" in entry.value]
    assert kept == ["/wisp/v1/user_data/web/instance/vm"]
    assert not [entry for entry in cloud.service.mirror.scan("") if b"a-secret" in entry.value]
    assert "a-secret" not in f"{cloud.get('instance', 'vm')} {cloud.events('instance', 'vm')} {cloud.room.host()}"
    cloud.remove("instance", "vm")
    assert not [entry for entry in cloud.store.read(under("")).spans[0] if b"a-secret" in entry.value]


def test_the_config_drive_says_name_keys_and_addresses(vm: Cloud) -> None:
    vm.put("instance", "other", {**BOOTED, "ssh_keys": ["ssh-ed25519 AAAA me"]})
    shown = vm.ready("instance", "other")
    (files,) = (files for (uid, _), files in vm.room.depot.written.items() if uid == shown["uid"])
    assert '"name": "other"' in files["openstack/latest/meta_data.json"]
    assert "ssh-ed25519 AAAA me" in files["openstack/latest/meta_data.json"]
    assert shown["binding"]["interfaces"][0]["address"] in files["openstack/latest/network_data.json"]
    assert "openstack/latest/user_data" not in files


def test_other_name_servers_are_the_gateways_affair_alone(vm: Cloud) -> None:
    vm.put("network", "lan", {**LAN, "dns_servers": ["9.9.9.9"]})
    vm.until(lambda: vm.room.only(Gateway).dns == ("9.9.9.9",))
    vm.settle()
    assert vm.room.done == ["build_gateway"]


def test_a_network_without_dhcp_is_another_config_drive_and_restarts_nobody(vm: Cloud) -> None:
    seed = vm.room.only(Seed)
    vm.put("network", "lan", {**LAN, "dhcp": False})
    vm.until(lambda: not vm.room.only(Gateway).dhcp)
    vm.settle()
    assert sorted(vm.room.done) == ["build_gateway", "define", "write_seed"]
    assert vm.room.only(Domain).power == "on"
    assert seed in vm.room.parts(Seed), "the drive that the running guest has in it stays"
    vm.ready("network", "lan")
    vm.put("instance", "vm", {**BOOTED, "power": "off"})
    vm.until(lambda: seed not in vm.room.parts(Seed))


def test_a_network_without_dhcp_and_nat_has_no_gateway(vm: Cloud) -> None:
    vm.put("network", "lan", {**LAN, "dhcp": False, "nat": False})
    vm.until(lambda: vm.room.parts(Gateway) == [])
    vm.ready("network", "lan")
    vm.put("network", "lan", LAN)
    vm.until(lambda: vm.room.parts(Gateway))
    vm.ready("network", "lan")
    assert vm.room.only(Domain).power == "on"


def test_the_gateway_leases_to_those_who_are_on_its_network(vm: Cloud) -> None:
    vm.put("instance", "other", BOOTED)
    vm.ready("instance", "other")
    vm.settle()
    given = {vm.get("instance", name)["binding"]["interfaces"][0]["address"] for name in ("vm", "other")}
    assert {lease.address for lease in vm.room.only(Gateway).leases} == given
    vm.remove("instance", "other")
    vm.settle()
    assert {lease.name for lease in vm.room.only(Gateway).leases} == {"vm"}
    vm.put("network", "lan", {**LAN, "dhcp": False})
    vm.settle()
    assert vm.room.only(Gateway).leases == frozenset()
