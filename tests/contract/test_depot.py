"""What a depot promises, whichever it is; and what only files can show.

The first part runs against the fake and against real files with `qemu-img`. The images are made
here and served on loopback; the fake only pretends to fetch them.
"""
from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import stat
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pycdlib
import pytest

from wisp.adapters import layout, qemu_img
from wisp.adapters.depot import Depot
from wisp.errors import StepFailed
from wisp.fakes.depot import FakeDepot
from wisp.host import Disk, Image, Part, Seed
from wisp.ports import Depot as Port

UID, OTHER = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))
DIGEST, NEWER = "ab" * 32, "cd" * 32
FILES = (("openstack/latest/meta_data.json", '{"name": "g1"}'), ("openstack/latest/network_data.json", "{}"))
MIB = 1 << 20

real_only = pytest.mark.skipif(not shutil.which("qemu-img"), reason="needs qemu-img")
Shelf = Callable[[str, bytes], Image]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    """Puts content on an origin: (format, bytes) -> the image of it."""
    monkeypatch.setenv("NO_PROXY", "*")
    served = tmp_path / "served"
    served.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    def put(format: str, content: bytes) -> Image:
        sha256 = hashlib.sha256(content).hexdigest()
        (served / sha256).write_bytes(content)
        return Image(sha256, format, f"http://127.0.0.1:{server.server_port}/{sha256}")

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(served))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield put
        server.shutdown()
        thread.join()


@pytest.fixture(params=["fake", pytest.param("real", marks=real_only)])
def depot(request: pytest.FixtureRequest, state: Path) -> Port:
    return FakeDepot() if request.param == "fake" else Depot(state)


@pytest.fixture
def image(shelf: Shelf) -> Image:
    return shelf("raw", b"\xeb\x63" + bytes(MIB - 2))


def seen(depot: Port, tokens: Iterable[str] | None = None) -> set[Part]:
    return set(depot.observe(None if tokens is None else list(tokens)))


def refusal(doing: Callable[[], None]) -> StepFailed:
    with pytest.raises(StepFailed) as failure:
        doing()
    return failure.value


# what both promise

def test_a_new_depot_is_empty(depot: Port) -> None:
    assert seen(depot) == set()


def test_a_fetched_image_is_here(depot: Port, image: Image) -> None:
    depot.fetch(image)
    assert seen(depot) == {image}


def test_an_image_that_is_here_does_not_need_its_origin(depot: Port, image: Image) -> None:
    depot.fetch(image)
    depot.fetch(Image(image.sha256, "raw", "http://nowhere.invalid/disk"))
    assert seen(depot) == {image}


def test_an_origin_that_is_not_there_is_a_failed_download(depot: Port) -> None:
    failure = refusal(lambda: depot.fetch(Image("0" * 64, "raw", "http://user:secret@nowhere.invalid/disk?key=secret")))
    assert (failure.reason, failure.patience) == ("DownloadFailed", None)
    assert "http://nowhere.invalid/disk" in failure.message
    assert "secret" not in failure.message


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/disk", "", "http:///disk"])
def test_nothing_is_fetched_but_by_http(depot: Port, url: str) -> None:
    failure = refusal(lambda: depot.fetch(Image("0" * 64, "raw", url)))
    assert (failure.reason, failure.patience) == ("OriginRefused", 1)


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "0" * 63, "0" * 64 + "\n", "G" * 64])
def test_no_file_is_named_by_what_is_not_a_digest_or_uid(depot: Port, name: str) -> None:
    for doing in (lambda: depot.fetch(Image(name, "raw", "http://nowhere.invalid/")),
                  lambda: depot.drop_image(Image(name)),
                  lambda: depot.create_disk(Disk(name, 0, 1)),
                  lambda: depot.drop_disk(Disk(name, 0, 1)),
                  lambda: depot.write_seed(Seed(name, DIGEST), None),
                  lambda: depot.console(name, 1),
                  lambda: depot.write_seed(Seed(UID, name if name != "0" * 63 else "short"), None)):
        assert refusal(doing).reason == "Malformed"
    assert seen(depot, [name, f"sha256:{name}"]) == set()


def test_a_dropped_image_is_gone_and_dropping_twice_is_dropping_once(depot: Port, image: Image) -> None:
    depot.fetch(image)
    depot.drop_image(image)
    depot.drop_image(image)
    assert seen(depot) == set()


def test_a_disk_waits_for_its_image(depot: Port, image: Image) -> None:
    disk = Disk(UID, 0, 1, image.sha256)
    assert refusal(lambda: depot.create_disk(disk)).reason == "ImageMissing"
    assert seen(depot) == set()
    depot.fetch(image)
    depot.create_disk(disk)
    assert seen(depot) == {image, disk}


