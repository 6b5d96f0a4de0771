"""Does KVM really run guests here?

The presence of /dev/kvm says little, and so do libvirt's capabilities: on some hosts (nested ones above
all) a guest "runs", prints nothing and stops, or QEMU asserts, while real-mode code and SeaBIOS still
work. So a BIOS of ours is booted that goes to 64-bit mode with paging, counts a little and leaves QEMU
with code 33. Emulation does that in 0.1 s; a KVM that has not after two seconds is of no use.

`CODE` is assembled from `tools/kvm-probe/rom.S`, which also says how.
"""
from __future__ import annotations

import os
import tempfile
from pathlib import Path

from wisp.adapters.program import run
from wisp.errors import StepFailed

DEVICE = Path("/dev/kvm")
QEMU = "qemu-system-x86_64"
LEFT = 33
SIZE = 0x10000
CODE = bytes.fromhex(
    "fab800f08ed8660f0116c0000f20c00c010f22c066ea1c000f00080066b8"
    "10008ed88ec08ed031c0bf00100000b9000c0000f3abc705001000000320"
    "0000c7050020000003300000c7050030000083000000b8001000000f22d8"
    "0f20e00c200f22e0b9800000c00f3280cc010f300f20c00d000000800f22"
    "c0ea80000f001800b9a086010048c7c30080000048010b48ffc975f8b010"
    "e6f4f4ebfd0f1f4400000000000000000000ffff0000009acf00ffff0000"
    "0092cf00ffff0000009aaf001f00a0000f00")
RESET = bytes.fromhex("ea000000f0")
"""What the processor executes first: a far jump to the code."""


def choose() -> tuple[str, str]:
    """("kvm" or "qemu", one sentence why)."""
    if not DEVICE.exists():
        return "qemu", f"There is no {DEVICE}, so guests are emulated in software."
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        return "qemu", f"{DEVICE} may not be opened, so guests are emulated in software."
    trouble = trial("kvm")
    if trouble:
        return "qemu", f"KVM is present but runs no 64-bit guest ({trouble}), so guests are emulated in software."
    return "kvm", "KVM ran a 64-bit guest."


def trial(accelerator: str, code: bytes = CODE, seconds: float = 2.0) -> str:
    """Boots the code under an accelerator of QEMU ("kvm", "tcg"): "" when it got through, else what happened."""
    with tempfile.NamedTemporaryFile(prefix="wisp-kvm-", suffix=".rom") as rom:
        rom.write(code.ljust(SIZE - 16, b"\0") + RESET.ljust(16, b"\0"))
        rom.flush()
        try:
            done = run([QEMU, "-accel", accelerator, "-machine", "pc", "-m", "16", "-bios", rom.name, "-nodefaults",
                        "-no-user-config", "-display", "none", "-no-reboot",
                        "-device", "isa-debug-exit,iobase=0xf4,iosize=1"], "NoAnswer", seconds=seconds)
        except StepFailed:
            return f"no answer within {seconds:g} s"
        except OSError as error:
            return f"{QEMU}: {error.strerror}"
    said = done.stderr.strip().splitlines()[-1:] or [""]
    return "" if done.returncode == LEFT else f"QEMU left with code {done.returncode} {said[0]}".strip()
