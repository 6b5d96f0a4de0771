"""A domain's way into libvirt's XML and back."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from uuid import UUID
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from wisp.adapters.domainxml import MARK, Site, build, parse
from wisp.host import Domain, Nic

CLUSTER = "6a6c7a38-52d5-4a3c-8f4c-5c5a0e0f1a11"
SITE = Site(CLUSTER, Path("/var/lib/wisp"), 1450, "kvm")
EMULATED = replace(SITE, virt="qemu")
PLAIN = Domain(uid="0b8f51ee-8f2c-4a65-9d0f-3d3c3f1c9f00", name="home.web.0b8f51ee", cpus=2, memory_mib=512,
               disks=("virtio", "sata", "virtio"), nics=(Nic("02:00:5e:10:00:01", "br-00beef"),), seed="ab" * 32)
INJECTION = "x'/><interface type=\"user\"/><!--"

printable = st.text(st.characters(blacklist_categories=("Cc", "Cs"), blacklist_characters="\ufffe\uffff"), min_size=1)
nics = st.builds(Nic, mac=st.binary(min_size=6, max_size=6).map(lambda octets: octets.hex(":")), bridge=printable,
                 model=printable)
domains = st.builds(
    Domain, uid=st.uuids().map(str), name=printable, cpus=st.integers(1, 512), memory_mib=st.integers(1, 2**22),
    disks=st.lists(st.sampled_from(("virtio", "scsi", "sata")), max_size=16).map(tuple),
    nics=st.lists(nics, max_size=16).map(tuple), seed=st.binary(min_size=32, max_size=32).map(bytes.hex),
    firmware=st.sampled_from(("bios", "uefi")), video=st.sampled_from(("none", "vga", "virtio")),
    generation=st.integers(0, 2**40))


def tree(domain: Domain, site: Site = EMULATED) -> ElementTree.Element:
    return ElementTree.fromstring(build(domain, site))


def values(domain: Domain, path: str, attribute: str, site: Site = EMULATED) -> list[str | None]:
    return [found.get(attribute) for found in tree(domain, site).iterfind(path)]


@given(domains, st.sampled_from(("kvm", "qemu", "test")))
def test_what_is_built_is_what_is_read(domain: Domain, virt: str) -> None:
    seen = parse(build(domain, replace(SITE, virt=virt)), CLUSTER)
    assert seen == domain and seen.generation == domain.generation


@given(domains)
def test_no_two_devices_share_a_name(domain: Domain) -> None:
    names = values(domain, "devices/disk/target", "dev")
    assert len(set(names)) == len(names) == len(domain.disks) + 1


def test_a_hostile_name_stays_data() -> None:
    hostile = replace(PLAIN, name=INJECTION, nics=(Nic(INJECTION, INJECTION, INJECTION),))
    assert len(values(hostile, "devices/interface", "type")) == 1
    assert parse(build(hostile, SITE), CLUSTER) == hostile


def test_the_domain_of_another_cloud_is_not_ours() -> None:
    assert parse(build(PLAIN, replace(SITE, cluster=str(UUID(int=1)))), CLUSTER) is None
    assert parse("<domain type='kvm'><name>theirs</name></domain>", CLUSTER) is None


def test_disks_keep_their_order_though_libvirt_sorts_them_by_bus() -> None:
    root = tree(PLAIN)
    devices = root.find("devices")
    assert devices is not None
    disks = devices.findall("disk")
    for disk in disks:
        devices.remove(disk)
    devices.extend(sorted(disks, key=lambda disk: str(disk.findtext("serial")), reverse=True))
    assert parse(ElementTree.tostring(root, encoding="unicode"), CLUSTER) == PLAIN


def test_a_disk_is_named_with_its_format_and_carries_a_serial_of_its_own() -> None:
    assert values(PLAIN, "devices/disk/driver", "type") == ["qcow2", "qcow2", "qcow2", "raw"]
    assert [serial.text for serial in tree(PLAIN).iterfind("devices/disk/serial")] == [
        "disk-0", "disk-1", "disk-2", "config-2"]


def test_the_config_drive_is_a_read_only_virtio_disk_after_the_others() -> None:
    last = tree(PLAIN).findall("devices/disk")[-1]
    target, source = last.find("target"), last.find("source")
    assert target is not None and source is not None
    assert last.find("readonly") is not None and target.attrib == {"dev": "vdc", "bus": "virtio"}
    assert source.get("file") == f"/var/lib/wisp/instances/{PLAIN.uid}/seed-{'ab' * 8}.iso"


def test_a_config_drive_swapped_by_hand_is_seen() -> None:
    text = build(PLAIN, SITE).replace(f"seed-{'ab' * 8}.iso", "other.iso")
    seen = parse(text, CLUSTER)
    assert seen is not None and seen.seed == "" and replace(seen, seed=PLAIN.seed) == PLAIN


def test_a_processor_taken_away_by_hand_is_seen() -> None:
    seen = parse(build(PLAIN, SITE).replace("<vcpu>", '<vcpu current="1">'), CLUSTER)
    assert seen is not None and seen.cpus == 1


def test_only_kvm_passes_the_hosts_processor_on() -> None:
    assert values(PLAIN, "cpu", "mode", SITE) == ["host-passthrough"]
    assert values(PLAIN, "cpu", "mode", EMULATED) == ["maximum"]


def test_emulation_does_not_take_a_gibibyte_for_its_translations() -> None:
    assert [cache.text for cache in tree(PLAIN, EMULATED).iterfind("features/tcg/tb-cache")] == ["32"]
    assert tree(PLAIN, SITE).find("features/tcg") is None


def test_uefi_comes_without_secure_boot() -> None:
    uefi = replace(PLAIN, firmware="uefi")
    assert values(uefi, "os", "firmware") == ["efi"]
    assert [feature.attrib for feature in tree(uefi).iterfind("os/firmware/feature")] == [
        {"enabled": "no", "name": "secure-boot"}]


def test_without_video_there_is_no_screen_to_look_at() -> None:
    assert not values(PLAIN, "devices/graphics", "type") and not values(PLAIN, "devices/video", "type")
    assert values(replace(PLAIN, video="virtio"), "devices/graphics/listen", "type") == ["socket"]


def test_an_interface_ends_in_a_traceable_device_with_the_segments_mtu() -> None:
    assert values(PLAIN, "devices/interface/target", "dev") == ["t-02005e100001"]
    assert values(PLAIN, "devices/interface/mtu", "size") == ["1450"]


def test_there_are_ports_to_plug_into_later() -> None:
    ports = values(PLAIN, "devices/controller[@model='pcie-root-port']", "index")
    assert len(ports) == len(set(ports)) == 4 + 1 + 3 + 8


def test_the_console_keeps_what_was_printed_before() -> None:
    assert values(PLAIN, "devices/serial/log", "append") == ["on"]
    assert values(PLAIN, "devices/serial/log", "file") == [f"/var/lib/wisp/instances/{PLAIN.uid}/console.log"]


def test_the_mark_says_whose_it_is_and_from_which_generation() -> None:
    mark = tree(replace(PLAIN, generation=7)).find(f"metadata/{MARK}")
    assert mark is not None and mark.attrib == {"cluster": CLUSTER, "generation": "7", "seed": PLAIN.seed}
