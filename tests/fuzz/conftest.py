"""Lets the tests here share `model`, and the clouds of `tests/cloud`."""
from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "cloud")]
