"""JSON and JSON Schema as this API takes them: strictly.

Taken literally both are kinder than an API may be. So JSON with a key given twice, NaN, a number beyond
range or a nesting bomb is refused before a schema sees it; and of JSON Schema `format` is asserted for the
few formats we use, `$` means the end of the text (not a newline before it), `\\d` is ASCII, and `1.0` is no
integer. What a refusal says never repeats the value refused, which may be a secret.
"""
from __future__ import annotations

import ipaddress
import json
import math
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import partial
from typing import Any

import jsonschema
from jsonschema.validators import extend

from wisp.errors import Fault, Problem

DEPTH = 64
"""How deep a body may nest."""


# --- strict JSON ---------------------------------------------------------------------------------

def loads(raw: bytes) -> Any:
    """JSON as this API takes it. Raises Problem `malformed`."""
    try:
        text = raw.decode("utf-8")
        _refuse_nesting(text)
        twice: list[tuple[Any, str]] = []
        value = json.loads(text, object_pairs_hook=partial(_noting, twice), parse_constant=_no_constant,
                           parse_float=_finite)
        if twice:               # the last noted is the outermost: it is not in a value that was given up itself
            _refuse_twice(value, *twice[-1])
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


def _noting(twice: list[tuple[Any, str]], pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for key, value in pairs:
        if key in seen:
            twice.append((seen, key))
        seen[key] = value
    return seen


def _refuse_twice(whole: Any, owner: Any, key: str) -> None:
    """The parser does not know where it is, so the place is looked for afterwards."""
    pointer = f"{_place(whole, owner, '') or ''}/{escape(key)}"
    fault = Fault(pointer, "duplicate_key", "This key is given twice.")
    raise Problem("malformed", f"The body gives the key {key!r} twice.", [fault])


def _place(node: Any, sought: Any, pointer: str) -> str | None:
    if node is sought:
        return pointer
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    places = (_place(each, sought, f"{pointer}/{escape(str(step))}") for step, each in pairs)
    return next((place for place in places if place is not None), None)


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


def _ipv4_prefix(value: Any, longest: int = 32) -> bool:
    if not isinstance(value, str):
        return True
    network = ipaddress.IPv4Network(value)
    return "/" in value and str(network) == value and 8 <= network.prefixlen <= longest


def _ipv4_network(value: Any) -> bool:
    return _ipv4_prefix(value, longest=29)


def _date_time(value: Any) -> bool:
    if not isinstance(value, str):
        return True
    written = re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", value, re.ASCII)
    return bool(written and datetime.fromisoformat(re.sub(r"\.\d+", "", value)))


def _uuid(value: Any) -> bool:
    return not isinstance(value, str) or str(uuid.UUID(value)) == value


FORMATS: Any = jsonschema.FormatChecker(formats=())
for _name, _check in {"ipv4": _ipv4, "ipv4-network": _ipv4_network, "ipv4-prefix": _ipv4_prefix,
                      "date-time": _date_time, "uuid": _uuid}.items():
    FORMATS.checks(_name, raises=ValueError)(_check)


def _pattern(_: Any, pattern: str, instance: Any, __: Any) -> Iterator[jsonschema.ValidationError]:
    if isinstance(instance, str) and not compiled(pattern).search(instance):
        yield jsonschema.ValidationError("pattern")


def compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\$$", r"\\Z", pattern), re.ASCII)


def _is_integer(_: Any, value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _unique_items(_: Any, unique: bool, instance: Any, __: Any) -> Iterator[jsonschema.ValidationError]:
    """The library's own takes time by the square of the length for what cannot be sorted."""
    items = instance if isinstance(instance, list) else []
    if unique and len({json.dumps(item, sort_keys=True) for item in items}) < len(items):
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
    "ipv4-prefix": "an IPv4 prefix such as 203.0.113.8/29, host bits zero, /8 to /32",
    "date-time": "a time of RFC 3339 such as 2026-11-22T10:00:00Z",
}


def faults_of(error: Any) -> Iterator[Fault]:
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
