"""What a machine really does: boots, answers, survives its service, comes back when meddled with, and goes without a trace."""
from __future__ import annotations

import hashlib
import json
import signal
import struct
import subprocess
from typing import Any

import pytest

from .conftest import Cloud, Origin, condition, small, until

Doc = dict[str, Any]


def domains(cloud: Cloud) -> list[str]:
    return cloud.world.run("virsh", "-q", "list", "--name").split()


def test_a_machine_boots_reads_its_config_drive_and_answers_on_its_network(cloud: Cloud, lan: Doc, guest_image: Doc) -> None:
    script = "#!/bin/sh\necho GUEST: mtu $(cat /sys/class/net/eth0/mtu)\necho GUEST: told-by-user-data"
    vm = cloud.put("instances", "front", **small(user_data=script))
    assert cloud.ready("instances", "front")["status"]["power"] == "on"
    said = cloud.booted(vm)
    assert "GUEST: told-by-user-data" in said and "GUEST: mtu 1450" in said
    assert vm["binding"]["interfaces"][0]["address"] in said
    assert cloud.reaches(lan, vm)
    assert "front" in cloud.page(lan, vm)
    assert cloud.reaches(lan, vm, "-M", "do", "-s", "1422")
    assert not cloud.reaches(lan, vm, "-M", "do", "-s", "1423")


def test_a_guest_gets_its_address_by_dhcp_and_reaches_the_outside_through_nat(cloud: Cloud, lan: Doc, guest_image: Doc) -> None:
    script = "#!/bin/sh\nping -c 1 -W 5 198.51.100.1 && echo GUEST: outside-answers\n" \
             "udhcpc -n -q -f -i eth0 -s /bin/true -t 5 && echo GUEST: dhcp-answers"
    vm = cloud.put("instances", "front", **small(user_data=script))
    said = cloud.booted(vm)
    assert "GUEST: outside-answers" in said
    assert "GUEST: dhcp-answers" in said and f"lease of {vm['binding']['interfaces'][0]['address']} obtained" in said


def test_machines_keep_running_when_the_service_ends_and_are_adopted_when_it_returns(cloud: Cloud, lan: Doc, guest_image: Doc) -> None:
    vm = cloud.put("instances", "front", **small())
    cloud.booted(vm)
    told, running = cloud.events("instances", "front"), domains(cloud)
    for how in (signal.SIGTERM, signal.SIGKILL):
        cloud.end(how)
        assert cloud.reaches(lan, vm) and domains(cloud) == running
        cloud.start()
        assert cloud.ready("instances", "front")["uid"] == vm["uid"]
    assert cloud.events("instances", "front") == told, "adopting a machine takes no step"
    assert cloud.console(vm).count("GUEST: READY") == 1


def test_sigterm_leaves_nothing_but_the_state_and_the_machines(cloud: Cloud) -> None:
    assert cloud.end(signal.SIGTERM) == 0
    programs = cloud.world.run("ps", "-eo", "comm").split()
    assert not {"etcd", "wisp", "dnsmasq"} & set(programs)
    cloud.start()


def test_a_destroyed_machine_and_a_deleted_bridge_are_both_back_and_an_event_says_so(cloud: Cloud, lan: Doc, guest_image: Doc) -> None:
    vm = cloud.put("instances", "front", **small())
    cloud.booted(vm)
    bridge = f"br-{lan['binding']['vni']:06x}"
    cloud.world.run("virsh", "destroy", domains(cloud)[0])
    cloud.world.run("ip", "link", "del", bridge)
    cloud.booted(vm, times=2)
    assert cloud.reaches(lan, vm)
    assert cloud.events("instances", "front")[0].startswith("local: start domain")
    assert "local: build segment" in " ".join(cloud.events("networks", "lan"))


def test_a_running_machine_whose_bridge_was_deleted_is_plugged_in_again_without_a_restart(cloud: Cloud, lan: Doc, guest_image: Doc) -> None:
    vm = cloud.put("instances", "front", **small())
    cloud.booted(vm)
    cloud.world.run("ip", "link", "del", f"br-{lan['binding']['vni']:06x}")
    until(lambda: cloud.reaches(lan, vm), "the guest answers again")
    assert cloud.console(vm).count("GUEST: READY") == 1
    assert "plug domain" in cloud.events("instances", "front")[0]