def test_an_image_below_a_disk_stays(depot: Port, image: Image) -> None:
    disk = Disk(UID, 0, 1, image.sha256)
    depot.fetch(image)
    depot.create_disk(disk)
    assert refusal(lambda: depot.drop_image(image)).reason == "ImageInUse"
    assert seen(depot) == {image, disk}
    depot.drop_disk(disk)
    depot.drop_image(image)
    assert seen(depot) == set()


def test_a_disk_may_be_empty(depot: Port) -> None:
    depot.create_disk(Disk(UID, 1, 3))
    assert seen(depot) == {Disk(UID, 1, 3)}


def test_a_disk_that_is_there_is_never_replaced(depot: Port) -> None:
    depot.create_disk(Disk(UID, 0, 3))
    depot.create_disk(Disk(UID, 0, 5))
    depot.create_disk(Disk(UID, 0, 3, "0" * 64))
    assert seen(depot) == {Disk(UID, 0, 3)}


def test_disks_of_one_instance_are_dropped_one_by_one(depot: Port) -> None:
    depot.create_disk(Disk(UID, 0, 1))
    depot.create_disk(Disk(UID, 1, 1))
    depot.drop_disk(Disk(UID, 0, 1))
    depot.drop_disk(Disk(UID, 0, 1))
    assert seen(depot) == {Disk(UID, 1, 1)}


def test_a_config_drive_is_found_by_its_digest(depot: Port) -> None:
    depot.write_seed(Seed(UID, DIGEST, FILES), "#!/bin/sh")
    depot.write_seed(Seed(UID, DIGEST, FILES), "#!/bin/sh")
    assert seen(depot) == {Seed(UID, DIGEST)}


def test_a_newer_config_drive_leaves_the_older_until_that_is_dropped(depot: Port) -> None:
    depot.write_seed(Seed(UID, DIGEST, FILES), None)
    depot.write_seed(Seed(UID, NEWER, FILES), None)
    assert seen(depot) == {Seed(UID, DIGEST), Seed(UID, NEWER)}
    depot.drop_seed(Seed(UID, DIGEST))
    depot.drop_seed(Seed(UID, DIGEST))
    assert seen(depot) == {Seed(UID, NEWER)}


def test_of_a_console_the_end_is_read_and_what_is_no_text_replaced(depot: Port, state: Path) -> None:
    assert depot.console(UID, 100) == ""
    for said, limit, read in ((b"GUEST: READY\r\n", 100, "GUEST: READY\r\n"), (b"GUEST: READY\r\n", 7, "READY\r\n"), (b"a\xffb", 2, "\ufffdb")):
        if isinstance(depot, FakeDepot):
            depot.consoles[UID] = said
        else:
            layout.make_directory(layout.instance(state, UID))
            layout.console(state, UID).write_bytes(said)
        assert depot.console(UID, limit) == read
    assert depot.console(OTHER, 100) == ""


def test_looking_for_one_shows_only_that_one(depot: Port, image: Image) -> None:
    depot.fetch(image)
    for uid in (UID, OTHER):
        depot.create_disk(Disk(uid, 0, 1))
        depot.write_seed(Seed(uid, DIGEST, FILES), None)
    assert seen(depot, [UID]) == {Disk(UID, 0, 1), Seed(UID, DIGEST)}
    assert seen(depot, [image.token]) == {image}
    assert seen(depot, [image.token, OTHER]) == {image, Disk(OTHER, 0, 1), Seed(OTHER, DIGEST)}
    assert seen(depot, [str(uuid.UUID(int=3)), "sha256:" + "0" * 64]) == set()


# what the fake keeps for tests

def test_the_fake_shows_what_is_on_a_config_drive() -> None:
    depot = FakeDepot()
    depot.write_seed(Seed(UID, DIGEST, FILES), "#!/bin/sh")
    assert depot.written[UID, DIGEST] == {**dict(FILES), "openstack/latest/user_data": "#!/bin/sh"}


def test_the_fake_fails_when_told_to_and_then_no_more() -> None:
    depot = FakeDepot()
    depot.failures.append(StepFailed("NoSpace", "The node's filesystem is full."))
    assert refusal(lambda: depot.create_disk(Disk(UID, 0, 1))).reason == "NoSpace"
    depot.create_disk(Disk(UID, 0, 1))


# what only files can show

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
    told = qemu_img._run([*qemu_img.ALONE, "sh", "-c", asks], (), 10)
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
        monkeypatch.setitem(qemu_img.SURROUNDINGS, "PATH", f"{room}:{os.environ['PATH']}")
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
