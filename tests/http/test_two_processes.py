"""Two API processes on one etcd: what one of them answered, the other knows at once.

Each has a copy of the store that lags a little behind. Whoever was answered by one and asks the other must not
notice: not a moment later, but with the very next request. In each round the two change places.
"""
from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from wisp.admission import SYSTEM
from wisp.resource import Intent, dumps, node_key, node_ref, now
from wisp.service import Service
from wisp.store import Put
from wisp.store.embedded import EmbeddedEtcd
from wisp.store.etcd import EtcdStore

pytestmark = pytest.mark.skipif(not shutil.which("etcd"), reason="no etcd-server")
ROUNDS = 30
LAN = {"cidr": "10.1.0.0/24"}
SMALL: dict[str, Any] = {"cpus": 1, "memory_mib": 64, "disks": [{"size_gib": 1}]}


@dataclass(frozen=True)
class Answer:
    status: int
    etag: str | None
    json: Any


class Door:
    """One of the processes. `source`: who guesses wrongly too often from one address is slowed, so there are several."""

    def __init__(self, port: int, token: str) -> None:
        self._port, self.token, self.source = port, token, "127.0.0.1"

    def ask(self, method: str, path: str, spec: Any = None, token: str = "", **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, source_address=(self.source, 0))
        body = None if spec is None else json.dumps({"spec": spec})
        given = {"Content-Type": "application/json"} if body else {}
        address = path if path.startswith("/") else f"/v1/namespaces/web/{path}"
        with contextlib.closing(connection):
            connection.request(method, address, body, given | {"Authorization": f"Bearer {token or self.token}"} | headers)
            answer = connection.getresponse()
            raw = answer.read()
            return Answer(answer.status, answer.getheader("ETag"), json.loads(raw) if raw else {})

    def put(self, path: str, spec: Any, token: str = "", **headers: str) -> Answer:
        return self.ask("PUT", path, spec, token, **headers)

    def get(self, path: str, token: str = "") -> Answer:
        return self.ask("GET", path, token=token)

    def delete(self, path: str, token: str = "") -> Answer:
        return self.ask("DELETE", path, token=token)

    def names(self, path: str) -> list[str]:
        return [item["name"] for item in self.get(path).json["items"]]


@contextlib.contextmanager
def process(target: str) -> Iterator[int]:
    words = [sys.executable, str(Path(__file__).with_name("api_process.py")), target]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdin and running.stdout
        try:
            yield int(running.stdout.readline())
        finally:
            running.stdin.close()


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Door]]:
    etcd = EmbeddedEtcd(tmp_path_factory.mktemp("two") / "etcd")
    with contextlib.ExitStack() as until:
        until.callback(etcd.stop)
        target = etcd.start()
        token = furnished(target)
        yield [Door(until.enter_context(process(target)), token) for _ in range(2)]


def furnished(target: str) -> str:
    """A node, the namespaces, and an administrator's key."""
    with contextlib.closing(EtcdStore(target)) as store:
        service = Service(store)
        service.start("two")
        ref, ready = node_ref("n1"), {"type": "Ready", "status": "True", "reason": "Alive", "message": "", "since": now()}
        status = {"observed_generation": 1, "conditions": [ready], "cpus": 64, "memory_mib": 65536, "disk_gib": 1000}
        intent = Intent(ref, str(uuid.uuid4()), 1, now(), now(), service.catalogue.kinds["node"].filled({}))
        store.commit([], [Put(ref.key("intent"), intent.dump()), Put(f"{ref.key('status')}/n1", dumps(status)),
                          Put(node_key("n1"), dumps({"incarnation": "1"}))])
        for name in (SYSTEM, "web"):
            service.ensure_namespace(name)
        token = service.admin_token()
        service.stop()
        return token


def rounds(doors: list[Door]) -> Iterator[tuple[int, Door, Door]]:
    for n in range(ROUNDS):
        for door in doors:
            door.source = f"127.0.0.{n + 2}"
        yield n, doors[n % 2], doors[1 - n % 2]


