"""`/v1` only ever grows: the schema files of today still keep what each released version promised.

That the check would notice is shown on copies: each breaking change is made to one, alone, and is named; each
change that is growth is made to one, and passes.
"""
from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compat.noticed import noticed, released
from compat.releasing import current, release
from wisp import catalogue

SCHEMAS = catalogue.directory()
RELEASES = sorted((SCHEMAS / "released").glob("1.*"))
TODAY = current(SCHEMAS)


@pytest.mark.skipif(not RELEASES, reason="nothing is released yet")
@pytest.mark.parametrize("folder", RELEASES or [None], ids=lambda folder: folder.name if folder else "none")
def test_no_client_of_a_released_version_notices_a_change(folder: Path) -> None:
    assert noticed(released(folder), TODAY) == []


@pytest.mark.skipif(not RELEASES, reason="nothing is released yet")
@pytest.mark.parametrize("folder", RELEASES or [None], ids=lambda folder: folder.name if folder else "none")
def test_what_was_released_is_as_it_was_released(folder: Path) -> None:
    listed = dict(reversed(line.split("  ")) for line in (folder / "SHA256SUMS").read_text().splitlines())
    there = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.name != "SHA256SUMS"}
    assert there == listed


def properties(kind: str) -> Callable[[Any], dict[str, Any]]:
    return lambda files: files[kind]["properties"]  # type: ignore[no-any-return]


INSTANCE, NETWORK, KEY, IMAGE, NAMESPACE = (properties(kind) for kind in ("instance", "network", "key", "image", "namespace"))


def CONDITION(files: Any) -> Any:
    return files["common"]["$defs"]["condition"]["properties"]


NETWORKS, ONE = "/v1/namespaces/{namespace}/networks", "/v1/namespaces/{namespace}/networks/{name}"


def at(address: str, method: str) -> Callable[[Any], Any]:
    return lambda files: files["openapi"]["paths"][address][method]


LIST, PUT, FRONT = at(NETWORKS, "get"), at(ONE, "put"), at("/", "get")


def shared(section: str, name: str) -> Callable[[Any], Any]:
    return lambda files: files["openapi"]["components"][section][name]


LIMIT, TIMEOUT, ETAG = shared("parameters", "limit"), shared("parameters", "timeout"), shared("headers", "ETag")

