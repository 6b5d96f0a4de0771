"""`/openapi.json` is OpenAPI, describes what is there and nothing else, and what is answered is what it says."""
from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from falcon import inspect, testing
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from strict import closed
from wisp import catalogue
from wisp.api import build
from wisp.api.openapi import METHODS, describe, pascal
from wisp.dialect import FORMATS, Validator

CATALOGUE = catalogue.load()
NOT_DESCRIBED = {"/docs/{file}"}     # what the page is made of
SHOWN = "#/components/schemas/"


@pytest.fixture
def described(cloud: Any) -> dict[str, Any]:
    answer = cloud.ask("nobody", "GET", "/openapi.json")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    return answer.json  # type: ignore[no-any-return]


def operations(described: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for address, item in described["paths"].items():
        yield from ((address, method, item[method]) for method in METHODS if method in item)


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nodes(child)


def at(described: dict[str, Any], pointer: str) -> Any:
    value: Any = described
    for step in pointer.removeprefix("#/").split("/"):
        value = value[step]
    return value


def found(described: dict[str, Any], value: Any) -> Any:
    return at(described, value["$ref"]) if "$ref" in value else value


def test_it_is_openapi(described: dict[str, Any]) -> None:
    assert [error.message for error in OpenAPIV31SpecValidator(described).iter_errors()] == []
    assert described["openapi"].startswith("3.1")


def test_every_schema_in_it_is_json_schema_and_every_reference_leads_somewhere(described: dict[str, Any]) -> None:
    for schema in described["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for node in nodes(described):
        if isinstance(node.get("$ref"), str):
            at(described, node["$ref"])


def test_every_route_is_described_and_nothing_else(cloud: Any, described: dict[str, Any]) -> None:
    routed = set()
    for route in inspect.inspect_routes(cloud.app):
        named = re.sub(r"\{\w+\}", "{}", route.path)
        routed |= {(named, method.method.lower()) for method in route.methods if not method.internal}
    there = {(re.sub(r"\{\w+\}", "{}", address), method) for address, method, _ in operations(described)}
    assert routed - {(re.sub(r"\{\w+\}", "{}", address), "get") for address in NOT_DESCRIBED} == there


def test_a_route_that_nobody_described_is_noticed() -> None:
    with pytest.raises(KeyError):
        describe(CATALOGUE, {"/v1/secret-passage": object()})


def test_a_client_may_name_a_version_that_comes_later() -> None:
    schema = describe(replace(CATALOGUE, released={0: {}, 1: {}}), {})["components"]["parameters"]["Wisp-Version"]["schema"]
    named = Draft202012Validator(schema)
    assert schema["examples"] == ["1.0", "1.1"]
    assert all(map(named.is_valid, ["1.0", "1.1", "1.2", "1.10"]))
    assert not any(map(named.is_valid, ["2.0", "1", "1.x", "1.01", "v1.0"]))


def test_every_kind_has_every_operation(described: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(described)]
    assert len(ids) == len(set(ids))
    for schema in CATALOGUE.kinds.values():
        one, many = pascal(schema.kind), pascal(schema.plural)
        assert {f"list{many}", f"get{one}", f"put{one}", f"delete{one}", f"list{one}Events"} <= set(ids)


def test_nothing_of_the_template_is_left_in_it(described: dict[str, Any]) -> None:
    text = json.dumps(described)
    assert "problems\"" not in text and not re.search(r"\{(a )?[Kk]inds?\}", text)


def test_the_places_in_an_address_are_its_parameters(described: dict[str, Any]) -> None:
    for address, _, operation in operations(described):
        known = [found(described, parameter) for parameter in operation["parameters"]]
        assert [each["name"] for each in known if each["in"] == "path"] == re.findall(r"\{(\w+)\}", address)


def test_every_field_is_described_in_a_sentence(described: dict[str, Any]) -> None:
    for name, schema in described["components"]["schemas"].items():
        for node in nodes(schema):
            for field, value in node["properties"].items() if isinstance(node.get("properties"), dict) else ():
                words = found(described, value)["description"]
                assert words.endswith(".") and len(words.split()) > 1, f"{name}: {field}"


def test_a_link_leads_to_an_operation_and_names_parameters_of_it(described: dict[str, Any]) -> None:
    known = {operation["operationId"]: {f"{parameter['in']}.{parameter['name']}" for parameter in (
        found(described, each) for each in operation["parameters"])}
        for _, _, operation in operations(described)}
    links = [(name, link) for _, _, operation in operations(described) for answer in operation["responses"].values()
             for name, link in answer.get("links", {}).items()]
    assert {"getNetwork", "deleteNetwork", "putNetwork", "listNetworks", "listChanges"} <= {name for name, _ in links}
    for name, link in links:
        assert link["operationId"] == name and link["parameters"].keys() <= known[name]
        assert {place for place in known[name] if place.startswith("path.")} <= link["parameters"].keys()


def test_every_code_of_the_registry_is_an_answer_of_something(described: dict[str, Any]) -> None:
    answered = {code for response in described["components"]["responses"].values()
                for code in response["content"]["application/problem+json"]["examples"]}
    assert answered == CATALOGUE.errors.keys() - {"method_not_allowed"}     # which is of methods that are not described


def test_every_refusal_comes_with_its_status_its_headers_and_an_example_that_is_one(described: dict[str, Any]) -> None:
    for _, _, operation in operations(described):
        for status, response in operation["responses"].items():
            if int(status) < 400 or "$ref" not in response:
                continue
            response = found(described, response)
            content = response["content"]["application/problem+json"]
            assert {CATALOGUE.errors[code].status for code in content["examples"]} == {int(status)}
            for example in content["examples"].values():
                assert faults(described, content["schema"], example["value"]) == []
            assert (status in ("429", "503")) <= ("Retry-After" in response["headers"])
            assert (status == "401") == ("WWW-Authenticate" in response["headers"])


def test_what_needs_a_key_says_so(cloud: Any, described: dict[str, Any]) -> None:
    for address, method, operation in operations(described):
        open_to_all = operation.get("security") == []
        answer = cloud.ask("nobody", method.upper(), re.sub(r"\{\w+\}", "web", address))
        assert (answer.status_code != 401) == open_to_all == ("401" not in operation["responses"]), address


def test_a_body_that_is_an_example_is_one(described: dict[str, Any]) -> None:
    for address, _, operation in operations(described):
        if "requestBody" in operation:
            content = operation["requestBody"]["content"]["application/json"]
            assert content["examples"], address
            for example in content["examples"].values():
                assert faults(described, content["schema"], example["value"]) == []


def test_it_is_of_the_version_that_the_front_page_names(cloud: Any, described: dict[str, Any]) -> None:
    front = cloud.ask("nobody", "GET", "/").json
    assert described["info"]["version"] == f"1.{front['minor']}"
    assert {"/docs", "/openapi.json"} <= set(front["links"])


def test_that_version_is_the_newest_that_was_released(cloud: Any) -> None:
    client = testing.TestClient(build(cloud.resources, replace(CATALOGUE, released={0: {}, 1: {}})))
    assert client.simulate_get("/").json["minor"] == 1
    assert client.simulate_get("/openapi.json").json["info"]["version"] == "1.1"


def reached(described: dict[str, Any], value: Any) -> Iterator[dict[str, Any]]:
    """Every node of a schema, through its references."""
    for node in nodes(value):
        yield node
        if isinstance(node.get("$ref"), str):
            yield from reached(described, at(described, node["$ref"]))


def test_a_request_is_held_to_what_is_listed(described: dict[str, Any]) -> None:
    asked = [operation["requestBody"]["content"] for _, _, operation in operations(described) if "requestBody" in operation]
    objects = [node for node in reached(described, asked) if node.get("type") == "object" and "properties" in node]
    assert objects and all(node["additionalProperties"] is False for node in objects)


def test_an_answer_may_have_members_that_came_later_and_none_that_are_only_sent(described: dict[str, Any]) -> None:
    answers = [found(described, answer).get("content") for _, _, operation in operations(described) for answer in operation["responses"].values()]
    told = list(reached(described, answers))
    assert described["components"]["schemas"]["InstanceStatus"] in told
    assert not any(node.get("additionalProperties") is False or node.get("writeOnly") for node in told)


def test_an_answer_may_have_values_that_came_later_and_a_request_may_not(described: dict[str, Any]) -> None:
    answers = [found(described, answer).get("content") for _, _, operation in operations(described) for answer in operation["responses"].values()]
    assert {tuple(node["enum"]) for node in reached(described, answers) if "enum" in node} == {("True", "False", "Unknown")}
    asked, told = (at(described, f"{SHOWN}{name}/properties/video") for name in ("InstanceSpec", "InstanceSpecShown"))
    assert asked["enum"] == told["examples"]


# --- what is answered is what is described

def faults(described: dict[str, Any], schema: dict[str, Any], value: Any) -> list[str]:
    whole = {"$ref": "#/components/schemas/-", "components": {"schemas": described["components"]["schemas"] | {"-": schema}}}
    return [error.message for error in Validator(whole, format_checker=FORMATS).iter_errors(value)]


class Judge:
    """Asks, and holds the answer against its description; nothing may be in it that is not described."""

    def __init__(self, cloud: Any, described: dict[str, Any]) -> None:
        self.cloud, self.described = cloud, closed(described)
        self.by_id = {operation["operationId"]: (address, method, operation) for address, method, operation in operations(described)}

    def __call__(self, operation: str, status: int, spec: Any = None, query: str = "", who: str = "root", **places: str) -> Any:
        address, method, told = self.by_id[operation]
        body, headers = (None, {}) if spec is None else (json.dumps({"spec": spec}), {"Content-Type": "application/json"})
        path = address.format(**places) + query
        answer = self.cloud.ask(who, method.upper(), path, body, headers)
        assert answer.status_code == status, f"{operation}: {answer.text}"
        response = found(self.described, told["responses"][str(status)])
        for name, header in response["headers"].items():
            assert name.lower() in answer.headers or not found(self.described, header).get("required"), f"{operation}: {name}"
        assert answer.headers.keys() & {"etag", "location", "retry-after"} <= {name.lower() for name in response["headers"]}, operation
        if "content" in response:
            schema = response["content"][answer.headers["content-type"]]["schema"]
            assert faults(self.described, schema, answer.json if "json" in answer.headers["content-type"] else answer.text) == [], operation
        else:
            assert answer.text == "", operation
        return answer


@pytest.fixture
def judge(cloud: Any, described: dict[str, Any]) -> Judge:
    return Judge(cloud, described)


LIVES = {
    "image": {"source": {"kind": "url", "url": "http://images.example/a"}, "sha256": "a" * 64},
    "instance": {"cpus": 1, "memory_mib": 64, "disks": [{"size_gib": 1}], "user_data": "#!/bin/sh", "networks": []},
    "key": {"role": "viewer"}, "namespace": {}, "network": {"cidr": "10.1.0.0/24"},
}


@pytest.mark.parametrize("kind", LIVES)
def test_a_life_goes_as_described(judge: Judge, kind: str) -> None:
    schema = CATALOGUE.kinds[kind]
    inside = {} if schema.cluster else {"namespace": "web"}
    here, one, many = {**inside, "name": "one"}, pascal(kind), pascal(schema.plural)
    judge(f"put{one}", 200, LIVES[kind], "?dry_run=true", **here)
    judge(f"put{one}", 201, LIVES[kind], **here)
    judge(f"put{one}", 200, LIVES[kind], **here)
    judge(f"put{one}", 422, {"colour": "red"}, **here)
    judge(f"put{one}", 401, LIVES[kind], who="nobody", **here)
    judge(f"put{one}", 403, LIVES[kind], who="viewer", **({"name": "web"} if schema.cluster else here))
    judge(f"get{one}", 200, **here)
    judge(f"get{one}", 404, **{**here, "name": "none"})
    page = judge(f"list{many}", 200, None, "?limit=1", **inside).json
    assert "next" in page or kind not in ("key", "namespace")
    judge(f"list{many}", 400, None, "?limit=0", **inside)
    judge(f"list{one}Events", 200, **here)
    judge("listChanges", 200, None, "?since=1&wait=0")
    judge(f"delete{one}", 204, **here)
    judge("listChanges", 200, None, "?since=1&wait=0")


def test_the_rest_goes_as_described(judge: Judge) -> None:
    for operation in ("front", "alive", "ready", "openapi", "docs"):
        judge(operation, 200, who="nobody")
    judge("audit", 200)
    judge("audit", 403, who="admin")
    judge("getNode", 200, name="n1")
    judge("listNodes", 200)
    judge("putInstance", 507, {**LIVES["instance"], "cpus": 200}, namespace="web", name="big")
    judge("putInstance", 422, {**LIVES["instance"], "disks": [{"image": "none", "size_gib": 1}]}, namespace="web", name="one")


@pytest.mark.parametrize(("schema", "member"), [("Network", "uid"), ("NetworkSpecShown", "cidr"), ("NetworkBinding", "vni"), ("NetworkStatus", "conditions"),
                                                ("Condition", "since"), ("Problem", "detail")])
def test_the_judge_is_strict(cloud: Any, described: dict[str, Any], schema: str, member: str) -> None:
    broken = copy.deepcopy(described)
    del broken["components"]["schemas"][schema]["properties"][member]
    broken["components"]["schemas"][schema]["required"] = []
    judge = Judge(cloud, broken)
    with pytest.raises(AssertionError, match=member):
        judge("putNetwork", 201, LIVES["network"], namespace="web", name="lan")
        judge("putNetwork", 422, {}, namespace="web", name="lan")
