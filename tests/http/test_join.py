"""A machine joins by a token: once, in time, under a name that is free, and only with whom the token means."""
from __future__ import annotations

import os
import ssl
import stat
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
import requests
from falcon import testing

from wisp import config, membership, pki
from wisp.api import build
from wisp.api.bearers import TOKENS
from wisp.api.problems import refusal
from wisp.enrolment import Enrolment, Token, invite
from wisp.installation import init
from wisp.journal import Journal
from wisp.listener import Listener
from wisp.resource import PREFIX, node_key, node_ref
from wisp.store import Put, under

from .conftest import SCHEMAS

STORE = ("172.30.0.1:2379",)
MACHINE = "00000000-0000-4000-8000-00000000000a"
ANOTHER = "00000000-0000-4000-8000-00000000000b"


class Door:
    """The API of a machine that has the authority's key."""

    def __init__(self, cloud: Any) -> None:
        self.cloud, self.ca = cloud, pki.authority()
        enrolment = Enrolment(cloud.store, Journal(cloud.store, cloud.mirror, "api"), self.ca, STORE)
        self.app = build(cloud.resources, SCHEMAS, enrolment=enrolment)

    def token(self, ttl: int = 900) -> str:
        return invite(self.cloud.store, ttl)

    def join(self, secret: str, name: str = "n2", machine: str = MACHINE, **more: Any) -> Any:
        body = {"name": name, "machine": machine, "csr": pki.request()[1].decode(), **more}
        return testing.TestClient(self.app).simulate_post("/join", json=body, headers={"Authorization": f"Bearer {secret}"})

    def refusal(self, *words: Any, **more: Any) -> str:
        answer = self.join(*words, **more)
        assert answer.status_code >= 400
        return f"{answer.status_code} {answer.json['code']}"

    def node(self, name: str) -> Any:
        return self.cloud.ask("root", "GET", f"/v1/nodes/{name}").json

    def secrets(self) -> int:
        return len(self.cloud.store.read(under(f"{PREFIX}enrolment/")).spans[0])


@pytest.fixture
def door(cloud: Any) -> Door:
    return Door(cloud)


def test_who_has_a_token_gets_a_certificate_and_is_a_node_from_then_on(door: Door) -> None:
    answer = door.join(door.token())
    assert answer.status_code == 200 and answer.json["endpoints"] == list(STORE)
    pki.fingerprint(answer.json["certificate"].encode())
    node = door.node("n2")
    assert node["spec"]["cordoned"] is False and node["status"]["conditions"][0]["status"] == "Unknown"
    assert [event["text"] for event in door.cloud.ask("root", "GET", "/v1/nodes/n2/events").json["items"]] == ["let in by a token"]


def test_a_token_is_good_for_one_machine(door: Door) -> None:
    secret = door.token()
    assert door.join(secret).status_code == 200
    assert door.refusal(secret, "n3", ANOTHER) == "401 unauthenticated"
    assert "code" in door.node("n3") and door.secrets() == 0


def test_of_two_machines_that_show_the_same_token_in_one_moment_one_is_let_in(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    secret, both, commit = door.token(), threading.Barrier(2), door.cloud.store.commit

    def together(guards: Any, ops: Any) -> Any:
        both.wait(60)
        return commit(guards, ops)
    monkeypatch.setattr(door.cloud.store, "commit", together)
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda words: answers.append(door.join(secret, *words)), args=[words])
               for words in (("n2", MACHINE), ("n3", ANOTHER))]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(each.status_code for each in answers) == [200, 409]
    assert sorted("uid" in door.node(name) for name in ("n2", "n3")) == [False, True]


def test_a_token_whose_time_is_up_is_none(door: Door) -> None:
    secret = door.token(ttl=1)
    revision = door.cloud.store.revision()
    door.cloud.mirror.wait(revision + 1, 60)
    assert door.refusal(secret) == "401 unauthenticated"


def test_an_api_key_is_no_token_and_a_token_is_no_api_key(door: Door) -> None:
    assert door.refusal(door.cloud.tokens["root"]) == "401 unauthenticated"
    headers = {"Authorization": f"Bearer {door.token()}"}
    assert testing.TestClient(door.app).simulate_get("/v1/nodes", headers=headers).status_code == 401


