"""What a depot promises, whichever it is: asked of the fake and of real files with `qemu-img`.

The images are made here and served on loopback; the fake only pretends to fetch them.
"""
from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from wisp.adapters import layout
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


@pytest.fixture(params=["fake", pytest.param("real", marks=real_only)])
def depot(request: pytest.FixtureRequest, state: Path) -> Port:
    return FakeDepot() if request.param == "fake" else Depot(state)


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
