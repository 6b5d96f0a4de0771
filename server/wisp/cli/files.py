"""Documents read from files: JSON as the API reads it, YAML without its surprises.

YAML 1.1 takes `on` for true, `2026-11-22` for a date and the MAC address `10:20:30:40:50:60` for a
number to base sixty. Here only what JSON has is not a string: numbers as JSON writes them, `true`,
`false` and `null`; and a key given twice is an error.
"""
from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from wisp import dialect
from wisp.errors import Problem

MEMBERS = frozenset({"kind", "namespace", "name", "metadata", "spec",
                     "uid", "generation", "created_at", "updated_at", "binding", "status", "token"})
SUFFIXES = (".json", ".yaml", ".yml")


class Unreadable(Exception):
    """A file is not what it should be."""


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


_INTEGER = "-?(0|[1-9][0-9]*)"
for _tag, _pattern, _first in (("bool", "true|false", "tf"), ("null", "null|", ["n", ""]),
                               ("int", _INTEGER, "-0123456789"),
                               ("float", _INTEGER + r"(\.[0-9]+)?([eE][-+]?[0-9]+)?", "-0123456789")):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})\\Z"), list(_first))


def documents(source: str) -> Iterator[dict[str, Any]]:
    """Every document of a file, of all files of a directory in order of name, or of stdin (`-`)."""
    if source == "-":
        yield from _documents(sys.stdin.read(), "stdin")
        return
    path = Path(source)
    files = sorted(each for each in path.iterdir() if each.suffix in SUFFIXES) if path.is_dir() else [path]
    if not files:
        raise Unreadable(f"{source}: there is no {', '.join(SUFFIXES)} file in it")
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise Unreadable(f"{file}: {getattr(error, 'strerror', None) or 'it is not UTF-8'}") from error
        yield from _documents(text, str(file))


def _documents(text: str, where: str) -> Iterator[dict[str, Any]]:
    try:
        read = [dialect.loads(text.encode())] if where.endswith(".json") else list(yaml.load_all(text, _Loader))
    except (yaml.YAMLError, Problem) as error:
        raise Unreadable(f"{where}: {error}") from error
    for each in read:
        for document in each["items"] if isinstance(each, dict) and "items" in each else [each]:
            if document is not None:
                yield _checked(document, where)


def _checked(document: Any, where: str) -> dict[str, Any]:
    """What the API shows beside what one writes may stand there too, so that `get -o yaml` can be applied again."""
    if not isinstance(document, dict) or not all(isinstance(document.get(part), str) for part in ("kind", "name")):
        raise Unreadable(f"{where}: a document has a `kind`, a `name` and a `spec`")
    if unknown := sorted(map(str, document.keys() - MEMBERS)):
        raise Unreadable(f"{where}: {document['kind']} {document['name']}: there is no field {', '.join(unknown)}")
    return document
