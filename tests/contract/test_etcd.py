"""etcd alone: what becomes of the store through outages, and the child process that serves it."""
from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from stores import Watcher, keys, needs_etcd, put

from wisp.errors import Problem
from wisp.store import (
    Compacted,
    etcd,
)
from wisp.store.embedded import EmbeddedEtcd
from wisp.store.etcd import EtcdStore


@needs_etcd
def test_a_watch_survives_the_death_of_etcd_without_loss_or_repetition(server: EmbeddedEtcd, real: EtcdStore) -> None:
    watcher = Watcher(real, real.revision())
    for n in range(30):
        if n % 10 == 5:
            os.kill(server.pid, signal.SIGKILL)
            server.stop()
            server.start()
            assert real.revision()
        last = put(real, f"/{n}")
    assert watcher.sees(last)
    assert [change.key for change in watcher.changes()] == [f"/{n}" for n in range(30)]
    watcher.stop.set()
    assert watcher.ended()


@needs_etcd
def test_a_watch_ends_when_told_to_even_during_an_outage(server: EmbeddedEtcd, real: EtcdStore) -> None:
    watcher = Watcher(real, real.revision())
    assert watcher.sees(put(real, "/a"))
    server.stop()
    watcher.stop.set()
    assert watcher.ended()


@needs_etcd
@pytest.mark.parametrize("writes", [1, 20], ids=["behind", "ahead"])
def test_a_watch_does_not_go_on_in_another_cluster(
        server: EmbeddedEtcd, real: EtcdStore, directory: Path, another: Path, writes: int) -> None:
    watcher = Watcher(real, real.revision())
    identity, last = real.identity(), [put(real, f"/{n}") for n in range(10)][-1]
    assert watcher.sees(last)
    server.stop()
    fill(another, writes)
    shutil.rmtree(directory / "data")
    shutil.move(another / "data", directory)
    server.start()
    assert watcher.ended()
    assert isinstance(watcher.failure, Compacted)
    assert len(watcher.changes()) == 10
    assert real.identity() != identity


def fill(directory: Path, writes: int) -> None:
    server = EmbeddedEtcd(directory)
    with contextlib.closing(EtcdStore(server.start())) as store:
        for n in range(writes):
            put(store, f"/{n}")
    server.stop()


def freeze(server: EmbeddedEtcd) -> None:
    """Returns when all of its threads stand still: until then one may take a request and carry it out."""
    os.kill(server.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, server.pid, os.WSTOPPED)


def during_the_death_of_etcd(server: EmbeddedEtcd, call: Callable[[], object]) -> list[object]:
    """What comes of a call whose connection breaks after it was sent, when etcd is soon back."""
    outcome: list[object] = []

    def run() -> None:
        try:
            outcome.append(call())
        except Problem as problem:
            outcome.append(problem.code)

    freeze(server)
    caller = threading.Thread(target=run)
    caller.start()
    caller.join(0.3)
    os.kill(server.pid, signal.SIGKILL)
    server.stop()
    server.start()
    caller.join()
    return outcome


@needs_etcd
def test_a_read_outlives_the_etcd_it_was_sent_to(server: EmbeddedEtcd, real: EtcdStore) -> None:
    put(real, "/a")
    assert during_the_death_of_etcd(server, lambda: keys(real)) == [["/a"]]


@needs_etcd
def test_a_write_is_not_sent_again_when_its_etcd_died(server: EmbeddedEtcd, real: EtcdStore) -> None:
    before = put(real, "/a")
    assert during_the_death_of_etcd(server, lambda: put(real, "/b")) == ["store_unavailable"]
    assert (keys(real), real.revision()) == (["/a"], before)


@needs_etcd
def test_a_call_waits_for_an_etcd_that_is_starting(server: EmbeddedEtcd, real: EtcdStore) -> None:
    put(real, "/a")
    server.stop()
    writer = threading.Thread(target=put, args=(real, "/b"))
    writer.start()
    server.start()
    writer.join()
    assert keys(real) == ["/a", "/b"]


@needs_etcd
def test_without_etcd_reading_and_writing_are_unavailable(
        server: EmbeddedEtcd, real: EtcdStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etcd, "PATIENCE", 0.3)
    server.stop()
    for call in (real.identity, lambda: keys(real), lambda: put(real, "/a"), lambda: real.keep(1)):
        with pytest.raises(Problem) as problem:
            call()
        assert problem.value.code == "store_unavailable"


@needs_etcd
def test_a_write_without_an_answer_is_sent_once_and_said_to_be_unknown(
        server: EmbeddedEtcd, real: EtcdStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etcd, "PATIENCE", 0.5)
    before = put(real, "/a")
    freeze(server)
    with pytest.raises(Problem) as problem:
        put(real, "/a")
    os.kill(server.pid, signal.SIGCONT)
    assert problem.value.code == "store_unavailable"
    monkeypatch.setattr(etcd, "PATIENCE", 6)
    put(real, "/b")
    assert real.revision() in (before + 1, before + 2)


# etcd alone: the child

@needs_etcd
def test_data_outlives_the_server_and_its_sockets_are_its_owners_alone(
        server: EmbeddedEtcd, real: EtcdStore, directory: Path) -> None:
    put(real, "/a")
    identity = real.identity()
    server.stop()
    server.start()
    assert (keys(real), real.identity()) == (["/a"], identity)
    assert directory.stat().st_mode & 0o777 == 0o700


@needs_etcd
def test_a_directory_serves_one_etcd_at_a_time_though_its_owner_has_let_go(
        server: EmbeddedEtcd, real: EtcdStore, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wisp.store.embedded.PATIENCE", 0.2)
    os.close(server._lock)
    server._lock = -1
    with pytest.raises(RuntimeError, match="in use"):
        EmbeddedEtcd(directory).start()


@needs_etcd
def test_etcd_goes_with_its_parent_and_the_next_one_takes_over(server: EmbeddedEtcd, directory: Path) -> None:
    program = ("import pathlib, sys, time; from wisp.store.embedded import EmbeddedEtcd\n"
               "server = EmbeddedEtcd(pathlib.Path(sys.argv[1])); server.start()\n"
               "print(server.pid, flush=True); time.sleep(600)")
    with subprocess.Popen([sys.executable, "-c", program, str(directory)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        orphan = int(parent.stdout.readline())
        parent.kill()
    server.start()
    assert server.pid != orphan


@needs_etcd
def test_an_etcd_that_ends_though_nobody_stopped_it_is_noticed(directory: Path) -> None:
    lost = threading.Semaphore(0)
    server = EmbeddedEtcd(directory, lost.release)
    for _ in range(2):
        server.start()
        os.kill(server.pid, signal.SIGKILL)
        assert lost.acquire(timeout=20)
        server.stop()
    server.start()
    server.stop()
    assert not lost.acquire(timeout=0.2)


def test_a_missing_etcd_is_named_with_its_package(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(directory))
    with pytest.raises(RuntimeError, match="apt-get install etcd-server"):
        EmbeddedEtcd(directory).start()


def test_etcd_is_only_started_from_the_main_thread(directory: Path) -> None:
    failures: list[Exception] = []

    def start() -> None:
        try:
            EmbeddedEtcd(directory).start()
        except RuntimeError as failure:
            failures.append(failure)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in str(failures)


def test_a_path_too_long_for_a_socket_is_said_to_be(directory: Path) -> None:
    if not shutil.which("etcd"):
        pytest.skip("no etcd-server")
    with pytest.raises(RuntimeError, match="too long"):
        EmbeddedEtcd(directory / ("x" * 100)).start()
