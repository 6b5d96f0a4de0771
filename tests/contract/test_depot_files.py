"""What only files can show of a depot: what is on the disk, what a crash leaves, and who may read it."""
from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import pycdlib
import pytest
from test_depot import DIGEST, FILES, MIB, NEWER, OTHER, UID, Shelf, real_only, refusal, seen

from wisp.adapters import layout, qemu_img
from wisp.adapters.depot import Depot
from wisp.errors import StepFailed
from wisp.host import Disk, Image, Seed


def qemu(*arguments: str | Path) -> str:
    return subprocess.run(["qemu-img", *map(str, arguments)], check=True, capture_output=True, text=True).stdout


def info(path: Path) -> dict[str, object]:
    told: dict[str, object] = json.loads(qemu("info", "-f", "qcow2", "--output=json", path))
    return told


def names(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def files(state: Path) -> Depot:
    return Depot(state)


@real_only
def test_a_raw_image_becomes_a_sparse_qcow2_with_the_same_content(
        files: Depot, shelf: Shelf, state: Path, tmp_path: Path) -> None:
    content = bytes(4 * MIB) + os.urandom(1024) + bytes(60 * MIB)
    image = shelf("raw", content)
    files.fetch(image)
    path = layout.image(state, image.sha256)
    qemu("convert", "-f", "qcow2", "-O", "raw", path, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content
    assert path.stat().st_blocks * 512 < MIB
    assert (mode(path), path.stat().st_uid) == (0o444, os.geteuid())
    assert names(state) == [f"images/{image.sha256}.qcow2"]


@real_only
def test_a_qcow2_image_is_kept_byte_for_byte(files: Depot, shelf: Shelf, state: Path, tmp_path: Path) -> None:
    qemu("create", "-f", "qcow2", tmp_path / "made", "5M")
    image = shelf("qcow2", (tmp_path / "made").read_bytes())
    files.fetch(image)
    path = layout.image(state, image.sha256)
    assert path.read_bytes() == (tmp_path / "made").read_bytes()
    assert mode(path) == 0o444
    assert names(state) == [f"images/{image.sha256}.qcow2"]


def hostile(kind: str, folder: Path) -> tuple[str, bytes]:
    """An image that would leak a file of the node, or is none: its declared format and its bytes."""
    (folder / "secret").write_bytes(b"secret".ljust(MIB, b"!"))
    made = folder / "made"
    if kind == "backing file":
        qemu("create", "-f", "qcow2", "-b", folder / "secret", "-F", "raw", made)
    elif kind == "data file":
        qemu("create", "-f", "qcow2", "-o", f"data_file={folder / 'outside'},data_file_raw=on", made, "1M")
    elif kind == "VMDK posing as raw":
        made.write_text(f'# Disk DescriptorFile\nversion=1\ncreateType="custom"\nRW 2048 FLAT "{folder}/secret" 0')
    elif kind == "sparse VMDK posing as raw":
        qemu("create", "-f", "vmdk", made, "1M")
    elif kind == "qcow2 posing as raw":
        qemu("create", "-f", "qcow2", made, "1M")
    elif kind == "raw posing as qcow2":
        made.write_bytes(bytes(MIB))
    elif kind == "snapshot":
        qemu("create", "-f", "qcow2", made, "1M")
        qemu("snapshot", "-c", "s", made)
    elif kind == "truncated":
        qemu("create", "-f", "qcow2", made, "1M")
        made.write_bytes(made.read_bytes()[:0x20000])
    return ("raw" if kind.endswith("as raw") else "qcow2"), made.read_bytes()


@real_only
@pytest.mark.parametrize("kind", ["backing file", "data file", "VMDK posing as raw", "sparse VMDK posing as raw",
                                  "qcow2 posing as raw", "raw posing as qcow2", "snapshot", "truncated"])
def test_a_hostile_image_is_refused_and_nothing_of_it_kept(
        files: Depot, shelf: Shelf, state: Path, tmp_path: Path, kind: str) -> None:
    image = shelf(*hostile(kind, tmp_path))
    failure = refusal(lambda: files.fetch(image))
    assert (failure.reason, failure.patience) == ("UnsafeImage", 1)
    assert names(state) == []


@real_only
@pytest.mark.parametrize("kind", ["backing file", "data file", "snapshot"])
def test_qemu_img_confirms_the_refusal_by_itself(tmp_path: Path, kind: str) -> None:
    format, content = hostile(kind, tmp_path)
    path = tmp_path / "offered"
    path.write_bytes(content)
    path.chmod(0o644)
    assert refusal(lambda: qemu_img.inspect(path, format)).reason in ("UnsafeImage", "QemuImgFailed")


@real_only
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_qemu_img_sees_a_strangers_image_as_nobody_and_without_a_network() -> None:
    asks = "id -u; id -G; grep -c : /proc/self/net/dev; grep CapEff /proc/self/status"
    told = qemu_img._run(["sh", "-c", asks], 10, qemu_img.ALONE)
    assert told.splitlines() == ["65534", "65534", "1", "CapEff:\t0000000000000000"]


@real_only
def test_a_disk_is_a_copy_on_write_overlay_with_an_absolute_path_and_named_formats(
        files: Depot, image: Image, state: Path) -> None:
    files.fetch(image)
    files.create_disk(Disk(UID, 0, 2, image.sha256))
    path = layout.disk(state, UID, 0)
    told = info(path)
    assert told["backing-filename"] == str(layout.image(state, image.sha256))
    assert (told["backing-filename-format"], told["virtual-size"]) == ("qcow2", 2 << 30)
    assert mode(path) == 0o600


@real_only
def test_a_disk_is_as_large_as_its_image_at_least(files: Depot, shelf: Shelf, state: Path, tmp_path: Path) -> None:
    qemu("create", "-f", "qcow2", tmp_path / "made", "2560M")
    image = shelf("qcow2", (tmp_path / "made").read_bytes())
    files.fetch(image)
    files.create_disk(Disk(UID, 0, 1, image.sha256))
    assert info(layout.disk(state, UID, 0))["virtual-size"] == 2560 * MIB
    assert seen(files, [UID]) == {Disk(UID, 0, 3, image.sha256)}


@real_only
def test_what_a_guest_wrote_stays_when_its_disk_is_asked_for_again(files: Depot, image: Image, state: Path) -> None:
    files.fetch(image)
    files.create_disk(Disk(UID, 0, 1, image.sha256))
    path = layout.disk(state, UID, 0)
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 7 0 64k", str(path)], check=True, capture_output=True)
    before = path.read_bytes()
    Depot(state).create_disk(Disk(UID, 0, 1, image.sha256))
    assert path.read_bytes() == before


@real_only
def test_a_damaged_disk_is_lost_and_left_as_it_is(files: Depot, state: Path) -> None:
    files.create_disk(Disk(UID, 0, 1))
    path = layout.disk(state, UID, 0)
    path.write_bytes(b"damage")
    assert seen(files) == set()
    assert refusal(lambda: files.create_disk(Disk(UID, 0, 1))).reason == "DiskLost"
    assert path.read_bytes() == b"damage"


@real_only
def test_a_strangers_file_beside_a_disk_is_no_disk(files: Depot, state: Path) -> None:
    files.create_disk(Disk(UID, 0, 1))
    path = layout.disk(state, UID, 0)
    for name in ("disk-0.bak.qcow2", "disk-00.qcow2", "disk-.qcow2", "seed-old.iso"):
        shutil.copy(path, path.with_name(name))
    assert seen(files) == {Disk(UID, 0, 1)}


@real_only
def test_a_disk_that_cannot_be_read_is_there_and_hides_no_other(files: Depot, state: Path) -> None:
    files.create_disk(Disk(UID, 0, 1))
    files.create_disk(Disk(OTHER, 0, 1))
    files.write_seed(Seed(OTHER, DIGEST, FILES), None)
    for unreadable in (layout.disk(state, UID, 1), layout.seed(state, UID, DIGEST)):
        unreadable.mkdir()
    assert seen(files) == {Disk(UID, 0, 1), Disk(UID, 1, 0), Disk(OTHER, 0, 1), Seed(OTHER, DIGEST)}
    assert refusal(lambda: files.write_seed(Seed(UID, DIGEST, FILES), None)).reason == "FilesystemFailed"


@real_only
def test_closing_interrupts_a_download_that_has_stalled(files: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        image = Image("0" * 64, "raw", f"http://127.0.0.1:{silent.getsockname()[1]}/disk")
        with ThreadPoolExecutor(1) as pool:
            fetching = pool.submit(files.fetch, image)
            with silent.accept()[0]:
                files.close()
                failure = fetching.exception(20)
    assert isinstance(failure, StepFailed) and (failure.reason, failure.patience) == ("Interrupted", None)


@real_only
def test_closing_interrupts_a_conversion_and_nothing_goes_on_converting(
        files: Depot, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"\xeb\x63" + bytes(MIB)
    image = Image(hashlib.sha256(content).hexdigest(), "raw", "http://nowhere.invalid/disk")
    layout.part(state, image.sha256).write_bytes(content)
    with tempfile.TemporaryDirectory() as room:
        converting, stuck = Path(room, "converting"), Path(room, "qemu-img")
        converting.touch()
        stuck.write_text(f"#!/bin/sh\n[ $1 = convert ] || exec {shutil.which('qemu-img')} \"$@\"\n"
                         f"echo $$ > {converting}\nexec sleep 600\n")
        for path, bits in ((converting, 0o666), (stuck, 0o755), (Path(room), 0o755)):     # it runs as nobody
            path.chmod(bits)
        monkeypatch.setenv("PATH", f"{room}:{os.environ['PATH']}")
        with ThreadPoolExecutor(1) as pool:
            fetching = pool.submit(files.fetch, image)
            while not converting.read_text().endswith("\n"):
                assert not fetching.done(), fetching.exception()
                time.sleep(0.01)
            files.close()
            failure = fetching.exception(20)
        assert isinstance(failure, StepFailed) and failure.reason == "Interrupted"
        assert not Path(f"/proc/{converting.read_text().strip()}").exists()


@real_only
def test_what_a_crash_left_half_written_is_not_seen_and_not_in_the_way(
        files: Depot, image: Image, state: Path) -> None:
    files.fetch(image)
    disk, seed = layout.disk(state, UID, 0), layout.seed(state, UID, DIGEST)
    disk.parent.mkdir()
    halves = [path.with_name(path.name + ".tmp") for path in (disk, seed, layout.image(state, "0" * 64))]
    for half in halves:
        half.write_bytes(b"half")
    assert seen(files) == {image}
    files.create_disk(Disk(UID, 0, 1, image.sha256))
    files.write_seed(Seed(UID, DIGEST, FILES), None)
    assert seen(files, [UID]) == {Disk(UID, 0, 1, image.sha256), Seed(UID, DIGEST)}
    assert not halves[0].exists() and not halves[1].exists()


@real_only
def test_an_image_crashed_in_its_conversion_is_converted_without_asking_the_origin(
        files: Depot, shelf: Shelf, state: Path) -> None:
    content = b"\xeb\x63" + bytes(MIB)
    image = shelf("raw", content)
    path = layout.image(state, image.sha256)
    path.with_name(path.name + ".tmp").write_bytes(b"half")
    layout.part(state, image.sha256).write_bytes(content)
    files.fetch(Image(image.sha256, "raw", "http://nowhere.invalid/disk"))
    assert names(state) == [f"images/{image.sha256}.qcow2"]
    assert info(path)["virtual-size"] == MIB + 512


def test_a_start_sweeps_what_crashes_left_and_keeps_what_may_be_resumed(state: Path) -> None:
    Depot(state)
    litter = [layout.disk(state, UID, 0), layout.image(state, "0" * 64)]
    for path in litter:
        path.parent.mkdir(exist_ok=True)
        path.with_name(path.name + ".tmp").write_bytes(b"half")
    recent, stale = layout.part(state, "1" * 64), layout.part(state, "2" * 64)
    for path in (recent, stale):
        path.write_bytes(b"begun")
    os.utime(stale, (0, 0))
    Depot(state)
    assert names(state) == [f"images/{recent.name}"]
    assert list(layout.instances(state).iterdir()) == []


def test_the_last_file_takes_the_directory_and_the_console_log_with_it(files: Depot, state: Path) -> None:
    files.write_seed(Seed(UID, DIGEST, FILES), None)
    files.write_seed(Seed(UID, NEWER, FILES), None)
    layout.console(state, UID).write_text("login:")
    files.drop_seed(Seed(UID, DIGEST))
    assert layout.console(state, UID).exists()
    files.drop_seed(Seed(UID, NEWER))
    assert list(layout.instances(state).iterdir()) == []


def test_what_a_stranger_put_there_is_left_alone(files: Depot, state: Path) -> None:
    files.write_seed(Seed(UID, DIGEST, FILES), None)
    kept = layout.instance(state, UID) / "notes.txt"
    kept.write_text("by an operator")
    strange = layout.instances(state) / "lost+found"
    strange.mkdir()
    files.drop_seed(Seed(UID, DIGEST))
    Depot(state)
    assert kept.exists() and strange.exists()


def drive(path: Path) -> tuple[pycdlib.PyCdlib, list[dict[str, str]]]:
    """The config drive, and its files as Rock Ridge and as Joliet tell them: path -> text."""
    iso = pycdlib.PyCdlib()
    iso.open(str(path))
    told = []
    for key in ("rr_path", "joliet_path"):
        texts = {}
        for folder, _, found in iso.walk(**{key: "/"}):
            for name in found:
                out = BytesIO()
                iso.get_file_from_iso_fp(out, **{key: f"{folder}/{name}"})
                texts[f"{folder}/{name}".lstrip("/")] = out.getvalue().decode()
        told.append(texts)
    return iso, told


def test_a_config_drive_has_its_label_and_true_names_both_ways(files: Depot, state: Path) -> None:
    inside = (*FILES, ("openstack/2012-08-10/a.tar.gz", "ü"))
    files.write_seed(Seed(UID, DIGEST, inside, "somewhere"), "#cloud-config\n")
    iso, told = drive(layout.seed(state, UID, DIGEST))
    assert iso.pvd.volume_identifier.decode().strip() == "config-2"
    assert told == [{**dict(inside), "openstack/latest/user_data": "#cloud-config\n"}] * 2


def test_a_config_drive_without_user_data_has_no_such_file(files: Depot, state: Path) -> None:
    files.write_seed(Seed(UID, DIGEST, FILES), None)
    assert drive(layout.seed(state, UID, DIGEST))[1] == [dict(FILES)] * 2


def test_secrets_are_readable_by_their_owner_alone(files: Depot, state: Path) -> None:
    files.write_seed(Seed(UID, DIGEST, FILES), "password")
    path = layout.seed(state, UID, DIGEST)
    assert (mode(path), mode(path.parent), mode(path.parent.parent)) == (0o600, 0o711, 0o711)


def test_a_damaged_config_drive_is_written_anew(files: Depot, state: Path) -> None:
    path = layout.seed(state, UID, DIGEST)
    files.write_seed(Seed(UID, DIGEST, FILES), None)
    path.write_bytes(b"damage")
    assert seen(files) == set()
    files.write_seed(Seed(UID, DIGEST, FILES), None)
    assert seen(files) == {Seed(UID, DIGEST)}


def test_a_full_filesystem_is_told_as_such() -> None:
    def fill() -> None:
        with layout.filesystem(), open("/dev/full", "wb", buffering=0) as full:
            full.write(b"x")

    assert refusal(fill).reason == "NoSpace"
