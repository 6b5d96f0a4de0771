"""A domain and libvirt's XML for it: there by a tree, never by text, and back.

What libvirt gives back is read from where libvirt keeps it, so that a `virsh edit` shows as a
difference: a disk is known by its file's name (libvirt sorts disks by bus and target), the firmware by
`<os>`, the picture by `<video>`. What it would not give back (whose domain it is, the generation, the
whole digest of the config drive) stands in a metadata element of ours. No cluster's uid, no domain of ours.

What a newcomer would trip over:
- q35 has one free slot: as many root ports are made as there are devices, and some to plug into later.
- Debian's cloud kernel has no AHCI, so the config drive is a read-only virtio disk, after the others.
- `firmware='efi'` alone picks a Secure Boot firmware with keys enrolled; the feature is refused by name.
- `host-passthrough` is refused under emulation; there the CPU is all that TCG can do, which boots no slower.
- Where QEMU has a user of its own, libvirt makes that user the owner of all that a disk lies on. An image below many
  disks is readable for all and must stay ours: it is named, and libvirt told to keep its hands off.
- A NIC's option ROM is for network boot, which nobody asks for, and takes its time at each start.
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from wisp.adapters import imagecheck, layout
from wisp.host import Domain, Nic

NAMESPACE = "urn:wisp:domain:1"
MARK = f"{{{NAMESPACE}}}domain"
SPARE_PORTS = 8
TRANSLATIONS_MIB = 32
"""QEMU's cache of translated code when it emulates; its own choice is a GiB."""
LETTERS = "abcdefghijklmnopqrstuvwxyz"

ElementTree.register_namespace("wisp", NAMESPACE)


@dataclass(frozen=True, slots=True)
class Site:
    """Where a domain is at home: whose it is, where its files lie, what runs it.

    mtu    of its interfaces, bytes
    virt   libvirt's domain type: "kvm", "qemu", or "test" for libvirt's test driver
    """

    cluster: str
    state: Path
    mtu: int
    virt: str


def build(domain: Domain, site: Site) -> str:
    root = Element("domain", type=site.virt)
    _add(root, "name", domain.name)
    _add(root, "uuid", domain.uid)
    _add(_add(root, "metadata"), MARK, cluster=site.cluster, generation=str(domain.generation), seed=domain.seed)
    _add(root, "memory", str(domain.memory_mib * 1024), unit="KiB")
    _add(root, "vcpu", str(domain.cpus))
    _firmware(root, domain.firmware)
    _processor(root, site.virt)
    _add(root, "clock", offset="utc")
    for happening, reaction in (("poweroff", "destroy"), ("reboot", "restart"), ("crash", "destroy")):
        _add(root, f"on_{happening}", reaction)
    devices = _add(root, "devices")
    _controllers(devices, domain)
    _disks(devices, domain, site)
    for nic in domain.nics:
        _nic(devices, nic, site.mtu)
    _console(devices, layout.console(site.state, domain.uid))
    _video(devices, domain.video)
    _add(_add(devices, "channel", type="unix"), "target", type="virtio", name="org.qemu.guest_agent.0")
    _add(_add(devices, "rng", model="virtio"), "backend", "/dev/urandom", model="random")
    _add(devices, "memballoon", model="virtio")
    return ElementTree.tostring(root, encoding="unicode")


def parse(xml: str, cluster: str) -> Domain | None:
    """The domain as its definition has it (libvirt's word on its power is had elsewhere); None when it
    does not carry the cluster's uid."""
    root = ElementTree.fromstring(xml)
    mark = root.find(f"metadata/{MARK}")
    if mark is None or mark.get("cluster") != cluster:
        return None
    uid, generation = root.findtext("uuid", ""), mark.get("generation", "")
    return Domain(
        uid=uid,
        name=root.findtext("name", ""),
        cpus=int(_said(root, "vcpu", "current") or root.findtext("vcpu", "0")),
        memory_mib=int(root.findtext("memory", "0")) // 1024,
        disks=tuple(_buses(root)),
        nics=tuple(map(_parse_nic, root.iterfind("devices/interface"))),
        seed=_seed(root, uid, mark.get("seed", "")),
        firmware="uefi" if _is_uefi(root) else "bios",
        video=_said(root, "devices/video/model", "type") or "none",
        generation=int(generation) if generation.isdecimal() else 0)


def _add(parent: Element, tag: str, text: str | None = None, **attributes: str) -> Element:
    child = SubElement(parent, tag, attributes)
    child.text = text
    return child


def _firmware(root: Element, firmware: str) -> None:
    system = _add(root, "os")
    _add(system, "type", "hvm", arch="x86_64", machine="q35")
    if firmware == "uefi":
        system.set("firmware", "efi")
        _add(_add(system, "firmware"), "feature", enabled="no", name="secure-boot")


