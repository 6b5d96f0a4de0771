"""Where the depot's files lie under a node's state directory, and how one comes to be there.

    images/<sha256>.qcow2               a cached image: whole, checked and read-only once it exists
    images/<sha256>.part                a download under way; beside it `.part.validator`, the origin's
    instances/<uid>/disk-<index>.qcow2
    instances/<uid>/seed-<digest>.iso   the digest's first 16 digits; all of it stands in the volume
    instances/<uid>/console.log         written by the hypervisor

A name under which something is found is a promise that it is whole. So everything is written as
`<name>.tmp`, flushed, and renamed (`publish`); a crash leaves at most a `.tmp`, which nobody reads.
Names are built from hex digests and UUIDs only, whatever a document says. Directories are 0711: the
hypervisor's user passes through to what it may open, and nobody lists.
"""
from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wisp.errors import StepFailed

SHA256 = re.compile(r"[0-9a-f]{64}")
UID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
DIGEST = re.compile(r"[0-9a-f]{16,64}")
DISK = re.compile(r"disk-(0|[1-9][0-9]*)\.qcow2")
SEED = re.compile(r"seed-[0-9a-f]{16}\.iso")


def image(state: Path, sha256: str) -> Path:
    return images(state) / f"{_shaped(SHA256, sha256)}.qcow2"


def part(state: Path, sha256: str) -> Path:
    return images(state) / f"{_shaped(SHA256, sha256)}.part"


def disk(state: Path, uid: str, index: int) -> Path:
    return instance(state, uid) / f"disk-{int(index)}.qcow2"


def seed(state: Path, uid: str, digest: str) -> Path:
    return instance(state, uid) / f"seed-{_shaped(DIGEST, digest)[:16]}.iso"


def console(state: Path, uid: str) -> Path:
    return instance(state, uid) / "console.log"


def images(state: Path) -> Path:
    return state.absolute() / "images"


def instances(state: Path) -> Path:
    return state.absolute() / "instances"


def instance(state: Path, uid: str) -> Path:
    return instances(state) / _shaped(UID, uid)


def temporary(path: Path) -> Path:
    """Under which a file is written until it is whole; what a crash left there is gone."""
    made = path.with_name(path.name + ".tmp")
    made.unlink(missing_ok=True)
    return made


def publish(written: Path, path: Path, mode: int) -> None:
    """Give a whole file its name, so that it is there after a power failure too, or not at all."""
    descriptor = os.open(written, os.O_RDONLY)
    try:
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    written.rename(path)
    sync_directory(path.parent)


def make_directory(path: Path) -> None:
    if not path.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o711)
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def filesystem() -> Iterator[None]:
    """What the filesystem refuses, said as a failed step."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise no_space() from error
        detail = f"{error.strerror or error}: {error.filename}" if error.filename else str(error)
        raise StepFailed("FilesystemFailed", f"The node's filesystem refused: {detail}.") from error


def no_space() -> StepFailed:
    return StepFailed("NoSpace", "The node's filesystem is full.")


def interrupted() -> StepFailed:
    return StepFailed("Interrupted", "The service was stopped in the midst of it; its next start goes on.")


def _shaped(shape: re.Pattern[str], text: str) -> str:
    if not shape.fullmatch(text):
        raise StepFailed("Malformed", f"{text!r} is neither a digest nor a uid; no file is named so.", patience=1)
    return text
