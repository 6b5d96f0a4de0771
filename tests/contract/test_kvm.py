"""The probe that tells a KVM that runs guests from one that only says so."""
from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from wisp.adapters import kvm

SOURCE = Path(__file__).parents[2] / "tools/kvm-probe/rom.S"
HANGS = bytes.fromhex("f4ebfd")

qemu = pytest.mark.skipif(not shutil.which(kvm.QEMU), reason="QEMU is not installed")


@qemu
def test_emulation_gets_through_to_64_bits() -> None:
    assert kvm.trial("tcg", seconds=30) == ""


@qemu
def test_a_guest_that_never_answers_is_given_up() -> None:
    assert kvm.trial("tcg", HANGS, seconds=0.5) == "no answer within 0.5 s"


@qemu
def test_an_accelerator_that_is_not_there_says_so() -> None:
    assert "QEMU left with code 1" in kvm.trial("xen")


def test_the_choice_comes_with_a_sentence() -> None:
    choice, why = kvm.choose()
    assert choice in ("kvm", "qemu") and why.endswith(".")


@pytest.mark.skipif(not shutil.which("as") or not shutil.which("objcopy"), reason="binutils are not installed")
def test_the_bytes_are_what_the_source_says(tmp_path: Path) -> None:
    subprocess.run(["as", "--64", "-o", "rom.o", SOURCE], cwd=tmp_path, check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", "rom.o", "rom.bin"], cwd=tmp_path, check=True)
    assert (tmp_path / "rom.bin").read_bytes() == kvm.CODE
