"""Running `qemu-img`, which parses what strangers wrote.

For an image from outside it runs with bounded memory and time, and, when we are root, as nobody and
in a network namespace with nothing in it. Files reach it as open descriptors (`/dev/fd/N`), so that
nobody needs no way into the state directory. It dies with the thread that waits for it. The format is
always named: what qemu-img guesses, the author of the image has chosen. A conversion may be told to stop.
"""
from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from wisp.adapters.imagecheck import MAX_VIRTUAL, unsafe
from wisp.adapters.layout import no_space
from wisp.adapters.program import NEVER, run
from wisp.errors import StepFailed

NOBODY = 65534
ALONE = ("unshare", "--net", "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
         "--no-new-privs", "--pdeathsig=KILL")
ONE_ARENA = ("env", "MALLOC_ARENA_MAX=1")
"""One of 128 MiB for each of qemu-img's threads now and then breaks the bound on memory."""
LOOK_SECONDS = 30
CONVERT_SECONDS = 3600
CREATE_SECONDS = 60


def inspect(path: Path, format: str) -> None:
    """Let qemu-img confirm what our own check of the header found."""
    with path.open("rb") as file:
        arguments = ["info", "-f", format, "--output=json", _handed(file.fileno())]
        told = _confined(arguments, [file.fileno()], LOOK_SECONDS)
    _judge(json.loads(told), format)


def convert_raw(raw: Path, qcow2: Path, stop: threading.Event) -> None:
    """A raw image as a sparse qcow2."""
    with raw.open("rb") as source, qcow2.open("xb") as target:
        files = [source.fileno(), target.fileno()]
        if os.geteuid() == 0:
            os.fchown(target.fileno(), NOBODY, NOBODY)
        _confined(["convert", "-f", "raw", "-O", "qcow2", *map(_handed, files)], files, CONVERT_SECONDS, stop)
        os.fchown(target.fileno(), os.geteuid(), os.getegid())


def create(path: Path, size: int, backing: Path | None) -> None:
    """A disk of `size` bytes: an overlay on an image of ours, or empty."""
    below = ["-b", str(backing), "-F", "qcow2"] if backing else []
    _run(["qemu-img", "create", "-q", "-f", "qcow2", *below, str(path), str(size)], CREATE_SECONDS)


def _confined(arguments: Sequence[str], files: Sequence[int], seconds: int, stop: threading.Event = NEVER) -> str:
    bounds = [*ONE_ARENA, "prlimit", f"--as={1 << 30}", f"--cpu={seconds}", "--core=0"]
    alone = ALONE if os.geteuid() == 0 else ()
    return _run(["qemu-img", *arguments], 2 * seconds, [*alone, *bounds], files, stop)


def _run(argv: Sequence[str], seconds: int, within: Sequence[str] = (), files: Sequence[int] = (),
         stop: threading.Event = NEVER) -> str:
    ended = run(argv, "QemuImgFailed", within=within, files=files, seconds=seconds, stop=stop, patience=3)
    if ended.returncode:
        if "No space left" in ended.stderr:
            raise no_space()
        last = (ended.stderr.strip().splitlines() or [f"it ended with {ended.returncode}"])[-1]
        raise StepFailed("QemuImgFailed", f"qemu-img failed: {last[:200]}.", patience=3)
    return ended.stdout


def _handed(descriptor: int) -> str:
    return f"/dev/fd/{descriptor}"


def _judge(info: dict[str, object], format: str) -> None:
    specific = info.get("format-specific")
    data = specific.get("data") if isinstance(specific, dict) else None
    details = data if isinstance(data, dict) else {}
    size = info.get("virtual-size")
    if info.get("format") != format:
        raise unsafe(f"qemu-img takes it for {info.get('format')}, not {format}")
    if {"backing-filename", "full-backing-filename", "snapshots"} & info.keys() or info.get("encrypted"):
        raise unsafe("qemu-img finds a backing file, snapshots or encryption in it")
    if "data-file" in details or details.get("corrupt"):
        raise unsafe("qemu-img finds an external data file in it, or damage")
    if not isinstance(size, int) or not 0 < size <= MAX_VIRTUAL:
        raise unsafe(f"qemu-img tells a virtual size of {size} bytes")
