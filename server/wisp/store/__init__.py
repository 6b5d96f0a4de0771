"""Versioned keys: the port to the store, and the words it is spoken to in.

The store is etcd's data model cut down to what wisp needs. There is one revision counter for the
whole store; a transaction that writes moves it by exactly one, and one that writes nothing leaves it
alone. So a revision names a state of everything, "I have seen revision r" is a complete account of
what was seen, and a guard on revisions is enough to make a decision safe that was taken on a copy.

Keys are text, values are bytes. Ranges are in the order of the keys' characters, which is also the
order of their UTF-8 bytes. Limits are etcd's: 128 guards, 128 operations, 1.5 MiB, and no key that is
written twice in one transaction; what breaks them is a `ValueError`, and a programming error.

Any call raises `Problem("store_unavailable")` when the store does not answer. For a `commit` that
means that the outcome is unknown: read again and compare, never just repeat it.
"""
from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Entry:
    """A key as it stands. `revision`: of its last change; `created`: of the write that made it."""

    key: str
    value: bytes
    revision: int
    created: int
    lease: int = 0


@dataclass(frozen=True, slots=True)
class At:
    """The key was last changed at this revision."""

    key: str
    revision: int


@dataclass(frozen=True, slots=True)
class Absent:
    """There is no such key."""

    key: str


@dataclass(frozen=True, slots=True)
class Empty:
    """There is no key under this prefix."""

    prefix: str


@dataclass(frozen=True, slots=True)
class Born:
    """The key was made at this revision and has existed ever since, whatever it holds by now."""

    key: str
    created: int


@dataclass(frozen=True, slots=True)
class Put:
    """`lease`: the key goes when the lease does; 0 for one that stays."""

    key: str
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    """Deleting what is absent is no error, and no write."""

    key: str


@dataclass(frozen=True, slots=True)
class Clear:
    """Deletes everything under a prefix."""

    prefix: str


Guard = At | Absent | Empty | Born
Op = Put | Delete | Clear


@dataclass(frozen=True, slots=True)
class Span:
    """What to read: one key, or with an `end` everything in [start, end), at most `limit` if not 0."""

    start: str
    end: str = ""
    limit: int = 0


def beyond(prefix: str) -> str:
    """The first key after all that begin with the prefix."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1) if prefix else "\U0010ffff"


def under(prefix: str, limit: int = 0, after: str = "") -> Span:
    """Everything under a prefix ("" for the whole store), from just after the key `after` if given."""
    return Span(after + "\0" if after else prefix or "\0", beyond(prefix), limit)


@dataclass(frozen=True, slots=True)
class View:
    """What was read, span for span, all of it as of one revision. `more`: the limit cut it short."""

    revision: int
    spans: tuple[tuple[Entry, ...], ...]
    more: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """`new` is None when the key was deleted."""

    key: str
    new: Entry | None


@dataclass(frozen=True, slots=True)
class Batch:
    """One transaction or several, each whole, in order; `revision` is that of the last."""

    revision: int
    changes: tuple[Change, ...]


class Lost(Exception):
    """A guard did not hold and nothing was written; `revision` is the store's when it said so."""

    def __init__(self, revision: int) -> None:
        super().__init__(f"a guard failed at revision {revision}")
        self.revision = revision


class Compacted(Exception):
    """What happened after the revision asked for cannot be told any more: read everything again.

    Its history was compacted away, or this store never had it: it is another cluster, or one that
    was restored to an earlier state. `revision` is the oldest that can be read, 0 when not known.
    """

    def __init__(self, revision: int) -> None:
        super().__init__(f"history before revision {revision} is gone")
        self.revision = revision


class LeaseGone(Exception):
    """A put named a lease that is not there (any more); nothing was written."""


class Store(Protocol):
    def identity(self) -> str:
        """The cluster's id, hexadecimal."""

    def read(self, *spans: Span, revision: int = 0) -> View:
        """All spans in one read-only transaction, now or as of a recent revision.

        Raises Compacted, also when that revision is one the store has not reached.
        """

    def revision(self) -> int:
        """The store's revision now (linearizable)."""

    def commit(self, guards: Sequence[Guard], ops: Sequence[Op]) -> int:
        """All of it or nothing; the revision it made, or the current one when it wrote nothing.

        Raises Lost, LeaseGone, ValueError. After `store_unavailable` the outcome is unknown.
        """

    def grant(self, ttl: int) -> int:
        """A lease for so many seconds."""

    def keep(self, lease: int) -> int:
        """Starts the lease's time anew; the seconds it has now, 0 when it is gone."""

    def revoke(self, lease: int) -> None:
        """Ends a lease and deletes its keys."""

    def watch(self, since: int, stop: threading.Event) -> Iterator[Batch]:
        """Everything after revision `since`, over the whole store. Blocks; ends once `stop` is set.

        Raises Compacted. Outages only interrupt it: nothing is lost and nothing told twice.
        """

    def close(self) -> None: ...
