"""What a client of a released version could notice of a change of the schema files. Pure.

What a client sends (spec, metadata) must go on being accepted and mean the same: nothing may become narrower, and
defaults and what may change later stay. What it is shown (binding, status, problems, pages) must go on being there:
a field stays, with its type, and stays required. Both may grow: a new field that need not be sent, a new value of an
enum. Words for people are nobody's contract: title, description, examples.
"""
from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

Node = Mapping[str, Any]
FIXED = ("type", "format", "writeOnly", "uniqueItems", "x-unit", "x-refers-to", "const")
LOWEST = ("minimum", "minLength", "minItems")
HIGHEST = ("maximum", "maxLength", "maxItems", "maxProperties")
SENT = ("metadata", "name", "reference")


def released(folder: Path) -> dict[str, Any]:
    """The files of a release, all in one folder, by name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def current(schemas: Path) -> dict[str, Any]:
    files = [*(schemas / "v1").glob("*.json"), schemas / "errors.json"]
    return {path.stem: json.loads(path.read_text()) for path in sorted(files)}


def noticed(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A sentence for each change that a client of `was` could notice."""
    return sorted({*_codes(was["errors"], now["errors"]), *_shared(was["common"], now["common"]), *_kinds(was, now)})


def _codes(was: Node, now: Node) -> Iterator[str]:
    for code, entry in was.items():
        if code not in now:
            yield f"error {code}: removed"
            continue
        yield from (f"error {code}: its {word} changed" for word in ("status", "retryable") if entry[word] != now[code][word])


def _shared(was: Node, now: Node) -> Iterator[str]:
    """What is defined once: each definition as it is used, sent or shown."""
    for name, definition in was["$defs"].items():
        if name in SENT:
            yield from _sent(f"common/{name}", _whole(definition, was), _whole(now["$defs"].get(name), now))
        else:
            yield from _shown(f"common/{name}", _whole(definition, was), _whole(now["$defs"].get(name), now))


def _kinds(was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for kind, file in was.items():
        if "x-kind" not in file:
            continue
        if kind not in now:
            yield f"{kind}: removed"
            continue
        before, after = _whole(file, was["common"]), _whole(now[kind], now["common"])
        if before["x-kind"] != after["x-kind"]:
            yield f"{kind}: its address changed"
        yield from _sent(kind, before, after)
        for part in ("binding", "status"):
            yield from _shown(f"{kind} {part}", before["x-status"][part], after["x-status"][part])


def _sent(where: str, was: Node, now: Node | None, fixed: bool = False) -> Iterator[str]:
    """`fixed`: what it is a part of could not change."""
    if now is None:
        yield f"{where}: removed"
        return
    yield from (f"{where}: {word} changed" for word in FIXED if was.get(word) != now.get(word))
    if _default(now, was) != was.get("default"):
        yield f"{where}: default changed"
    fixed = fixed or bool(was.get("x-immutable"))
    if now.get("x-immutable") and not fixed:
        yield f"{where}: became immutable"
    if "enum" in now and ("enum" not in was or not set(was["enum"]) <= set(now["enum"])):
        yield f"{where}: enum narrowed"
    if "pattern" in now and was.get("pattern") != now["pattern"]:
        yield f"{where}: pattern changed"
    yield from (f"{where}: {word} tightened" for word in LOWEST if word in now and now[word] > was.get(word, float("-inf")))
    yield from (f"{where}: {word} tightened" for word in HIGHEST if word in now and now[word] < was.get(word, float("inf")))
    yield from (f"{where}/{name}: became required" for name in sorted(set(now.get("required", ())) - set(was.get("required", ()))))
    if now.get("additionalProperties") is False and was.get("additionalProperties") is not False:
        yield f"{where}: closed"
    yield from _inside(where, was, now, partial(_sent, fixed=fixed))


def _shown(where: str, was: Node, now: Node | None) -> Iterator[str]:
    if now is None:
        yield f"{where}: removed"
        return
    yield from (f"{where}: {word} changed" for word in ("type", "format", "const") if was.get(word) != now.get(word))
    yield from (f"{where}/{name}: no longer always there" for name in sorted(set(was.get("required", ())) - set(now.get("required", ()))))
    yield from _inside(where, was, now, _shown)


def _default(now: Node, was: Node) -> Any:
    """An object's holds those of its fields, so those of new fields come into it."""
    default = now.get("default")
    if not isinstance(default, dict):
        return default
    new = now.get("properties", {}).keys() - was.get("properties", {}).keys()
    return {name: value for name, value in default.items() if name not in new}


def _inside(where: str, was: Node, now: Node, judge: Callable[[str, Node, Node | None], Iterator[str]]) -> Iterator[str]:
    for name, field in was.get("properties", {}).items():
        yield from judge(f"{where}/{name}", field, now.get("properties", {}).get(name))
    for word, place in (("items", "*"), ("propertyNames", "KEY"), ("additionalProperties", "VALUE")):
        if isinstance(was.get(word), dict):
            yield from judge(f"{where}/{place}", was[word], now[word] if isinstance(now.get(word), dict) else None)
    if judge is not _shown and "propertyNames" in now and "propertyNames" not in was:
        yield f"{where}/KEY: narrowed"


def _whole(node: Any, common: Node) -> Any:
    """With what it refers to put in place."""
    if isinstance(node, list):
        return [_whole(item, common) for item in node]
    if not isinstance(node, dict):
        return node
    own = {word: _whole(value, common) for word, value in node.items() if word not in ("$ref", "$defs")}
    target = _whole(common["$defs"][node["$ref"].rsplit("/", 1)[1]], common) if isinstance(node.get("$ref"), str) else {}
    return {**target, **own}
