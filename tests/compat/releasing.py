"""The tool that releases, as a function."""
from __future__ import annotations

import importlib.machinery
import importlib.util
from pathlib import Path


def release(version: str, schemas: Path) -> Path:
    tool = Path(__file__).parents[2] / "tools/release-schemas"
    loader = importlib.machinery.SourceFileLoader("release_schemas", str(tool))
    spec = importlib.util.spec_from_loader("release_schemas", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module.release(version, schemas)  # type: ignore[no-any-return]
