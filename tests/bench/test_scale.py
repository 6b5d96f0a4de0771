"""What a request costs in a cloud of ten thousand instances, beside one of a hundred.

Over a real etcd, but without HTTP, whose share would hide a difference. The instances are written in bulk, as valid
as if they had been asked for one by one (the audit says so): a hundred on each network, all in one namespace, on ten
nodes. The two clouds take turns, so that whatever else the machine does falls on both.
"""
from __future__ import annotations

import contextlib
import itertools
import shutil
import statistics
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wisp.resource import PREFIX, Intent, Ref, claim_key, dumps, namespace_ref, node_key, node_ref, now, refers_key
from wisp.service import ITSELF, Service
from wisp.store import Put
from wisp.store.embedded import EmbeddedEtcd
from wisp.store.etcd import EtcdStore

pytestmark = [pytest.mark.skipif(not shutil.which("etcd"), reason="no etcd-server"), pytest.mark.timeout(1800)]
FEW, MANY = 100, 10_000
ROUNDS = 200
NODES = [f"n{number}" for number in range(10)]
READY = {"type": "Ready", "status": "True", "reason": "Running", "message": "", "since": now()}
SPEC: dict[str, Any] = {"cpus": 1, "memory_mib": 64, "disks": [{"size_gib": 1}]}


class Crowd:
    """A cloud with so many instances."""

    def __init__(self, directory: Path, count: int) -> None:
        self._etcd = EmbeddedEtcd(directory)
        self.store = EtcdStore(self._etcd.start())
        self.service = Service(self.store)
        self.service.start("crowd")
        self.resources, self.count = self.service.resources, count
        self.service.ensure_namespace("web")
        self._fill()

    def put(self, kind: str, name: str, spec: dict[str, Any]) -> Any:
        return self.resources.put(ITSELF, Ref(kind, "web", name), {"spec": spec}).document

    def _fill(self) -> None:
        for name in NODES:
            joined = Intent(node_ref(name), str(uuid.uuid4()), 1, now(), now(), self.service.catalogue.kinds["node"].filled({}))
            status = {"observed_generation": 1, "conditions": [READY], "cpus": 10_000, "memory_mib": 1 << 30, "disk_gib": 1 << 20}
            self.store.commit([], [Put(joined.ref.key("intent"), joined.dump()), Put(node_key(name), dumps({"incarnation": "1"})),
                                   Put(f"{joined.ref.key('status')}/{name}", dumps(status))])
        nets = [self.put("network", f"lan-{number}", {"cidr": "10.1.0.0/20"}) for number in range(self.count // 100)]
        self.put("instance", "first", {**SPEC, "networks": [{"network": "lan-0"}]})
        assert self.service.mirror.wait(self.store.revision(), 60)
        first = self.service.world.resource(Ref("instance", "web", "first"))
        assert first
        writes = (self._written(first.intent, number, nets[number // 100]) for number in range(1, self.count))
        while batch := list(itertools.islice(writes, 20)):
            self.store.commit([], [put for puts in batch for put in puts])
        assert self.service.mirror.wait(self.store.revision(), 60)
        assert self.resources.audit(ITSELF)["orphans"] == []
        assert self.service.world.held_by("web")["instances"] == self.count

    def _written(self, like: Intent, number: int, network: Any) -> list[Put]:
        ref, uid, lan = Ref("instance", "web", f"vm-{number:05}"), str(uuid.uuid4()), Ref("network", "web", network["name"])
        address, node = f"10.1.{1 + number % 100 // 50}.{2 + number % 50}", NODES[number % len(NODES)]
        mac = f"02:ff:00:00:{number >> 8:02x}:{number & 255:02x}"
        owner = dumps({"kind": "instance", "namespace": "web", "name": ref.name, "uid": uid})
        spec = {**like.spec, "networks": [{**like.spec["networks"][0], "network": lan.name}]}
        binding = {"node": node, "interfaces": [{"address": address, "mac": mac}], "disks": [{"sha256": ""}]}
        status = {"observed_generation": 1, "conditions": [READY], "power": "on", "disks_made": [0]}
        return [Put(ref.key("intent"), replace(like, ref=ref, uid=uid, spec=spec).dump()), Put(ref.key("binding"), dumps(binding)),
                Put(f"{ref.key('status')}/{node}", dumps(status)), Put(refers_key(lan, ref), b""),
                Put(claim_key("address", network["uid"], address), owner), Put(claim_key("mac", mac), owner)]

    def stop(self) -> None:
        self.service.stop()
        self.store.close()
        self._etcd.stop()


@pytest.fixture(scope="module")
def crowds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Crowd]]:
    with contextlib.ExitStack() as until:
        made = []
        for count in (FEW, MANY):
            made.append(Crowd(tmp_path_factory.mktemp("crowd") / "etcd", count))
            until.callback(made[-1].stop)
        yield made


def a_page(crowd: Crowd, turn: int) -> None:
    page = crowd.resources.list(ITSELF, "instance", "web", limit=50)
    assert len(page["items"]) == 50


def a_later_page(crowd: Crowd, turn: int) -> None:
    prefix = f"{PREFIX}intent/web/instance/"
    token = crowd.resources._token(crowd.service.mirror.revision, f"vm-{crowd.count // 2:05}", prefix)
    assert crowd.resources.list(ITSELF, "instance", "web", limit=40, after=token)["items"]


def a_point_read(crowd: Crowd, turn: int) -> None:
    crowd.resources.get(ITSELF, Ref("instance", "web", f"vm-{1 + turn % (crowd.count - 1):05}"))


def a_put_that_creates(crowd: Crowd, turn: int) -> None:
    crowd.put("instance", f"new-{turn}", {**SPEC, "networks": [{"network": "lan-0"}]})


def a_put_that_changes(crowd: Crowd, turn: int) -> None:
    crowd.put("instance", f"new-{turn}", {**SPEC, "networks": [{"network": "lan-0"}], "power": "off"})


def an_equal_put(crowd: Crowd, turn: int) -> None:
    crowd.put("instance", f"new-{turn}", {**SPEC, "networks": [{"network": "lan-0"}], "power": "off"})


def a_dry_run(crowd: Crowd, turn: int) -> None:
    crowd.resources.put(ITSELF, Ref("instance", "web", f"try-{turn}"), {"spec": SPEC}, rehearsed=True)


def a_read_of_the_namespace(crowd: Crowd, turn: int) -> None:
    crowd.resources.get(ITSELF, namespace_ref("web"))


def a_delete(crowd: Crowd, turn: int) -> None:
    crowd.resources.delete(ITSELF, Ref("instance", "web", f"new-{turn}"))


REQUESTS: list[Callable[[Crowd, int], None]] = [
    a_page, a_later_page, a_point_read, a_put_that_creates, a_put_that_changes, an_equal_put, a_dry_run,
    a_read_of_the_namespace, a_delete]


def test_ten_thousand_instances_beside_a_hundred(crowds: list[Crowd]) -> None:
    print()
    for request in REQUESTS:
        taken: list[list[float]] = [[], []]
        for turn in range(ROUNDS):
            for crowd, times in zip(crowds, taken, strict=True):
                begun = time.perf_counter()
                request(crowd, turn)
                times.append(time.perf_counter() - begun)
        few, many = (statistics.median(times) * 1000 for times in taken)
        print(f"{request.__name__.replace('_', ' '):26} {few:6.2f} ms of {FEW}, {many:6.2f} ms of {MANY}: "
              f"ratio {many / few:.2f} (aim 1.5)")
