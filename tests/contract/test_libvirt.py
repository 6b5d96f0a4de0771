"""What only libvirt can show: its daemons, transient domains, the user that QEMU runs as, and real devices."""
from __future__ import annotations

import os
import queue
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypervisorworld import CLUSTER, QEMU, QemuRig, World, adapter, defined, domain, made, refusal, seen, started, state

from wisp.adapters import domainxml, layout, libvirtd


@pytest.fixture(params=["test", QEMU])
def by_libvirt(request: pytest.FixtureRequest) -> Iterator[Any]:
    with made(request.param, request) as rig:
        yield rig


@pytest.fixture
def qemu(request: pytest.FixtureRequest) -> Iterator[QemuRig]:
    with made("qemu", request) as rig:
        yield rig


def test_a_passing_domain_of_ours_is_seen_and_ended(by_libvirt: Any) -> None:
    it = domain(nics=())
    by_libvirt.add_files(it)
    by_libvirt.other_hands.createXML(domainxml.build(it, by_libvirt.site))
    assert seen(by_libvirt, it) == replace(it, power="on")
    by_libvirt.hypervisor.stop(it)
    assert seen(by_libvirt, it) is None


def test_a_libvirt_elsewhere_is_not_ours_to_start(tmp_path: Path) -> None:
    for uri in ("test:///default", "qemu+ssh://far.example/system", "qemu:///session",
                f"qemu+unix:///system?socket={tmp_path}/none"):
        libvirtd.ensure(uri, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_process_that_has_a_daemons_old_number_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/libvirtd.pid").write_text(str(os.getpid()))
    libvirtd.stop(tmp_path)
    assert not list((tmp_path / "run").iterdir())


def test_an_absent_libvirt_is_worth_waiting_for(tmp_path: Path) -> None:
    absent = adapter.Libvirt(f"qemu+unix:///system?socket={tmp_path}/none", CLUSTER, tmp_path, 1450, "qemu")
    failed = refusal(lambda: absent.observe(None))
    assert (failed.reason, failed.patience) == ("HypervisorUnreachable", None)


@pytest.mark.machine
def test_an_interface_reaches_its_bridge_with_the_segments_mtu(qemu: QemuRig) -> None:
    it = started(qemu)
    line = qemu.world.enter("ip", "-o", "link", "show", it.nics[0].tap)
    assert "mtu 1450" in line and "master br-00beef" in line


@pytest.mark.machine
def test_the_console_log_goes_on_where_it_was(qemu: QemuRig) -> None:
    it = defined(qemu)
    layout.console(qemu.world.state, it.uid).write_text("before\n")
    qemu.hypervisor.start(it)
    assert layout.console(qemu.world.state, it.uid).read_text().startswith("before\n")


@pytest.mark.machine
def test_machines_outlive_their_daemons_and_are_found_again(qemu: QemuRig) -> None:
    rung: queue.Queue[str | None] = queue.Queue()
    it = started(qemu)
    qemu.hypervisor.watch(rung.put)
    qemu.world.stop_daemons()
    assert refusal(lambda: qemu.hypervisor.observe(None)).reason == "HypervisorUnreachable"
    qemu.world.start_daemons()
    while rung.get(timeout=60) is not None:
        pass
    assert state(qemu, it) == ("on", "")


@pytest.mark.machine
def test_an_uefi_machine_has_no_secure_boot_and_leaves_no_variables_behind(qemu: QemuRig) -> None:
    it = started(qemu, firmware="uefi")
    variables = f"/var/lib/libvirt/qemu/nvram/{it.name}_VARS.fd"
    live = qemu.found(it.uid).XMLDesc()
    assert variables in live and "secboot" not in live and "ms.fd" not in live
    qemu.hypervisor.stop(it)
    qemu.hypervisor.undefine(it)
    with pytest.raises(subprocess.CalledProcessError):
        qemu.world.enter("test", "-e", variables)


@pytest.mark.machine
def test_where_qemu_has_a_user_of_its_own_a_machine_starts_and_the_image_below_stays_ours(
        monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid():
        pytest.skip("only root can make a world of namespaces")
    monkeypatch.setenv("QEMU_USER", "default")
    with tempfile.TemporaryDirectory(prefix="wisp-", dir="/var/tmp", ignore_cleanup_errors=True) as directory:
        world = World(Path(directory))
        try:
            world.start_daemons()
            with closing(QemuRig(world)) as rig:
                assert rig.hypervisor.barred() == Path(directory)
                Path(directory).chmod(0o711)
                assert rig.hypervisor.barred() is None
                starts_and_leaves_the_image_alone(rig, world)
        finally:
            world.end()


def starts_and_leaves_the_image_alone(rig: QemuRig, world: World) -> None:
    it = domain(disks=("virtio",))
    rig.add_bridge(it.nics[0].bridge)
    rig.add_files(it)
    image, disk = layout.image(world.state, "0" * 64), layout.disk(world.state, it.uid, 0)
    layout.make_directory(image.parent)
    disk.rename(image)
    image.chmod(0o444)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", image, "-F", "qcow2", disk], check=True)
    disk.chmod(0o600)
    rig.hypervisor.define(it)
    rig.hypervisor.start(it)
    assert state(rig, it) == ("on", "")
    assert disk.stat().st_uid != 0
    assert image.stat().st_uid == 0
    rig.hypervisor.stop(it)
    assert image.stat().st_uid == 0
