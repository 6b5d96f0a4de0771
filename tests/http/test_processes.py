"""`wisp api` on a real etcd, and what an agent waits for: whatever starts first, stumbles, or is there twice.

Each test has an etcd to itself, on a loopback address of its own, so that it can be started late, killed and
brought back under the same address. Nothing here needs root.
"""
from __future__ import annotations

import contextlib
import http.client
import json
import logging
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import trustme

from wisp import environment
from wisp.errors import Problem
from wisp.fakes import fake_machine
from wisp.machine import remembering
from wisp.ports import Facts
from wisp.processes import awaited, patiently
from wisp.resource import CLUSTER_KEY, dumps, node_ref
from wisp.service import Agents, NodeParts, Service
from wisp.store import Guard, Op, Put, Span
from wisp.store.etcd import EtcdStore
from wisp.store.memory import MemoryStore

WISP = [sys.executable, "-c", "import sys; from wisp.cli import main; sys.exit(main())"]
needs_etcd = pytest.mark.skipif(not shutil.which("etcd"), reason="no etcd-server")


def until(true: Callable[[], Any], what: str) -> Any:
    """Polls until it is true; the limit only ends a test that would hang."""
    ends = time.monotonic() + 120
    while not (found := true()):
        assert time.monotonic() < ends, f"never: {what}"
        time.sleep(0.05)
    return found


class Etcd:
    def __init__(self, directory: Path, tls: Sequence[str] = ()) -> None:
        self.address = f"127.{random.randrange(64, 255)}.{random.randrange(255)}.{random.randrange(1, 255)}"
        self._directory, self._tls = directory, tls
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        client = f"http{'s' if self._tls else ''}://{self.address}:2379"
        peer = f"http://{self.address}:2380"
        words = ["etcd", "--data-dir", str(self._directory / "data"), "--listen-client-urls", client, "--advertise-client-urls",
                 client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"]
        with (self._directory / "etcd.log").open("ab") as log:
            self._process = subprocess.Popen([*words, *self._tls], stdout=log, stderr=log)

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None


class Api:
    """A `wisp api`, named `name`."""

    def __init__(self, config: Path, name: str) -> None:
        self._log = config.parent / f"{name}.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen([*WISP, "api", "--config", str(config)], stdout=subprocess.PIPE, stderr=log, text=True)
        self._port = 0
        self.token = ""

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    def begun(self) -> None:
        """It has its configuration, and looks for its store."""
        until(lambda: "the store is at" in self._log.read_text(), "it begins")

    def ready(self) -> None:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line.startswith("ready http://127.0.0.1:"), self._log.read_text()[-2000:]
        self._port = int(line.rpartition(":")[2])

    def send(self, method: str, path: str, spec: Any = None) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)
        body = None if spec is None else json.dumps({"spec": spec})
        typed = {"Content-Type": "application/json"} if body else {}
        connection.request(method, path, body, {"Authorization": f"Bearer {self.token}", **typed})
        return connection

    def ask(self, method: str, path: str, spec: Any = None) -> tuple[int, Any]:
        with contextlib.closing(self.send(method, path, spec)) as connection:
            return answered(connection)

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)


def answered(connection: http.client.HTTPConnection) -> tuple[int, Any]:
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


class Site:
    """A store, yet to be started, and the APIs on it."""

    def __init__(self, directory: Path, etcd: Etcd, more: str = "") -> None:
        self.directory, self.etcd, self._more = directory, etcd, more
        self._apis: list[Api] = []

    def config(self, name: str) -> Path:
        written = self.directory / f"{name}.toml"
        written.write_text(f'[store]\nendpoints = ["{self.etcd.address}:2379"]\n{self._more}\n'
                           f'[api]\nname = "{name}"\nlisten = "127.0.0.1:0"\n')
        return written

    def api(self, name: str = "n1") -> Api:
        self._apis.append(Api(self.config(name), name))
        self._apis[-1].begun()
        return self._apis[-1]

    def admin_token(self) -> str:
        said = subprocess.run([*WISP, "admin-key", "--config", str(self.config("admin"))], stdout=subprocess.PIPE, text=True, check=True)
        env = self.directory / "env"
        env.write_text(said.stdout)
        assert environment.read(env)[environment.NAMESPACE] == "default"
        return environment.read(env)[environment.TOKEN]

    def close(self) -> None:
        for api in self._apis:
            api.process.kill()
            api.process.wait()
        self.etcd.kill()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path, Etcd(tmp_path))
    yield made
    made.close()


@pytest.fixture
def running(site: Site) -> Api:
    """One whose store is there, with an administrator's key."""
    site.etcd.start()
    api = site.api()
    api.ready()
    api.token = site.admin_token()
    return api


