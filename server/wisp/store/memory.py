"""The store in memory: for the simulated cloud and for tests.

It keeps etcd's rules to the letter, the refusals included, so that whatever works on it works on etcd;
one contract suite runs against both. The log of the last transactions serves watches that start
in the past and, undone backwards, reads at an earlier revision. What has fallen out of the log
counts as compacted. A thread of its own exists only while there are leases to expire.
"""
from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sortedcontainers import SortedDict

from wisp.errors import Problem
from wisp.store import (
    Absent,
    At,
    Batch,
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
    View,
    beyond,
)

HISTORY = 10_000
MOST_OPERATIONS = 128
MOST_BYTES = 1536 * 1024


@dataclass(frozen=True, slots=True)
class Step:
    """A transaction that happened: what was there before, and what came."""

    before: dict[str, Entry | None]
    batch: Batch


@dataclass(slots=True)
class Lease:
    ttl: int
    ends: float


class MemoryStore:
    def __init__(self) -> None:
        self._moved = threading.Condition()
        self._identity = secrets.token_hex(8)
        self._entries: SortedDict[str, Entry] = SortedDict()
        self._revision = 1
        self._log: deque[Step] = deque(maxlen=HISTORY)
        self._leases: dict[int, Lease] = {}
        self._tickets = itertools.count(1)
        self._expiring = False
        self._stops: set[threading.Event] = set()
        self._closed = False

    def identity(self) -> str:
        return self._identity

    def revision(self) -> int:
        with self._moved:
            self._check_open()
            return self._revision

    def close(self) -> None:
        with self._moved:
            self._closed = True
            self._leases.clear()
            self._moved.notify_all()

    def _check_open(self) -> None:
        if self._closed:
            raise Problem("store_unavailable", "The store was closed.", retry_after=1)

    # reading

    def read(self, *spans: Span, revision: int = 0) -> View:
        if len(spans) > MOST_OPERATIONS:
            raise ValueError("too many spans in one transaction")
        with self._moved:
            self._check_open()
            past = self._undone(revision or self._revision)
            found = [self._cut(span, past) for span in spans]
            return View(revision or self._revision, tuple(entries for entries, _ in found),
                        tuple(more for _, more in found))

    def _undone(self, revision: int) -> dict[str, Entry | None]:
        """How the keys that changed after the revision stood at it."""
        self._check_known(revision)
        past: dict[str, Entry | None] = {}
        for step in itertools.islice(reversed(self._log), self._revision - revision):
            past.update(step.before)
        return past

    def _check_known(self, revision: int) -> None:
        oldest = self._revision - len(self._log)
        if not oldest <= revision <= self._revision:
            raise Compacted(oldest)

    def _cut(self, span: Span, past: dict[str, Entry | None]) -> tuple[tuple[Entry, ...], bool]:
        end = span.end or span.start + "\0"
        entries = [self._entries[key] for key in self._keys(span.start, end) if key not in past]
        if undone := [entry for key, entry in past.items() if entry and span.start <= key < end]:
            entries = sorted(entries + undone, key=lambda entry: entry.key)
        limit = span.limit or len(entries)
        return tuple(entries[:limit]), len(entries) > limit

    def _keys(self, start: str, end: str) -> Iterator[str]:
        return iter(self._entries.irange(start, end, inclusive=(True, False)))

    # writing

    def commit(self, guards: Sequence[Guard], ops: Sequence[Op]) -> int:
        check_limits(guards, ops)
        with self._moved:
            self._check_open()
            if not all(self._holds(guard) for guard in guards):
                raise Lost(self._revision)
            if any(isinstance(op, Put) and op.lease and op.lease not in self._leases for op in ops):
                raise LeaseGone
            return self._write(ops)

    def _holds(self, guard: Guard) -> bool:
        match guard:
            case Empty(prefix):
                return next(self._keys(prefix, beyond(prefix)), None) is None
            case Absent(key):
                return key not in self._entries
            case At(key, revision):
                return (self._entries[key].revision if key in self._entries else 0) == revision
            case Born(key, created):
                return (self._entries[key].created if key in self._entries else 0) == created

    def _write(self, ops: Sequence[Op]) -> int:
        revision = self._revision + 1
        changes = {change.key: change for op in ops for change in self._changes(op, revision)}
        if changes:
            before = {key: self._entries.get(key) for key in changes}
            for key, change in changes.items():
                self._apply(key, change.new)
            self._log.append(Step(before, Batch(revision, tuple(changes.values()))))
            self._revision = revision
            self._moved.notify_all()
        return self._revision

    def _changes(self, op: Op, revision: int) -> list[Change]:
        match op:
            case Put(key, value, lease):
                old = self._entries.get(key)
                return [Change(key, Entry(key, value, revision, old.created if old else revision, lease))]
            case Delete(key):
                return [Change(key, None)] if key in self._entries else []
            case Clear(prefix):
                return [Change(key, None) for key in self._keys(prefix, beyond(prefix))]

    def _apply(self, key: str, new: Entry | None) -> None:
        if new is None:
            del self._entries[key]
        else:
            self._entries[key] = new

    # leases

    def grant(self, ttl: int) -> int:
        with self._moved:
            self._check_open()
            lease = next(self._tickets)
            self._leases[lease] = Lease(ttl, time.monotonic() + ttl)
            if not self._expiring:
                self._expiring = True
                threading.Thread(target=self._expire, name="store-leases", daemon=True).start()
            self._moved.notify_all()
            return lease

    def keep(self, lease: int) -> int:
        with self._moved:
            self._check_open()
            if kept := self._leases.get(lease):
                kept.ends = time.monotonic() + kept.ttl
            return kept.ttl if kept else 0

    def revoke(self, lease: int) -> None:
        with self._moved:
            self._check_open()
            if self._leases.pop(lease, None):
                self._write([Delete(entry.key) for entry in self._entries.values() if entry.lease == lease])
                self._moved.notify_all()

    def _expire(self) -> None:
        with self._moved:
            while self._leases:
                lease, first = min(self._leases.items(), key=lambda item: item[1].ends)
                if first.ends <= time.monotonic():
                    self.revoke(lease)
                else:
                    self._moved.wait(first.ends - time.monotonic())
            self._expiring = False

    # watching

    def watch(self, since: int, stop: threading.Event) -> Iterator[Batch]:
        self._wake_at(stop)
        while True:
            with self._moved:
                self._check_known(since)
                while self._revision == since and not stop.is_set() and not self._closed:
                    self._moved.wait()
                self._check_known(since)
                news = [self._log[-n].batch for n in range(self._revision - since, 0, -1)]
            for batch in news:
                if stop.is_set():
                    return
                yield batch
                since = batch.revision
            if stop.is_set() or self._closed:
                return

    def _wake_at(self, stop: threading.Event) -> None:
        """An event wakes nobody but who waits on it: one thread for each, however often it is used."""
        with self._moved:
            if stop not in self._stops:
                self._stops.add(stop)
                threading.Thread(target=self._wake, args=(stop,), name="store-stop", daemon=True).start()

    def _wake(self, stop: threading.Event) -> None:
        stop.wait()
        with self._moved:
            self._stops.discard(stop)
            self._moved.notify_all()


def check_limits(guards: Sequence[Guard], ops: Sequence[Op]) -> None:
    """What etcd refuses in a transaction, whatever the store holds."""
    if max(len(guards), len(ops)) > MOST_OPERATIONS:
        raise ValueError("too many operations in one transaction")
    names = [part.key for part in (*guards, *ops) if not isinstance(part, Empty | Clear)]
    if not all(names):
        raise ValueError("a key is empty")
    puts = [op for op in ops if isinstance(op, Put)]
    if sum(len(name.encode()) for name in names) + sum(len(put.value) for put in puts) > MOST_BYTES:
        raise ValueError("the transaction is too large")
    keys = {put.key for put in puts}
    deleted = {op.key for op in ops if isinstance(op, Delete)}
    cleared = tuple(op.prefix for op in ops if isinstance(op, Clear))
    if len(keys) < len(puts) or keys & deleted or any(key.startswith(cleared) for key in keys):
        raise ValueError("a key is written twice in one transaction")