BREAKING: dict[str, tuple[str, Callable[[Any], object]]] = {
    "a kind removed": ("network: removed", lambda now: now.pop("network")),
    "a kind at another address": ("network: its address changed", lambda now: now["network"]["x-kind"].update(plural="nets")),
    "a field removed": ("instance/firmware: removed", lambda now: INSTANCE(now).pop("firmware")),
    "a field of an element removed": ("instance/disks/*/bus: removed", lambda now: INSTANCE(now)["disks"]["items"]["properties"].pop("bus")),
    "a field of an object removed": ("instance/placement/node: removed", lambda now: INSTANCE(now)["placement"]["properties"].pop("node")),
    "an enum narrowed": ("instance/video: enum narrowed", lambda now: INSTANCE(now)["video"]["enum"].remove("vga")),
    "an enum where none was": ("key/rotation: enum narrowed", lambda now: KEY(now)["rotation"].update(enum=["a"])),
    "a field that became required": ("instance/networks: became required", lambda now: now["instance"]["required"].append("networks")),
    "a first requirement": ("key/role: became required", lambda now: now["key"].update(required=["role"])),
    "a new field that is required": ("instance/tpm: became required", lambda now: (
        INSTANCE(now).update(tpm={"type": "boolean"}), now["instance"]["required"].append("tpm"))),
    "an element's field that became required": ("instance/disks/*/image: became required", lambda now: INSTANCE(now)["disks"]["items"]["required"].append("image")),
    "a default changed": ("instance/power: default changed", lambda now: INSTANCE(now)["power"].update(default="off")),
    "a default removed": ("network/nat: default changed", lambda now: NETWORK(now)["nat"].pop("default")),
    "a default where none was": ("key/expires_at: default changed", lambda now: KEY(now)["expires_at"].update(default="2030-01-01T00:00:00Z")),
    "a default within an object's": ("namespace/quotas: default changed", lambda now: NAMESPACE(now)["quotas"].update(default={"cpus": 0})),
    "immutability added within an object": ("namespace/quotas/cpus: became immutable", lambda now: (
        NAMESPACE(now)["quotas"]["properties"]["cpus"].update({"x-immutable": True}))),
    "metadata that is there by itself": ("common/metadata: default changed", lambda now: now["common"]["$defs"]["metadata"].update(default={"a": "b"})),
    "immutability added": ("instance/cpus: became immutable", lambda now: INSTANCE(now)["cpus"].update({"x-immutable": True})),
    "a minimum raised": ("instance/memory_mib: minimum tightened", lambda now: INSTANCE(now)["memory_mib"].update(minimum=64)),
    "a maximum lowered": ("instance/cpus: maximum tightened", lambda now: INSTANCE(now)["cpus"].update(maximum=64)),
    "a maximum where none was": ("namespace/quotas/cpus: maximum tightened", lambda now: NAMESPACE(now)["quotas"]["properties"]["cpus"].update(maximum=9)),
    "a text shorter": ("instance/user_data: maxLength tightened", lambda now: INSTANCE(now)["user_data"].update(maxLength=1024)),
    "a text longer at least": ("key/rotation: minLength tightened", lambda now: KEY(now)["rotation"].update(minLength=8)),
    "a list shorter": ("network/dns_servers: maxItems tightened", lambda now: NETWORK(now)["dns_servers"].update(maxItems=1)),
    "a list that became a set": ("network/dns_servers: uniqueItems changed", lambda now: NETWORK(now)["dns_servers"].update(uniqueItems=True)),
    "a type changed": ("network/dhcp: type changed", lambda now: NETWORK(now)["dhcp"].update(type="string")),
    "a format changed": ("network/cidr: format changed", lambda now: NETWORK(now)["cidr"].update(format="ipv4")),
    "a pattern changed": ("key/secret: pattern changed", lambda now: KEY(now)["secret"].update(pattern="^[a-z]{32}$")),
    "a pattern where none was": ("key/rotation: pattern changed", lambda now: KEY(now)["rotation"].update(pattern="^[a-z]+$")),
    "a pattern changed where it is shared": ("image/sha256: pattern changed", lambda now: now["common"]["$defs"]["sha256"].update(pattern="^[0-9A-F]{64}$")),
    "names that became narrower": ("common/name: pattern changed", lambda now: now["common"]["$defs"]["name"].update(pattern="^[a-z]+$")),
    "fewer tags": ("common/metadata: maxProperties tightened", lambda now: now["common"]["$defs"]["metadata"].update(maxProperties=8)),
    "narrower tags": ("common/metadata/KEY: pattern changed", lambda now: now["common"]["$defs"]["metadata"]["propertyNames"].update(pattern="^[a-z]+$")),
    "shorter values of tags": ("common/metadata/VALUE: maxLength tightened", lambda now: now["common"]["$defs"]["metadata"]["additionalProperties"].update(maxLength=9)),
    "an object closed": ("common/metadata: closed", lambda now: now["common"]["$defs"]["metadata"].update(additionalProperties=False)),
    "a field that is hidden by now": ("image/source: writeOnly changed", lambda now: IMAGE(now)["source"].update(writeOnly=True)),
    "a secret that is shown by now": ("key/secret: writeOnly changed", lambda now: KEY(now)["secret"].pop("writeOnly")),
    "another unit": ("instance/memory_mib: x-unit changed", lambda now: INSTANCE(now)["memory_mib"].update({"x-unit": "GiB"})),
    "a field that refers by now": ("image/format: x-refers-to changed", lambda now: IMAGE(now)["format"].update({"x-refers-to": {"kind": "image", "when_gone": "refuse"}})),
    "a reference that holds what it names": ("instance/disks/*/image: x-refers-to changed", lambda now: (
        INSTANCE(now)["disks"]["items"]["properties"]["image"]["x-refers-to"].update(when_gone="refuse"))),
    "a field of binding removed": ("instance binding/interfaces/*/mac: removed", lambda now: (
        now["instance"]["x-status"]["binding"]["properties"]["interfaces"]["items"]["properties"].pop("mac"))),
    "a field of status removed": ("node status/mtu: removed", lambda now: now["node"]["x-status"]["status"]["properties"].pop("mtu")),
    "a field of status of another type": ("node status/mtu: type changed", lambda now: now["node"]["x-status"]["status"]["properties"]["mtu"].update(type="string")),
    "a member of the envelope removed": ("common/envelope/uid: removed", lambda now: now["common"]["$defs"]["envelope"]["properties"].pop("uid")),
    "a member of the envelope not always there": ("common/envelope/uid: no longer always there", lambda now: now["common"]["$defs"]["envelope"]["required"].remove("uid")),
    "a member of conditions removed": ("common/condition/since: removed", lambda now: now["common"]["$defs"]["condition"]["properties"].pop("since")),
    "a member of problems removed": ("common/problem/errors/*/pointer: removed", lambda now: (
        now["common"]["$defs"]["problem"]["properties"]["errors"]["items"]["properties"].pop("pointer"))),
    "a field of the spec not always there": ("instance/cpus: no longer always there", lambda now: now["instance"]["required"].remove("cpus")),
    "an element's field not always there": ("instance/disks/*/size_gib: no longer always there", lambda now: INSTANCE(now)["disks"]["items"]["required"].remove("size_gib")),
    "a shown pattern changed": ("common/condition/reason: pattern changed", lambda now: CONDITION(now)["reason"].update(pattern="^[a-z]+$")),
    "a shown pattern removed": ("common/mac: pattern changed", lambda now: now["common"]["$defs"]["mac"].pop("pattern")),
    "a shown minimum lowered": ("common/status/observed_generation: minimum loosened", lambda now: (
        now["common"]["$defs"]["status"]["properties"]["observed_generation"].update(minimum=-5))),
    "a shown minimum removed": ("common/revision: minimum loosened", lambda now: now["common"]["$defs"]["revision"].pop("minimum")),
    "an address removed": (f"get {NETWORKS}: removed", lambda now: now["openapi"]["paths"].pop(NETWORKS)),
    "a method removed": (f"put {ONE}: removed", lambda now: now["openapi"]["paths"][ONE].pop("put")),
    "a parameter removed": (f"get {NETWORKS} query after: removed", lambda now: LIST(now)["parameters"].remove({"$ref": "#/components/parameters/after"})),
    "a parameter of another name": (f"get {NETWORKS} query after: removed", lambda now: shared("parameters", "after")(now).update(name="from")),
    "a parameter's bound tightened": (f"get {NETWORKS} query limit: maximum tightened", lambda now: LIMIT(now)["schema"].update(maximum=100)),
    "a parameter's default changed": (f"get {NETWORKS} query limit: default changed", lambda now: LIMIT(now)["schema"].update(default=20)),
    "a parameter's values fewer": (f"get {ONE} query wait: enum narrowed", lambda now: shared("parameters", "wait")(now)["schema"]["enum"].remove("absent")),
    "a parameter written in another way": (f"get {NETWORKS} query metadata: explode changed", lambda now: shared("parameters", "metadata")(now).update(explode=False)),
    "a header that may say less": (f"put {ONE} header If-Match: anyOf changed", lambda now: shared("parameters", "If-Match")(now)["schema"]["anyOf"].pop(0)),
    "a parameter that became required": (f"get {NETWORKS} query limit: became required", lambda now: LIMIT(now).update(required=True)),
    "a new parameter that is required": (f"get {NETWORKS} query zone: became required", lambda now: (
        LIST(now)["parameters"].append({"name": "zone", "in": "query", "required": True, "schema": {"type": "string"}}))),
    "names in addresses that became narrower": (f"get {ONE} path name: pattern changed", lambda now: shared("schemas", "Name")(now).update(pattern="^[a-z]+$")),
    "a status removed": (f"put {ONE} 201: removed", lambda now: PUT(now)["responses"].pop("201")),
    "a new status of success": (f"put {ONE} 202: a new answer", lambda now: PUT(now)["responses"].update({"202": PUT(now)["responses"]["200"]})),
    "a header removed": (f"put {ONE} 201 Location: removed", lambda now: PUT(now)["responses"]["201"]["headers"].pop("Location")),
    "a header not always there": (f"put {ONE} 201 Location: no longer always there", lambda now: shared("headers", "Location")(now).pop("required")),
    "a header of another form": (f"put {ONE} 200 ETag: pattern changed", lambda now: ETAG(now)["schema"].update(pattern="^[0-9]+$")),
    "an answer of another type": (f"get {NETWORKS} 200: application/json changed", lambda now: LIST(now)["responses"]["200"].update(content={})),
    "a body of another schema": (f"put {ONE} body: application/json changed", lambda now: (
        PUT(now)["requestBody"]["content"]["application/json"].update(schema={"$ref": "#/components/schemas/KeyBody"}))),
    "more that a body must have": ("NetworkBody/metadata: became required", lambda now: shared("schemas", "NetworkBody")(now)["required"].append("metadata")),
    "less in a page": ("NetworkPage/next: removed", lambda now: shared("schemas", "NetworkPage")(now)["properties"].pop("next")),
    "a key where none was needed": ("get /: needs a key", lambda now: FRONT(now).pop("security")),
    "an error code removed": ("error in_use: removed", lambda now: now["errors"].pop("in_use")),
    "an error code with another status": ("error in_use: its status changed", lambda now: now["errors"]["in_use"].update(status=423)),
    "an error that is worth another try by now": ("error gone: its retryable changed", lambda now: now["errors"]["gone"].update(retryable=True)),
}

