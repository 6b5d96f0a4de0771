"""What a client of a released version could notice of a change of the schema files or of `openapi.json`. Pure.

What a client sends (spec, metadata) must go on being accepted and mean the same: nothing may become narrower, and
defaults and what may change later stay. What it is shown (binding, status, problems, pages) must go on being there:
a field stays, with its type, within its bounds, and stays required. A spec is both. Both may grow: a new field that need not be sent, a new value of an
enum. Words for people are nobody's contract: title, description, examples.
"""
from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

Node = Mapping[str, Any]
FIXED = ("type", "format", "writeOnly", "uniqueItems", "x-unit", "x-refers-to", "const", "anyOf")
LOWEST = ("minimum", "minLength", "minItems")
HIGHEST = ("maximum", "maxLength", "maxItems", "maxProperties")
SENT = ("metadata", "name", "reference", "tags")


def released(folder: Path) -> dict[str, Any]:
    """The files of a release, all in one folder, by name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def noticed(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A sentence for each change that a client of `was` could notice."""
    return sorted({*_codes(was["errors"], now["errors"]), *_shared(was["common"], now["common"]), *_kinds(was, now),
                   *_operations(was["openapi"], now["openapi"]), *_bodies(was["openapi"], now["openapi"])})


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
    for name, default in _freed(was, now).items():
        if default is None:
            yield f"{where}/{name}: no longer always there"
        was = {**was, "properties": {**was["properties"], name: {**was["properties"][name], "default": default}}}
    yield from _inside(where, was, now, partial(_sent, fixed=fixed))


def _freed(was: Node, now: Node) -> dict[str, Any]:
    """The fields that need not be sent by now, and what each is then shown with: None is nothing."""
    freed = set(was.get("required", ())) - set(now.get("required", ()))
    return {name: field.get("default") for name, field in sorted(now.get("properties", {}).items())
            if name in freed and not field.get("writeOnly")}


def _shown(where: str, was: Node, now: Node | None) -> Iterator[str]:
    if now is None:
        yield f"{where}: removed"
        return
    yield from (f"{where}: {word} changed" for word in ("type", "format", "const") if was.get(word) != now.get(word))
    if "pattern" in was and was["pattern"] != now.get("pattern"):
        yield f"{where}: pattern changed"
    yield from (f"{where}: {word} loosened" for word in LOWEST if word in was and now.get(word, float("-inf")) < was[word])
    yield from (f"{where}: {word} loosened" for word in HIGHEST if word in was and now.get(word, float("inf")) > was[word])
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


# --- openapi.json: what no schema file says

def _operations(was: Node, now: Node) -> Iterator[str]:
    for address, item in was["paths"].items():
        for method, before in item.items():
            where, after = f"{method} {address}", now["paths"].get(address, {}).get(method)
            if after is None:
                yield f"{where}: removed"
                continue
            if before.get("security") == [] != after.get("security"):
                yield f"{where}: needs a key"
            yield from _parameters(where, _taken(before, was), _taken(after, now))
            yield from _content(f"{where} body", before.get("requestBody", {}), after.get("requestBody", {}))
            yield from _answers(where, _answered(before, was), _answered(after, now))


def _parameters(where: str, was: Mapping[str, Node], now: Mapping[str, Node]) -> Iterator[str]:
    for name, before in was.items():
        after = now.get(name, {})
        yield from _sent(f"{where} {name}", before["schema"], after.get("schema"))
        yield from (f"{where} {name}: {word} changed" for word in ("style", "explode") if after and before.get(word) != after.get(word))
    yield from (f"{where} {name}: became required" for name, after in now.items()
                if after.get("required") and not was.get(name, {}).get("required"))


def _answers(where: str, was: Mapping[str, Node], now: Mapping[str, Node]) -> Iterator[str]:
    yield from (f"{where} {status}: a new answer" for status in sorted(now.keys() - was.keys()) if status < "400")
    for status, before in was.items():
        if status not in now:
            yield f"{where} {status}: removed"
            continue
        yield from _content(f"{where} {status}", before, now[status])
        for name, header in before["headers"].items():
            after = now[status]["headers"].get(name, {})
            yield from _shown(f"{where} {status} {name}", header["schema"], after.get("schema"))
            if after and header.get("required") and not after.get("required"):
                yield f"{where} {status} {name}: no longer always there"


def _content(where: str, was: Node, now: Node) -> Iterator[str]:
    if now.get("required") and not was.get("required"):
        yield f"{where}: became required"
    for media_type, before in was.get("content", {}).items():
        after = now.get("content", {}).get(media_type)
        if after is None or before["schema"].get("$ref") != after["schema"].get("$ref"):
            yield f"{where}: {media_type} changed"


def _bodies(was: Node, now: Node) -> Iterator[str]:
    """What stands around a kind's spec in a request, and around its documents in a page."""
    after = now["components"]["schemas"]
    for name, before in was["components"]["schemas"].items():
        if name.endswith("Body"):
            yield from _sent(name, before, after.get(name))
        elif name.endswith("Page"):
            yield from _shown(name, before, after.get(name))


def _taken(operation: Node, document: Node) -> dict[str, Node]:
    """Its parameters, by place and name."""
    found = [_resolved(each, document) for each in operation["parameters"]]
    return {f"{each['in']} {each['name']}": each for each in found}


def _answered(operation: Node, document: Node) -> dict[str, Node]:
    found = {status: _resolved(each, document) for status, each in operation["responses"].items()}
    return {status: {**each, "headers": {name: _resolved(header, document) for name, header in each["headers"].items()}}
            for status, each in found.items()}


def _resolved(node: Node, document: Node) -> Node:
    """A parameter, an answer or a header itself, where there is only its name; its schema whole."""
    if "$ref" in node:
        section, name = node["$ref"].split("/")[2:]
        node = document["components"][section][name]
    return {**node, "schema": _whole(node["schema"], {"$defs": document["components"]["schemas"]})} if "schema" in node else node
