"""When a node is there, and when it stays out: beside a cloud, over a line to its store that can be cut or led elsewhere."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from simulated import Cloud

from wisp.agent import Presence
from wisp.errors import Problem
from wisp.fakes.fabric import FakeFabric, FakeKernel
from wisp.host import Floating, Gateway, Segment
from wisp.journal import Journal
from wisp.ports import Facts
from wisp.resource import CLUSTER_KEY, dumps, node_key, node_ref
from wisp.store import Put, Span
from wisp.store.memory import MemoryStore

FACTS = Facts(4, 4096, 100, 1450, "192.0.2.9", "qemu", "Simulated.")
LAN = ("lan-uid", 7)
OURS, THEIRS = (Floating(f"ip-{n}", *LAN, f"203.0.113.{n}", f"10.1.0.{n}") for n in (5, 6))


class Line:
    """To a store."""

    def __init__(self, store: Any) -> None:
        self.store, self.cut = store, False

    def __getattr__(self, name: str) -> Any:
        if self.cut:
            raise Problem("store_unavailable", "The line is cut.")
        return getattr(self.store, name)


class Visitor:
    """A node that only comes and goes."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud, self.line, self.kernel = cloud, Line(cloud.store), FakeKernel()
        self.fabric = FakeFabric("simulated", self.kernel)
        self.belongs = cloud.service.world.cluster
        self.running: list[Presence] = []

    def come(self, machine: str = "this") -> None:
        journal = Journal(self.line, self.cloud.service.mirror, "n9")  # type: ignore[arg-type]
        self.running.append(Presence("n9", machine, FACTS, self.fabric, lambda uid: uid == self.belongs, self.line, journal))  # type: ignore[arg-type]
        self.running[-1].start()

    def end(self) -> None:
        for presence in self.running:
            presence.stop()

    def expire(self) -> None:
        self.cloud.store.revoke(self.running[-1]._lease)
        self.cloud.until(lambda: not self.alive())

    def alive(self) -> bool:
        return self.cloud.service.world.node("n9") is not None


@pytest.fixture
def visitor(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Visitor]:
    monkeypatch.setattr("wisp.agent.presence.RENEW", 0.02)
    made = Visitor(cloud)
    yield made
    made.end()


def test_a_node_whose_lease_ran_out_under_it_is_there_again(visitor: Visitor) -> None:
    visitor.come()
    before = visitor.cloud.service.world.node("n9")
    visitor.line.cut = True
    visitor.expire()
    visitor.line.cut = False
    visitor.cloud.until(visitor.alive)
    assert before and visitor.cloud.get("node", "n9")["generation"] == 1


def test_a_node_that_was_gone_for_good_meanwhile_stays_out(visitor: Visitor, caplog: pytest.LogCaptureFixture) -> None:
    visitor.come()
    visitor.line.cut = True
    visitor.expire()
    visitor.cloud.delete("node", "n9")
    visitor.line.cut = False
    visitor.cloud.until(lambda: "standing down" in caplog.text)
    assert not visitor.alive()
    visitor.end()
    visitor.come("another")
    assert visitor.alive() and visitor.cloud.ready("node", "n9")["generation"] == 1


def test_nothing_is_put_into_a_store_that_took_the_place_of_ours(visitor: Visitor, caplog: pytest.LogCaptureFixture) -> None:
    visitor.come()
    before = visitor.cloud.service.world.node("n9")
    other = MemoryStore()
    other.commit([], [Put(CLUSTER_KEY, dumps({"uid": "another", "secret": ""}))])
    visitor.line.store = other
    visitor.cloud.until(lambda: "another cluster" in caplog.text)
    assert [other.read(Span(key)).spans[0] for key in (node_key("n9"), node_ref("n9").key("intent"))] == [(), ()]
    visitor.line.store = visitor.cloud.store
    visitor.cloud.until(lambda: visitor.cloud.service.world.node("n9") != before, "it to enter again")


def test_coming_twice_changes_nothing_of_its_documents(visitor: Visitor) -> None:
    visitor.come()
    before = visitor.cloud.get("node", "n9")
    visitor.end()
    visitor.come()
    assert visitor.cloud.get("node", "n9") == before


# --- while the store cannot be asked

@pytest.fixture
def carrier(visitor: Visitor) -> Visitor:
    """Two addresses of the outside are there, of which another machine answers for one."""
    visitor.fabric.build_segment(Segment(*LAN))
    visitor.fabric.build_gateway(Gateway(*LAN, "10.1.0.1/24", "02:00:00:00:00:01", "100.64.0.9"))
    for floating in (OURS, THEIRS):
        visitor.fabric.build_floating(floating)
    visitor.kernel.elsewhere.add(THEIRS.address)
    visitor.come()
    return visitor


def addresses(visitor: Visitor) -> list[str]:
    return sorted(part.address for part in visitor.fabric.observe(None) if isinstance(part, Floating))


def test_an_address_that_another_has_by_now_is_let_go_and_nothing_else(carrier: Visitor, caplog: pytest.LogCaptureFixture) -> None:
    carrier.line.cut = True
    carrier.cloud.until(lambda: "The line is cut" in caplog.text)
    carrier.running[-1]._alive_until = 0.0
    carrier.cloud.until(lambda: addresses(carrier) == [OURS.address])
    assert [type(part) for part in carrier.fabric.observe(None) if not isinstance(part, Floating)].count(Gateway) == 1


def test_as_long_as_the_lease_may_still_hold_nobody_is_asked(carrier: Visitor, caplog: pytest.LogCaptureFixture) -> None:
    carrier.line.cut = True
    carrier.cloud.until(lambda: caplog.text.count("The line is cut") > 3)
    assert addresses(carrier) == [OURS.address, THEIRS.address]
