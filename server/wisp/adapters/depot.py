"""Files of a node: cached images, disks and config drives (`Depot` of `wisp.ports`).

The directory is the ledger: what is under its name is whole, and what is observed is read from the
files themselves: a disk's size and image from its qcow2 header, a config drive's digest from its
volume. So observing one instance is a directory listing and a few reads; no program is started.

An observed disk tells its real size, rounded up to GiB: a disk is never smaller than its image, so
that may be more than was asked for. One that cannot be read is there all the same, of 0 GiB: it must
not be taken for missing, nor hide the others. An image whose file is here is never asked for again, and it
stays as long as a disk lies on it. Disks and config drives are 0600; libvirt gives them to the
hypervisor's user while a domain runs. Images are 0444 for everyone and need no giving.
"""
from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from wisp.adapters import fetch, imagecheck, layout, qemu_img, seed
from wisp.errors import StepFailed
from wisp.host import Disk, Image, Seed

log = logging.getLogger(__name__)
GIB = 1 << 30
STALE = 7 * 24 * 3600
"""Seconds after which a download that nobody went on with is litter."""
USER_DATA = "openstack/latest/user_data"


class Depot:
    """The files below a state directory, which belongs to one cluster alone."""

    def __init__(self, state: Path) -> None:
        self._state = state.absolute()
        self._stop = threading.Event()
        self._beneath = threading.Lock()  # an image is not dropped while a disk is being laid on it
        with layout.filesystem():
            layout.make_directory(layout.images(self._state))
            layout.make_directory(layout.instances(self._state))
            self._sweep()

    def observe(self, tokens: Collection[str] | None) -> Iterable[Image | Disk | Seed]:
        with layout.filesystem():
            return [part for token in (self._tokens() if tokens is None else tokens) for part in self._look(token)]

    def fetch(self, image: Image) -> None:
        with layout.filesystem():
            path = layout.image(self._state, image.sha256)
            if path.exists():
                return
            part = layout.part(self._state, image.sha256)
            fetch.download(image.url, part, image.sha256, self._stop)
            try:
                imagecheck.check(part, image.format)
                qemu_img.inspect(part, image.format)
            except StepFailed as failure:
                if failure.reason == "UnsafeImage":
                    fetch.discard(part)
                raise
            self._admit(part, image.format, path)

    def drop_image(self, image: Image) -> None:
        with layout.filesystem(), self._beneath:
            path = layout.image(self._state, image.sha256)
            disks = layout.instances(self._state).glob("*/disk-*.qcow2")
            if any(_image_below(_header(disk)) == image.sha256 for disk in disks):
                raise StepFailed("ImageInUse", "A disk of this node lies on the image.")
            path.unlink(missing_ok=True)
            fetch.discard(layout.part(self._state, image.sha256))

    def create_disk(self, disk: Disk) -> None:
        with layout.filesystem(), self._beneath:
            path = layout.disk(self._state, disk.uid, disk.index)
            if path.exists():
                _still_a_disk(path)
                return
            below = layout.image(self._state, disk.sha256) if disk.sha256 else None
            if below and not below.exists():
                raise StepFailed("ImageMissing", "The image of the disk is not on this node.")
            least = imagecheck.read(below).virtual_size if below else 0
            layout.make_directory(path.parent)
            written = layout.temporary(path)
            qemu_img.create(written, max(disk.size_gib * GIB, least), below)
            layout.publish(written, path, 0o600)

    def drop_disk(self, disk: Disk) -> None:
        _drop(layout.disk(self._state, disk.uid, disk.index))

    def write_seed(self, seed_: Seed, user_data: str | None) -> None:
        with layout.filesystem():
            path = layout.seed(self._state, seed_.uid, seed_.digest)
            if _seed_digest(path) == seed_.digest:
                return
            layout.make_directory(path.parent)
            written = layout.temporary(path)
            written.touch(0o600)
            extra = () if user_data is None else ((USER_DATA, user_data),)
            seed.write(written, seed_.digest, (*seed_.files, *extra))
            layout.publish(written, path, 0o600)

    def drop_seed(self, seed_: Seed) -> None:
        _drop(layout.seed(self._state, seed_.uid, seed_.digest))

    def console(self, uid: str, limit: int) -> str:
        with layout.filesystem():
            path = layout.console(self._state, uid)
            if not path.exists():
                return ""
            with path.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - limit))
                return log.read(limit).decode(errors="replace")

    def close(self) -> None:
        """What is slow and under way ends as interrupted."""
        self._stop.set()

    def _tokens(self) -> Iterator[str]:
        for path in layout.images(self._state).glob("*.qcow2"):
            yield f"sha256:{path.stem}"
        for path in layout.instances(self._state).iterdir():
            yield path.name

    def _look(self, token: str) -> Iterator[Image | Disk | Seed]:
        content = token.removeprefix("sha256:")
        if content != token:
            if layout.SHA256.fullmatch(content) and layout.image(self._state, content).exists():
                yield Image(content)
        elif layout.UID.fullmatch(token):
            yield from _parts(layout.instance(self._state, token))

    def _admit(self, part: Path, format: str, path: Path) -> None:
        """Publish a checked download, as qcow2."""
        if format == "raw":
            written = layout.temporary(path)
            qemu_img.convert_raw(part, written, self._stop)
            layout.publish(written, path, 0o444)
        else:
            layout.publish(part, path, 0o444)
        fetch.discard(part)

    def _sweep(self) -> None:
        """What crashes left, before anything is under way."""
        images = layout.images(self._state)
        for path in images.glob("*.tmp"):
            path.unlink()
        for path in images.glob("*.part"):
            if path.stat().st_mtime < time.time() - STALE:
                fetch.discard(path)
        for directory in layout.instances(self._state).iterdir():
            if layout.UID.fullmatch(directory.name):
                _tidy(directory)


def _parts(directory: Path) -> Iterator[Disk | Seed]:
    uid = directory.name
    for path in directory.glob("*"):
        try:
            if named := layout.DISK.fullmatch(path.name):
                if header := _header(path):
                    yield Disk(uid, int(named[1]), -(-header.virtual_size // GIB), _image_below(header))
            elif layout.SEED.fullmatch(path.name) and (digest := _seed_digest(path)):
                yield Seed(uid, digest)
        except OSError as error:
            log.warning("%s cannot be read: %s", path, error.strerror)
            if named:
                yield Disk(uid, int(named[1]), 0)


def _drop(path: Path) -> None:
    with layout.filesystem():
        path.unlink(missing_ok=True)
        _tidy(path.parent)


def _still_a_disk(path: Path) -> None:
    if not _header(path):
        raise StepFailed("DiskLost", f"{path} is there but is no disk any more; it is left as it is.", patience=1)


def _header(disk: Path) -> imagecheck.Header | None:
    """None when the disk is gone, or so damaged that it is none any more."""
    try:
        return imagecheck.read(disk)
    except (FileNotFoundError, StepFailed):
        return None


def _image_below(header: imagecheck.Header | None) -> str:
    """The digest of the image a disk lies on, "" for none."""
    return Path(header.backing).stem if header else ""


def _seed_digest(path: Path) -> str:
    try:
        return seed.digest(path)
    except FileNotFoundError:
        return ""


def _tidy(directory: Path) -> None:
    """Remove an instance's directory once only its console log and what crashes left are in it."""
    if not directory.is_dir():
        return
    for path in directory.glob("*.tmp"):
        path.unlink()
    left = list(directory.iterdir())
    if all(path.name.startswith("console.log") for path in left):
        for path in left:
            path.unlink()
        directory.rmdir()