def test_the_secret_itself_is_not_in_the_store(door: Door) -> None:
    secret = door.token()
    everything = door.cloud.store.read(under("")).spans[0]
    assert not any(secret in entry.key or secret.encode() in entry.value for entry in everything) and door.secrets() == 1


def test_a_name_is_one_machines_and_who_asked_in_vain_may_use_the_token_for_another(door: Door) -> None:
    assert door.join(door.token()).status_code == 200
    secret = door.token()
    assert door.refusal(secret, "n2", ANOTHER) == "409 in_use"
    assert door.join(secret, "n3", ANOTHER).status_code == 200


def test_a_node_that_is_alive_cannot_be_joined_again_even_by_itself(door: Door) -> None:
    assert door.join(door.token()).status_code == 200
    door.cloud.write(Put(node_key("n2"), b"{}"))
    assert door.refusal(door.token()) == "409 in_use"


def test_a_machine_that_lost_its_certificate_joins_as_the_node_it_is(door: Door) -> None:
    assert door.join(door.token()).status_code == 200
    before = door.node("n2")
    assert door.join(door.token()).status_code == 200
    assert (door.node("n2")["uid"], door.node("n2")["generation"]) == (before["uid"], before["generation"])


def test_a_machine_that_was_declared_gone_for_good_joins_only_as_another(door: Door) -> None:
    assert door.join(door.token()).status_code == 200
    assert door.cloud.ask("root", "DELETE", "/v1/nodes/n2").status_code == 204
    secret = door.token()
    assert door.refusal(secret) == "409 in_use"
    assert door.join(secret, machine=ANOTHER).status_code == 200


@pytest.mark.parametrize("wrong", [{"name": "N2"}, {"machine": "x"}, {"csr": "x"}, {"csr": 1}, {"role": "admin"}])
def test_what_is_not_said_rightly_is_refused_and_uses_up_nothing(door: Door, wrong: dict[str, Any]) -> None:
    secret = door.token()
    assert door.refusal(secret, **wrong) == "422 invalid"
    assert door.join(secret).status_code == 200


def test_an_api_without_the_authoritys_key_lets_nobody_in(cloud: Any) -> None:
    assert cloud.ask("nobody", "POST", "/join").status_code == cloud.ask("nobody", "GET", "/join").status_code == 404


@pytest.mark.parametrize(("terminated", "neighbour"), [(True, 401), (False, 429)])
def test_who_guesses_is_slowed_by_the_address_that_a_terminator_saw_and_by_its_own_without_one(
        door: Door, terminated: bool, neighbour: int) -> None:
    listener = Listener(door.app, "127.0.0.1", 0, refusal(SCHEMAS.errors), threads=4, terminated=terminated)
    serving = threading.Thread(target=listener.run)
    serving.start()

    def guess(address: str) -> int:
        headers = {"Authorization": "Bearer guess", "X-Forwarded-For": address}
        return requests.post("http://{}:{}/join".format(*listener.address), json={}, headers=headers, timeout=60).status_code
    try:
        assert [guess("192.0.2.7") for _ in range(10 * TOKENS)][-1] == 429      # those that are answered soon are many enough
        assert guess("192.0.2.8") == neighbour
    finally:
        listener.close()
        serving.join()


# --- the machine's side, over TLS

class Front:
    """The same behind TLS, on loopback. `asked`: what came."""

    def __init__(self, door: Door, directory: Path) -> None:
        self.asked: list[str] = []
        front = self

        class Quiet(WSGIRequestHandler):
            def log_message(self, *_: Any) -> None:
                front.asked.append(self.requestline.split()[0])

        shown = directory / "front.pem"
        identity = pki.issue(door.ca, "front", pki.SERVER, ["127.0.0.1"])
        shown.write_bytes(identity.key + identity.certificate)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(shown)
        self.server = make_server("127.0.0.1", 0, door.app, handler_class=Quiet)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.address = f"127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


@pytest.fixture
def front(door: Door, tmp_path: Path) -> Iterator[Front]:
    made = Front(door, tmp_path)
    yield made
    made.close()


