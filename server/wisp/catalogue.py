"""The schema files, read once: what a kind's spec may say, and what follows from it.

JSON Schema, taken literally, is kinder than an API may be. So `format` is asserted for the few formats
we use, `$` means the end of the text (not a newline before it), `\\d` is ASCII, `1.0` is no integer,
and the JSON itself is read strictly (a key given twice, NaN, a number beyond range, a nesting bomb are
refused before a schema sees them). References between files are put in place when the files are read:
validating with them costs twice as much. What a refusal says never repeats the value refused, which
may be a secret.
"""
from __future__ import annotations

import ipaddress
import json
import math
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import jsonschema
from jsonschema.validators import extend

from wisp.errors import Fault, Problem

DEPTH = 64
"""How deep a body may nest."""
MOST = 64
"""How many faults of a body are told."""


# --- strict JSON ---------------------------------------------------------------------------------

def loads(raw: bytes) -> Any:
    """JSON as this API takes it. Raises Problem `malformed`."""
    try:
        text = raw.decode("utf-8")
        _refuse_nesting(text)
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeEncodeError as error:
        raise Problem("malformed", "The body escapes half of a surrogate pair.") from error
    except UnicodeDecodeError as error:
        raise Problem("malformed", "The body is not UTF-8.") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise Problem("malformed", f"The body is not JSON: {error.msg} at {where}.") from error
    except ValueError as error:         # an integer of more digits than Python will read
        raise Problem("malformed", "The body holds a number beyond range.") from error


