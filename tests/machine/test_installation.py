"""From the installer to a machine that runs on a node which joined, by the units' own capabilities; and the way back.

Worlds stand in for machines, a bridge for their underlay. There is no systemd in them: what the units say of
capabilities is done by setpriv, and the rest of them is only looked at by systemd-analyze.
"""
from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wisp import environment

from .conftest import GUEST, PROJECT, Client, Place, World, fit, small, until

FIRST, SECOND, THIRD = "172.30.0.1", "172.30.0.2", "172.30.0.3"
DEPLOY = PROJECT / "deploy"
UNITS = sorted(DEPLOY.glob("*.service"))


def files(root: Path) -> dict[str, tuple[int, int]]:
    return {str(path.relative_to(root)): (path.lstat().st_mtime_ns, path.lstat().st_ino) for path in root.rglob("*")}


def bounded(unit: str) -> list[str]:
    """The command that gives a program the account, if this machine has it, and the capabilities that the unit leaves it."""
    said = dict(line.partition("=")[::2] for line in (DEPLOY / f"{unit}.service").read_text().splitlines())
    assert said["NoNewPrivileges"] == "yes"
    named = [f"+{each.removeprefix('CAP_').lower()}" for each in said["CapabilityBoundingSet"].split()]
    user = said.get("User", "root")
    account = [f"--reuid={user}", f"--regid={user}", "--init-groups"] if user in {each.pw_name for each in pwd.getpwall()} else []
    return ["setpriv", *account, f"--bounding-set={','.join(['-all', *named])}", "--inh-caps=-all", "--no-new-privs"]


@pytest.fixture(scope="module")
def installed() -> Iterator[Path]:
    """A root directory into which the installer was let loose."""
    fit()
    root = Path(tempfile.mkdtemp(prefix="wisp-root-", dir="/var/tmp"))
    install(root)
    yield root
    shutil.rmtree(root)


def install(root: Path) -> str:
    done = subprocess.run([DEPLOY / "install.sh", "--root", root], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          env={**os.environ, "PIP_CACHE_DIR": str(PROJECT / ".cache/pip")})
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_installing_twice_is_installing_once(installed: Path) -> None:
    before = files(installed)
    assert {f"etc/systemd/system/{unit.name}" for unit in UNITS} <= before.keys() and "opt/wisp/bin/wisp" in before
    assert "install:" not in install(installed)
    assert files(installed) == before


def test_what_was_broken_off_or_meddled_with_is_put_right(installed: Path) -> None:
    unit = installed / "etc/systemd/system/wisp-api.service"
    whole = unit.read_bytes()
    unit.write_bytes(whole[:100])
    (installed / "opt/wisp/installed").unlink()         # written last of all
    shutil.rmtree(next(installed.glob("opt/wisp/lib/python3*/site-packages/wisp")))
    install(installed)
    assert unit.read_bytes() == whole
    assert subprocess.check_output([installed / "opt/wisp/bin/wisp", "version"], text=True).startswith("wisp ")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd")