@needs_etcd
def test_an_api_that_is_there_before_its_store_waits_and_founds_the_cluster(site: Site) -> None:
    api = site.api("early")
    site.etcd.start()
    api.ready()
    api.token = site.admin_token()
    status, page = api.ask("GET", "/v1/namespaces")
    assert (status, [item["name"] for item in page["items"]]) == (200, ["default", "system"])
    assert {line["api"] for line in api.lines()} == {"early"}


@needs_etcd
def test_one_that_still_waits_for_its_store_ends_when_it_is_told_to(site: Site) -> None:
    assert site.api().end() == 0


@needs_etcd
def test_two_at_once_found_one_cluster(site: Site) -> None:
    apis = [site.api("n1"), site.api("n2")]
    site.etcd.start()
    for api in apis:
        api.ready()
    token = site.admin_token()
    for api in apis:
        api.token = token
        status, page = api.ask("GET", "/v1/namespaces")
        assert (status, [item["generation"] for item in page["items"]]) == (200, [1, 1])
    with contextlib.closing(EtcdStore(f"{site.etcd.address}:2379")) as store:
        (record,) = store.read(Span(CLUSTER_KEY)).spans[0]
    assert record.revision == record.created


def test_of_two_that_found_a_cluster_in_the_same_moment_the_second_joins_the_first() -> None:
    both = threading.Barrier(2)

    class Meeting(MemoryStore):
        def commit(self, guards: Sequence[Guard], ops: Sequence[Op]) -> int:
            if any(isinstance(op, Put) and op.key == CLUSTER_KEY for op in ops):
                both.wait(60)       # each has seen an empty store
            return super().commit(guards, ops)

    store = Meeting()
    services = [Service(store, name) for name in ("n1", "n2")]
    threads = [threading.Thread(target=each.start, args=[name]) for each, name in zip(services, ("one", "two"), strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    founded = {each.world.cluster for each in services}
    revisions = {(entry.created, entry.revision) for entry in store.read(Span(CLUSTER_KEY)).spans[0]}
    for each in services:
        each.stop()
    assert founded in ({"one"}, {"two"}) and all(created == revision for created, revision in revisions)


def test_what_the_store_breaks_off_is_begun_again_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wisp.processes.PAUSE", 0)
    told: list[str] = []

    def begin(running: contextlib.ExitStack) -> None:
        told.append("begun")
        running.callback(told.append, "ended")
        if told.count("begun") < 3:
            raise Problem("store_unavailable", "The store does not answer.")

    with contextlib.ExitStack() as running:
        patiently(begin, running)
        assert told == ["begun", "ended"] * 2 + ["begun"]
    assert told[-1] == "ended"


def test_what_else_goes_wrong_is_not_tried_again() -> None:
    def begin(running: contextlib.ExitStack) -> None:
        raise Problem("conflict", "The node n1 was deleted while its agent started.")

    with contextlib.ExitStack() as running, pytest.raises(Problem, match="deleted"):
        patiently(begin, running)


@needs_etcd
def test_told_to_end_it_answers_who_has_asked(running: Api) -> None:
    asked = [running.send("GET", "/v1/namespaces/default?wait=absent&timeout=60"), running.send("PUT", "/v1/namespaces/web", {})]
    assert running.end() == 0
    assert [answered(connection)[0] for connection in asked] == [200, 201]


@needs_etcd
def test_it_goes_on_through_an_outage_of_the_store(site: Site, running: Api) -> None:
    assert running.ask("PUT", "/v1/namespaces/before", {})[0] == 201
    site.etcd.kill()
    assert running.ask("GET", "/v1/namespaces")[1]["code"] == "store_unavailable"
    assert running.ask("PUT", "/v1/namespaces/meanwhile", {})[1]["code"] == "store_unavailable"
    assert running.ask("GET", "/livez")[0] == 200
    site.etcd.start()
    until(lambda: running.ask("GET", "/readyz")[0] == 200, "it is ready again")
    assert running.ask("PUT", "/v1/namespaces/after", {})[0] == 201
    names = {item["name"] for item in running.ask("GET", "/v1/namespaces")[1]["items"]}
    assert {"before", "after"} <= names


@needs_etcd
def test_an_administrators_key_is_made_anew_each_time_and_the_one_before_is_refused(site: Site, running: Api) -> None:
    before = running.token
    running.token = site.admin_token()
    assert running.ask("GET", "/v1/namespaces")[0] == 200
    running.token = before
    assert running.ask("GET", "/v1/namespaces")[0] == 401


@needs_etcd
def test_it_speaks_tls_with_a_store_that_asks_who_it_is(tmp_path: Path) -> None:
    etcd, ca = Etcd(tmp_path), trustme.CA()
    paths = {name: tmp_path / f"{name}.pem" for name in ("ca", "cert", "key", "server")}
    ca.cert_pem.write_to_path(paths["ca"])
    client = ca.issue_cert("api.wisp.example")
    client.cert_chain_pems[0].write_to_path(paths["cert"])
    client.private_key_pem.write_to_path(paths["key"])
    ca.issue_cert(etcd.address).private_key_and_cert_chain_pem.write_to_path(paths["server"])
    tls = Etcd(tmp_path, ["--client-cert-auth", "--trusted-ca-file", str(paths["ca"]), "--cert-file", str(paths["server"]),
                          "--key-file", str(paths["server"])])
    tls.address = etcd.address
    site = Site(tmp_path, tls, "\n".join(f'{name} = "{paths[name]}"' for name in ("ca", "cert", "key")))
    with contextlib.closing(site):
        tls.start()
        api = site.api()
        api.ready()
        api.token = site.admin_token()
        assert api.ask("GET", "/v1/namespaces")[0] == 200


@pytest.mark.parametrize(("verb", "written", "said"), [
    ("api", "[store]\nendpoints = ['here:2379']\n[api]", "store.endpoints must be"),
    ("agent", "[store]\nendpoints = ['127.0.0.1:1']\n[api]", "the section [node] is missing"),
    ("admin-key", "[stone]", "stone is not known here")])
def test_a_configuration_that_will_not_do_is_wrong_usage(tmp_path: Path, verb: str, written: str, said: str) -> None:
    (tmp_path / "wisp.toml").write_text(written)
    done = subprocess.run([*WISP, verb, "--config", str(tmp_path / "wisp.toml")], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"wisp {verb}: {tmp_path}/wisp.toml: {said}" in done.stderr


@needs_etcd
def test_an_address_that_is_taken_is_said_and_not_waited_for(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = site.config("n1")
        config.write_text(config.read_text().replace("127.0.0.1:0", f"127.0.0.1:{taken.getsockname()[1]}"))
        site.etcd.start()
        done = subprocess.run([*WISP, "api", "--config", str(config)], capture_output=True, text=True)
    assert done.returncode == 1 and "wisp api: " in done.stderr and "in use" in done.stderr


# --- agents without a front

def test_a_node_that_comes_back_as_it_was_has_nothing_to_write_of_itself() -> None:
    store = MemoryStore()
    api = Service(store)
    api.start("ours")
    facts = Facts(4, 8192, 100, 1450, "192.0.2.1", "qemu", "Simulated.", (("qemu", "7.2"),), ("instances",), "eth1")
    revisions = []
    for _ in range(2):
        agents = Agents(store, "n1")
        agents.follow()
        agents.join("n1", NodeParts(fake_machine(), facts))
        revisions.append(agents.world.revision_of(f"{node_ref('n1').key('status')}/n1"))
        agents.stop()
    api.stop()
    assert revisions[0] == revisions[1] > 0


class Waiting:
    """An agent's process up to where it knows its cluster."""

    def __init__(self, store: MemoryStore, memory: Path) -> None:
        self.agents = Agents(store, "n1")
        self.agents.follow()
        self.found: list[str] = []
        self.looked = 0
        self._belongs = remembering(memory)
        self.thread = threading.Thread(target=lambda: self.found.append(awaited(self.agents, self._asked)))
        self.thread.start()

    def _asked(self, uid: str) -> bool:
        self.looked += 1
        return self._belongs(uid)

    def end(self) -> list[str]:
        self.thread.join(120)
        self.agents.stop()
        return self.found


def test_an_agent_waits_for_a_cluster_to_be_founded_and_remembers_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    agent = Waiting(store, tmp_path / "cluster")
    until(lambda: "there is no cluster in this store yet" in caplog.text, "it says what it waits for")
    assert agent.found == [] and not (tmp_path / "cluster").exists()
    api = Service(store)
    api.start("ours")
    assert agent.end() == ["ours"] and (tmp_path / "cluster").read_text() == "ours"
    api.stop()


def test_an_agent_that_finds_another_cluster_than_its_own_waits_and_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    (tmp_path / "cluster").write_text("ours")
    store.commit([], [Put(CLUSTER_KEY, dumps({"uid": "theirs"}))])
    with caplog.at_level(logging.WARNING):
        agent = Waiting(store, tmp_path / "cluster")
        until(lambda: "the cluster theirs, and this node serves another" in caplog.text, "it says what it waits for")
        for times in range(2, 5):
            store.commit([], [Put("/elsewhere", b"")])
            until(lambda: agent.looked >= times, "it looks again")  # noqa: B023
        assert agent.found == [] and (tmp_path / "cluster").read_text() == "ours"
        store.commit([], [Put(CLUSTER_KEY, dumps({"uid": "ours"}))])
        assert agent.end() == ["ours"]
    assert caplog.text.count("serves another") == 1
