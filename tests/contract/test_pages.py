"""A walk through a list, whatever happens meanwhile: on both stores, since only one of them shows what a range costs.

Where a page's range ends is taken from the mirror, which knows the present; what is in it is read from the store as
of the walk's first page. So the two differ whenever something was made or deleted since, or is not in the mirror yet.
"""
from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wisp import resources
from wisp.resource import PREFIX, Intent, Ref, now
from wisp.service import ITSELF, Service
from wisp.store import Clear, Delete, Op, Put, Span, Store, View, under
from wisp.store.embedded import EmbeddedEtcd
from wisp.store.etcd import EtcdStore
from wisp.store.memory import MemoryStore

IMAGE = {"source": {"kind": "url", "url": "http://images.example/guest.qcow2"}, "sha256": "5" * 64, "format": "qcow2"}
IMAGES = f"{PREFIX}intent/web/image/"
CHUNK = 4
NAMES = [f"i{number:02}" for number in range(24)]


class Shelf:
    """A service over a store in which others write: `meanwhile` does, once, just before the next page is read, when
    it is too late for the mirror to know. `looked`: how many keys each read of images had to pass by."""

    def __init__(self, store: Store) -> None:
        self.store, self.service = store, Service(store)
        self.meanwhile: Callable[[], object] = lambda: None
        self.looked: list[int] = []
        self.service.start("shelf")
        self.service.ensure_namespace("web")
        self.service.resources._store = self  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def read(self, *spans: Span, revision: int = 0) -> View:
        if spans[0].start.startswith(IMAGES):
            (meanwhile, self.meanwhile) = (self.meanwhile, lambda: None)
            meanwhile()
            self.looked.append(len(self.store.read(Span(spans[0].start, spans[0].end)).spans[0]))
        return self.store.read(*spans, revision=revision)

    def turn(self, names: set[str]) -> None:
        """Those that are there go, and the others come; every third has a tag."""
        there = self.names()
        ops: list[Op] = [Delete(self._key(name)) for name in sorted(names & there)]
        ops += [Put(self._key(name), self._intent(name).dump()) for name in sorted(names - there)]
        if ops:
            self.store.commit([], ops)

    def _intent(self, name: str) -> Intent:
        tags = {"row": "third"} if int(name[1:]) % 3 == 0 else {}
        return Intent(Ref("image", "web", name), str(uuid.uuid4()), 1, now(), now(), IMAGE, tags)

    def _key(self, name: str) -> str:
        return IMAGES + name

    def names(self) -> set[str]:
        return {entry.key.removeprefix(IMAGES) for entry in self.store.read(under(IMAGES)).spans[0]}

    def page(self, limit: int, after: str | None = None, **tags: str) -> dict[str, Any]:
        return self.service.resources.list(ITSELF, "image", "web", limit=limit, after=after, metadata=tags)


@contextlib.contextmanager
def shelf_over(store: Store) -> Iterator[Shelf]:
    shelf = Shelf(store)
    try:
        yield shelf
    finally:
        shelf.service.stop()
        store.close()


@pytest.fixture(scope="module", params=["memory", pytest.param("etcd", marks=pytest.mark.skipif(
    not shutil.which("etcd"), reason="no etcd-server"))])
def shelf(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    with contextlib.ExitStack() as until:
        until.enter_context(pytest.MonkeyPatch.context()).setattr(resources, "CHUNK", CHUNK)
        if request.param == "memory":
            yield until.enter_context(shelf_over(MemoryStore()))
            return
        etcd = EmbeddedEtcd(tmp_path_factory.mktemp("pages") / "etcd")
        until.callback(etcd.stop)
        yield until.enter_context(shelf_over(EtcdStore(etcd.start())))


SOME = st.sets(st.sampled_from(NAMES))
STORY = st.lists(st.tuples(SOME, SOME), max_size=6)
"""For each page: what comes and goes before it is asked for, and what does just before it is read."""


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=SOME, limit=st.integers(1, 6), tagged=st.booleans(), story=STORY)
def test_a_walk_shows_what_there_was_at_its_first_page_each_once_and_in_order(
        shelf: Shelf, first: set[str], limit: int, tagged: bool, story: list[tuple[set[str], set[str]]]) -> None:
    shelf.store.commit([], [Clear(IMAGES)])
    shelf.turn(first)
    tags = {"row": "third"} if tagged else {}
    pages, there, steps, after = list[list[str]](), set[str](), iter(story), None
    while True:
        before, unseen = next(steps, (set[str](), set[str]()))
        shelf.turn(before)
        shelf.meanwhile = lambda names=unseen: shelf.turn(names)  # type: ignore[misc]
        page = shelf.page(limit, after, **tags)
        if not pages:
            there = {entry.key.removeprefix(IMAGES)
                     for entry in shelf.store.read(under(IMAGES), revision=page["revision"]).spans[0]}
        pages.append([item["name"] for item in page["items"]])
        after = page.get("next")
        if after is None:
            break
    expected = sorted(name for name in there if not tagged or int(name[1:]) % 3 == 0)
    assert [name for page in pages for name in page] == expected
    assert all(len(page) == limit for page in pages[:-1])


def test_what_a_page_costs_does_not_grow_with_what_comes_after_it(shelf: Shelf) -> None:
    shelf.store.commit([], [Clear(IMAGES)])
    shelf.turn(set(NAMES))
    for tags in ({}, {"row": "third"}):
        shelf.looked.clear()
        assert len(shelf.page(3, **tags)["items"]) == 3
        assert max(shelf.looked) == CHUNK


def test_few_of_many_are_found_without_asking_for_each(shelf: Shelf) -> None:
    shelf.store.commit([], [Clear(IMAGES)])
    shelf.turn(set(NAMES))
    shelf.looked.clear()
    assert shelf.page(1, row="none")["items"] == []
    assert len(shelf.looked) == len(NAMES) // CHUNK
