"""The schema files, read once: what a kind's spec may say, and what follows from it.

References between files are put in place when the files are read: validating with them costs twice as much.
"""
from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from wisp.dialect import FORMATS, Validator, compiled, escape, faults_of
from wisp.errors import Fault, Problem, refuse

MOST = 64
"""How many faults of a body are told."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A place in a spec that names another resource. `name`: as written, perhaps `namespace/name`."""

    pointer: str
    kind: str
    when_gone: str
    name: str


@dataclass(frozen=True)
class Schema:
    """One kind's file, with every reference to `common.json` put in place."""

    document: Mapping[str, Any]
    metadata: Mapping[str, Any]

    @property
    def kind(self) -> str:
        return str(self.document["title"])

    @property
    def plural(self) -> str:
        return str(self.document["x-kind"]["plural"])

    @property
    def cluster(self) -> bool:
        return bool(self.document["x-kind"]["scope"] == "cluster")

    @property
    def imperative(self) -> bool:
        """Something that is done once: a node keeps nothing of it but its result."""
        return bool(self.document["x-kind"].get("imperative"))

    @cached_property
    def hidden(self) -> frozenset[str]:
        """Fields of the spec that are accepted and never shown."""
        return frozenset(name for name, field in self.document["properties"].items() if field.get("writeOnly"))

    @cached_property
    def _validator(self) -> Any:
        spec = {name: value for name, value in self.document.items() if not name.startswith(("x-", "$", "examples"))}
        body = {"type": "object", "additionalProperties": False, "required": ["spec"],
                "properties": {"spec": spec, "metadata": self.metadata}}
        return Validator(body, format_checker=FORMATS)

    def validate(self, body: Any) -> None:
        """Raises Problem `invalid` with a fault for each rule that `{"metadata", "spec"}` breaks."""
        if not isinstance(body, dict):
            raise Problem("invalid", "The body must be an object.", [Fault("", "type", "Must be an object.")])
        faults = sorted({fault for error in islice(self._validator.iter_errors(body), MOST)
                         for fault in islice(faults_of(error), MOST)},
                        key=lambda fault: fault.pointer)
        refuse(faults, "invalid")

    def filled(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """The spec with its declared defaults."""
        return _fill(self.document, spec)  # type: ignore[no-any-return]

    def canonical(self, spec: Mapping[str, Any]) -> Any:
        """For comparing: sets in one order."""
        return _canonical(self.document, spec)

    def references(self, spec: Mapping[str, Any]) -> Iterator[Reference]:
        yield from _references(self.document, spec, "/spec")

    def immutable(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Fault]:
        """A fault for each immutable field that differs."""
        yield from _immutable(self.document, old, new, "/spec")


def _fill(schema: Mapping[str, Any], value: Any) -> Any:
    if isinstance(value, dict):
        filled = {name: _fill(schema.get("properties", {}).get(name, {}), item) for name, item in value.items()}
        for name, field in schema.get("properties", {}).items():
            if name not in filled and "default" in field:
                filled[name] = _fill(field, field["default"])
        return filled
    if isinstance(value, list):
        return [_fill(schema.get("items", {}), item) for item in value]
    return value


def _canonical(schema: Mapping[str, Any], value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _canonical(schema.get("properties", {}).get(name, {}), item) for name, item in value.items()}
    if isinstance(value, list):
        return sorted(value) if schema.get("uniqueItems") else [_canonical(schema["items"], item) for item in value]
    return value


def _carry(schema: Mapping[str, Any], known: Mapping[str, Any], value: Any, before: Any) -> Any:
    if isinstance(value, dict) and isinstance(before, dict):
        fields, old = schema.get("properties", {}), known.get("properties", {})
        kept = {name: before[name] for name in fields.keys() - old.keys() & before.keys() if name not in value}
        return kept | {name: _carry(fields.get(name, {}), old.get(name, {}), item, before.get(name))
                       for name, item in value.items()}
    if isinstance(value, list) and isinstance(before, list):
        items, old = schema.get("items", {}), known.get("items", {})
        return [_carry(items, old, item, was) for item, was in zip(value, before, strict=False)] + value[len(before):]
    return value


def _references(schema: Mapping[str, Any], value: Any, pointer: str) -> Iterator[Reference]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _references(schema.get("properties", {}).get(name, {}), item, f"{pointer}/{escape(name)}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _references(schema.get("items", {}), item, f"{pointer}/{index}")
    elif rule := schema.get("x-refers-to"):
        yield Reference(pointer, rule["kind"], rule["when_gone"], value)


def _targets(schema: Mapping[str, Any]) -> Iterator[str]:
    """Kinds that a field may name in another namespace."""
    if "x-refers-to" in schema and compiled(schema["pattern"]).search("other/name"):
        yield schema["x-refers-to"]["kind"]
    for field in [*schema.get("properties", {}).values(), *filter(None, [schema.get("items")])]:
        yield from _targets(field)


def _immutable(schema: Mapping[str, Any], old: Any, new: Any, pointer: str) -> Iterator[Fault]:
    if schema.get("x-immutable"):
        if _canonical(schema, old) != _canonical(schema, new):
            yield Fault(pointer, "immutable", "This field cannot change once set; delete and create anew to change it.")
    elif isinstance(old, dict) and isinstance(new, dict):
        for name, field in schema.get("properties", {}).items():
            yield from _immutable(field, old.get(name), new.get(name), f"{pointer}/{escape(name)}")
    elif isinstance(old, list) and isinstance(new, list):
        for index, (was, item) in enumerate(zip(old, new, strict=False)):
            yield from _immutable(schema.get("items", {}), was, item, f"{pointer}/{index}")


# --- the files -----------------------------------------------------------------------------------

@dataclass(frozen=True, slots=True)
class ErrorEntry:
    """What the registry says of a code."""

    status: int
    title: str
    retryable: bool
    description: str


@dataclass(frozen=True)
class Catalogue:
    """Every kind, and every error code."""

    kinds: Mapping[str, Schema]
    errors: Mapping[str, ErrorEntry]

    released: Mapping[int, Mapping[str, Any]]
    """Minor version -> kind -> its file as it was frozen then."""

    @property
    def minor(self) -> int:
        """The newest that is released; 0 before any is."""
        return max(self.released, default=0)

    def filled(self, kind: str, spec: Mapping[str, Any]) -> Mapping[str, Any]:
        """The spec with the defaults that are declared today: it may have been recorded under an older minor."""
        return self.kinds[kind].filled(spec)

    def carried(self, kind: str, minor: int | None, spec: Mapping[str, Any], before: Mapping[str, Any]) -> Any:
        """The spec with those fields of `before` that a client of this minor cannot know, where it left them out."""
        if minor is None:
            return spec
        known = self.released[minor].get(kind, {})
        return _carry(self.kinds[kind].document, known, _fill(known, spec), before)

    @property
    def by_plural(self) -> Mapping[str, Schema]:
        return {schema.plural: schema for schema in self.kinds.values()}

    @cached_property
    def cluster_kinds(self) -> frozenset[str]:
        return frozenset(kind for kind, schema in self.kinds.items() if schema.cluster)

    @cached_property
    def shareable(self) -> frozenset[str]:
        """Kinds that a trusted namespace may see: those that something can refer to from there."""
        return frozenset(target for schema in self.kinds.values() for target in _targets(schema.document))


def directory() -> Path:
    """Where the schema files are: beside the package when installed, else at the top of the checkout."""
    packaged = Path(__file__).with_name("schemas")
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "schemas"


def load(schemas: Path | None = None) -> Catalogue:
    root = schemas or directory()
    common = json.loads((root / "v1/common.json").read_text())
    files: Iterable[Path] = sorted(path for path in (root / "v1").glob("*.json") if path.name != "common.json")
    loaded = [Schema(_inlined(json.loads(path.read_text()), common), common["$defs"]["metadata"]) for path in files]
    registry = json.loads((root / "errors.json").read_text())
    released = {int(path.name.partition(".")[2]): _released(path) for path in (root / "released").glob("1.*")}
    return Catalogue({schema.kind: schema for schema in loaded},
                     {code: ErrorEntry(**entry) for code, entry in registry.items()}, released)


def _released(folder: Path) -> Mapping[str, Any]:
    files = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    return {kind: _inlined(file, files["common"]) for kind, file in files.items() if "x-kind" in file}


def _inlined(node: Any, common: Mapping[str, Any]) -> Any:
    if isinstance(node, list):
        return [_inlined(item, common) for item in node]
    if not isinstance(node, dict):
        return node
    own = {key: _inlined(value, common) for key, value in node.items() if key != "$ref"}
    if "$ref" not in node:
        return own
    return {**_inlined(common["$defs"][node["$ref"].rsplit("/", 1)[1]], common), **own}
