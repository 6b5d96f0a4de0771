"""A local copy of the whole store, so that deciding needs no round trip.

It is listed once, page by page at one revision, and from there fed by a single watch. It holds raw
bytes; who wants a document parses it. Values under the `unkept` prefixes are dropped (the keys stay):
events would be dead weight, and user data may hold secrets.

The copy may lag, never lie: it shows one revision after the other, each whole. Decisions are made
under `held()` and made safe by their guards; who must not miss anything that happened before some
moment asks the store for its revision and waits for that. When the watch can no longer be continued
(history compacted, another cluster, a store that went back in time) everything is listed anew, and
listeners are told the differences as if they had happened.
"""
from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from sortedcontainers import SortedDict

from wisp.errors import Problem
from wisp.store import Change, Compacted, Entry, Store, beyond, under

Listener = Callable[[Entry | None, Entry | None], None]
Bell = Callable[[int], None]

UNKEPT = ("/wisp/v1/event/", "/wisp/v1/user_data/")
PAGE = 40
PAUSE = 1.0

log = logging.getLogger(__name__)


class Mirror:
    def __init__(self, store: Store, unkept: tuple[str, ...] = UNKEPT) -> None:
        self._store = store
        self._unkept = unkept
        self._entries: SortedDict[str, Entry] = SortedDict()
        self._revision = 0
        self.arriving = 0
        """The revision that the changes being told of lead to."""
        self._held = threading.RLock()
        self._reached = threading.Condition(self._held)
        self._listeners: list[Listener] = []
        self._bells: list[Bell] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mirror", daemon=True)

    def start(self) -> None:
        """Returns at once; `wait(1, timeout)` waits until everything is there."""
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    # asking

    @property
    def revision(self) -> int:
        """The revision this copy shows, 0 before it is loaded."""
        return self._revision

    @property
    def loaded(self) -> bool:
        return self._revision > 0

    def held(self) -> AbstractContextManager[Any]:
        """Nothing moves meanwhile, and the watch waits: keep it short."""
        return self._held

    def get(self, key: str) -> Entry | None:
        with self._held:
            entry: Entry | None = self._entries.get(key)
            return entry

    def scan(self, prefix: str) -> Iterator[Entry]:
        """All entries under a prefix, in the order of their keys, as they stand now."""
        with self._held:
            keys = self._entries.irange(prefix, beyond(prefix), inclusive=(True, False))
            return iter([self._entries[key] for key in keys])

    def ahead(self, start: str, end: str, count: int) -> str:
        """The key that comes so many keys on, or the end: etcd looks at all it is asked for, whatever the limit."""
        with self._held:
            keys = self._entries.irange(start, end, inclusive=(True, False))
            return next(itertools.islice(keys, count, None), end)

    def wait(self, revision: int, timeout: float) -> bool:
        """Whether the copy reached the revision in time (seconds)."""
        with self._reached:
            return self._reached.wait_for(lambda: self._revision >= revision, timeout)

    # being told

    def listen(self, listener: Listener) -> None:
        """Calls it with (old, new) for each change from now on, in order, with the copy held."""
        with self._held:
            self._listeners.append(listener)

    def on_batch(self, bell: Bell) -> None:
        """Calls it with the new revision whenever some changes are in, with nothing held."""
        with self._held:
            self._bells.append(bell)

    # following

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._load()
                self._follow()
            except Compacted:
                log.info("the store's history cannot be continued from revision %d: listing again", self._revision)
            except Problem as problem:
                log.warning("%s", problem)
                self._stop.wait(PAUSE)
            except Exception:
                log.exception("the mirror stumbled")
                self._stop.wait(PAUSE)

    def _load(self) -> None:
        fresh: dict[str, Entry] = {}
        view = self._store.read(under("", PAGE))
        revision = view.revision
        while True:
            fresh.update((entry.key, self._kept(entry)) for entry in view.spans[0])
            if not view.more[0]:
                break
            if self._stop.is_set():
                return
            view = self._store.read(under("", PAGE, view.spans[0][-1].key), revision=revision)
        gone = self._entries.keys() - fresh.keys()
        self._take(revision, [Change(key, fresh.get(key)) for key in (*gone, *fresh)])

    def _follow(self) -> None:
        for batch in self._store.watch(self._revision, self._stop):
            self._take(batch.revision, batch.changes)

    def _take(self, revision: int, changes: list[Change] | tuple[Change, ...]) -> None:
        with self._reached:
            self.arriving = revision
            for change in changes:
                self._apply(change.key, self._kept(change.new) if change.new else None)
            self._revision = revision
            self._reached.notify_all()
            bells = tuple(self._bells)
        for bell in bells:
            _call(bell, revision)

    def _apply(self, key: str, new: Entry | None) -> None:
        old = self._entries.get(key)
        if old == new:
            return
        if new:
            self._entries[key] = new
        else:
            del self._entries[key]
        for listener in self._listeners:
            _call(listener, old, new)

    def _kept(self, entry: Entry) -> Entry:
        return replace(entry, value=b"") if entry.value and entry.key.startswith(self._unkept) else entry


def _call(told: Callable[..., None], *news: object) -> None:
    """One who listens badly must not keep the copy from following."""
    try:
        told(*news)
    except Exception:
        log.exception("%r failed", told)
