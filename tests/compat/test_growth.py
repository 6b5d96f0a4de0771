"""A server of a newer minor over what an older one recorded: what was asked for then is asked for again, and is there.

Both servers are real, over one store, with schema files of their own: a release made of today's files, and those files
widened in every place that a field can be added to.
"""
from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from falcon import testing

from compat.noticed import noticed, released
from compat.releasing import current, release
from wisp.admission import SYSTEM, Caller
from wisp.api import build
from wisp.catalogue import Catalogue, load
from wisp.feed import Feed
from wisp.journal import Journal
from wisp.resource import CLUSTER, CLUSTER_KEY, Intent, Ref, dumps, node_key, node_ref, now
from wisp.resources import Resources
from wisp.service import weigh
from wisp.store import Put
from wisp.store.memory import MemoryStore
from wisp.store.mirror import Mirror
from wisp.world import World

WISP = Caller(SYSTEM, "admin", "wisp")
VM = "/v1/namespaces/web/instances/vm"
SMALL: dict[str, Any] = {"cpus": 1, "memory_mib": 64, "disks": [{"size_gib": 1}]}
NEAR = {"description": "Names of instances to be near of.", "type": "array", "maxItems": 8, "default": [], "items": {"type": "string"}}
CACHE = {"description": "How it is cached.", "type": "string", "enum": ["none", "all"], "default": "none"}


