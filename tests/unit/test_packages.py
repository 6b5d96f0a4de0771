"""tools/packages.txt is the one list of Debian packages: what `wisp dev` tells people to install stands in it."""
from __future__ import annotations

from pathlib import Path

from wisp.main import PROGRAMS

LIST = Path(__file__).resolve().parents[2] / "tools" / "packages.txt"


def test_every_package_that_wisp_dev_asks_for_is_installed_by_setup() -> None:
    listed = {line.strip() for line in LIST.read_text().splitlines() if not line.startswith("#")}
    assert set(PROGRAMS.values()) - listed == set()