GROWTH: dict[str, Callable[[Any], object]] = {
    "a new kind": lambda now: now.update(volume=dict(now["network"], title="volume")),
    "a new field": lambda now: INSTANCE(now).update(tpm={"type": "boolean", "default": False}),
    "a new value": lambda now: INSTANCE(now)["video"]["enum"].append("qxl"),
    "a requirement less, with a default": lambda now: (now["instance"]["required"].remove("disks"), INSTANCE(now)["disks"].update(default=[])),
    "wider bounds": lambda now: (INSTANCE(now)["cpus"].update(maximum=512), INSTANCE(now)["memory_mib"].pop("minimum")),
    "what was fixed may change": lambda now: INSTANCE(now)["video"].pop("x-immutable"),
    "what was fixed whole may change in part": lambda now: (
        INSTANCE(now)["disks"].pop("x-immutable"), INSTANCE(now)["disks"]["items"]["properties"]["image"].update({"x-immutable": True})),
    "a new field with a default in an object with one": lambda now: (
        INSTANCE(now)["placement"]["properties"].update(near={"type": "array", "items": {"type": "string"}, "default": []}),
        INSTANCE(now)["placement"]["default"].update(near=[])),
    "a pattern less": lambda now: KEY(now)["secret"].pop("pattern"),
    "more to see": lambda now: now["network"]["x-status"]["status"]["properties"].update(leases={"type": "integer"}),
    "more in a problem": lambda now: now["common"]["$defs"]["problem"]["properties"].update(hint={"type": "string"}),
    "a new address": lambda now: now["openapi"]["paths"].update({"/v1/zones": {"get": LIST(now)}}),
    "a new parameter": lambda now: LIST(now)["parameters"].append({"name": "zone", "in": "query", "schema": {"type": "string"}}),
    "wider bounds of a parameter": lambda now: (LIMIT(now)["schema"].update(maximum=1000), TIMEOUT(now)["schema"].update(maximum=90)),
    "a new header": lambda now: PUT(now)["responses"]["200"]["headers"].update(Age={"schema": {"type": "integer"}}),
    "a new refusal": lambda now: PUT(now)["responses"].update({"423": PUT(now)["responses"]["404"]}),
    "a new code": lambda now: now["errors"].update(sleepy={"status": 503, "title": "Sleepy", "retryable": True, "description": "It sleeps."}),
    "other words": lambda now: (INSTANCE(now)["cpus"].update(description="Cores."), now["errors"]["gone"].update(title="Gone")),
    "what was shared spelled out": lambda now: IMAGE(now)["sha256"].update({k: v for k, v in now["common"]["$defs"]["sha256"].items() if k != "description"}),
}


