"""One suite for both stores: what holds for etcd holds for the one in memory, refusals included."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores import Watcher, eventually, keys, needs_etcd, one, put

from wisp.errors import Problem
from wisp.store import (
    Absent,
    At,
    Born,
    Change,
    Clear,
    Compacted,
    Delete,
    Empty,
    Entry,
    Guard,
    LeaseGone,
    Lost,
    Op,
    Put,
    Span,
    Store,
    etcd,
    under,
)
from wisp.store.etcd import EtcdStore
from wisp.store.memory import HISTORY, MemoryStore

# transactions

def test_a_transaction_that_writes_moves_the_revision_by_one(store: Store) -> None:
    before = store.revision()
    assert put(store, "/a", "/b", "/c") == before + 1 == store.revision()


@pytest.mark.parametrize("ops", [[], [Delete("/none")], [Clear("/none/")]], ids=str)
def test_a_transaction_that_writes_nothing_does_not_move_the_revision(store: Store, ops: list[Op]) -> None:
    before = put(store, "/a")
    assert store.commit([At("/a", before)], ops) == before == store.revision()


def test_an_entry_knows_its_birth_and_its_last_change(store: Store) -> None:
    born = put(store, "/a")
    changed = put(store, "/a", value=b"y")
    assert one(store, "/a") == Entry("/a", b"y", changed, born)
    store.commit([], [Delete("/a")])
    reborn = put(store, "/a")
    assert one(store, "/a") == Entry("/a", b"x", reborn, reborn)


HOLDS: dict[str, Callable[[int, int], Guard]] = {
    "at": lambda born, changed: At("/a/1", changed),
    "at nothing": lambda born, changed: At("/none", 0),
    "absent": lambda born, changed: Absent("/none"),
    "absent though a neighbour is there": lambda born, changed: Absent("/a/"),
    "empty": lambda born, changed: Empty("/none/"),
    "empty though a neighbour is there": lambda born, changed: Empty("/a/1/"),
    "born": lambda born, changed: Born("/a/1", born),
}
FAILS: dict[str, Callable[[int, int], Guard]] = {
    "at": lambda born, changed: At("/a/1", born),
    "at what is gone": lambda born, changed: At("/gone", changed),
    "absent": lambda born, changed: Absent("/a/1"),
    "empty": lambda born, changed: Empty("/a/"),
    "born": lambda born, changed: Born("/a/1", changed),
    "born but gone": lambda born, changed: Born("/gone", born),
}


def lived(store: Store) -> tuple[int, int]:
    born = put(store, "/a/1", "/gone")
    return born, store.commit([], [Put("/a/1", b"y"), Delete("/gone")])


@pytest.mark.parametrize("guard", HOLDS.values(), ids=HOLDS.keys())
def test_a_guard_that_holds_lets_the_transaction_pass(store: Store, guard: Callable[[int, int], Guard]) -> None:
    lives = lived(store)
    assert store.commit([guard(*lives)], [Put("/new", b"")]) == lives[1] + 1


@pytest.mark.parametrize("guard", FAILS.values(), ids=FAILS.keys())
def test_a_guard_that_fails_leaves_everything_and_tells_the_revision(
        store: Store, guard: Callable[[int, int], Guard]) -> None:
    lives = lived(store)
    latest = put(store, "/other")
    with pytest.raises(Lost) as lost:
        store.commit([Absent("/none"), guard(*lives)], [Put("/new", b"")])
    assert (lost.value.revision, store.revision(), keys(store)) == (latest, latest, ["/a/1", "/other"])


def test_clearing_a_prefix_spares_its_neighbours(store: Store) -> None:
    put(store, "/a", "/a/1", "/a/2", "/a0", "/b")
    store.commit([], [Clear("/a/")])
    assert keys(store) == ["/a", "/a0", "/b"]


def test_deleting_twice_in_one_transaction_is_deleting_once(store: Store) -> None:
    before = put(store, "/a/1")
    assert store.commit([], [Delete("/a/1"), Delete("/a/1"), Clear("/a/")]) == before + 1


REFUSED: dict[str, tuple[list[Guard], list[Op]]] = {
    "a key put twice": ([], [Put("/a", b"1"), Put("/a", b"2")]),
    "a key put and deleted": ([], [Put("/a", b"1"), Delete("/a")]),
    "a key put and cleared": ([], [Clear("/a/"), Put("/a/1", b"1")]),
    "129 operations": ([], [Put(f"/{n}", b"") for n in range(129)]),
    "129 guards": ([Absent(f"/{n}") for n in range(129)], []),
    "more than 1.5 MiB": ([], [Put("/a", bytes(1 << 20)), Put("/b", bytes(1 << 19))]),
    "an empty key": ([], [Put("", b"1")]),
    "a guard on an empty key": ([Absent("")], []),
}


@pytest.mark.parametrize(("guards", "ops"), REFUSED.values(), ids=REFUSED.keys())
def test_what_breaks_the_limits_is_refused_whole(store: Store, guards: list[Guard], ops: list[Op]) -> None:
    before = store.revision()
    with pytest.raises(ValueError):
        store.commit(guards, ops)
    assert store.revision() == before


def test_what_just_keeps_the_limits_is_taken(store: Store) -> None:
    guards = [Absent(f"/{n}") for n in range(128)]
    store.commit(guards, [Put(f"/{n}", bytes(11 * 1024)) for n in range(128)])
    assert len(keys(store)) == 128


# reading

def test_a_read_of_several_spans_is_of_one_revision(store: Store) -> None:
    put(store, "/a/1", "/a/2", "/b")
    view = store.read(under("/a/"), Span("/b"), Span("/none"), Span("/a/2", "/c"))
    assert [[entry.key for entry in span] for span in view.spans] == [["/a/1", "/a/2"], ["/b"], [], ["/a/2", "/b"]]
    assert (view.revision, view.more) == (store.revision(), (False,) * 4)


def test_a_limit_says_whether_there_is_more(store: Store) -> None:
    put(store, "/a/1", "/a/2", "/a/3")
    view = store.read(under("/a/", 2), under("/a/", 3), under("/a/", 2, "/a/1"))
    assert ([len(span) for span in view.spans], view.more) == ([2, 3, 2], (True, False, False))


def test_pages_at_one_revision_show_what_stood_then(store: Store) -> None:
    then = put(store, *(f"/a/{n}" for n in range(6)))
    first = store.read(under("/a/", 3))
    store.commit([], [Put("/a/4", b"new"), Delete("/a/5"), Put("/a/6", b""), Delete("/a/0")])
    put(store, "/a/5", value=b"newer")
    rest = store.read(under("/a/", 0, first.spans[0][-1].key), revision=first.revision)
    assert rest.revision == first.revision == then
    assert [*first.spans[0], *rest.spans[0]] == [Entry(f"/a/{n}", b"x", then, then) for n in range(6)]


def test_keys_come_in_the_order_of_their_characters(store: Store) -> None:
    names = sorted(["/a", "/Z", "/ä", "/\u2603", "/\U0001f600", "/~", "/a/", "/a0"])
    put(store, *reversed(names))
    assert keys(store, "/") == keys(store) == names


def test_a_revision_the_store_has_not_reached_cannot_be_read(store: Store) -> None:
    with pytest.raises(Compacted):
        store.read(Span("/a"), revision=store.revision() + 1)


def test_two_stores_have_two_identities(tmp_path: Path, store: Store) -> None:
    assert store.identity() == store.identity() != MemoryStore().identity()


# leases

def test_a_key_goes_when_its_lease_ends(store: Store) -> None:
    put(store, "/stays")
    before = store.commit([], [Put("/node/1", b"", store.grant(1)), Put("/node/2", b"")])
    assert eventually(lambda: keys(store) == ["/node/2", "/stays"])
    assert store.revision() == before + 1


def test_a_lease_that_is_kept_does_not_end(store: Store) -> None:
    kept, left = store.grant(2), store.grant(2)
    store.commit([], [Put("/kept", b"", kept), Put("/left", b"", left)])
    assert eventually(lambda: store.keep(kept) == 2 and keys(store) == ["/kept"])
    assert (store.keep(kept), store.keep(left)) == (2, 0)


def test_revoking_a_lease_deletes_its_keys_at_once_and_again_is_no_error(store: Store) -> None:
    lease = store.grant(60)
    before = store.commit([], [Put("/a", b"", lease), Put("/b", b"", lease), Put("/c", b"")])
    assert one(store, "/a").lease == lease
    store.revoke(lease)
    store.revoke(lease)
    assert (keys(store), store.revision()) == (["/c"], before + 1)


def test_a_key_put_anew_without_its_lease_stays(store: Store) -> None:
    lease = store.grant(60)
    store.commit([], [Put("/a", b"", lease)])
    put(store, "/a")
    store.revoke(lease)
    assert keys(store) == ["/a"]


def test_a_put_with_a_lease_that_is_gone_writes_nothing(store: Store) -> None:
    lease = store.grant(60)
    store.revoke(lease)
    with pytest.raises(LeaseGone):
        store.commit([], [Put("/a", b""), Put("/b", b"", lease)])
    assert keys(store) == []


# watching

def test_a_watch_tells_what_happened_since_and_what_happens(
        store: Store, watching: Callable[[int], Watcher]) -> None:
    since = put(store, "/old")
    a = put(store, "/a")
    watcher = watching(since)
    assert watcher.sees(a)
    gone = store.commit([], [Delete("/a"), Put("/b", b"y"), Delete("/none")])
    assert watcher.sees(gone)
    assert watcher.changes() == [Change("/a", Entry("/a", b"x", a, a)), Change("/a", None),
                                 Change("/b", Entry("/b", b"y", gone, gone))]
    assert [batch.revision for batch in watcher.batches] == [a, gone]


def test_a_watch_tells_transactions_whole_and_every_one_once(
        store: Store, watching: Callable[[int], Watcher]) -> None:
    start = store.revision()
    first = watching(start)
    last = [store.commit([], [Put(f"/{n}/{m}", b"") for m in range(3)]) for n in range(100)][-1]
    second = watching(start)
    for watcher in (first, second):
        assert watcher.sees(last)
        assert [change.key for change in watcher.changes()] == [f"/{n}/{m}" for n in range(100) for m in range(3)]
        assert all(len(batch.changes) % 3 == 0 for batch in watcher.batches)


def test_a_watch_resumed_from_its_last_batch_loses_and_repeats_nothing(
        store: Store, watching: Callable[[int], Watcher]) -> None:
    since, seen = store.revision(), []
    for n in range(5):
        last = [put(store, f"/{n}/{m}") for m in range(3)][-1]
        watcher = watching(since)
        assert watcher.sees(last)
        seen += [change.key for change in watcher.changes()]
        since = watcher.batches[-1].revision
    assert seen == [f"/{n}/{m}" for n in range(5) for m in range(3)]


def test_a_watch_hears_of_a_lease_that_ends(store: Store, watching: Callable[[int], Watcher]) -> None:
    there = store.commit([], [Put("/node/1", b"", store.grant(1))])
    watcher = watching(there)
    assert watcher.sees(there + 1)
    assert watcher.changes() == [Change("/node/1", None)]


def test_a_blocked_watch_ends_when_told_to(store: Store, watching: Callable[[int], Watcher]) -> None:
    watcher = watching(store.revision())
    assert watcher.sees(put(store, "/a"))
    watcher.stop.set()
    assert watcher.ended()
    assert watcher.failure is None


def test_a_blocked_watch_ends_when_the_store_is_closed(store: Store, watching: Callable[[int], Watcher]) -> None:
    watcher = watching(store.revision())
    assert watcher.sees(put(store, "/a"))
    store.close()
    assert watcher.ended()
    assert watcher.failure is None


def compact(store: Any) -> None:
    """Makes the store forget how it was before now."""
    if isinstance(store, EtcdStore):
        store._kv.Compact(etcd.rpc.CompactionRequest(revision=store.revision(), physical=True))
    else:
        for _ in range(HISTORY):
            put(store, "/a")


def test_compacted_history_is_refused_and_later_history_told(
        store: Store, watching: Callable[[int], Watcher]) -> None:
    old = put(store, "/a", "/b")
    store.commit([], [Delete("/b")])
    put(store, "/a")
    compact(store)
    with pytest.raises(Compacted):
        store.read(Span("/a"), revision=old)
    refused, served = watching(old), watching(store.revision())
    assert refused.ended()
    assert isinstance(refused.failure, Compacted)
    assert refused.batches == []
    assert served.sees(put(store, "/c"))


def test_a_watch_from_a_revision_never_reached_is_refused(store: Store, watching: Callable[[int], Watcher]) -> None:
    watcher = watching(store.revision() + 10)
    assert watcher.ended()
    assert isinstance(watcher.failure, Compacted)


def test_a_closed_store_is_unavailable(store: Store) -> None:
    store.close()
    for call in (store.revision, lambda: store.read(Span("/a")), lambda: put(store, "/a"), lambda: store.grant(1)):
        with pytest.raises(Problem) as problem:
            call()
        assert (problem.value.code, problem.value.retry_after) == ("store_unavailable", 1)


# both at once

KEYS = st.sampled_from(["/a", "/a/1", "/a/2", "/b", "/b/1"])
PREFIXES = st.sampled_from(["/", "/a", "/a/", "/b/", "/c/"])
REVISIONS = st.integers(0, 6)
GUARDS = st.one_of(st.builds(At, KEYS, REVISIONS), st.builds(Absent, KEYS), st.builds(Born, KEYS, REVISIONS),
                   st.builds(Empty, PREFIXES))
OPS = st.one_of(st.builds(Put, KEYS, st.sampled_from([b"", b"x"])), st.builds(Delete, KEYS), st.builds(Clear, PREFIXES))
STORY = st.lists(st.tuples(st.lists(GUARDS, max_size=2), st.lists(OPS, max_size=3)), min_size=1, max_size=8)


def told(store: Store, story: list[tuple[list[Guard], list[Op]]]) -> list[object]:
    """What the store answers to each transaction, and holds at the end, counted from where it starts."""
    store.commit([], [Clear("/")])
    start = put(store, "/-")
    answers: list[object] = []
    for guards, ops in story:
        try:
            answers.append(store.commit([later(guard, start) for guard in guards], ops) - start)
        except (Lost, ValueError) as refusal:
            answers.append(type(refusal))
    latest = store.revision()
    views = [store.read(under("/"), revision=revision) for revision in range(start, latest + 1)]
    return answers + [replace(entry, revision=entry.revision - start, created=entry.created - start)
                      for view in views for entry in view.spans[0]]


def later(guard: Guard, start: int) -> Guard:
    match guard:
        case At(key, revision):
            return At(key, revision and revision + start)
        case Born(key, created):
            return Born(key, created and created + start)
    return guard


@needs_etcd
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STORY)
def test_memory_answers_any_story_as_etcd_does(real: EtcdStore, story: list[tuple[list[Guard], list[Op]]]) -> None:
    assert told(MemoryStore(), story) == told(real, story)
