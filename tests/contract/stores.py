"""Both stores, ready to be asked, and someone who watches one."""
from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wisp.store import Batch, Change, Entry, Put, Span, Store, under
from wisp.store.embedded import EmbeddedEtcd
from wisp.store.etcd import EtcdStore
from wisp.store.memory import MemoryStore

needs_etcd = pytest.mark.skipif(not shutil.which("etcd"), reason="no etcd-server")


def put(store: Store, *keys: str, value: bytes = b"x") -> int:
    return store.commit([], [Put(key, value) for key in keys])


def keys(store: Store, prefix: str = "", revision: int = 0) -> list[str]:
    return [entry.key for entry in store.read(under(prefix), revision=revision).spans[0]]


def one(store: Store, key: str) -> Entry:
    return store.read(Span(key)).spans[0][0]


def eventually(met: Callable[[], bool]) -> bool:
    ends = time.monotonic() + 20
    while not met() and time.monotonic() < ends:
        time.sleep(0.02)
    return met()


class Watcher:
    """Collects what a watch tells, in a thread of its own."""

    def __init__(self, store: Store, since: int) -> None:
        self.batches: list[Batch] = []
        self.failure: Exception | None = None
        self.stop = threading.Event()
        self._watch = store.watch(since, self.stop)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for batch in self._watch:
                self.batches.append(batch)
        except Exception as failure:
            self.failure = failure

    def changes(self) -> list[Change]:
        return [change for batch in self.batches for change in batch.changes]

    def sees(self, revision: int) -> bool:
        return eventually(lambda: bool(self.batches) and self.batches[-1].revision >= revision)

    def ended(self) -> bool:
        self._thread.join(20)
        return not self._thread.is_alive()


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("etcd")


@pytest.fixture
def another(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("etcd")


@pytest.fixture
def server(directory: Path) -> Iterator[EmbeddedEtcd]:
    server = EmbeddedEtcd(directory)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def real(server: EmbeddedEtcd) -> Iterator[EtcdStore]:
    with contextlib.closing(EtcdStore(server.start())) as store:
        yield store


@pytest.fixture(params=["memory", pytest.param("etcd", marks=needs_etcd)])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    if request.param == "etcd":
        yield request.getfixturevalue("real")
    else:
        with contextlib.closing(MemoryStore()) as store:
            yield store


@pytest.fixture
def watching(store: Store) -> Iterator[Callable[[int], Watcher]]:
    watchers: list[Watcher] = []

    def watch(since: int) -> Watcher:
        watchers.append(Watcher(store, since))
        return watchers[-1]

    yield watch
    for watcher in watchers:
        watcher.stop.set()
        assert watcher.ended()
