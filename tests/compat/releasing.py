"""The tool that releases, as functions."""
from __future__ import annotations

import importlib.machinery
import importlib.util
import json
from pathlib import Path
from typing import Any

from wisp.catalogue import load


def release(version: str, schemas: Path) -> Path:
    return _tool().release(version, schemas)  # type: ignore[no-any-return]


def current(schemas: Path) -> dict[str, Any]:
    """What would be released, by name."""
    files = _tool().contents(schemas, load(schemas).minor)
    return {name.removesuffix(".json"): json.loads(content) for name, content in files.items()}


def _tool() -> Any:
    tool = Path(__file__).parents[2] / "tools/release-schemas"
    loader = importlib.machinery.SourceFileLoader("release_schemas", str(tool))
    spec = importlib.util.spec_from_loader("release_schemas", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module
