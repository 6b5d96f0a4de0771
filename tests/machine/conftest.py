"""The real cloud for tests: etcd, libvirt, QEMU by emulation, VXLAN, dnsmasq, nftables, in a world of its own.

`tools/world` makes the namespaces, and ends as one whatever a test leaves behind. During a test this process
is in the world's network, so that it speaks HTTP to the service and serves images to it on the world's loopback;
other programs run inside by `world.run`. A cluster (tests/cluster) may stand in the same process, with another
network: hence not longer than a test.
"""
from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from wisp import environment

PROJECT = Path(__file__).resolve().parents[2]
GUEST = PROJECT / ".cache/guest/guest.qcow2"
LISTEN = "127.0.0.1:7480"
CLONE_NEWNET = 0x40000000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.machine)


@contextmanager
def network_of(pid: int) -> Iterator[None]:
    """This thread, and those it makes meanwhile, are in the network of that process."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        _join(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY))
        yield
    finally:
        _join(home)


def _join(namespace: int) -> None:
    try:
        if ctypes.CDLL(None, use_errno=True).setns(namespace, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(namespace)


def until(true: Callable[[], Any], what: str, limit: float = 90.0) -> Any:
    """Polls until it is true; the limit only ends a test that would hang."""
    end = time.monotonic() + limit
    while not (found := true()):
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.1)
    return found


class Place:
    """Where programs run apart from the machine's: a world, or a node in one. `enter`: the command that leads there."""

    def __init__(self, *enter: str | Path) -> None:
        self._enter = [str(word) for word in enter]

    def argv(self, *words: str) -> list[str]:
        return [*self._enter, *words]

    def run(self, *words: str, check: bool = True, **kwargs: Any) -> str:
        done = subprocess.run(self.argv(*words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace", **kwargs)
        assert done.returncode == 0 or not check, f"{words}: {done.stdout}"
        return done.stdout

    def works(self, *words: str) -> bool:
        return subprocess.run(self.argv(*words), stdin=subprocess.DEVNULL, capture_output=True).returncode == 0

    def traces(self) -> dict[str, list[str]]:
        """What a network or a machine would leave behind."""
        links = [link["ifname"] for link in json.loads(self.run("ip", "-j", "link"))]
        spaces = [line.split()[0] for line in self.run("ip", "netns").splitlines()]
        domains = self.run("virsh", "-q", "list", "--all", "--name", check=False).split()
        programs = self.run("ps", "-eo", "comm").split()
        return {"links": sorted(links), "namespaces": sorted(spaces), "domains": [d for d in domains if "." in d],
                "programs": sorted(p for p in programs if p.startswith(("qemu", "dnsmasq"))),
                "rules": self.run("nft", "list", "ruleset").splitlines()}


class World(Place):
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._tool = [str(PROJECT / "tools/world"), "--name", str(directory)]
        super().__init__(*self._tool, "enter")

    def start(self) -> None:
        subprocess.run([*self._tool, "start"], check=True)

    def stop(self) -> None:
        subprocess.run([*self._tool, "stop"], check=True)

    @property
    def first(self) -> int:
        return int((self.directory / "world.pid").read_text().split()[0])

    def inside(self) -> AbstractContextManager[None]:
        return network_of(self.first)


class Origin:
    """An image server on the world's loopback. `cuts`: after how many bytes the next answers break off."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cuts: list[int] = []
        self.asked: list[tuple[str, str]] = []
        origin = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                origin.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/{name}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        name, wanted = request.path.lstrip("/"), request.headers.get("Range", "")
        self.asked.append((name, wanted))
        if name not in self.files:
            return request.send_error(404)
        body, start = self.files[name], int(wanted.removeprefix("bytes=").split("-")[0] or 0) if wanted else 0
        request.send_response(206 if start else 200)
        request.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()[:16]}"')
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        request.send_header("Content-Length", str(len(body) - start))
        request.end_headers()
        cut = self.cuts.pop(0) if self.cuts else None
        request.wfile.write(body[start:] if cut is None else body[start:start + cut])
        return None


class Client:
    """The API as a test speaks to it, and a look at the machines behind it."""

    def __init__(self, endpoint: str, world: World) -> None:
        self.endpoint, self.world = endpoint, world
        self._session = requests.Session()
        self._session.trust_env = False

    def sign_in(self, written: Path) -> None:
        self.env = environment.read(written)
        self._session.headers["Authorization"] = f"Bearer {self.env['WISP_TOKEN']}"

    def place(self, node: str) -> Place:
        raise NotImplementedError

    def state_of(self, node: str) -> Path:
        raise NotImplementedError

    # the API

    def call(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        with self.world.inside():
            return self._session.request(method, f"{self.endpoint}/v1{path}", timeout=90, **kwargs)

    def path(self, kind: str, name: str) -> str:
        return f"/namespaces/default/{kind}/{name}"

    def put(self, kind: str, name: str, **spec: Any) -> dict[str, Any]:
        answer = self.call("PUT", self.path(kind, name), json={"spec": spec})
        assert answer.status_code in (200, 201), answer.text
        return dict(answer.json())

    def get(self, kind: str, name: str) -> dict[str, Any]:
        return dict(self.call("GET", self.path(kind, name)).json())

    def ready(self, kind: str, name: str) -> dict[str, Any]:
        shown = self.call("GET", self.path(kind, name), params={"wait": "ready", "timeout": 60}).json()
        assert condition(shown, "Ready")["status"] == "True", shown["status"]
        return dict(shown)

    def gone(self, kind: str, name: str) -> None:
        answer = self.call("DELETE", self.path(kind, name))
        assert answer.status_code == 204, answer.text
        answer = self.call("GET", self.path(kind, name), params={"wait": "absent", "timeout": 60})
        assert answer.status_code == 404, answer.text

    def events(self, kind: str, name: str) -> list[str]:
        return [event["text"] for event in self.call("GET", self.path(kind, name) + "/events").json()["items"]]

    def revision(self) -> int:
        with self.world.inside():
            return int(self._session.get(f"{self.endpoint}/readyz", timeout=10).json()["revision"])

    def orphans(self) -> list[Any]:
        return list(self.call("GET", "/audit").json()["orphans"])

    def delete_all(self) -> None:
        for kind in ("floating-ips", "instances", "images", "networks"):
            for item in self.call("GET", f"/namespaces/default/{kind}").json()["items"]:
                self.gone(kind, item["name"])

    # the machines

    def console(self, instance: dict[str, Any]) -> str:
        log = self.state_of(instance["binding"]["node"]) / "instances" / instance["uid"] / "console.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def booted(self, instance: dict[str, Any], times: int = 1) -> str:
        def said() -> str:
            text = self.console(instance)
            return text if text.count("GUEST: READY") >= times else ""
        return str(until(said, f"{instance['name']} says READY; it said {self.console(instance)[-600:]}", 150))

    def gateway(self, network: dict[str, Any]) -> str:
        return f"gw-{network['binding']['vni']:06x}"

    def at_gateway(self, network: dict[str, Any], *words: str) -> tuple[Place, list[str]]:
        """Where a command runs in the namespace of the network's gateway, and the words for it."""
        return self.place(network["binding"]["gateway"]["node"]), ["ip", "netns", "exec", self.gateway(network), *words]

    def reaches(self, network: dict[str, Any], instance: dict[str, Any], *options: str) -> bool:
        """Whether a ping from the network's gateway is answered."""
        address = instance["binding"]["interfaces"][0]["address"]
        place, words = self.at_gateway(network, "ping", "-c", "1", "-W", "3", *options, address)
        return place.works(*words)

    def page(self, network: dict[str, Any], instance: dict[str, Any]) -> str:
        """What the guest's web server says, asked over TCP from the network's gateway."""
        address = instance["binding"]["interfaces"][0]["address"]
        script = f"exec 3<>/dev/tcp/{address}/80 && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3"
        place, words = self.at_gateway(network, "timeout", "20", "bash", "-c", script)
        return place.run(*words, check=False)


class Cloud(Client):
    """`wisp dev`, real, in the world."""

    def __init__(self, world: World, state: Path) -> None:
        super().__init__(f"http://{LISTEN}", world)
        self.state = state
        self._keeper: subprocess.Popen[bytes] | None = None

    def place(self, node: str) -> Place:
        return self.world

    def state_of(self, node: str) -> Path:
        return self.state

    def start(self) -> None:
        self._log = (self.state.parent / f"{self.state.name}.log").open("ab")
        self._keeper = subprocess.Popen(
            self.world.argv(str(PROJECT / ".venv/bin/wisp"), "dev", "--state", str(self.state), "--listen", LISTEN),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._log)
        assert self._keeper.stdout
        line = self._keeper.stdout.readline().decode()
        assert line == f"ready http://{LISTEN}\n", f"{line!r}; {Path(self._log.name).read_text()[-3000:]}"
        self.sign_in(self.state / "env")

    @property
    def pid(self) -> int:
        assert self._keeper
        children = Path(f"/proc/{self._keeper.pid}/task/{self._keeper.pid}/children").read_text().split()
        return int(children[0])

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Tells it to go, or kills it; its exit code."""
        assert self._keeper
        os.kill(self.pid, how)
        code = self._keeper.wait(30)
        self._log.close()
        self._keeper = None
        return code

    @property
    def running(self) -> bool:
        return self._keeper is not None


def condition(shown: dict[str, Any], kind: str) -> dict[str, str]:
    return next((each for each in shown["status"]["conditions"] if each["type"] == kind), {})


def fit() -> None:
    """Skips where this machine cannot, and makes the guest's image."""
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: machine tests need root, for namespaces and libvirt")
    missing = [name for name in ("libvirtd", "qemu-system-x86_64", "dnsmasq", "nft", "etcd") if
               not shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")]
    if missing:
        pytest.skip(f"NOT TESTED: machine tests need {', '.join(missing)}")
    subprocess.run([str(PROJECT / "tools/guest/build"), str(GUEST)], check=True)


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    fit()
    directory = Path(tempfile.mkdtemp(prefix="wisp-", dir="/var/tmp"))
    world = World(directory)
    world.start()
    yield world
    world.stop()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def origin(world: World) -> Iterator[Origin]:
    with world.inside():
        origin = Origin()
    origin.files["guest.qcow2"] = GUEST.read_bytes()
    yield origin
    origin.server.shutdown()


@pytest.fixture(scope="session")
def service(world: World) -> Iterator[Cloud]:
    cloud = Cloud(world, world.directory / "state")
    cloud.start()
    yield cloud
    if cloud.running:
        cloud.end()


@pytest.fixture
def cloud(service: Cloud, origin: Origin) -> Iterator[Cloud]:
    """The service, empty before and after; whatever a test leaves is looked for."""
    if not service.running:
        service.start()
    before = service.world.traces()
    with service.world.inside():
        yield service
    if not service.running:
        service.start()
    service.delete_all()
    assert service.orphans() == []
    assert service.world.traces() == before
    origin.cuts.clear()


@pytest.fixture
def lan(cloud: Cloud) -> dict[str, Any]:
    return cloud.put("networks", "lan", cidr="10.1.0.0/24")


@pytest.fixture
def guest_image(cloud: Cloud, origin: Origin) -> dict[str, Any]:
    body = origin.files["guest.qcow2"]
    return cloud.put("images", "guest", source={"kind": "url", "url": origin.url("guest.qcow2")},
                     sha256=hashlib.sha256(body).hexdigest())


def small(**more: Any) -> dict[str, Any]:
    """The spec of a machine that boots the test guest on the network `lan`."""
    return {"cpus": 1, "memory_mib": 192, "disks": [{"image": "guest", "size_gib": 1}], "networks": [{"network": "lan"}], **more}
