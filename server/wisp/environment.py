"""Where a service is, and with which key: three variables, which the provider reads too.

On disk they are in a shell's own spelling, so that `. file` does what `wisp` does with it.
"""
from __future__ import annotations

import os
import secrets
import shlex
from collections.abc import Mapping
from pathlib import Path

ENDPOINT, TOKEN, NAMESPACE = NAMES = ("WISP_ENDPOINT", "WISP_TOKEN", "WISP_NAMESPACE")


def read(path: Path) -> dict[str, str]:
    """What the file sets of the three; nothing when there is no file."""
    words = shlex.split(path.read_text(), comments=True) if path.exists() else []
    return {name: value for name, _, value in (word.partition("=") for word in words) if name in NAMES}


def write(path: Path, values: Mapping[str, str]) -> None:
    """Whole or not at all, and for its owner alone: a key is in it."""
    fresh = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(exports(values))
    fresh.rename(path)


def exports(values: Mapping[str, str]) -> str:
    """Lines for a shell to run."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items())
