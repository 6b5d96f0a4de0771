"""Programs that an adapter runs to their end: an argument vector and text, never a shell, in an environment of
our own (what is in the agent's is nobody's business, and messages are parsed by people who read English).

A program starts in the network namespace of the calling thread. `subprocess` starts it by vfork, which
a process with gRPC threads survives. It may be run within others (`setpriv`, `prlimit`), be handed open files,
and told to stop before its time.
"""
from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from subprocess import PIPE, CompletedProcess, Popen, TimeoutExpired

from wisp.adapters.layout import interrupted
from wisp.errors import StepFailed

GLANCE_SECONDS = 0.2
NEVER = threading.Event()


def run(argv: Sequence[str], reason: str, text: str = "", *, within: Sequence[str] = (), files: Sequence[int] = (),
        seconds: float = 30, stop: threading.Event = NEVER, patience: int | None = None) -> CompletedProcess[str]:
    """How it ended. Raises StepFailed for the reason if it does not in time, as `Interrupted` once `stop` is set."""
    environment = {"PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin", "LC_ALL": "C"}
    until = time.monotonic() + seconds
    with Popen([*within, *argv], cwd="/", env=environment, pass_fds=files, text=True, errors="replace",
               stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
        try:
            while (said := _said(process, text)) is None:
                text = ""       # it has been handed over
                if stop.is_set():
                    raise interrupted()
                if time.monotonic() > until:
                    raise StepFailed(reason, f"{argv[0]} has not ended within {seconds:g} s.", patience=patience)
        except BaseException:
            process.kill()
            raise
    return CompletedProcess(argv, process.returncode, *said)


def _said(process: Popen[str], text: str) -> tuple[str, str] | None:
    with suppress(TimeoutExpired):
        return process.communicate(text, GLANCE_SECONDS)
    return None


def must(argv: Sequence[str], reason: str, text: str = "") -> None:
    ended = run(argv, reason, text)
    if ended.returncode:
        words = (ended.stderr or ended.stdout).strip().splitlines() or [f"ended with {ended.returncode}"]
        raise StepFailed(reason, f"{argv[0]}: {words[0]}")
