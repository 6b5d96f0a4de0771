"""What the header check lets through, and what never reaches a qemu tool. Headers are written here by hand."""
from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wisp.adapters import imagecheck
from wisp.errors import StepFailed

GIB = 1 << 30


def qcow2(version: int = 3, size: int = GIB, backing: bytes = b"", bits: int = 16, crypt: int = 0, snapshots: int = 0,
          features: int = 0, extensions: bytes = b"", l1_at: int = 0x30000) -> bytes:
    """A header as QEMU writes it, followed by the zeros of its tables."""
    length = 104 if version == 3 else 72
    name_at = length + len(extensions) + 8 if backing else 0
    head = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", version, name_at, len(backing), bits, size, crypt, 1, l1_at,
                       0x10000, 1, snapshots, 0)
    if version == 3:
        head += struct.pack(">QQQII", features, 0, 0, 4, length)
    return (head + extensions + bytes(8) + backing).ljust(0x40000, b"\0")


def extension(kind: int, data: bytes) -> bytes:
    return struct.pack(">II", kind, len(data)) + data.ljust(len(data) + 7 & ~7, b"\0")


def verdict(tmp_path: Path, content: bytes, format: str) -> str:
    path = tmp_path / "image"
    path.write_bytes(content)
    try:
        return f"{imagecheck.check(path, format)} bytes"
    except StepFailed as failure:
        assert (failure.reason, failure.patience) == ("UnsafeImage", 1)
        return failure.message


HARMLESS = {
    "of version 3": qcow2(),
    "of version 2": qcow2(version=2),
    "compressed with zstd": qcow2(features=8),
    "naming its features": qcow2(extensions=extension(0x6803F857, bytes(48))),
    "with anything behind its last extension": qcow2(extensions=extension(0, b"") + extension(0x44415441, b"x")),
    "with clusters of 2 MiB": qcow2(bits=21, l1_at=0x30000).ljust(0x300000, b"\0"),
}

HOSTILE = {
    "backing file": qcow2(backing=b"/etc/shadow"),
    "backing file ": qcow2(version=2, backing=b"/etc/shadow"),
    "external data file": qcow2(features=4),
    "external data file ": qcow2(extensions=extension(0x44415441, b"/etc/shadow")),
    "external data file  ": qcow2(extensions=extension(0x6803F857, b"abc") + extension(0x44415441, b"/etc/shadow")),
    "backing format": qcow2(extensions=extension(0xE2792ACA, b"raw")),
    "encrypted": qcow2(crypt=2),
    "snapshots": qcow2(snapshots=1),
    "feature bits 0x20": qcow2(features=32),
    "feature bits 0x2": qcow2(features=2),
    "out of bounds": qcow2(size=1 << 62),
    "out of bounds ": qcow2(size=0),
    "version 1": qcow2(version=1),
    "version 4": qcow2(version=4),
    "2^40": qcow2(bits=40),
    "cut short within its header": qcow2()[:90],
    "cut short within its header ": qcow2()[:20],
    "cut short: its tables": qcow2()[:0x20000],
    "not a qcow2 file": bytes(1 << 16),
    "not a qcow2 file ": b"",
    "a length of 80": qcow2()[:100] + struct.pack(">I", 80) + qcow2()[104:],
}

POSING_AS_RAW = {
    "qcow2": qcow2(),
    "VMDK": b"KDMV" + bytes(2048),
    "VMDK descriptor": b"# Disk DescriptorFile\nversion=1\nRW 1 FLAT \"/etc/shadow\" 0\n",
    "VMDK descriptor ": b"# harmless\n\n   \n#\nversion=1\n",
    "VHDX": b"vhdxfile" + bytes(2048),
    "VHD": b"conectix" + bytes(2048),
    "VDI": bytes(64) + b"\x7f\x10\xda\xbe" + bytes(2048),
    "LUKS": b"LUKS\xba\xbe" + bytes(2048),
    "xz": b"\xfd7zXZ\0" + bytes(2048),
}


@pytest.mark.parametrize("content", HARMLESS.values(), ids=HARMLESS)
def test_a_harmless_qcow2_tells_its_size(tmp_path: Path, content: bytes) -> None:
    assert verdict(tmp_path, content, "qcow2") == f"{GIB} bytes"


@pytest.mark.parametrize("why", HOSTILE)
def test_a_hostile_qcow2_is_refused_and_told_why(tmp_path: Path, why: str) -> None:
    assert why.strip() in verdict(tmp_path, HOSTILE[why], "qcow2")


@pytest.mark.parametrize("name", POSING_AS_RAW)
def test_another_format_does_not_pass_as_raw(tmp_path: Path, name: str) -> None:
    assert f"begins like {'a ' if 'descriptor' in name else ''}{name.strip()}" in verdict(
        tmp_path, POSING_AS_RAW[name], "raw")


def test_a_data_file_hidden_beyond_64_kib_of_a_large_header_cluster_is_found(tmp_path: Path) -> None:
    hidden = extension(0x6803F857, bytes(70_000)) + extension(0x44415441, b"/etc/shadow")
    assert "external data file" in verdict(tmp_path, qcow2(bits=21, extensions=hidden).ljust(0x300000, b"\0"), "qcow2")


def test_a_raw_disk_with_a_boot_sector_is_as_large_as_its_file(tmp_path: Path) -> None:
    assert verdict(tmp_path, b"\xeb\x63\x90" + bytes(509), "raw") == "512 bytes"


def test_an_empty_raw_image_is_refused(tmp_path: Path) -> None:
    assert "out of bounds" in verdict(tmp_path, b"", "raw")


def test_a_format_that_nobody_checks_is_refused(tmp_path: Path) -> None:
    assert "'vmdk' is not known" in verdict(tmp_path, b"KDMV", "vmdk")


def test_the_image_below_a_disk_is_read_from_its_header(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(qcow2(backing=b"/state/images/00.qcow2"))
    assert imagecheck.read(path).backing == "/state/images/00.qcow2"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(4, 120), junk=st.binary(min_size=1, max_size=64), length=st.integers(0, 1 << 17))
def test_no_header_gets_more_out_of_it_than_a_size_or_a_refusal(
        tmp_path: Path, at: int, junk: bytes, length: int) -> None:
    whole = qcow2()
    verdict(tmp_path, (whole[:at] + junk + whole[at + len(junk):])[:length], "qcow2")
