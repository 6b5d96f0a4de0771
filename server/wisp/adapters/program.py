"""Programs that an adapter runs: an argument vector and text, never a shell, in an environment of our own
(what is in the agent's is nobody's business, and messages are parsed by people who read English).

A program starts in the network namespace of the calling thread. `subprocess` starts it by vfork, which
a process with gRPC threads survives.
"""
from __future__ import annotations

import subprocess

from wisp.errors import StepFailed

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
SECONDS = 30


def run(argv: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(argv, input=text, capture_output=True, text=True, env=ENVIRONMENT, timeout=SECONDS,
                              check=False)
    except subprocess.TimeoutExpired as error:
        raise StepFailed("GatewayFailed", f"{argv[0]} has not ended within {SECONDS} s") from error


def must(argv: list[str], text: str = "") -> None:
    ended = run(argv, text)
    if ended.returncode:
        words = (ended.stderr or ended.stdout).strip().splitlines() or [f"ended with {ended.returncode}"]
        raise StepFailed("GatewayFailed", f"{argv[0]}: {words[0]}")