def _processor(root: Element, virt: str) -> None:
    features = _add(root, "features")
    _add(features, "acpi")
    _add(features, "apic")
    if virt == "kvm":
        _add(root, "cpu", mode="host-passthrough", check="none")
        return
    _add(_add(features, "tcg"), "tb-cache", str(TRANSLATIONS_MIB), unit="MiB")
    _add(root, "cpu", mode="maximum")


def _controllers(devices: Element, domain: Domain) -> None:
    _add(devices, "controller", type="usb", model="none")
    _add(devices, "controller", type="pci", index="0", model="pcie-root")
    if "scsi" in domain.disks:
        _add(devices, "controller", type="scsi", index="0", model="virtio-scsi")
    occupied = len(domain.disks) + len(domain.nics) + len(("config drive", "channel", "rng", "balloon"))
    for index in range(1, occupied + SPARE_PORTS + 1):
        _add(devices, "controller", type="pci", index=str(index), model="pcie-root-port")


def _disks(devices: Element, domain: Domain, site: Site) -> None:
    names = {"vd": iter(LETTERS), "sd": iter(LETTERS)}
    for index, bus in enumerate(domain.disks):
        disk = _add(devices, "disk", type="file", device="disk")
        _add(disk, "driver", name="qemu", type="qcow2", cache="writeback", discard="unmap")
        _add(disk, "source", file=str(path := layout.disk(site.state, domain.uid, index)))
        _below(disk, imagecheck.backing(path))
        _add(disk, "target", dev=_target(names, bus), bus=bus)
        _add(disk, "serial", f"disk-{index}")
        if index == 0:
            _add(disk, "boot", order="1")
    drive = _add(devices, "disk", type="file", device="disk")
    _add(drive, "driver", name="qemu", type="raw")
    _add(drive, "source", file=str(layout.seed(site.state, domain.uid, domain.seed)))
    _add(drive, "target", dev=_target(names, "virtio"), bus="virtio")
    _add(drive, "serial", "config-2")
    _add(drive, "readonly")


def _below(disk: Element, image: str) -> None:
    if image:
        store = _add(disk, "backingStore", type="file")
        _add(store, "format", type="qcow2")
        _add(_add(store, "source", file=image), "seclabel", model="dac", relabel="no")
        _add(store, "backingStore")


def _target(names: dict[str, Iterator[str]], bus: str) -> str:
    """SCSI and SATA share the names `sd…`."""
    prefix = "vd" if bus == "virtio" else "sd"
    return prefix + next(names[prefix])


def _nic(devices: Element, nic: Nic, mtu: int) -> None:
    interface = _add(devices, "interface", type="bridge")
    _add(interface, "mac", address=nic.mac)
    _add(interface, "source", bridge=nic.bridge)
    _add(interface, "target", dev=nic.tap)
    _add(interface, "model", type=nic.model)
    _add(interface, "mtu", size=str(mtu))
    _add(interface, "rom", enabled="no")


def _console(devices: Element, log: Path) -> None:
    serial = _add(devices, "serial", type="pty")
    _add(serial, "log", file=str(log), append="on")
    _add(serial, "target", port="0")
    _add(_add(devices, "console", type="pty"), "target", type="serial", port="0")


def _video(devices: Element, video: str) -> None:
    if video != "none":
        _add(_add(devices, "graphics", type="vnc"), "listen", type="socket")
        _add(_add(devices, "video"), "model", type=video)


def _said(element: Element, path: str, attribute: str) -> str:
    found = element.find(path)
    return found.get(attribute, "") if found is not None else ""


def _files(root: Element) -> Iterator[tuple[str, str]]:
    """Name of the file and bus of each disk."""
    for disk in root.iterfind("devices/disk"):
        yield PurePath(_said(disk, "source", "file")).name, _said(disk, "target", "bus")


def _buses(root: Element) -> list[str]:
    ours = {int(found[1]): bus for name, bus in _files(root) if (found := layout.DISK.fullmatch(name))}
    return [ours[index] for index in sorted(ours)]


def _seed(root: Element, uid: str, digest: str) -> str:
    """The digest, as long as the drive it names is in place."""
    if not layout.DIGEST.fullmatch(digest):
        return ""
    wanted = layout.seed(Path(), uid, digest).name
    return digest if any(name == wanted for name, _ in _files(root)) else ""


def _is_uefi(root: Element) -> bool:
    return root.find("os[@firmware='efi']") is not None or root.find("os/loader[@type='pflash']") is not None


def _parse_nic(interface: Element) -> Nic:
    return Nic(mac=_said(interface, "mac", "address"), bridge=_said(interface, "source", "bridge"),
               model=_said(interface, "model", "type"))
