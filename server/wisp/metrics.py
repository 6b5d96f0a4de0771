"""What Prometheus may ask: the door of prometheus_client.

What happens is counted where it happens, for a microsecond each. What merely is (nodes, conditions, how
far the mirror lags) is found out when somebody asks, so that an idle service polls nothing. A label is a
word of the code, of a schema file or the name of a node, never a caller's text: so no stranger makes
this grow, and there is no secret to be found in it.
"""
from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Callable, Iterator
from typing import Any, cast

from prometheus_client import CollectorRegistry, Counter, Histogram, make_wsgi_app
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from wisp.conditions import view
from wisp.errors import Problem
from wisp.kinds import KINDS
from wisp.store import Store
from wisp.store.mirror import Mirror
from wisp.world import World

BUCKETS = (.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60)
METHODS = ("GET", "PUT", "DELETE")
CATCHING_UP = 1.0
"""Seconds for which a question waits to see how far behind the mirror is."""


class Metrics:
    """The counters, for the wiring to hand out; `app` answers with them over WSGI."""

    def __init__(self) -> None:
        self._all = CollectorRegistry()
        self._requests = Histogram("wisp_request_seconds", "Requests. Those that wait are a route of their own.",
                                   ("method", "route", "code"), buckets=BUCKETS, registry=self._all)
        self._turns = Counter("wisp_turns", "Turns of an agent.", ("node", "outcome"), registry=self._all)
        self._steps = Counter("wisp_steps", "Steps of an agent.", ("node", "step", "outcome"), registry=self._all)
        self._calls = Histogram("wisp_store_seconds", "Calls of the store.", ("call",),
                                buckets=BUCKETS, registry=self._all)
        self.app = make_wsgi_app(self._all)

    def request(self, method: str, route: str, code: int, seconds: float) -> None:
        self._requests.labels(method if method in METHODS else "other", route, code).observe(seconds)

    def turn(self, node: str, outcome: str) -> None:
        self._turns.labels(node, outcome).inc()

    def step(self, node: str, step: str, outcome: str) -> None:
        self._steps.labels(node, step, outcome).inc()

    def timed(self, store: Store) -> Store:
        return cast(Store, _Timed(store, self._calls))

    def ask(self, store: Store, mirror: Mirror, world: World) -> None:
        """From now on an answer also says how these are."""
        self._all.register(_Now(store, mirror, world))


class _Timed:
    """A store whose answers are timed. A watch is no answer, and a lease no matter of haste."""

    def __init__(self, store: Store, calls: Histogram) -> None:
        self._store = store
        self.read, self.revision, self.commit = (
            _timing(getattr(store, name), calls.labels(name)) for name in ("read", "revision", "commit"))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def _timing(reached: Callable[..., Any], calls: Histogram) -> Callable[..., Any]:
    def timed(*args: Any, **named: Any) -> Any:
        with calls.time():
            return reached(*args, **named)
    return timed


class _Now:
    """How things are at the moment of asking."""

    def __init__(self, store: Store, mirror: Mirror, world: World) -> None:
        self._store, self._mirror, self._world = store, mirror, world

    def collect(self) -> Iterator[Metric]:
        yield from self._lag()
        with self._mirror.held():
            live = {node.name for node in self._world.live_nodes()}
        yield GaugeMetricFamily("wisp_nodes_live", "Nodes whose agent is alive.", len(live))
        found = GaugeMetricFamily("wisp_resources", "Resources, each by its worst condition.",
                                  labels=("kind", "condition", "status", "reason"))
        for labels, count in Tally(self._conditions(live)).items():
            found.add_metric(labels, count)
        yield found

    def _lag(self) -> Iterator[Metric]:
        shown, began = self._mirror.revision, time.perf_counter()
        try:
            behind = max(0, self._store.revision() - shown)
        except Problem:
            yield GaugeMetricFamily("wisp_store_up", "Whether the store answers.", 0)
            return
        self._mirror.wait(shown + behind, CATCHING_UP)
        seconds = time.perf_counter() - began if behind else 0
        yield GaugeMetricFamily("wisp_store_up", "Whether the store answers.", 1)
        yield GaugeMetricFamily("wisp_mirror_lag_revisions", "How far the mirror was behind the store.", behind)
        yield GaugeMetricFamily("wisp_mirror_lag_seconds", "How long it took to catch up, a second at most.", seconds)

    def _conditions(self, live: set[str]) -> Iterator[tuple[str, str, str, str]]:
        """The mirror is held for one resource at a time: the watch waits meanwhile."""
        everything = self._world.everything()
        while True:
            with self._mirror.held():
                resource = next(everything, None)
                if resource is None:
                    return
                kind = KINDS[resource.ref.kind]
                places, lack = kind.places(resource, self._world), kind.lack(resource, self._world)
            worst = view(resource, places, live, lack)["conditions"][0]
            yield resource.ref.kind, worst["type"], worst["status"], worst["reason"]