def test_what_one_made_the_other_shows_lists_and_takes_for_equal(doors: list[Door]) -> None:
    for n, here, there in rounds(doors):
        path = f"networks/shown-{n}"
        made = here.put(path, LAN)
        assert made.status == 201
        assert f"shown-{n}" in there.names("networks?limit=500")
        seen = there.get(path)
        assert (seen.status, seen.etag) == (200, made.etag)
        same = there.put(path, LAN)
        assert (same.status, same.etag) == (200, made.etag)
        assert set(there.put(f"{path}?dry_run=true", LAN).json["changes"].values()) == {"none"}
        assert there.put(path, {**LAN, "nat": False}, **{"If-Match": made.etag or ""}).status == 200
        assert here.put(path, LAN, **{"If-Match": made.etag or ""}).status == 412


def test_what_one_deleted_is_gone_for_the_other(doors: list[Door]) -> None:
    for n, here, there in rounds(doors):
        path = f"networks/gone-{n}"
        made = here.put(path, LAN).json
        assert there.delete(path).status == 204
        assert here.get(path).status == 404
        assert f"gone-{n}" not in here.names("networks?limit=500")
        assert here.get(f"{path}?wait=absent&timeout=0").status == 404
        again = there.put(path, LAN)
        assert again.status == 201 and again.json["uid"] != made["uid"]


def test_what_one_gave_away_the_other_does_not_give_again(doors: list[Door]) -> None:
    assert doors[0].put("networks/claims", LAN).status == 201
    for n, here, there in rounds(doors):
        spec = {**SMALL, "networks": [{"network": "claims", "address": f"10.1.0.{n + 2}"}]}
        assert here.put(f"instances/first-{n}", spec).status == 201
        assert there.put(f"instances/second-{n}?dry_run=true", spec).json["code"] == "address_taken"
        assert there.put(f"instances/second-{n}", spec).json["code"] == "address_taken"
        assert there.delete("networks/claims").json["code"] == "in_use"
        assert there.delete(f"instances/first-{n}").status == 204
        assert here.put(f"instances/second-{n}", spec).status == 201


def test_a_key_is_known_changed_and_revoked_everywhere_at_once(doors: list[Door]) -> None:
    for n, here, there in rounds(doors):
        path, lan = f"keys/ci-{n}", f"networks/keyed-{n}"
        first = here.put(path, {"role": "viewer"}).json["token"]
        assert there.get("networks", first).status == 200
        assert there.put(lan, LAN, first).status == 403
        assert here.put(path, {"role": "editor"}).status == 200
        assert there.put(lan, LAN, first).status == 201
        second = there.put(path, {"role": "editor", "rotation": "again"}).json["token"]
        assert here.get("networks", first).status == 401
        assert here.get(lan, second).status == 200
        assert here.put(lan, LAN, first).status == 401
        assert here.delete(path).status == 204
        for request in ("networks", lan, f"{lan}/events", "/v1/changes", "/v1/namespaces"):
            assert there.get(request, second).status == 401, request
        assert there.put(f"{lan}?dry_run=true", LAN, second).status == 401


def test_a_namespace_its_limits_and_its_end_bind_the_other_at_once(doors: list[Door]) -> None:
    for n, here, there in rounds(doors):
        home, lan = f"/v1/namespaces/home-{n}", f"/v1/namespaces/home-{n}/networks/lan"
        assert here.put(home, {}).status == 201
        assert there.get(f"{home}/networks").json["items"] == []
        assert there.put(lan, LAN).status == 201
        assert here.delete(home).json["code"] == "in_use"
        assert here.put(home, {"quotas": {"networks": 1}}).status == 200
        assert there.put(f"{home}/networks/more?dry_run=true", LAN).json["code"] == "quota_exceeded"
        assert there.put(f"{home}/networks/more", LAN).json["code"] == "quota_exceeded"
        assert there.delete(lan).status == 204
        assert here.delete(home).status == 204
        assert there.put(lan, LAN).json["code"] == "not_found"


def test_the_feed_of_one_tells_what_the_other_wrote(doors: list[Door]) -> None:
    for n, here, there in rounds(doors):
        since = here.get("/v1/changes").json["revision"]
        made = here.put(f"networks/fed-{n}", LAN).json
        told = there.get(f"/v1/changes?since={since}").json
        assert made["uid"] in {item["uid"] for item in told["items"]}


def test_at_the_end_the_books_balance(doors: list[Door]) -> None:
    assert [door.get("/v1/audit").json["orphans"] for door in doors] == [[], []]
