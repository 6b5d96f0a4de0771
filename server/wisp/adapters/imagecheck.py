"""Is a file that came from outside safe to hand to a qemu tool?

A disk image can name other files. A qcow2 with a backing file or an external data file makes QEMU
read any file of the node, even when told `-f qcow2`; a VMDK does so on a mere `qemu-img info`; and a
"raw" image that begins with another format's magic becomes one as soon as somebody forgets to name
the format. So the header is read here first, by the standard library alone, and what is not plainly
harmless is refused. The same reader tells the size and the backing file of our own disks, which is
cheaper than asking `qemu-img` for each.

The layout is from docs/interop/qcow2.txt of QEMU; numbers are big-endian.
"""
from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wisp.errors import StepFailed

MAGIC = b"QFI\xfb"
MAX_VIRTUAL = 8 << 40
"""Bytes; a larger disk is refused: sizes are an attack on whoever allocates by them."""

_FIXED = struct.Struct(">4sIQIIQIIQQIIQ")
_VERSION_3 = struct.Struct(">QQQII")
_KNOWN_INCOMPATIBLE = 0b11001
"""Dirty refcounts, compression type, extended L2 entries. Not: corrupt, external data file, what is yet to come."""
_REFUSED_EXTENSIONS = {0x44415441: "an external data file", 0xE2792ACA: "a backing format", 0x0537BE77: "encryption"}

_FOREIGN = (
    (0, MAGIC, "qcow2"), (0, b"KDMV", "VMDK"), (0, b"COWD", "VMDK"), (0, b"vhdxfile", "VHDX"),
    (0, b"conectix", "VHD"), (64, b"\x7f\x10\xda\xbe", "VDI"), (0, b"QED\0", "QED"), (0, b"LUKS\xba\xbe", "LUKS"),
    (0, b"WithoutFreeSpace", "Parallels"), (0, b"WithouFreSpacExt", "Parallels"), (0, b"Bochs Virtual HD", "Bochs"),
    (0, b"#!/bin/sh\n#V2.0 Format\n", "cloop"), (0, b"\x1f\x8b", "gzip"), (0, b"\xfd7zXZ\0", "xz"),
    (0, b"\x28\xb5\x2f\xfd", "zstd"), (0, b"BZh", "bzip2"), (0, b"PK\x03\x04", "zip"),
)
_VMDK_DESCRIPTOR = re.compile(rb"(?:#[^\n]*\n|[ \t\r]*\n)*(?:# Disk DescriptorFile|version=)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Header:
    """What matters of a qcow2 header. Sizes and offsets in bytes."""

    version: int
    virtual_size: int
    backing: str
    cluster_bits: int
    crypt: int
    snapshots: int
    tables_end: int
    incompatible: int
    extensions: tuple[int, ...]


def check(path: Path, format: str) -> int:
    """The virtual size of an image that is what it is said to be and refers to nothing else."""
    if format == "raw":
        return _check_raw(path)
    if format == "qcow2":
        return _check_qcow2(path)
    raise unsafe(f"the format {format!r} is not known here; raw and qcow2 are")


def read(path: Path) -> Header:
    """The header of a file that says it is qcow2, hostile or not."""
    with path.open("rb") as file:
        data = file.read(1 << 16)
        if len(data) == 1 << 16 and 16 < data[23] <= 21:
            data += file.read((1 << data[23]) - len(data))
    return _parse(data)


def backing(path: Path) -> str:
    """What a disk of ours lies on; "" for nothing, and of what is no disk."""
    try:
        return read(path).backing
    except (OSError, StepFailed):
        return ""


def unsafe(why: str) -> StepFailed:
    return StepFailed("UnsafeImage", f"The image is refused: {why}.", patience=1)


def _check_raw(path: Path) -> int:
    with path.open("rb") as file:
        start = file.read(2048)
    for offset, magic, name in _FOREIGN:
        if start.startswith(magic, offset):
            raise unsafe(f"it is said to be raw and begins like {name}")
    if _VMDK_DESCRIPTOR.match(start):
        raise unsafe("it is said to be raw and begins like a VMDK descriptor")
    return _bounded(path.stat().st_size)


def _check_qcow2(path: Path) -> int:
    header = read(path)
    if header.backing:
        raise unsafe("it has a backing file")
    if header.crypt:
        raise unsafe("it is encrypted")
    if header.snapshots:
        raise unsafe("it has internal snapshots")
    if header.incompatible & 4:
        raise unsafe("it has an external data file")
    if header.incompatible & ~_KNOWN_INCOMPATIBLE:
        raise unsafe(f"it has feature bits {header.incompatible:#x}")
    for kind in header.extensions:
        if kind in _REFUSED_EXTENSIONS:
            raise unsafe(f"its header speaks of {_REFUSED_EXTENSIONS[kind]}")
    if header.tables_end > path.stat().st_size:
        raise unsafe("it is cut short: its tables lie beyond its end")
    return _bounded(header.virtual_size)


def _bounded(size: int) -> int:
    if not 0 < size <= MAX_VIRTUAL:
        raise unsafe(f"a virtual size of {size} bytes is out of bounds")
    return size


def _parse(data: bytes) -> Header:
    if not data.startswith(MAGIC):
        raise unsafe("it is not a qcow2 file")
    if len(data) < _FIXED.size:
        raise unsafe("it is cut short within its header")
    (_, version, backing_at, backing_length, cluster_bits, size, crypt, l1_entries, l1_at,
     refcounts_at, refcount_clusters, snapshots, _) = _FIXED.unpack_from(data)
    if version not in (2, 3) or not 9 <= cluster_bits <= 21:
        raise unsafe(f"its header is of version {version} with clusters of 2^{cluster_bits} bytes")
    incompatible, length = _features(data, version)
    return Header(
        version=version, virtual_size=size, cluster_bits=cluster_bits, crypt=crypt, snapshots=snapshots,
        backing=_backing(data, backing_at, backing_length), incompatible=incompatible,
        extensions=tuple(_extensions(data[:1 << cluster_bits], length)),
        tables_end=max(l1_at + 8 * l1_entries, refcounts_at + (refcount_clusters << cluster_bits)))


def _features(data: bytes, version: int) -> tuple[int, int]:
    """The incompatible feature bits, and the header's length."""
    if version == 2:
        return 0, _FIXED.size
    if len(data) < _FIXED.size + _VERSION_3.size:
        raise unsafe("it is cut short within its header")
    incompatible, _, _, _, length = _VERSION_3.unpack_from(data, _FIXED.size)
    if length < _FIXED.size + _VERSION_3.size:
        raise unsafe(f"its header of version 3 has a length of {length}")
    return incompatible, length


def _backing(data: bytes, at: int, length: int) -> str:
    if not at and not length:
        return ""
    return data[at:at + length].decode(errors="replace") or "?"


def _extensions(data: bytes, at: int) -> Iterator[int]:
    """The kinds of the header's extensions, up to the end mark or the first cluster's end."""
    while at + 8 <= len(data):
        kind, length = struct.unpack_from(">II", data, at)
        if kind == 0:
            return
        yield kind
        at += 8 + (length + 7 & ~7)
