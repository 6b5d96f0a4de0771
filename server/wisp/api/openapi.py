"""`/openapi.json`: the whole API as OpenAPI 3.1, put together from the routes, the schema files and the registry.

What no schema file knows (parameters, headers, and the operations, once for all kinds) is written in
`outline.json` as OpenAPI has it, but for two words: `{Kind}` and the like stand for a kind's names, and
`problems` lists the codes that an operation may answer with. Each route finds its operations there: those
of a kind by what it is (a collection, a document, its events), the others by their address. So a new kind
is described the moment its schema exists, and a new address without a description fails the tests.

The schema files are closed: each says what its own version knows. A request is held to that; what is
answered may have members and values that came later, so it is described open, or a client that checks its
answers would break on the day the server is newer: of an enum the values become examples.
"""
from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import falcon

from wisp.api import request
from wisp.api.documents import Kind, answer
from wisp.api.problems import MEDIA_TYPE, document
from wisp.catalogue import Catalogue, ErrorEntry, Schema, directory
from wisp.errors import Problem

OUTLINE = Path(__file__).with_name("outline.json")
METHODS = ("get", "put", "delete")
CERTAINTY = ["True", "False", "Unknown"]
"""Of a condition: the one enum in answers that never gains a value."""
OURS = ("$schema", "$id", "title", "x-kind", "x-status")
Json = dict[str, Any]


class OpenApi:
    """The resource at `/openapi.json`. `routes`: address as Falcon has it -> what answers there."""

    def __init__(self, catalogue: Catalogue, routes: Mapping[str, object]) -> None:
        self._catalogue, self._routes = catalogue, routes

    @cached_property
    def document(self) -> Json:
        return describe(self._catalogue, self._routes)

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        request.parameters(req, ())
        answer(resp, self.document)


def describe(catalogue: Catalogue, routes: Mapping[str, object]) -> Json:
    outline = json.loads(OUTLINE.read_text())
    templates, plain = outline.pop("kinds"), outline["paths"]
    outline["info"]["version"] = f"1.{catalogue.minor}"
    outline["paths"] = dict(sorted(_addressed(*route, templates, plain) for route in routes.items()))
    version = outline["components"]["parameters"]["Wisp-Version"]
    version["schema"]["examples"] = [f"1.{minor}" for minor in sorted(catalogue.released)]
    outline["tags"] += [{"name": schema.plural, "description": schema.document["description"]}
                        for schema in catalogue.kinds.values()]
    responses: Json = {}
    for address, item in outline["paths"].items():
        for operation in (item[method] for method in METHODS if method in item):
            _place(operation, address)
            for status, name, response in _problems(operation.pop("problems"), catalogue.errors):
                responses[name] = response
                operation["responses"].setdefault(str(status), _ref("responses", name))
    outline["components"] |= {"responses": responses, "schemas": _schemas(catalogue)}
    return outline  # type: ignore[no-any-return]


def _ref(section: str, name: str) -> Json:
    return {"$ref": f"#/components/{section}/{name}"}


def pascal(name: str) -> str:
    """`floating-ip` -> `FloatingIp`."""
    return "".join(part.capitalize() for part in re.split("[-_]", name))


# --- addresses

def _addressed(address: str, resource: object, templates: Json, plain: Json) -> tuple[str, Json]:
    """The address as it is published, and its operations."""
    if not isinstance(resource, Kind):
        return address, plain[address]
    schema = resource.schema
    words = {"{Kinds}": pascal(schema.plural), "{kinds}": schema.plural, "{Kind}": pascal(schema.kind),
             "{kind}": schema.kind, "{a kind}": f"{'an' if schema.kind[0] in 'aeiou' else 'a'} {schema.kind}"}
    text = json.dumps(templates[type(resource).__name__])
    for word, name in words.items():
        text = text.replace(word, name)
    item: Json = json.loads(text)
    if "put" in item:
        content = item["put"]["requestBody"]["content"]["application/json"]
        content["examples"] = {f"{schema.kind}-{number}": {"value": {"spec": example}}
                               for number, example in enumerate(schema.document["examples"], 1)}
    return resource.published(address), item