def test_a_killed_dnsmasq_and_flushed_rules_come_back(cloud: Cloud, lan: Doc) -> None:
    cloud.ready("networks", "lan")
    space = cloud.gateway(lan)
    cloud.world.run("ip", "netns", "exec", space, "nft", "flush", "ruleset")
    cloud.world.run("pkill", "dnsmasq")
    cloud.put("networks", "lan", cidr="10.1.0.0/24", dns_servers=["192.0.2.53"])
    cloud.ready("networks", "lan")
    assert "masquerade" in cloud.world.run("ip", "netns", "exec", space, "nft", "list", "ruleset") or \
        "snat" in cloud.world.run("ip", "netns", "exec", space, "nft", "list", "ruleset")
    assert cloud.world.run("pgrep", "-c", "dnsmasq").strip() == "1"


def test_power_follows_the_document(cloud: Cloud, lan: Doc, guest_image: Doc) -> None:
    vm = cloud.put("instances", "front", **small())
    cloud.booted(vm)
    assert cloud.ready("instances", "front")["status"]["power"] == "on"
    cloud.put("instances", "front", **small(power="paused"))
    assert cloud.ready("instances", "front")["status"]["power"] == "paused"
    cloud.put("instances", "front", **small(power="off"))
    assert cloud.ready("instances", "front")["status"]["power"] == "off"
    assert domains(cloud) == []
    cloud.put("instances", "front", **small(power="on", memory_mib=224))
    cloud.ready("instances", "front")
    cloud.booted(vm, times=2)
    assert "229376 KiB" in cloud.world.run("virsh", "dominfo", domains(cloud)[0])


def test_a_machine_asked_to_power_off_does_so_by_itself(cloud: Cloud, lan: Doc, guest_image: Doc) -> None:
    vm = cloud.put("instances", "front", **small())
    cloud.booted(vm)
    cloud.put("instances", "front", **small(power="off"))
    cloud.ready("instances", "front")
    assert "POWER BUTTON" in cloud.console(vm)


def test_a_machine_boots_by_uefi_too(cloud: Cloud, lan: Doc, guest_image: Doc) -> None:
    vm = cloud.put("instances", "front", **small(firmware="uefi", memory_mib=256))
    cloud.booted(vm)
    assert cloud.reaches(lan, vm)


def test_two_networks_with_equal_addresses_are_kept_apart(cloud: Cloud, lan: Doc, guest_image: Doc) -> None:
    other = cloud.put("networks", "other", cidr="10.1.0.0/24")
    first = cloud.put("instances", "front", **small(networks=[{"network": "lan", "address": "10.1.0.7"}]))
    second = cloud.put("instances", "twin", **small(networks=[{"network": "other", "address": "10.1.0.7"}]))
    cloud.booted(first)
    cloud.booted(second)
    assert "front" in cloud.page(lan, first)
    assert "twin" in cloud.page(other, second)


def test_a_deleted_machine_leaves_nothing_on_the_host(cloud: Cloud, lan: Doc, guest_image: Doc) -> None:
    vm = cloud.put("instances", "front", **small(user_data="#!/bin/sh\necho secret"))
    cloud.ready("instances", "front")
    cloud.gone("instances", "front")
    assert not (cloud.state / "instances" / vm["uid"]).exists()
    assert domains(cloud) == []


def test_the_same_put_again_writes_nothing_to_etcd(cloud: Cloud, lan: Doc, guest_image: Doc) -> None:
    cloud.put("instances", "front", **small(power="off"))
    cloud.ready("instances", "front")
    etag = cloud.call("GET", cloud.path("instances", "front")).headers["ETag"]

    def nothing_written() -> bool:
        """Of others neither: what agents still have to tell moves the revision once, a PUT would every time."""
        before = cloud.revision()
        again = cloud.call("PUT", cloud.path("instances", "front"), json={"spec": small(power="off")})
        assert (again.status_code, again.headers["ETag"]) == (200, etag)
        return cloud.revision() == before

    until(nothing_written, "a PUT that leaves the revision alone")


# --- images

