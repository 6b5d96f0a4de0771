"""Hypervisors to be tried, each with the hands of others: the fake, libvirt's test driver, and QEMU by emulation in
a world of namespaces of the test's own."""
from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from wisp.adapters import domainxml, layout
from wisp.errors import StepFailed
from wisp.fakes.hypervisor import FakeHypervisor
from wisp.host import Domain, Nic

libvirt = pytest.importorskip("libvirt")
libvirt_qemu = pytest.importorskip("libvirt_qemu")
adapter = pytest.importorskip("wisp.adapters.libvirt")

PROJECT = Path(__file__).parents[2]
CLUSTER, ANOTHER = str(uuid4()), str(uuid4())
DAEMONS = "import sys; from pathlib import Path; from wisp.adapters import libvirtd; "


class World:
    """A libvirt of the test's own in a world of namespaces that ends with it. The world's files are the
    machine's, but for /run: libvirt's socket is reached through its first process."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.state = directory / "state"
        self.state.mkdir()
        self._do("start")
        first = (directory / "world.pid").read_text().split()[0]
        self.uri = f"qemu+unix:///system?socket=/proc/{first}/root/run/libvirt/libvirt-sock"
        self.links = Path(f"/proc/{first}/root/sys/class/net")

    def enter(self, *command: str | Path) -> str:
        return self._do("enter", *command)

    def start_daemons(self) -> None:
        self._daemons("libvirtd.ensure('qemu:///system', Path(sys.argv[1]))")

    def stop_daemons(self) -> None:
        self._daemons("libvirtd.stop(Path(sys.argv[1]))")

    def end(self) -> None:
        self._do("stop")

    def _daemons(self, what: str) -> None:
        self.enter("env", f"PYTHONPATH={PROJECT / 'server'}", sys.executable, "-c", DAEMONS + what, self.state)

    def _do(self, *words: str | Path) -> str:
        return subprocess.run([PROJECT / "tools/world", "--name", self.directory, *words], check=True,
                              stdout=subprocess.PIPE, text=True).stdout


class FakeRig:
    """The port to be tried, and the hands of others."""

    def __init__(self) -> None:
        self.bridges: set[str] = set()
        self.taps: dict[str, str] = {}
        self.files: set[tuple[str, int | str]] = set()
        self.hypervisor: Any = FakeHypervisor(
            self.bridges.__contains__, lambda *disk: disk in self.files, lambda *seed: seed in self.files, self.taps)
        self.destroy, self.crash = self.hypervisor.destroy, self.hypervisor.crash
        self.edit, self.intrude, self.stall = self.hypervisor.edit, self.hypervisor.intrude, self.hypervisor.stall

    def add_bridge(self, name: str) -> None:
        self.bridges.add(name)

    def add_files(self, domain: Domain) -> None:
        self.files |= {(domain.uid, index) for index in range(len(domain.disks))} | {(domain.uid, domain.seed)}

    def lose_disk(self, domain: Domain) -> None:
        self.files.discard((domain.uid, 0))

    def unplug(self, nic: Nic) -> None:
        self.taps[nic.tap] = ""

    def close(self) -> None:
        self.hypervisor.close()


class LibvirtRig:
    undefine_flags = adapter.UNDEFINE_TEST

    def __init__(self, uri: str, state: Path, virt_type: str) -> None:
        self.site = domainxml.Site(CLUSTER, state, 1450, virt_type)
        self.hypervisor: Any = adapter.Libvirt(uri, CLUSTER, state, 1450, virt_type)
        self.hypervisor.grace = 0.5
        self.other_hands = libvirt.open(uri)

    def found(self, uid: str) -> Any:
        return self.other_hands.lookupByUUIDString(uid)

    def destroy(self, uid: str) -> None:
        self.found(uid).destroy()

    def edit(self, domain: Domain) -> None:
        self.other_hands.defineXML(domainxml.build(domain, self.site))

    def intrude(self, domain: Domain) -> None:
        self.other_hands.defineXML(domainxml.build(domain, replace(self.site, cluster=ANOTHER)))

    def add_bridge(self, name: str) -> None: ...

    def add_files(self, domain: Domain) -> None: ...

    def close(self) -> None:
        self.hypervisor.close()
        for left in self.other_hands.listAllDomains():
            if left.isActive():
                left.destroy()
            left.undefineFlags(self.undefine_flags)
        self.other_hands.close()


class QemuRig(LibvirtRig):
    undefine_flags = adapter.UNDEFINE_ALL

    def __init__(self, world: World) -> None:
        super().__init__(world.uri, world.state, "qemu")
        self.world = world
        self.hypervisor.links = world.links

    def stall(self, uid: str) -> None:
        libvirt_qemu.qemuMonitorCommand(self.found(uid), '{"execute": "stop"}', 0)

    def unplug(self, nic: Nic) -> None:
        self.world.enter("ip", "link", "set", nic.tap, "nomaster")

    def add_bridge(self, name: str) -> None:
        self.world.enter("sh", "-c", f"ip link show {name} >&- 2>&- || ip link add {name} up mtu 1450 type bridge")

    def add_files(self, domain: Domain) -> None:
        layout.make_directory(layout.instance(self.world.state, domain.uid))
        for index in range(len(domain.disks)):
            disk = layout.disk(self.world.state, domain.uid, index)
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "1G"], check=True)
        layout.seed(self.world.state, domain.uid, domain.seed).write_bytes(bytes(2048))

    def lose_disk(self, domain: Domain) -> None:
        layout.disk(self.world.state, domain.uid, 0).unlink()

    def crash(self, uid: str) -> None:
        self.world.enter("sh", "-c", f"kill -9 $(cat '/run/libvirt/qemu/{self.found(uid).name()}.pid')")

    def close(self) -> None:
        if not self.other_hands.isAlive():
            self.world.start_daemons()
            self.other_hands = libvirt.open(self.world.uri)
        super().close()


@contextmanager
def made(kind: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    makers: dict[str, Callable[[], Any]] = {
        "fake": FakeRig,
        "test": lambda: LibvirtRig("test:///default", Path("/var/lib/wisp"), "test"),
        "qemu": lambda: QemuRig(request.getfixturevalue("libvirt_world"))}
    rig = makers[kind]()
    try:
        yield rig
    finally:
        rig.close()


QEMU = pytest.param("qemu", marks=pytest.mark.machine)


def domain(**changes: Any) -> Domain:
    uid = str(uuid4())
    mac = "02:" + bytes.fromhex(uid[:8] + uid[9:11]).hex(":")
    return replace(Domain(uid=uid, name=f"home.web.{uid[:8]}", cpus=1, memory_mib=64, disks=("virtio", "virtio"),
                          nics=(Nic(mac, "br-00beef"),), seed="ab" * 32, power="off"), **changes)


def defined(rig: Any, **changes: Any) -> Domain:
    it = domain(**changes)
    for nic in it.nics:
        rig.add_bridge(nic.bridge)
    rig.add_files(it)
    rig.hypervisor.define(it)
    return it


def started(rig: Any, **changes: Any) -> Domain:
    it = defined(rig, **changes)
    rig.hypervisor.start(it)
    return it


def seen(rig: Any, it: Domain) -> Domain | None:
    found = list(rig.hypervisor.observe((it.uid,)))
    assert len(found) <= 1
    return found[0] if found else None


def state(rig: Any, it: Domain) -> tuple[str, str]:
    found = seen(rig, it)
    return (found.power, found.note) if found else ("gone", "")


def refusal(do: Callable[[], object]) -> StepFailed:
    with pytest.raises(StepFailed) as failed:
        do()
    return failed.value