def test_systemd_understands_every_line_of_the_units(installed: Path, tmp_path: Path) -> None:
    for unit in UNITS:
        (tmp_path / unit.name).write_text(unit.read_text().replace("=/opt/wisp", f"={installed}/opt/wisp"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *sorted(tmp_path.glob("*.service"))], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


class Machine:
    """One with wisp installed. Its configuration is where the units look for it, for that is its own directory there."""

    def __init__(self, place: Place, directory: Path, installed: Path) -> None:
        self.place, self.directory, self._wisp = place, directory, str(installed / "opt/wisp/bin/wisp")
        directory.mkdir(exist_ok=True)
        self.etc, self.state = directory / "etc", directory / "state"
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def wisp(self, *words: str, said: str = "", code: int = 0) -> str:
        done = subprocess.run(self.place.argv(self._wisp, *words), input=said, capture_output=True, text=True)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr

    def by_tls(self, first: Machine, *words: str) -> str:
        """What the command line has from the first machine's API, trusting its authority and nobody else."""
        known = environment.read(first.directory / "env") | {"WISP_ENDPOINT": f"https://{FIRST}:7443", "SSL_CERT_FILE": str(first.etc / "ca.pem")}
        return self.place.run("env", *(f"{name}={value}" for name, value in known.items()), self._wisp, *words)

    def settle(self, *words: str, said: str = "") -> None:
        self.wisp(*words, "--dir", str(self.etc), "--state", str(self.state), said=said)

    def start(self, unit: str, *words: str) -> None:
        self._run(unit, *bounded(unit), *words)

    def serve(self, directory: Path) -> None:
        self._run("web", sys.executable, "-m", "http.server", "--bind", FIRST, "--directory", str(directory), "8000")

    def _run(self, name: str, *words: str) -> None:
        with (self.directory / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(self.place.argv(*words), stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def start_libvirt(self) -> None:
        """As systemd does it: it is not the agent's child."""
        for daemon in ("virtlogd", "libvirtd"):
            self.place.run(daemon, "--daemon", "--pid-file", f"/run/{daemon}.pid")
        until(lambda: self.place.works("virsh", "-q", "list"), "libvirt answers")

    def start_agent(self) -> None:
        self.start("wisp-agent", self._wisp, "agent", "--config", str(self.etc / "wisp.toml"))

    def start_front(self) -> None:
        self.start("wisp-etcd", "etcd", "--config-file", str(self.etc / "etcd.yaml"))
        self.start("wisp-api", self._wisp, "api", "--config", str(self.etc / "wisp.toml"))
        run = self.directory / "run"
        run.mkdir()
        self.start("wisp-tls", "nginx", "-e", "stderr", "-p", f"{run}/", "-c", str(self.etc / "nginx.conf"), "-g", "daemon off;")

    def end(self, unit: str) -> None:
        keeper = self._running.pop(unit)
        pid = keeper.pid
        while Path(f"/proc/{pid}/comm").read_text() == "nsenter\n":      # one for each world that leads there
            pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
        os.kill(pid, signal.SIGTERM)
        assert keeper.wait(60) in (0, -signal.SIGTERM), self.log(unit)

    def end_all(self) -> None:
        for unit in reversed(list(self._running)):
            self.end(unit)

    def log(self, unit: str) -> str:
        return (self.directory / f"{unit}.log").read_text()[-3000:]


class Cluster(Client):
    """Three machines, and the API over TLS."""

    def __init__(self, world: World, installed: Path) -> None:
        super().__init__(f"https://{FIRST}:7443", world)
        for words in ("link add underlay type bridge", f"addr add {FIRST}/24 dev underlay", "link set underlay up"):
            world.run("ip", *words.split())
        self.machines = {"n1": Machine(world, world.directory / "m1", installed)}
        for name, address in (("n2", SECOND), ("n3", THIRD)):
            self.machines[name] = Machine(self._another(name, address), world.directory / f"m{name}", installed)

    def _another(self, name: str, address: str) -> Place:
        other = World(self.world.directory / name)
        self.world.run(str(PROJECT / "tools/world"), "--name", str(other.directory), "start", name)
        pid = (other.directory / "world.pid").read_text().split()[0]
        self.world.run("ip", "link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", pid)
        self.world.run("ip", "link", "set", f"to-{name}", "master", "underlay", "up")
        within = Place(*self.world.argv(*other.argv()))
        within.run("ip", "addr", "add", f"{address}/24", "dev", "eth0")
        within.run("ip", "link", "set", "eth0", "up")
        return within

    def place(self, node: str) -> Place:
        return self.machines[node].place

    def state_of(self, node: str) -> Path:
        return self.machines[node].state

    def begin(self) -> None:
        first = self.machines["n1"]
        first.settle("init", "--underlay", FIRST, "--name", "n1", "--carries", "gateways")
        first.start_front()
        for machine in self.machines.values():
            machine.start_libvirt()
        first.start_agent()
        self._session.verify = str(first.etc / "ca.pem")
        until(self._answers, f"the API answers; it said {first.log('wisp-api')} and {first.log('wisp-tls')}")
        (first.directory / "env").write_text(first.wisp("admin-key", "--config", str(first.etc / "wisp.toml")))
        self.sign_in(first.directory / "env")

    def _answers(self) -> bool:
        with self.world.inside():
            try:
                return self._session.get(f"{self.endpoint}/readyz", timeout=10).status_code == 200
            except OSError:
                return False

    def end(self) -> None:
        for machine in reversed(self.machines.values()):
            machine.end_all()

    def alive(self, node: str) -> dict[str, Any]:
        shown = self.call("GET", f"/nodes/{node}", params={"wait": "ready", "timeout": 60}).json()
        assert shown["status"]["conditions"][0]["status"] == "True", f"{shown['status']} {self.machines[node].log('wisp-agent')}"
        return dict(shown["status"])


@pytest.fixture
def cluster(installed: Path) -> Iterator[Cluster]:
    world = World(Path(tempfile.mkdtemp(prefix="wisp-", dir="/var/tmp")))
    world.directory.chmod(0o711)        # a way through for etcd's account, as /etc and /var/lib are
    world.start()
    try:
        made = Cluster(world, installed)
        yield made
        made.end()
    finally:
        world.stop()
        shutil.rmtree(world.directory)


def test_machines_join_carry_what_they_should_and_leave(cluster: Cluster) -> None:
    first, second, third = cluster.machines.values()
    cluster.begin()
    for name, address, machine in (("n2", SECOND, second), ("n3", THIRD, third)):
        token = first.wisp("token", "--dir", str(first.etc))
        machine.settle("join", "-", "--underlay", address, "--name", name, "--carries", "instances", said=token)
        machine.start_agent()
    assert {node: cluster.alive(node)["carries"] for node in cluster.machines} == {"n1": ["gateways"], "n2": ["instances"], "n3": ["instances"]}
    assert cluster.alive("n2")["underlay"] == SECOND
    assert third.by_tls(first, "get", "nodes", "-o", "name").split() == ["node/n1", "node/n2", "node/n3"]

    first.serve(GUEST.parent)
    lan = cluster.put("networks", "lan", cidr="10.1.0.0/24")
    source = {"kind": "url", "url": f"http://{FIRST}:8000/{GUEST.name}"}
    cluster.put("images", "guest", source=source, sha256=hashlib.sha256(GUEST.read_bytes()).hexdigest())
    vm = cluster.put("instances", "front", **small(placement={"node": "n2"}))
    cluster.booted(vm)
    assert (vm["binding"]["node"], lan["binding"]["gateway"]["node"]) == ("n2", "n1")
    assert cluster.reaches(lan, vm)

    assert "front" in second.wisp("leave", "--dir", str(second.etc), code=1)
    cluster.delete_all()
    second.end("wisp-agent")
    second.wisp("leave", "--dir", str(second.etc), "--purge")
    assert [each["name"] for each in cluster.call("GET", "/nodes").json()["items"]] == ["n1", "n3"]
    assert not second.etc.exists() and cluster.orphans() == []
    assert "of a cluster already" in first.wisp("init", "--underlay", FIRST, "--dir", str(first.etc), code=1)
