"""Everything pauses for a moment only, and a run that gets stuck says so."""
from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "cloud")]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, pause in (("agent.memory", "SLOWEST_RETRY"), ("agent.agent", "PAUSE"), ("conductor", "PAUSE")):
        monkeypatch.setattr(f"wisp.{module}.{pause}", 0.02)
