"""Clouds for a test: `cloud` has one node, `clouds` makes others. Failed steps back off for a moment only."""
from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import simulated


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for pause in ("agent.memory.SLOWEST_RETRY", "agent.agent.PAUSE", "agent.actions.PAUSE", "conductor.PAUSE"):
        monkeypatch.setattr(f"wisp.{pause}", 0.02)


@pytest.fixture
def clouds() -> Iterator[simulated.Make]:
    with simulated.clouds() as make:
        yield make


@pytest.fixture
def cloud(clouds: simulated.Make) -> simulated.Cloud:
    return clouds()


@pytest.fixture
def vm(cloud: simulated.Cloud) -> dict[str, Any]:
    return simulated.machine(cloud)
