"""The schema files are the single source of truth; these tests keep them inside the profile that all readers share."""
from __future__ import annotations

import ast
import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from wisp import catalogue
from wisp.dialect import FORMAT_WORDS, FORMATS, SENTENCES, Validator
from wisp.kinds import KINDS

ROOT = catalogue.directory()
FILES = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "v1").glob("*.json"))}
SPECS = {name: document for name, document in FILES.items() if name != "common"}
META = Draft202012Validator(json.loads((ROOT / "meta.json").read_text()))
CATALOGUE = catalogue.load()
SOURCES = [ast.parse(path.read_text()) for path in sorted(Path(catalogue.__file__).parent.rglob("*.py"))]


def nodes(document: Any) -> Iterator[dict[str, Any]]:
    """Every object in a document."""
    if isinstance(document, dict):
        yield document
    for child in document.values() if isinstance(document, dict) else document if isinstance(document, list) else ():
        yield from nodes(child)


def fields(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema of a spec below its top, with its place; references put in place."""
    for name, field in schema.get("properties", {}).items():
        yield f"{path}/{name}", field
        yield from fields(field, f"{path}/{name}")
    if "items" in schema:
        yield f"{path}/*", schema["items"]
        yield from fields(schema["items"], f"{path}/*")


FIELDS = {f"{kind}{path}": field for kind, schema in CATALOGUE.kinds.items() for path, field in fields(dict(schema.document))}


@pytest.mark.parametrize("kind", SPECS)
def test_every_file_obeys_the_schema_for_schemas(kind: str) -> None:
    assert [error.message for error in META.iter_errors(SPECS[kind])] == []


def test_there_is_a_file_for_every_kind_and_a_kind_for_every_file() -> None:
    assert set(CATALOGUE.kinds) == set(KINDS) == set(SPECS)
    assert len(CATALOGUE.by_plural) == len(KINDS)
    assert all(SPECS[kind]["$id"] == f"{kind}.json" and SPECS[kind]["title"] == kind for kind in SPECS)


FORBIDDEN: dict[str, Callable[[dict[str, Any]], object]] = {
    "a type of null": lambda spec: spec["cpus"].update(type="null"),
    "several types": lambda spec: spec["cpus"].update(type=["integer", "string"]),
    "a field without a description": lambda spec: spec["cpus"].pop("description"),
    "a nested field without a description": lambda spec: spec["disks"]["items"]["properties"]["size_gib"].pop("description"),
    "a word of nobody's": lambda spec: spec["cpus"].update({"x-magic": True}),
    "an open object": lambda spec: spec["placement"].update(additionalProperties=True),
    "an object that does not say it is closed": lambda spec: spec["placement"].pop("additionalProperties"),
    "an endless array": lambda spec: spec["disks"].pop("maxItems"),
    "an array of anything": lambda spec: spec["disks"].pop("items"),
    "a set of objects": lambda spec: spec["disks"].update(uniqueItems=True),
    "a choice of numbers": lambda spec: spec["power"].update(enum=[1, 2]),
    "a choice of schemas": lambda spec: spec["cpus"].update(oneOf=[{}, {}]),
    "a pattern that is not anchored": lambda spec: spec["user_data"].update(pattern="a+"),
    "a format that nobody checks": lambda spec: spec["user_data"].update(format="email"),
    "a unit that nobody knows": lambda spec: spec["memory_mib"].update({"x-unit": "MB"}),
    "a reference whose end is not told": lambda spec: spec["user_data"].update({"x-refers-to": {"kind": "image"}}),
    "a reference to another file": lambda spec: spec.update(odd={"$ref": "image.json", "description": "Odd one."}),
    "immutable: false": lambda spec: spec["cpus"].update({"x-immutable": False}),
    "Terraform's own name": lambda spec: spec.update(count=dict(spec["cpus"])),
    "our own name": lambda spec: spec.update(metadata=dict(spec["cpus"])),
    "an upper-case name": lambda spec: spec.update(Cpus=dict(spec["cpus"])),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_what_not_all_readers_can_map_is_refused(what: str) -> None:
    document = copy.deepcopy(SPECS["instance"])
    FORBIDDEN[what](document["properties"])
    assert not META.is_valid(document)


@pytest.mark.parametrize("word", ["x-kind", "x-status", "examples", "description", "additionalProperties"])
def test_a_file_without_one_of_the_words_that_are_read_is_refused(word: str) -> None:
    document = copy.deepcopy(SPECS["instance"])
    del document[word]
    assert not META.is_valid(document)


@pytest.mark.parametrize("kind", SPECS)
def test_every_example_is_valid_and_filling_it_twice_is_filling_it_once(kind: str) -> None:
    schema = CATALOGUE.kinds[kind]
    for example in SPECS[kind]["examples"]:
        schema.validate({"spec": example})
        filled = schema.filled(example)
        schema.validate({"spec": filled})
        assert schema.filled(filled) == filled


@pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS)
def test_a_default_is_valid_and_whole(field: dict[str, Any]) -> None:
    if "default" in field:
        assert catalogue._fill(field, field["default"]) == field["default"], "an object's default holds its fields' defaults"
        assert Validator(field, format_checker=FORMATS).is_valid(field["default"])


@pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS)
def test_what_is_required_has_no_default(field: dict[str, Any]) -> None:
    """Terraform takes no provider in which a field is both."""
    for name in field.get("required", ()):
        assert "default" not in field["properties"][name], name


@pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS)
def test_an_optional_string_is_never_empty(field: dict[str, Any]) -> None:
    if field.get("type") == "string":
        assert not Validator(field, format_checker=FORMATS).is_valid("")


def test_only_fields_at_the_top_are_write_only_and_none_of_them_has_a_default() -> None:
    for kind, schema in CATALOGUE.kinds.items():
        hidden = {path.strip("/") for path, field in fields(dict(schema.document)) if field.get("writeOnly")}
        assert hidden == schema.hidden, kind
        assert not any("default" in schema.document["properties"][name] for name in hidden)


def test_every_format_used_is_asserted_and_has_words() -> None:
    definitions = [field for node in nodes(FILES) for field in (node.get("properties"), node.get("$defs")) if field]
    used = {field["format"] for group in definitions for field in group.values() if isinstance(field.get("format"), str)}
    used |= {field["format"] for field in FIELDS.values() if "format" in field}
    assert "ipv4" in used and used <= FORMATS.checkers.keys() and used <= FORMAT_WORDS.keys()


def test_every_rule_used_has_a_sentence() -> None:
    told_otherwise = {"additionalProperties", "required", "properties", "items", "propertyNames", "title", "description",
                      "default", "writeOnly", "examples", "$ref", "$schema", "$id"}
    rules = {word for schema in CATALOGUE.kinds.values() for node in [dict(schema.document), *(f for _, f in fields(dict(schema.document)))]
             for word in node if not word.startswith("x-")}
    assert rules - told_otherwise <= SENTENCES.keys()


def test_every_reference_names_a_kind() -> None:
    assert {rule["x-refers-to"]["kind"] for rule in nodes(SPECS) if "x-refers-to" in rule} <= KINDS.keys()


def raised() -> set[str]:
    """Codes given to a Problem, and to what makes one, as far as they stand there as text."""
    calls = (node for tree in SOURCES for node in ast.walk(tree) if isinstance(node, ast.Call))
    named = {"Problem": 0, "refuse": 1, "refused": 0}
    found = ((call, named[call.func.id]) for call in calls if isinstance(call.func, ast.Name) and call.func.id in named)
    return {call.args[place].value for call, place in found  # type: ignore[attr-defined]
            if len(call.args) > place and isinstance(call.args[place], ast.Constant)}


def test_every_code_that_is_raised_is_in_the_registry() -> None:
    assert "in_use" in raised() and "immutable" in raised()
    assert raised() <= CATALOGUE.errors.keys()


def test_every_code_in_the_registry_is_used_by_name_or_is_the_one_for_its_http_status() -> None:
    texts = {node.value for tree in SOURCES for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    by_status = {entry.status: code for code, entry in reversed(list(CATALOGUE.errors.items()))}
    assert CATALOGUE.errors.keys() - texts <= set(by_status.values())


def test_every_code_has_its_status_and_its_words() -> None:
    for code, entry in CATALOGUE.errors.items():
        assert 400 <= entry.status < 600 and entry.title and entry.description.endswith("."), code


def test_nothing_in_a_file_names_what_only_one_reader_knows() -> None:
    """`null` and recursion cannot be mapped; a `$ref` that reaches itself would not end."""
    assert all(value is not None for node in nodes(FILES) for value in node.values())
    for name, definition in FILES["common"]["$defs"].items():
        assert f"#/$defs/{name}" not in json.dumps(definition)
