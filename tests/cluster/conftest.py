"""Three nodes, an etcd of three members and two APIs, all real, on one machine: see tools/cluster.

The cluster is one for the whole run, and what its verbs break (`kill`, `power_off`, `cut`) `mend` makes whole: before
and after each module of tests, and whenever a test asks for it. Guests boot by emulation, slowly: tests of a module share
them, and at most three boot at once. Where a test fails, the ends of all logs are in its report, and the logs in
.cache/cluster-log.
"""
from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from machine.conftest import GUEST, PROJECT, Client, Place, World, fit

NODES = ("n1", "n2", "n3")
APIS = ("http://172.30.0.1:7480", "http://172.30.0.1:7481")
OUTSIDE = "198.51.100.1"
LOGS = PROJECT / ".cache/cluster-log"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.machine)


class Cluster(Client):
    """A client of the first API, with hands on everything. `places`: n1, n2, n3, outside, world, etcd1, etcd2, etcd3."""

    def __init__(self, directory: Path) -> None:
        super().__init__(APIS[0], World(directory))
        self.directory = directory
        self._tool = [str(PROJECT / "tools/cluster"), "--name", str(directory)]
        self.outside = self.place("outside")

    def mend(self) -> None:
        """Makes whole what is broken: daemons, nodes, cables."""
        self._do("up")
        self.sign_in(self.directory / "env")

    def down(self) -> None:
        self._do("down")

    def start(self, daemon: str) -> None:
        self._do("start", daemon)

    def stop(self, daemon: str) -> None:
        self._do("stop", daemon)

    def kill(self, daemon: str) -> None:
        self._do("kill", daemon)

    def power_off(self, node: str) -> None:
        self._do("power", "off", node)

    def power_on(self, node: str) -> None:
        """Boots it, its agent too; done when the agent is ready."""
        self._do("power", "on", node)

    def cut(self, place: str, cable: str) -> None:
        self._do("cut", place, cable)

    def heal(self, place: str) -> None:
        self._do("heal", place)

    def _do(self, *words: str) -> None:
        done = subprocess.run([*self._tool, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace")
        assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}"

    # what there is to see

    def second(self) -> Cluster:
        """The same by the second API."""
        other = copy.copy(self)
        other.endpoint = APIS[1]
        return other

    def place(self, name: str) -> Place:
        return Place(*self._tool, "enter", name)

    def state_of(self, node: str) -> Path:
        return self.directory / node / "state"

    def look(self, place: str, *words: str) -> Any:
        """What a program says there that speaks JSON: `ip -j -d link`, `bridge -j fdb`, `nft -j list ruleset`."""
        return json.loads(self.place(place).run(*words) or "[]")

    def traces(self) -> dict[str, dict[str, list[str]]]:
        return {node: self.place(node).traces() for node in NODES}

    def keep_logs(self) -> list[Path]:
        """Copies of all logs and consoles, which outlive the cluster."""
        shutil.rmtree(LOGS, ignore_errors=True)
        kept = []
        for path in [*self.directory.glob("log/*.log"), *self.directory.glob("n?/state/instances/*/console.log")]:
            kept.append(LOGS / path.relative_to(self.directory))
            kept[-1].parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, kept[-1])
        return sorted(kept)


def inhabitants(directory: Path) -> list[str]:
    """Processes that have something of the directory mounted, as all in its world have."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if directory.name in (process / "mountinfo").read_text():
                found.append((process / "comm").read_text().strip())
        except OSError:
            continue        # it has ended meanwhile
    return found


def machines_own() -> list[str]:
    """What a cluster might leave in the machine's network."""
    return [*os.listdir("/sys/class/net"), *subprocess.run(["ip", "netns"], check=True, capture_output=True, text=True).stdout.split()]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    fit()
    cluster = Cluster(Path(tempfile.mkdtemp(prefix="wisp-", dir="/var/tmp")))
    before = machines_own()
    try:
        cluster.mend()
        yield cluster
        assert "libvirtd" in inhabitants(cluster.directory), "else its absence says nothing afterwards"
    except BaseException:
        cluster.keep_logs()
        raise
    finally:
        cluster.down()
    assert not cluster.directory.exists()
    assert inhabitants(cluster.directory) == []
    assert machines_own() == before


@pytest.fixture(scope="module")
def cloud(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, whole and empty before a module's tests and after them; whatever they leave on a node is looked for."""
    cluster.mend()
    before = cluster.traces()
    yield cluster
    cluster.mend()
    cluster.delete_all()
    assert cluster.orphans() == []
    assert cluster.traces() == before


@pytest.fixture(scope="module")
def guest_image(cloud: Cluster) -> dict[str, Any]:
    """The test guest's disk, which nodes download from outside."""
    digest = hashlib.sha256(GUEST.read_bytes()).hexdigest()
    return cloud.put("images", "guest", source={"kind": "url", "url": f"http://{OUTSIDE}/guest.qcow2"}, sha256=digest)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report = yield
    cluster = getattr(item, "funcargs", {}).get("cluster")
    if report.failed and cluster and cluster.directory.exists():
        report.sections += [(f"the end of {path}", path.read_text(errors="replace")[-1500:]) for path in cluster.keep_logs()]
    return report