@pytest.mark.parametrize("change", BREAKING)
def test_what_a_client_could_notice_is_refused(change: str) -> None:
    said, mutate = BREAKING[change]
    now = copy.deepcopy(TODAY)
    mutate(now)
    assert said in noticed(TODAY, now)


@pytest.mark.parametrize("change", GROWTH)
def test_growth_is_welcome(change: str) -> None:
    now = copy.deepcopy(TODAY)
    GROWTH[change](now)
    assert now != TODAY and noticed(TODAY, now) == []


def test_a_release_is_what_the_files_were_then_and_is_read_by_the_service(schemas: Path) -> None:
    folder = release("1.0", schemas)
    assert released(folder) == current(schemas) and noticed(TODAY, released(folder)) == []
    assert "SHA256SUMS" in {path.name for path in folder.iterdir()}
    read = catalogue.load(schemas)
    assert read.released[0] == {kind: schema.document for kind, schema in read.kinds.items()}


def test_a_version_is_released_once_and_in_its_turn(schemas: Path) -> None:
    for early in ("1.1", "2.0", "1.01", "v1.0", "../1.0"):
        with pytest.raises(SystemExit):
            release(early, schemas)
    first = release("1.0", schemas)
    frozen, network = released(first), schemas / "v1/network.json"
    network.write_text(network.read_text().replace("network", "net", 1))
    with pytest.raises(SystemExit):
        release("1.0", schemas)
    assert released(first) == frozen
    assert release("1.1", schemas).name == "1.1"
