"""Schema files to make releases of."""
from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from wisp import catalogue


@pytest.fixture
def schemas(tmp_path: Path) -> Path:
    """A copy of the schema files of which nothing is released."""
    return Path(shutil.copytree(catalogue.directory(), tmp_path / "schemas", ignore=shutil.ignore_patterns("released")))