def _place(operation: Json, address: str) -> None:
    """The address's own parameters, for it and its links; a link is named after the operation that it leads to."""
    places = re.findall(r"\{(\w+)\}", address)
    operation["parameters"] = [_ref("parameters", place) for place in places] + operation.get("parameters", [])
    here = {f"path.{place}": f"$request.path.{place}" for place in places}
    for answered in operation["responses"].values():
        answered.setdefault("headers", {})["X-Request-Id"] = _ref("headers", "X-Request-Id")
        for name, link in answered.get("links", {}).items():
            link |= {"operationId": name, "parameters": here | link.get("parameters", {})}


# --- refusals

def _problems(codes: Iterable[str], registry: Mapping[str, ErrorEntry]) -> Iterator[tuple[int, str, Json]]:
    """For each HTTP status: a name, and the response that any of these codes with that status makes."""
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(registry[code].status, []).append(code)
    for status, same in by_status.items():
        yield status, ".".join(same), _problem(status, same, registry)


def _problem(status: int, codes: list[str], registry: Mapping[str, ErrorEntry]) -> Json:
    names = ["X-Request-Id", *(["WWW-Authenticate"] if status == 401 else []),
             *(["Retry-After"] if any(registry[code].retryable for code in codes) else [])]
    narrowed = {"properties": {"status": {"const": status}, "code": {"examples": codes}}}
    examples = {code: {"value": document(Problem(code, registry[code].description), registry, "tf-apply.7")}
                for code in codes}
    return {"description": "\n\n".join(f"[`{code}`](/docs#{code}): {registry[code].description}" for code in codes),
            "headers": {name: _ref("headers", name) for name in names},
            "content": {MEDIA_TYPE: {"schema": {"allOf": [_ref("schemas", "Problem"), narrowed]},
                                     "examples": examples}}}


# --- documents

def _schemas(catalogue: Catalogue) -> Json:
    text = (directory() / "v1/common.json").read_text()
    text = re.sub(r"#/\$defs/(\w+)", lambda found: f"#/components/schemas/{pascal(found[1])}", text)
    schemas = {pascal(name): _open(definition) for name, definition in json.loads(text)["$defs"].items()}
    envelope, status = schemas.pop("Envelope"), schemas.pop("Status")
    each = {schema.kind: _ref("schemas", pascal(schema.kind)) for schema in catalogue.kinds.values()}
    mapping = {kind: shown["$ref"] for kind, shown in each.items()}
    schemas["Resource"] = {"description": "A resource of any kind.", "oneOf": list(each.values()),
                           "discriminator": {"propertyName": "kind", "mapping": mapping}}
    for schema in catalogue.kinds.values():
        schemas |= _kind(schema, envelope, status)
    return schemas


def _kind(schema: Schema, envelope: Json, status: Json) -> Json:
    name, shown, known = pascal(schema.kind), schema.document["x-status"], envelope["properties"]
    where = {} if schema.cluster else {"namespace": known["namespace"]}
    members = {word: field for word, field in known.items() if word != "namespace"} | where | {
        "kind": {**known["kind"], "const": schema.kind},
        **{part: _ref("schemas", f"{name}{part.capitalize()}") for part in ("binding", "status")},
        "spec": _ref("schemas", f"{name}SpecShown")}
    page = {"items": {"description": "In order of their names.", "type": "array", "items": _ref("schemas", name)},
            "revision": _ref("schemas", "Revision"),
            "next": {"description": "`after` of the next page; absent on the last.", "type": "string"}}
    spec = {word: value for word, value in schema.document.items() if word not in OURS}
    body = {"metadata": _ref("schemas", "Metadata"), "spec": _ref("schemas", f"{name}Spec")}
    return {
        name: {**envelope, "properties": members, "required": [*envelope["required"], *where]},
        f"{name}Spec": spec,
        f"{name}SpecShown": _open(spec),
        f"{name}Binding": {"description": known["binding"]["description"], **_open(shown["binding"])},
        f"{name}Status": {**status, "properties": {**status["properties"], **_open(shown["status"]["properties"])}},
        f"{name}Body": {"type": "object", "additionalProperties": False, "required": ["spec"], "properties": body},
        f"{name}Page": {"type": "object", "required": ["items", "revision"], "properties": page},
    }


def _open(node: Any) -> Any:
    """As it is answered: it may have members and values that are not listed, and no member that is only sent."""
    if isinstance(node, list):
        return [_open(each) for each in node]
    if not isinstance(node, dict):
        return node
    return {"examples" if name == "enum" and value != CERTAINTY else name: _open(value)
            for name, value in node.items()
            if (name, value) != ("additionalProperties", False)
            and not (isinstance(value, dict) and value.get("writeOnly"))}
