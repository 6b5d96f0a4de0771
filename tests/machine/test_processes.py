"""A real installation on one machine: etcd, `wisp api` and `wisp agent`, each a process of its own, boot a guest."""
from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import PROJECT, Client, Origin, Place, World, small, until

ETCD, PEER, LISTEN = "127.0.0.1:23790", "127.0.0.1:23791", "127.0.0.1:7490"
UNDERLAY, EGRESS = "192.0.2.2", "uplink"
POWERLESS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")


class Installation(Client):
    """Its processes, and the files they are started with, are apart from those of `wisp dev` in the same world."""

    def __init__(self, world: World) -> None:
        super().__init__(f"http://{LISTEN}", world)
        self.directory = world.directory / "installation"
        self.directory.mkdir()
        self.config = self.directory / "wisp.toml"
        self.config.write_text(f"""
            [store]
            endpoints = ["{ETCD}"]
            [api]
            listen = "{LISTEN}"
            name = "front"
            [node]
            name = "n1"
            state = "{self.state_of('n1')}"
            underlay = "{UNDERLAY}"
            libvirt = "qemu:///system"
        """)
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def place(self, node: str) -> Place:
        return self.world

    def state_of(self, node: str) -> Path:
        return self.directory / "node"

    def run_etcd(self) -> None:
        client, peer = f"http://{ETCD}", f"http://{PEER}"
        self._run("etcd", "etcd", "--data-dir", str(self.directory / "data"), "--listen-client-urls", client, "--advertise-client-urls",
                  client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}")

    def run_api(self) -> None:
        self._run("api", *POWERLESS, *self._wisp("api"))

    def run_agent(self) -> None:
        self._run("agent", *self._wisp("agent"))

    def sign_in_as_admin(self) -> None:
        (self.directory / "env").write_text(self.world.run(*self._wisp("admin-key")))
        self.sign_in(self.directory / "env")

    def _wisp(self, verb: str) -> list[str]:
        return [str(PROJECT / ".venv/bin/wisp"), verb, "--config", str(self.config)]

    def _run(self, name: str, *words: str) -> None:
        with (self.directory / f"{name}.log").open("ab") as log, (self.directory / f"{name}.out").open("wb") as out:
            self.running[name] = subprocess.Popen(self.world.argv(*words), stdin=subprocess.DEVNULL, stdout=out, stderr=log)

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text()

    def said(self, name: str) -> str:
        """Its one line, once it is there."""
        def line() -> str:
            assert self.running[name].poll() is None, self.log(name)[-3000:]
            return (self.directory / f"{name}.out").read_text()
        return str(until(line, f"{name} is ready; it said {self.log(name)[-1000:]}"))

    def end(self, name: str, how: signal.Signals = signal.SIGTERM) -> int:
        keeper = self.running.pop(name)
        children = Path(f"/proc/{keeper.pid}/task/{keeper.pid}/children").read_text().split()
        os.kill(int(children[0]), how)
        return keeper.wait(60)


@pytest.fixture
def installation(world: World, origin: Origin) -> Iterator[Installation]:
    made = Installation(world)
    with world.inside():
        yield made
    for name in reversed(list(made.running)):
        made.end(name)


def test_api_and_agent_boot_a_guest_whichever_is_there_first_and_it_outlives_them(installation: Installation, origin: Origin) -> None:
    before = installation.world.traces()
    installation.run_agent()
    installation.run_api()
    installation.run_etcd()
    assert installation.said("api") == f"ready http://{LISTEN}\n"
    assert installation.said("agent") == "ready n1\n"
    installation.sign_in_as_admin()
    node = installation.call("GET", "/nodes/n1", params={"wait": "ready", "timeout": 60}).json()["status"]
    assert (node["underlay"], node["egress"], node["carries"], node["mtu"]) == (UNDERLAY, EGRESS, ["instances", "gateways"], 1450)

    body = origin.files["guest.qcow2"]
    lan = installation.put("networks", "lan", cidr="10.1.0.0/24")
    installation.put("images", "guest", source={"kind": "url", "url": origin.url("guest.qcow2")}, sha256=hashlib.sha256(body).hexdigest())
    vm = installation.put("instances", "front", **small())
    installation.booted(vm)
    assert installation.reaches(lan, vm)

    assert installation.end("agent") == 0 and installation.end("api") == 0
    installation.end("etcd", signal.SIGKILL)
    assert installation.reaches(lan, vm)
    installation.run_agent()
    until(lambda: "does not answer" in installation.log("agent"), "the agent finds no store")
    assert installation.reaches(lan, vm)
    installation.run_etcd()
    installation.run_api()
    for name in ("agent", "api"):
        installation.said(name)
    assert installation.ready("instances", "front")["uid"] == vm["uid"]
    assert installation.reaches(lan, vm)

    installation.delete_all()
    assert installation.orphans() == []
    assert installation.world.traces() == before
    assert {json.loads(line)["node"] for line in installation.log("agent").splitlines()} == {"n1"}
