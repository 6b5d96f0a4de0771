"""One suite for the hypervisor's port: the fake, libvirt's test driver, and QEMU by emulation.

What the test driver does not look at (whether bridge and disk are there) is asked of the other two.
"""
from __future__ import annotations

import os
import queue
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from wisp.adapters import domainxml, layout, libvirtd
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


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    if os.geteuid():
        pytest.skip("only root can make a world of namespaces")
    with tempfile.TemporaryDirectory(prefix="wisp-", dir="/var/tmp", ignore_cleanup_errors=True) as directory:
        world = World(Path(directory))
        try:
            world.start_daemons()
            yield world
        finally:
            world.end()


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


@contextmanager
def made(kind: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    makers: dict[str, Callable[[], Any]] = {
        "fake": FakeRig,
        "test": lambda: LibvirtRig("test:///default", Path("/var/lib/wisp"), "test"),
        "qemu": lambda: QemuRig(request.getfixturevalue("world"))}
    rig = makers[kind]()
    try:
        yield rig
    finally:
        rig.close()


QEMU = pytest.param("qemu", marks=pytest.mark.machine)


@pytest.fixture(params=["fake", "test", QEMU])
def rig(request: pytest.FixtureRequest) -> Iterator[Any]:
    with made(request.param, request) as rig:
        yield rig


@pytest.fixture(params=["fake", QEMU])
def careful(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Those that look whether what a start needs is there."""
    with made(request.param, request) as rig:
        yield rig


@pytest.fixture(params=["test", QEMU])
def by_libvirt(request: pytest.FixtureRequest) -> Iterator[Any]:
    with made(request.param, request) as rig:
        yield rig


@pytest.fixture
def qemu(request: pytest.FixtureRequest) -> Iterator[QemuRig]:
    with made("qemu", request) as rig:
        yield rig


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
