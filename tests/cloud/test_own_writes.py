"""A server knows what it wrote itself as soon as its copy of the store shows it. No answer waits for that; what is asked
next does, since a key that was revoked here must not be good here for a moment longer."""
from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from simulated import PATIENCE, Make

from wisp.errors import Problem
from wisp.store import Batch
from wisp.store.memory import MemoryStore


class Halting(MemoryStore):
    """Nobody is told of anything while `open` is not set."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()
        self.open.set()

    def watch(self, since: int, stop: threading.Event) -> Iterator[Batch]:
        for batch in super().watch(since, stop):
            self.open.wait(PATIENCE)
            yield batch


def test_an_answer_does_not_wait_for_the_mirror_and_the_next_request_does(
        clouds: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("journal", "resources"):
        monkeypatch.setattr(f"wisp.{module}.LAG", 2 * PATIENCE)
    store = Halting()
    cloud = clouds(store=store)
    token = cloud.put("key", "k", {"role": "admin"}).document["token"]
    caller = cloud.bearer(token)
    cloud.settle()
    store.open.clear()
    writing = threading.Thread(target=cloud.put, args=("key", "k", {"role": "admin", "rotation": "2"}, caller), daemon=True)
    writing.start()
    writing.join(PATIENCE / 2)
    assert not writing.is_alive()
    assert cloud.service.mirror.revision < store.revision()
    threading.Timer(0.1, store.open.set).start()
    with pytest.raises(Problem) as refused:
        cloud.bearer(token)
    assert refused.value.code == "unauthenticated"


def test_a_store_that_was_restored_to_an_earlier_state_is_waited_for_once(clouds: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wisp.resources.LAG", 0.05)
    cloud = clouds()
    token = cloud.put("key", "k", {"role": "admin"}).document["token"]
    resources = cloud.service.resources
    resources._written += 1_000_000
    cloud.bearer(token)
    assert resources._written <= cloud.store.revision()
