"""Clouds for a test: `cloud` has one node, `clouds` makes others. Failed steps back off for a moment only."""
from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import simulated


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for pause in ("memory.SLOWEST_RETRY", "agent.PAUSE"):
        monkeypatch.setattr(f"wisp.agent.{pause}", 0.02)


@pytest.fixture
def clouds() -> Iterator[simulated.Make]:
    with simulated.clouds() as make:
        yield make


@pytest.fixture
def cloud(clouds: simulated.Make) -> simulated.Cloud:
    return clouds()
