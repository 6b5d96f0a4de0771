"""No operation ends otherwise than the model says; see `machine` and `model`.

FUZZ_STEPS=10000, as `make fuzz` has it, walks so far and also goes blind to one guard after the other, to see that
each is missed. Without it, only a little.
"""
from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.errors import Flaky
from hypothesis.stateful import run_state_machine_as_test
from model import Divergence
from operations import Operations
from settled import Settled

from wisp.store import Absent, At, Empty, Guard, Store
from wisp.store.embedded import EmbeddedEtcd
from wisp.store.etcd import EtcdStore
from wisp.store.memory import MemoryStore

ASKED = int(os.environ.get("FUZZ_STEPS", "0"))
LENGTH = 100 if ASKED else 40
pytestmark = pytest.mark.timeout(3600 if ASKED else 300)


GUARDS: dict[str, Callable[[Guard], bool]] = {
    "at what it changes": lambda guard: isinstance(guard, At) and _of(guard, "intent") not in ("", "namespace", "node"),
    "at the namespace": lambda guard: isinstance(guard, At) and _of(guard, "intent") == "namespace",
    "at the node": lambda guard: isinstance(guard, At) and _of(guard, "intent") == "node",
    "at the caller's key": lambda guard: isinstance(guard, At) and guard.key.startswith("/wisp/v1/key/"),
    "at the fence": lambda guard: isinstance(guard, At | Absent) and guard.key.startswith("/wisp/v1/fence/"),
    "absent before": lambda guard: isinstance(guard, Absent) and _of(guard, "intent") != "",
    "absent claim": lambda guard: isinstance(guard, Absent) and guard.key.startswith("/wisp/v1/claim/"),
    "empty of referrers": lambda guard: isinstance(guard, Empty) and guard.prefix.startswith("/wisp/v1/ref/"),
    "empty of statuses": lambda guard: isinstance(guard, Empty) and guard.prefix.startswith("/wisp/v1/status/"),
    "empty of what is in it": lambda guard: isinstance(guard, Empty) and guard.prefix.startswith("/wisp/v1/intent/"),
}


def _of(guard: At | Absent, document: str) -> str:
    """The kind whose document the guard is about; "" when it is about another."""
    parts = guard.key.removeprefix("/wisp/v1/").split("/")
    return parts[2] if parts[0] == document else ""


@contextlib.contextmanager
def lines(kind: str, directory: Path) -> Iterator[Sequence[Store]]:
    """Two lines to one store."""
    with contextlib.ExitStack() as until:
        if kind == "memory":
            store = until.enter_context(contextlib.closing(MemoryStore()))
            yield [store, store]
        else:
            etcd = EmbeddedEtcd(directory)
            until.callback(etcd.stop)
            target = etcd.start()
            yield [until.enter_context(contextlib.closing(EtcdStore(target))) for _ in range(2)]


def walk(machine: Callable[[], Operations], steps: int, **said: Any) -> int:
    """How many steps were taken; ends with the first divergence."""
    Operations.steps, Operations.ends = 0, Counter()
    while Operations.steps < steps:
        run_state_machine_as_test(machine, settings=settings(  # type: ignore[no-untyped-call]
            max_examples=max(1, (steps - Operations.steps) // LENGTH), stateful_step_count=LENGTH, deadline=None,
            suppress_health_check=list(HealthCheck), **said))
    return Operations.steps


@pytest.mark.parametrize(("kind", "few"), [("memory", 1200), ("etcd", 600)])
def test_no_operation_ends_otherwise_than_the_model_says(kind: str, few: int, tmp_path_factory: pytest.TempPathFactory,
                                                         capsys: pytest.CaptureFixture[str]) -> None:
    with lines(kind, tmp_path_factory.mktemp("etcd") / "etcd") as stores:
        taken = walk(lambda: Operations(stores), ASKED or few)
    with capsys.disabled():
        print(f"\n{taken} steps over {kind}: no divergence" + (f"; {_told()}" if ASKED else ""))


def test_with_agents_that_settle_no_operation_ends_otherwise_either(capsys: pytest.CaptureFixture[str]) -> None:
    taken = walk(Settled, ASKED // 10 or 200)
    with capsys.disabled():
        print(f"\n{taken} steps with agents: no divergence" + (f"; {_told()}" if ASKED else ""))


if ASKED:
    @pytest.mark.parametrize("guard", GUARDS)
    def test_a_guard_that_is_left_out_is_missed(guard: str, capsys: pytest.CaptureFixture[str]) -> None:
        with lines("memory", Path()) as stores, pytest.raises((Divergence, Flaky)):
            walk(lambda: Operations(stores, GUARDS[guard]), 3 * ASKED, phases=[Phase.generate], database=None)
        with capsys.disabled():
            print(f"\nwithout the guard {guard!r}: found after {Operations.steps} steps")


def _told() -> str:
    return ", ".join(f"{end} {count}" for end, count in sorted(Operations.ends.items()))