def test_a_download_cut_in_the_middle_resumes_where_it_was_cut(cloud: Cloud, lan: Doc, origin: Origin) -> None:
    body = origin.files["other.qcow2"] = fresh_image(cloud)
    origin.cuts[:] = [len(body) // 3]
    cloud.put("images", "guest", source={"kind": "url", "url": origin.url("other.qcow2")}, sha256=hashlib.sha256(body).hexdigest())
    cloud.put("instances", "front", **small(power="off"))
    cloud.ready("instances", "front")
    ranges = [wanted for name, wanted in origin.asked if name == "other.qcow2"]
    assert ranges[0] == "" and 0 < int(ranges[1].removeprefix("bytes=").rstrip("-")) <= len(body) // 3


def test_a_wrong_checksum_is_tried_again_then_shown_on_the_image_and_on_the_machine_that_waits(cloud: Cloud, lan: Doc, origin: Origin) -> None:
    origin.files["wrong.qcow2"] = b"not what was promised"
    cloud.put("images", "guest", source={"kind": "url", "url": origin.url("wrong.qcow2")}, sha256="0" * 64)
    cloud.put("instances", "front", **small())
    shown = until(lambda: (found := cloud.get("images", "guest")) and condition(found, "Failed") and found, "the image fails")
    assert condition(shown, "Failed")["reason"] == "ChecksumMismatch"
    assert len([name for name, _ in origin.asked if name == "wrong.qcow2"]) >= 3
    waiting = cloud.call("GET", cloud.path("instances", "front"), params={"wait": "ready", "timeout": 60}).json()
    assert condition(waiting, "Failed") and "ChecksumMismatch" in condition(waiting, "Ready")["message"]


def test_an_image_with_a_backing_file_is_refused_before_any_tool_reads_it(cloud: Cloud, lan: Doc, origin: Origin) -> None:
    header = bytearray(origin.files["guest.qcow2"][:65536])
    struct.pack_into(">QI", header, 8, 1024, 11)
    header[1024:1035] = b"/etc/passwd"
    origin.files["evil.qcow2"] = bytes(header)
    cloud.put("images", "guest", source={"kind": "url", "url": origin.url("evil.qcow2")}, sha256=hashlib.sha256(header).hexdigest())
    cloud.put("instances", "front", **small())
    shown = cloud.call("GET", cloud.path("instances", "front"), params={"wait": "ready", "timeout": 60}).json()
    assert condition(shown, "Failed"), shown["status"]
    assert condition(cloud.get("images", "guest"), "Failed")["reason"] == "UnsafeImage"


def test_a_cached_image_starts_without_its_origin(cloud: Cloud, lan: Doc, guest_image: Doc, origin: Origin) -> None:
    cloud.put("instances", "first", **small(power="off"))
    cloud.ready("instances", "first")
    asked = len(origin.asked)
    cloud.put("images", "guest", source={"kind": "url", "url": origin.url("vanished.qcow2")}, sha256=guest_image["spec"]["sha256"])
    cloud.put("instances", "second", **small(power="off"))
    cloud.ready("instances", "second")
    assert len(origin.asked) == asked


def test_a_lost_disk_is_said_to_be_lost_and_not_made_anew(cloud: Cloud, lan: Doc, guest_image: Doc) -> None:
    vm = cloud.put("instances", "front", **small(power="off"))
    cloud.ready("instances", "front")
    disk = cloud.state / "instances" / vm["uid"] / "disk-0.qcow2"
    disk.unlink()
    cloud.put("instances", "front", **small(power="on"))
    shown = cloud.call("GET", cloud.path("instances", "front"), params={"wait": "ready", "timeout": 30}).json()
    assert condition(shown, "Failed")["reason"] == "DiskLost"
    assert not disk.exists()


def fresh_image(cloud: Cloud) -> bytes:
    """A small image of content that no cache has."""
    path = cloud.world.directory / "fresh.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), "64M"], check=True)
    with path.open("ab") as file:
        file.write(hashlib.sha256(json.dumps(cloud.revision()).encode()).digest() * 4096)
    return path.read_bytes()


@pytest.mark.parametrize("url", ["file:///etc/passwd", "http://127.0.0.1/a b", "gopher://x/y"])
def test_an_image_address_that_is_no_web_address_is_refused(cloud: Cloud, url: str) -> None:
    answer = cloud.call("PUT", cloud.path("images", "x"), json={"spec": {"source": {"kind": "url", "url": url}, "sha256": "0" * 64}})
    assert answer.status_code == 422 and answer.json()["errors"][0]["pointer"] == "/spec/source/url"
