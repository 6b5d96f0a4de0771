"""An etcd of one's own: a child process on a unix socket, without any TCP port, gone with its parent.

etcd wants `host:port` even of a unix socket, so the sockets are called `etcd.sock:0` and `peer.sock:0`
and are named relative to its working directory. It dies by `--pdeathsig` when the *thread* that
spawned it ends, hence only the main thread may. A flock on the directory, inherited by etcd, stands
for "in use": it is held as long as either of the two lives, so a socket found under it is stale.
"""
from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

ELECTION = ("--heartbeat-interval", "50", "--election-timeout", "500")
COMPACTION = ("--auto-compaction-mode", "revision", "--auto-compaction-retention", "10000")
LOGGING = ("--logger", "zap", "--log-level", "warn", "--log-outputs", "stderr")
PATIENCE = 10.0
LONGEST_PATH = 107


class EmbeddedEtcd:
    def __init__(self, directory: Path, lost: Callable[[], object] = lambda: None) -> None:
        """`lost`: called, on a thread, when etcd ends though nobody stopped it."""
        self._lost = lost
        self._directory = directory.absolute()
        self._socket = self._directory / "etcd.sock:0"
        self._lock = -1
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def start(self) -> str:
        """Starts it and waits until it answers; the target to connect to. Raises RuntimeError."""
        self._check()
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory.chmod(0o700)
        self._take_lock()
        try:
            self._spawn()
            self._wait()
            threading.Thread(target=self._watch, args=(self._process,), name="etcd-watch", daemon=True).start()
        except BaseException:
            self.stop()
            raise
        return f"unix:{self._socket}"

    def stop(self) -> None:
        process, self._process = self._process, None
        if process:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _check(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("etcd must be started from the main thread: it ends with the thread that started it")
        for program, package in (("etcd", "etcd-server"), ("setpriv", "util-linux")):
            if not shutil.which(program):
                raise RuntimeError(f"The program {program} is missing: apt-get install {package}")
        if len(os.fsencode(self._socket)) > LONGEST_PATH:
            raise RuntimeError(f"The path {self._socket} is too long for a socket: choose a shorter directory")

    def _take_lock(self) -> None:
        """A predecessor that was killed takes a moment to take its etcd along."""
        self._lock = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        ends = time.monotonic() + PATIENCE
        while True:
            try:
                return fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > ends:
                    self.stop()
                    raise RuntimeError(f"The directory {self._directory} is in use by another process") from None
                time.sleep(0.05)

    def _spawn(self) -> None:
        for stale in (self._socket, self._directory / "peer.sock:0"):
            stale.unlink(missing_ok=True)
        client, peer = "unix://etcd.sock:0", "unix://peer.sock:0"
        command = ["setpriv", "--pdeathsig", "TERM", "etcd", "--data-dir", "data", "--name", "own",
                   "--listen-client-urls", client, "--advertise-client-urls", client,
                   "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                   "--initial-cluster", f"own={peer}", "--initial-cluster-token", secrets.token_hex(8),
                   *ELECTION, *COMPACTION, *LOGGING]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ETCD_")}
        with (self._directory / "etcd.log").open("wb") as log:
            self._process = subprocess.Popen(command, cwd=self._directory, env=environment, pass_fds=[self._lock],
                                             stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0)

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        if self._process is process:
            self._lost()

    def _wait(self) -> None:
        ends = time.monotonic() + PATIENCE
        while not self._healthy():
            if (self._process and self._process.poll() is not None) or time.monotonic() > ends:
                raise RuntimeError(f"etcd does not start; see {self._directory / 'etcd.log'}")
            time.sleep(0.01)

    def _healthy(self) -> bool:
        """Whether it answers a linearizable read; connecting alone says nothing."""
        with socket.socket(socket.AF_UNIX) as peer, contextlib.suppress(OSError):
            peer.settimeout(1)
            peer.connect(str(self._socket))
            peer.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            return b'"true"' in b"".join(iter(lambda: peer.recv(4096), b""))
        return False
