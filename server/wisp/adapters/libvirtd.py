"""Daemons of libvirt where nobody else has started any: in a container, in a world of namespaces.

On a machine with systemd the sockets answer already and nothing is done. Otherwise virtlogd (it writes
the console logs) and libvirtd are started as daemons that outlive us, as the machines they run do. Their
pid files are ours, under the state directory; their sockets and configuration are the system's, which is
never written to.
"""
from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from wisp.adapters.program import run
from wisp.errors import StepFailed

RUN = Path("/run/libvirt")
SYSTEM = ("libvirt-sock", "virtqemud-sock")
DAEMONS = (("virtlogd", "virtlogd-sock"), ("libvirtd", "libvirt-sock"))
MISSING = "is not installed: apt install libvirt-daemon-system qemu-system-x86"
SECONDS = 30.0


def ensure(uri: str, state: Path) -> None:
    """Makes the libvirt that the URI names answer, if it is this machine's own."""
    if not _is_local_system(uri) or any(_answers(RUN / name) for name in SYSTEM):
        return
    for name, sock in DAEMONS:
        if not _answers(RUN / sock):
            _start(name, _pid_file(state, name), RUN / sock)


def stop(state: Path) -> None:
    """Ends the daemons that `ensure` started. Machines go on running, but what they print is written no more."""
    for name, _ in reversed(DAEMONS):
        file = _pid_file(state, name)
        pid = _pid(file, name)
        if pid:
            os.kill(pid, signal.SIGTERM)
            _until(partial(_ended, pid), f"{name} did not end.")
        file.unlink(missing_ok=True)


def _is_local_system(uri: str) -> bool:
    parts = urlsplit(uri)
    if parts.scheme not in ("qemu", "qemu+unix") or parts.netloc or parts.path != "/system":
        return False
    return parse_qs(parts.query).get("socket", [str(RUN / SYSTEM[0])]) == [str(RUN / SYSTEM[0])]


def _start(name: str, pid_file: Path, sock: Path) -> None:
    pid_file.parent.mkdir(parents=True, exist_ok=True)
    try:
        done = run([name, "--daemon", "--pid-file", str(pid_file)], "HypervisorUnreachable")
    except FileNotFoundError as error:
        raise StepFailed("HypervisorMissing", f"{name} {MISSING}", patience=1) from error
    if done.returncode:
        raise StepFailed("HypervisorUnreachable", f"{name} does not start: {done.stderr.strip()[-300:]}")
    _until(lambda: _answers(sock), f"{name} does not answer.")


def _pid_file(state: Path, name: str) -> Path:
    return state.absolute() / "run" / f"{name}.pid"


def _pid(file: Path, name: str) -> int:
    """Of the daemon that wrote the file; 0 when it is gone, whoever may have its number now."""
    try:
        pid = int(file.read_text())
        return pid if Path(f"/proc/{pid}/comm").read_text().strip() == name else 0
    except (OSError, ValueError):
        return 0


def _ended(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def _until(happened: Callable[[], object], otherwise: str) -> None:
    end = time.monotonic() + SECONDS
    while not happened():
        if time.monotonic() > end:
            raise StepFailed("HypervisorUnreachable", otherwise)
        time.sleep(0.02)
