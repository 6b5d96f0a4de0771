"""The local copy: it follows, it never lies, and it tells every difference once and in order."""
from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import cast

import pytest

from wisp.store import Clear, Delete, Entry, Put, Span, Store, View, memory
from wisp.store.memory import MemoryStore
from wisp.store.mirror import PAGE, Mirror

PATIENCE = 20.0
Told = list[tuple[Entry | None, Entry | None]]


class Address:
    """Where a store is found: another may come to stand there."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store

    def __getattr__(self, name: str) -> object:
        return getattr(self.store, name)

    def stands_for(self, store: MemoryStore) -> None:
        before, self.store = self.store, store
        before.close()


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    with contextlib.closing(MemoryStore()) as store:
        yield store


@contextlib.contextmanager
def following(store: Store, *listeners: Callable[[Entry | None, Entry | None], None]) -> Iterator[Mirror]:
    mirror = Mirror(store)
    for listener in listeners:
        mirror.listen(listener)
    mirror.start()
    try:
        assert mirror.wait(1, PATIENCE)
        yield mirror
    finally:
        mirror.stop()


@pytest.fixture
def mirror(store: MemoryStore) -> Iterator[Mirror]:
    with following(store) as mirror:
        yield mirror


def put(store: MemoryStore, *keys: str, value: bytes = b"x") -> int:
    return store.commit([], [Put(key, value) for key in keys])


def keys(mirror: Mirror, prefix: str = "") -> list[str]:
    return [entry.key for entry in mirror.scan(prefix)]


def story(told: Told) -> list[tuple[str, bytes | None, bytes | None]]:
    return [((old or new or pytest.fail("neither")).key, old.value if old else None, new.value if new else None)
            for old, new in told]


def test_it_is_not_loaded_before_it_has_listed_everything(store: MemoryStore) -> None:
    mirror = Mirror(store)
    assert (mirror.loaded, mirror.revision, mirror.wait(1, 0)) == (False, 0, False)
    mirror.start()
    assert mirror.wait(1, PATIENCE)
    assert (mirror.loaded, mirror.revision) == (True, store.revision())
    mirror.stop()


def test_it_lists_what_fills_several_pages(store: MemoryStore) -> None:
    names = [f"/{n:05}" for n in range(2 * PAGE + 1)]
    for name in names:
        put(store, name)
    with following(store) as mirror:
        assert keys(mirror) == names


class Busy(MemoryStore):
    """Something happens after every read."""

    def read(self, *spans: Span, revision: int = 0) -> View:
        view = super().read(*spans, revision=revision)
        self.commit([], [Delete("/last"), Put("/new", b"")])
        return view


def test_its_pages_are_of_one_revision_though_the_store_moves_meanwhile() -> None:
    store, pages = Busy(), 3
    names = [f"/{n:05}" for n in range((pages - 1) * PAGE)] + ["/last"]
    then = [put(store, name) for name in names][-1]
    mirror, states = Mirror(store), cast(list[tuple[int, list[str]]], [])
    mirror.on_batch(lambda revision: states.append((revision, keys(mirror))))
    mirror.start()
    assert mirror.wait(then + pages, PATIENCE)
    mirror.stop()
    assert states[0] == (then, names)
    assert keys(mirror) == [*names[:-1], "/new"]


def test_it_follows_what_is_put_and_deleted(store: MemoryStore, mirror: Mirror) -> None:
    born = put(store, "/a", "/b/1", "/b/2", "/b0")
    changed = store.commit([], [Put("/b/1", b"new"), Delete("/a"), Delete("/none")])
    assert mirror.wait(changed, PATIENCE)
    assert mirror.get("/a") is None
    assert mirror.get("/b/1") == Entry("/b/1", b"new", changed, born)
    assert (keys(mirror, "/b/"), mirror.revision) == (["/b/1", "/b/2"], changed)


def test_a_scan_shows_one_moment_however_slowly_it_is_read(store: MemoryStore, mirror: Mirror) -> None:
    assert mirror.wait(put(store, "/a/1", "/a/2"), PATIENCE)
    scan = mirror.scan("/a/")
    next(scan)
    assert mirror.wait(store.commit([], [Clear("/a/")]), PATIENCE)
    assert [entry.key for entry in scan] == ["/a/2"]


def test_values_under_unkept_prefixes_are_dropped_and_their_keys_kept(store: MemoryStore) -> None:
    told: Told = []
    secret, event = "/wisp/v1/user_data/ns/vm", "/wisp/v1/event/ns/instance/vm/0"
    put(store, secret, "/wisp/v1/intent/x")
    with following(store, lambda old, new: told.append((old, new))) as mirror:
        assert mirror.wait(put(store, event), PATIENCE)
        assert [(entry.key, entry.value) for entry in mirror.scan("/")] == [
            (event, b""), ("/wisp/v1/intent/x", b"x"), (secret, b"")]
    assert {value for key, _, value in story(told) if "intent" not in key} == {b""}


@pytest.mark.timeout(60)
def test_waiting_ends_when_the_revision_is_reached_and_not_before(store: MemoryStore, mirror: Mirror) -> None:
    latest = store.revision()
    assert mirror.wait(latest, 0)
    assert not mirror.wait(latest + 1, 0.05)
    threading.Timer(0.05, put, (store, "/a")).start()
    assert mirror.wait(latest + 1, 3600)
    assert mirror.get("/a")


def test_nothing_moves_while_it_is_held(store: MemoryStore, mirror: Mirror) -> None:
    with mirror.held():
        before = mirror.revision
        put(store, "/a")
        threading.Event().wait(0.1)
        assert (mirror.revision, keys(mirror)) == (before, [])
    assert mirror.wait(before + 1, PATIENCE)


def test_listeners_see_old_and_new_in_order(store: MemoryStore) -> None:
    told: Told = []
    put(store, "/before")
    with following(store, lambda old, new: told.append((old, new))) as mirror:
        put(store, "/a", value=b"1")
        put(store, "/a", value=b"2")
        assert mirror.wait(store.commit([], [Delete("/a"), Put("/b", b"3")]), PATIENCE)
    assert story(told) == [("/before", None, b"x"), ("/a", None, b"1"), ("/a", b"1", b"2"), ("/a", b"2", None),
                           ("/b", None, b"3")]


def test_a_listener_finds_the_copy_as_it_was_told(store: MemoryStore) -> None:
    agreed: list[bool] = []
    mirror = Mirror(store)
    mirror.listen(lambda old, new: agreed.append(mirror.get("/a") == new))
    mirror.start()
    put(store, "/a")
    assert mirror.wait(store.commit([], [Delete("/a")]), PATIENCE)
    mirror.stop()
    assert agreed
    assert all(agreed)


def test_the_bell_rings_with_the_revision_when_it_is_in(store: MemoryStore) -> None:
    rung: list[tuple[int, int]] = []
    mirror = Mirror(store)
    mirror.on_batch(lambda revision: rung.append((revision, mirror.revision)))
    mirror.start()
    assert mirror.wait(1, PATIENCE)
    last = [put(store, f"/{n}") for n in range(3)][-1]
    assert mirror.wait(last, PATIENCE)
    mirror.stop()
    assert rung == [(revision, revision) for revision in range(1, last + 1)]


def test_a_listener_that_fails_does_not_stop_the_copy(
        store: MemoryStore, caplog: pytest.LogCaptureFixture) -> None:
    def fails(old: Entry | None, new: Entry | None) -> None:
        raise KeyError

    with caplog.at_level(logging.CRITICAL), following(store, fails) as mirror:
        put(store, "/a")
        assert mirror.wait(put(store, "/b"), PATIENCE)
        assert keys(mirror) == ["/a", "/b"]


def test_it_lists_anew_when_history_was_compacted_and_tells_the_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "HISTORY", 3)
    store, told = MemoryStore(), cast(Told, [])
    put(store, "/changes", "/goes", "/stays")
    with following(store, lambda old, new: told.append((old, new))) as mirror:
        told.clear()
        with mirror.held():
            put(store, "/first")
            store.commit([], [Put("/changes", b"new"), Delete("/goes")])
            last = [put(store, "/often", value=bytes([n])) for n in range(10)][-1]
        assert mirror.wait(last, PATIENCE)
        assert keys(mirror) == ["/changes", "/first", "/often", "/stays"]
    assert {key: (old, new) for key, old, new in story(told) if key != "/first"} == {
        "/changes": (b"x", b"new"), "/goes": (b"x", None), "/often": (None, b"\x09")}


def test_it_lists_anew_when_another_store_stands_in_its_place() -> None:
    first, second, told = MemoryStore(), MemoryStore(), cast(Told, [])
    for n in range(5):
        put(first, f"/first/{n}")
    put(second, "/second")
    address = Address(first)
    with following(cast(Store, address), lambda old, new: told.append((old, new))) as mirror:
        told.clear()
        moved = threading.Event()
        mirror.on_batch(lambda revision: moved.set())
        address.stands_for(second)
        assert moved.wait(PATIENCE)
        assert (keys(mirror), mirror.revision) == (["/second"], 2)
        assert sorted(story(told)) == [*((f"/first/{n}", b"x", None) for n in range(5)), ("/second", None, b"x")]
        assert mirror.wait(put(second, "/more"), PATIENCE)


def test_it_starts_while_the_store_is_away_and_loads_when_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wisp.store.mirror.PAUSE", 0.01)
    away, store = MemoryStore(), MemoryStore()
    away.close()
    address = Address(away)
    mirror = Mirror(cast(Store, address))
    mirror.start()
    assert not mirror.wait(1, 0.1)
    put(store, "/a")
    address.stands_for(store)
    assert mirror.wait(1, PATIENCE)
    assert keys(mirror) == ["/a"]
    mirror.stop()
