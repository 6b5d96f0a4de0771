"""What a PUT costs that is validated, admitted and written, beside the least that it could: Falcon, waitress and one
guarded transaction of the same size on an etcd of the same kind. Both are processes of their own, asked in turns over
one connection each.
"""
from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from wisp.admission import SYSTEM
from wisp.resource import CLUSTER, Intent, Ref, dumps, node_key, node_ref, now
from wisp.service import ITSELF, Service
from wisp.store import Absent, At, Empty, Guard, Op, Put, Store
from wisp.store.embedded import EmbeddedEtcd
from wisp.store.etcd import EtcdStore
from wisp.store.memory import MemoryStore

pytestmark = [pytest.mark.skipif(not shutil.which("etcd"), reason="no etcd-server"), pytest.mark.timeout(600)]
TESTS = Path(__file__).parents[1]
ROUNDS = 500
LAN = {"cidr": "10.0.0.0/8"}
IMAGE = {"source": {"kind": "url", "url": "http://images.example/guest.qcow2"}, "sha256": "5" * 64}
WHOLE: dict[str, Any] = {
    "cpus": 2, "memory_mib": 64, "disks": [{"image": "guest", "size_gib": 1}], "networks": [{"network": "lan"}],
    "ssh_keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ8 me@laptop"], "user_data": "#!/bin/sh\necho hello\n", "power": "on"}


class Overheard(MemoryStore):
    """Remembers what it was last asked to commit."""

    def commit(self, guards: Sequence[Guard], ops: Sequence[Op]) -> int:
        if ops:
            self.last = guards, ops
        return super().commit(guards, ops)


def furnish(store: Store) -> tuple[Service, str]:
    """A service with a node, a namespace, a network, an image; and an administrator's key."""
    service = Service(store)
    service.start("bench")
    ready = {"type": "Ready", "status": "True", "reason": "Alive", "message": "", "since": now()}
    status = {"observed_generation": 1, "conditions": [ready], "cpus": 10_000, "memory_mib": 1 << 30, "disk_gib": 1 << 20}
    joined = Intent(node_ref("n1"), str(uuid.uuid4()), 1, now(), now(), service.catalogue.kinds["node"].filled({}))
    revision = store.commit([], [
        Put(joined.ref.key("intent"), joined.dump()), Put(node_key("n1"), dumps({"incarnation": "1"})),
        Put(f"{joined.ref.key('status')}/n1", dumps(status))])
    service.mirror.wait(revision, 5)
    for ref, spec in ((Ref("namespace", CLUSTER, SYSTEM), {}), (Ref("namespace", CLUSTER, "web"), {"quotas": {"instances": 100_000}}),
                      (Ref("network", "web", "lan"), LAN), (Ref("image", "web", "guest"), IMAGE)):
        service.resources.put(ITSELF, ref, {"spec": spec})
    return service, service.admin_token()


def shape_of(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    """The transaction that creating one such thing is."""
    with contextlib.closing(Overheard()) as store:
        service, token = furnish(store)
        caller = service.resources.authenticate(f"Bearer {token}")
        made = service.resources.put(caller, Ref(kind, "web", "thing-000"), {"spec": spec})
        guards, ops = store.last
        service.stop()
    puts = [(len(op.key), len(op.value)) for op in ops if isinstance(op, Put)]
    assert len(puts) == len(ops)
    return {"at": sum(isinstance(guard, At) for guard in guards), "puts": puts,
            "absent": min(len(puts), sum(isinstance(guard, Absent | Empty) for guard in guards)),
            "answer": len(json.dumps(made.document, separators=(",", ":")))}


@contextlib.contextmanager
def process(*words: str) -> Iterator[http.client.HTTPConnection]:
    with subprocess.Popen([sys.executable, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdin and running.stdout
        connection = http.client.HTTPConnection("127.0.0.1", int(running.stdout.readline()))
        try:
            yield connection
        finally:
            connection.close()
            running.stdin.close()


def timed(connection: http.client.HTTPConnection, path: str, body: str, token: str) -> float:
    begun = time.perf_counter()
    connection.request("PUT", path, body, {"Content-Type": "application/json", "Authorization": f"Bearer {token}"})
    answer = connection.getresponse()
    answer.read()
    taken = time.perf_counter() - begun
    assert answer.status in (200, 201), answer.status
    return taken


@pytest.mark.parametrize(("kind", "spec"), [("image", IMAGE), ("network", LAN), ("instance", WHOLE)])
def test_a_put_beside_a_bare_transaction(kind: str, spec: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    with contextlib.ExitStack() as until:
        def etcd() -> str:
            server = EmbeddedEtcd(tmp_path_factory.mktemp("etcd") / "etcd")
            until.callback(server.stop)
            return server.start()
        ours, theirs, shape, body = etcd(), etcd(), shape_of(kind, spec), json.dumps({"spec": spec})
        with contextlib.closing(EtcdStore(ours)) as store:
            service, token = furnish(store)
            service.stop()
        wisp = until.enter_context(process(str(TESTS / "http" / "api_process.py"), ours))
        bare = until.enter_context(process(str(Path(__file__).with_name("bare_process.py")), theirs, json.dumps(shape)))
        asks: list[Callable[[int], float]] = [
            lambda turn: timed(wisp, f"/v1/namespaces/web/{kind}s/thing-{turn:03}", body, token),
            lambda turn: timed(bare, "/bare", body, token)]
        taken = [[ask(turn) for ask in asks] for turn in range(ROUNDS)]
        through, alone = (statistics.median(times) * 1000 for times in zip(*taken[50:], strict=True))
        size = sum(key + value for key, value in shape["puts"])
        print(f"\nPUT that creates: {kind} ({shape['at']} + {shape['absent']} guards, {len(shape['puts'])} keys, {size} bytes): "
              f"median {through:.2f} ms; bare transaction {alone:.2f} ms; ratio {through / alone:.2f} (aim 1.5)")
