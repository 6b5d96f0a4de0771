"""tools/packages.txt is the one list of Debian packages: what `wisp dev` tells people to install stands in it."""
from __future__ import annotations

from pathlib import Path

from wisp.main import PROGRAMS

LIST = Path(__file__).resolve().parents[2] / "tools" / "packages.txt"


def test_every_package_that_wisp_dev_asks_for_is_installed_by_setup() -> None:
    listed = {line.strip() for line in LIST.read_text().splitlines() if not line.startswith("#")}
    assert set(PROGRAMS.values()) - listed == set()


def test_an_installation_has_the_very_packages_that_were_tested() -> None:
    tested, installed = ((LIST.parents[1] / at / "requirements.lock").read_text().split("\n") for at in (".", "deploy"))
    pins = [line.removesuffix(" \\") for line in installed if "==" in line]
    assert len(pins) > 20 and [pin for pin in pins if pin not in {line.removesuffix(" \\") for line in tested}] == []