class Server:
    """The front, of the version that these schema files are."""

    def __init__(self, store: MemoryStore, schemas: Catalogue) -> None:
        self.store, self.mirror = store, Mirror(store)
        self.mirror.start()
        self.world = World(self.mirror, weigh, schemas.filled)
        self.resources = Resources(store, self.mirror, self.world, schemas, Journal(store, self.mirror, "api"), Feed(store, self.mirror, self.world))
        self.client = testing.TestClient(build(self.resources, schemas))
        self.token = ""

    def furnish(self) -> None:
        """A namespace, and a node with room."""
        node, ready = node_ref("n1"), {"type": "Ready", "status": "True", "reason": "Alive", "message": "", "since": now()}
        facts = {"cpus": 8, "memory_mib": 65536, "disk_gib": 1000, "observed_generation": 1, "conditions": [ready]}
        joined = Intent(node, "00000000-0000-4000-8000-000000000001", 1, now(), now(), {"cordoned": False})
        self.mirror.wait(self.store.commit([], [
            Put(CLUSTER_KEY, dumps({"uid": "here", "secret": "of this store"})), Put(node.key("intent"), joined.dump()),
            Put(f"{node.key('status')}/n1", dumps(facts)), Put(node_key("n1"), b"{}")]), 5)
        self.resources.put(WISP, Ref("namespace", CLUSTER, SYSTEM), {"spec": {}})
        self.resources.put(WISP, Ref("namespace", CLUSTER, "web"), {"spec": {}})
        self.token = self.resources.put(WISP, Ref("key", SYSTEM, "ci"), {"spec": {"role": "admin"}}).document["token"]

    def put(self, spec: dict[str, Any], query: str = "", **headers: str) -> Any:
        known = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        sent = known | {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self.client.simulate_put(VM, query_string=query, body=json.dumps({"spec": spec}), headers=sent)
        assert answer.status_code in (200, 201), answer.text
        return answer.json

    def get(self, path: str = VM) -> Any:
        return self.client.simulate_get(path, headers={"Authorization": f"Bearer {self.token}"}).json


def widen(file: Path) -> None:
    """A field of the spec, one of an object in it and one of an element in it; what the last two are in is immutable."""
    instance = json.loads(file.read_text())
    fields = instance["properties"]
    fields["tpm"] = {"description": "Whether it has a TPM.", "type": "boolean", "default": False, "x-immutable": True}
    fields["placement"]["properties"]["near"] = NEAR
    fields["placement"]["default"]["near"] = []
    fields["disks"]["items"]["properties"]["cache"] = CACHE
    assert fields["placement"]["x-immutable"] and fields["disks"]["x-immutable"]
    file.write_text(json.dumps(instance))


@pytest.fixture
def servers(schemas: Path) -> Iterator[tuple[Server, Server]]:
    """One of 1.0, and one of what came after it."""
    folder, store = release("1.0", schemas), MemoryStore()
    old = Server(store, load(schemas))
    widen(schemas / "v1/instance.json")
    assert noticed(released(folder), current(schemas)) == []
    new = Server(store, load(schemas))
    with ExitStack() as running:
        running.callback(old.mirror.stop)
        running.callback(new.mirror.stop)
        old.furnish()
        new.token = old.token
        yield old, new


def grown(spec: dict[str, Any]) -> tuple[Any, Any, Any]:
    return spec["tpm"], spec["placement"]["near"], spec["disks"][0]["cache"]


@pytest.mark.parametrize("spec", [SMALL, {**SMALL, "placement": {"node": "n1"}}], ids=["nothing said", "a node said"])
def test_what_was_recorded_before_a_field_existed_has_its_default_wherever_it_is_read(servers: tuple[Server, Server], spec: dict[str, Any]) -> None:
    old, new = servers
    assert "tpm" not in old.put(spec)["spec"]
    since = new.store.revision() - 1
    page, moved = new.get(VM.rpartition("/")[0]), new.get(f"/v1/changes?since={since}")
    held = new.world.resource(Ref("instance", "web", "vm"))
    assert held
    later = next(item for item in moved["items"] if item["name"] == "vm")
    for seen in (new.get()["spec"], page["items"][0]["spec"], later["spec"], held.spec):
        assert grown(seen) == (False, [], "none")


@pytest.mark.parametrize("headers", [{}, {"Wisp_Version": "1.0"}], ids=["of no version", "of 1.0"])
def test_asking_again_for_what_was_recorded_before_a_field_existed_changes_nothing(servers: tuple[Server, Server], headers: dict[str, str]) -> None:
    old, new = servers
    made = old.put({**SMALL, "placement": {"node": "n1"}})
    before = new.store.revision()
    again = new.put({**SMALL, "placement": {"node": "n1"}}, **headers)
    assert (again["generation"], again["uid"], new.store.revision()) == (1, made["uid"], before)
    assert set(new.put(new.get()["spec"], "dry_run=true")["changes"].values()) == {"none"}


def test_what_was_recorded_before_a_field_existed_can_still_be_changed(servers: tuple[Server, Server]) -> None:
    old, new = servers
    old.put(SMALL)
    later = new.put({**SMALL, "power": "off"})
    assert (later["generation"], later["spec"]["power"], grown(later["spec"])) == (2, "off", (False, [], "none"))


@pytest.mark.parametrize("said", [{}, {"placement": {}}, {"placement": {"node": "n1"}}], ids=["no object", "an empty object", "an object"])
def test_a_client_of_an_older_version_keeps_what_it_cannot_know(servers: tuple[Server, Server], said: dict[str, Any]) -> None:
    new = servers[1]
    place = {**said.get("placement", {}), "near": ["db"]}
    new.put({**SMALL, "tpm": True, "disks": [{"size_gib": 1, "cache": "all"}], "placement": place})
    before = new.store.revision()
    assert grown(new.put({**SMALL, **said}, Wisp_Version="1.0")["spec"]) == (True, ["db"], "all")
    assert new.store.revision() == before
    later = new.put({**SMALL, **said, "power": "off"}, Wisp_Version="1.0")
    assert later["spec"]["power"] == "off" and grown(later["spec"]) == (True, ["db"], "all")


def test_a_client_of_a_later_version_is_served_by_an_older_server(servers: tuple[Server, Server]) -> None:
    old = servers[0]
    old.put({**SMALL, "power": "off"}, Wisp_Version="1.1")
    assert old.put(SMALL, Wisp_Version="1.1")["spec"]["power"] == "on"


@pytest.mark.parametrize("version", ["2.0", "1", "1.x", "1.01", "v1.0", "1.0, 1.1"])
def test_what_is_no_version_is_refused(servers: tuple[Server, Server], version: str) -> None:
    old = servers[0]
    headers = {"Authorization": f"Bearer {old.token}", "Content-Type": "application/json", "Wisp-Version": version}
    answer = old.client.simulate_put(VM, body=json.dumps({"spec": SMALL}), headers=headers)
    assert (answer.status_code, answer.json["code"]) == (400, "unknown_parameter")


def test_a_client_of_an_older_version_still_resets_what_it_knows_by_leaving_it_out(servers: tuple[Server, Server]) -> None:
    new = servers[1]
    new.put({**SMALL, "power": "off", "placement": {"near": ["db"]}})
    assert new.put(SMALL, Wisp_Version="1.0")["spec"]["power"] == "on"
    was = {"role": "viewer", "expires_at": "2030-01-01T00:00:00Z"}
    assert "expires_at" not in new.resources.catalogue.carried("key", 0, {"role": "viewer"}, was)