def _refuse_nesting(text: str) -> None:
    """Depth by counting brackets outside strings: the parser itself would recurse."""
    depth = 0
    for token in re.finditer(r'"(?:[^"\\]|\\[\s\S])*"?|[\[{]|[\]}]', text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
        if depth > DEPTH:
            raise Problem("malformed", f"The body nests deeper than {DEPTH} levels.")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for key, value in pairs:
        if key in seen:
            fault = Fault(f"/{escape(key)}", "duplicate_key", "This key is given twice.")
            raise Problem("malformed", f"The body gives the key {key!r} twice.", [fault])
        seen[key] = value
    return seen


def _no_constant(word: str) -> Any:
    raise Problem("malformed", f"The body holds {word}, which is not JSON.")


def _finite(text: str) -> float:
    if math.isfinite(number := float(text)):
        return number
    raise Problem("malformed", "The body holds a number beyond range.")


def escape(token: str) -> str:
    """A member's name as a piece of a JSON pointer (RFC 6901)."""
    return token.replace("~", "~0").replace("/", "~1")


# --- validation ----------------------------------------------------------------------------------

def _ipv4(value: Any) -> bool:
    return not isinstance(value, str) or bool(ipaddress.IPv4Address(value))


def _ipv4_network(value: Any) -> bool:
    if not isinstance(value, str):
        return True
    network = ipaddress.IPv4Network(value)
    return "/" in value and str(network) == value and 8 <= network.prefixlen <= 29


def _date_time(value: Any) -> bool:
    if not isinstance(value, str):
        return True
    written = re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", value, re.ASCII)
    return bool(written and datetime.fromisoformat(re.sub(r"\.\d+", "", value)))


def _uuid(value: Any) -> bool:
    return not isinstance(value, str) or str(uuid.UUID(value)) == value


FORMATS: Any = jsonschema.FormatChecker(formats=())
for _name, _check in {"ipv4": _ipv4, "ipv4-network": _ipv4_network, "date-time": _date_time, "uuid": _uuid}.items():
    FORMATS.checks(_name, raises=ValueError)(_check)


def _pattern(_: Any, pattern: str, instance: Any, __: Any) -> Iterator[jsonschema.ValidationError]:
    if isinstance(instance, str) and not _compiled(pattern).search(instance):
        yield jsonschema.ValidationError("pattern")


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\$$", r"\\Z", pattern), re.ASCII)


def _is_integer(_: Any, value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _unique_items(_: Any, unique: bool, instance: Any, __: Any) -> Iterator[jsonschema.ValidationError]:
    """The library's own takes time by the square of the length for what cannot be sorted."""
    different = {json.dumps(item, sort_keys=True) for item in instance} if isinstance(instance, list) else instance
    if unique and len(different) < len(instance):
        yield jsonschema.ValidationError("uniqueItems")


Validator: Any = extend(  # type: ignore[no-untyped-call]
    jsonschema.Draft202012Validator, {"pattern": _pattern, "uniqueItems": _unique_items},
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer))

SENTENCES: Mapping[str, Callable[[Any], str]] = {
    "type": lambda rule: f"Must be {'an' if rule[0] in 'aio' else 'a'} {rule}.",
    "enum": lambda rule: f"Must be one of {', '.join(map(str, rule))}.",
    "minimum": lambda rule: f"Must be at least {rule}.",
    "maximum": lambda rule: f"Must be at most {rule}.",
    "minLength": lambda rule: f"Must have at least {rule} characters.",
    "maxLength": lambda rule: f"Must have at most {rule} characters.",
    "minItems": lambda rule: f"Must have at least {rule} elements.",
    "maxItems": lambda rule: f"Must have at most {rule} elements.",
    "maxProperties": lambda rule: f"Must have at most {rule} members.",
    "uniqueItems": lambda rule: "Must not have the same element twice.",
    "pattern": lambda rule: f"Must match {rule}.",
    "format": lambda rule: f"Must be {FORMAT_WORDS[rule]}.",
}
FORMAT_WORDS: Mapping[str, str] = {
    "ipv4": "an IPv4 address", "uuid": "a UUID",
    "ipv4-network": "an IPv4 network such as 10.1.0.0/24, host bits zero, /8 to /29",
    "date-time": "a time of RFC 3339 such as 2026-11-22T10:00:00Z",
}


def _faults(error: Any) -> Iterator[Fault]:
    here = "".join(f"/{escape(str(step))}" for step in error.absolute_path)
    rule, keyword = error.validator_value, str(error.validator)
    if keyword == "additionalProperties":
        for name in sorted(set(error.instance) - set(error.schema.get("properties", {}))):
            yield Fault(f"{here}/{escape(name)}", "unknown_field", "There is no such field.")
    elif keyword == "required":
        for name in rule:
            if name not in error.instance:
                yield Fault(f"{here}/{escape(name)}", "required", "This field is required.")
    elif "propertyNames" in error.absolute_schema_path:
        sentence = SENTENCES[keyword](rule)
        yield Fault(here, "propertyNames", f"A key of it {sentence[0].lower()}{sentence[1:]}")
    else:
        yield Fault(here, keyword, SENTENCES[keyword](rule))


# --- what follows from a schema ------------------------------------------------------------------

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
                         for fault in islice(_faults(error), MOST)},
                        key=lambda fault: fault.pointer)
        if faults:
            first = faults[0]
            raise Problem("invalid", f"{first.pointer}: {first.detail}", faults)

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
    if "x-refers-to" in schema and _compiled(schema["pattern"]).search("other/name"):
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

    def carried(self, kind: str, minor: int | None, spec: Mapping[str, Any], before: Mapping[str, Any]) -> Any:
        """The spec with those fields of `before` that a client of this minor cannot know, where it left them out."""
        if minor is None:
            return spec
        return _carry(self.kinds[kind].document, self.released[minor].get(kind, {}), spec, before)

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
    released = {int(path.name.partition(".")[2]): {file.stem: json.loads(file.read_text())
                                                   for file in path.glob("*.json")}
                for path in (root / "released").glob("1.*")}
    return Catalogue({schema.kind: schema for schema in loaded},
                     {code: ErrorEntry(**entry) for code, entry in registry.items()}, released)


def _inlined(node: Any, common: Mapping[str, Any]) -> Any:
    if isinstance(node, list):
        return [_inlined(item, common) for item in node]
    if not isinstance(node, dict):
        return node
    own = {key: _inlined(value, common) for key, value in node.items() if key != "$ref"}
    if "$ref" not in node:
        return own
    return {**_inlined(common["$defs"][node["$ref"].rsplit("/", 1)[1]], common), **own}