@pytest.fixture
def token(door: Door, front: Front) -> Token:
    return Token(front.address, pki.fingerprint(door.ca.certificate), door.token())


@pytest.fixture
def join(tmp_path: Path) -> Callable[..., int]:
    def run(token: Token, *more: str) -> int:
        return membership.join([str(token), "--underlay", "172.30.0.2", "--name", "n2", "--dir", str(tmp_path / "etc"),
                                "--state", str(tmp_path / "state"), *more])
    return run


def test_a_machine_that_joined_knows_its_cluster_and_keeps_its_key_to_itself(door: Door, join: Any, token: Token, tmp_path: Path) -> None:
    os.umask(0o022)
    assert join(token, "--carries", "gateways") == 0
    said = config.load(tmp_path / "etc/wisp.toml", "node")
    assert said.node and (said.node.name, said.node.underlay, said.node.carries) == ("n2", "172.30.0.2", ("gateways",))
    assert said.store.endpoints == STORE and said.store.ca and said.store.ca.read_bytes() == door.ca.certificate
    assert said.store.cert and said.store.key
    ssl.create_default_context().load_cert_chain(said.store.cert, said.store.key)
    assert stat.S_IMODE(said.store.key.stat().st_mode) == 0o600
    machine = (tmp_path / "state/machine").read_text()
    recorded = door.cloud.store.read(under(node_ref("n2").key("status"))).spans[0]
    assert uuid.UUID(machine) and machine.encode() in recorded[0].value


def test_it_says_nothing_to_a_server_that_the_token_does_not_mean(front: Front, join: Any, token: Token, tmp_path: Path, capsys: Any) -> None:
    assert join(replace(token, fingerprint="0" * 64)) == 1
    assert "not whom the token means" in capsys.readouterr().err
    assert front.asked == ["GET"] and not (tmp_path / "etc").exists()


def test_what_the_api_refuses_is_said_and_nothing_is_left(join: Any, token: Token, tmp_path: Path, capsys: Any) -> None:
    assert join(replace(token, secret="another")) == 1
    assert "wrong, used or expired" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if "etc" in path.name] == []


def test_a_machine_that_is_of_a_cluster_does_not_join_another(front: Front, join: Any, token: Token, capsys: Any) -> None:
    assert join(token) == 0
    front.asked.clear()
    assert join(token) == 1 and front.asked == []
    assert "of a cluster already" in capsys.readouterr().err


def test_a_token_may_come_by_stdin(monkeypatch: pytest.MonkeyPatch, token: Token, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{token}\n")
    with (tmp_path / "token").open() as given:
        monkeypatch.setattr("sys.stdin", given)
        assert membership.join(["-", "--underlay", "172.30.0.2", "--name", "n2", "--dir", str(tmp_path / "etc"), "--state", str(tmp_path / "state")]) == 0


# --- the first machine

def test_the_first_machine_is_made_whole_and_once(tmp_path: Path, capsys: Any) -> None:
    words = ["--underlay", "172.30.0.1", "--name", "n1", "--dir", str(tmp_path / "etc"), "--state", str(tmp_path / "state")]
    assert init(words) == 0
    made = {path.name: path.read_bytes() for path in (tmp_path / "etc").iterdir()}
    said = config.load(tmp_path / "etc/wisp.toml", "api", "node")
    assert said.api and (said.api.listen, said.api.public) == ("127.0.0.1:7480", "172.30.0.1:7443")
    assert {stat.S_IMODE((tmp_path / "etc" / name).stat().st_mode) for name in made if name.endswith(".key")} == {0o600}
    assert init(words) == 1 and "of a cluster already" in capsys.readouterr().err
    assert made == {path.name: path.read_bytes() for path in (tmp_path / "etc").iterdir()}


def test_an_init_that_is_broken_off_was_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError("No space left on device")
    monkeypatch.setattr("wisp.installation.write_config", full)
    words = ["--underlay", "172.30.0.1", "--name", "n1", "--dir", str(tmp_path / "etc"), "--state", str(tmp_path / "state")]
    assert init(words) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
