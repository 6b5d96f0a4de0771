"""Three guests on two networks of equal addresses, with a floating IP: what most tests of the mesh speak with.

    n1  a 10.1.0.7 on lan, c 10.1.0.8 on twin; carries lan's gateway
    n2  nothing; carries twin's gateway
    n3  b 10.1.0.8 on lan

A guest's shell is on its serial port, which is a terminal of its node: a test types there and reads the answer, whatever
its networks are doing just then.
"""
from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from machine.conftest import small, until

from .conftest import OUTSIDE, Cluster

Doc = dict[str, Any]
POOL = "192.0.2.128/28"
HOMES = {"a": ("n1", "lan", "10.1.0.7"), "b": ("n3", "lan", "10.1.0.8"), "c": ("n1", "twin", "10.1.0.8")}


@dataclass
class Guest:
    """A guest that has booted, and its shell."""

    cloud: Cluster
    shown: Doc
    _said: str = ""
    _asked: int = 0
    _line: list[int] = field(default_factory=list)

    @property
    def name(self) -> str:
        return str(self.shown["name"])

    @property
    def address(self) -> str:
        return str(self.shown["binding"]["interfaces"][0]["address"])

    @property
    def mac(self) -> str:
        return str(self.shown["binding"]["interfaces"][0]["mac"])

    @property
    def tap(self) -> str:
        return "t-" + self.mac.replace(":", "")

    @property
    def node(self) -> str:
        return str(self.shown["binding"]["node"])

    def run(self, script: str) -> str:
        """What it answers."""
        if not self._line:
            self._line.append(self._open())
        self._asked += 1
        begin, end = f"begin-{self._asked}-", f"end-{self._asked}-"
        typed = f"echo begin'-{self._asked}-'; {script}; echo end'-{self._asked}-'\n"      # its echo has the quotes too
        os.write(self._line[0], typed.encode())
        until(lambda: end in self._read(), f"{self.name} has run {script}; it said {self._said[-600:]}")
        return self._said.partition(begin)[2].partition(end)[0].replace("\r", "")

    def reaches(self, address: str, *options: str) -> bool:
        return " 0% packet loss" in self.run(" ".join(["ping", "-c", "2", "-W", "4", *options, address]))

    def page(self, address: str) -> str:
        """What a web server there says, over TCP."""
        said = self.run(f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 8 {address} 80")
        return said.rpartition("\n\n")[2].strip() if "200 OK" in said else ""

    def hang_up(self) -> None:
        """Its terminal goes with the machine that it was of."""
        while self._line:
            os.close(self._line.pop())

    def _open(self) -> int:
        """It is found from outside of its node: by way of the first processes of the world and of the node in it."""
        domain = f"default.{self.name}.{self.shown['uid'][:8]}"
        terminal = self.cloud.place(self.node).run("virsh", "-q", "ttyconsole", domain).strip()
        path = Path(f"/proc/{self.cloud.world.first}/root")
        first = int((self.cloud.directory / self.node / "world.pid").read_text().split()[0])
        return os.open(f"{path}/proc/{first}/root{terminal}", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)

    def _read(self) -> str:
        with suppress(BlockingIOError):
            self._said += re.sub(r"\x1b\[[0-9;]*[a-zA-Z]", "", os.read(self._line[0], 1 << 16).decode(errors="replace"))
        return self._said


@dataclass
class Town:
    cloud: Cluster
    lan: Doc
    twin: Doc
    guests: dict[str, Guest]
    floating: str

    @property
    def a(self) -> Guest:
        return self.guests["a"]

    @property
    def b(self) -> Guest:
        return self.guests["b"]

    @property
    def c(self) -> Guest:
        return self.guests["c"]

    def lead(self, name: str) -> None:
        """The floating IP, to the guest of that name."""
        self.cloud.put("floating-ips", "front", pool="public", instance=name)
        self.cloud.ready("floating-ips", "front")

    def carrier(self, network: str = "lan") -> str:
        return str(self.cloud.get("networks", network)["binding"]["gateway"]["node"])


def page(cloud: Cluster, place: str, address: str) -> str:
    """What a web server says that is asked from there; "" when it does not answer in time."""
    ask = f"exec 3<>/dev/tcp/{address}/80 && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3"
    said = cloud.place(place).run("timeout", "8", "bash", "-c", ask, check=False)
    return said.rpartition("\n\n")[2].strip() if "200 OK" in said else ""      # as text, \r\n has become \n


@pytest.fixture(scope="module")
def town(cloud: Cluster, guest_image: Doc) -> Iterator[Town]:
    for name in ("lan", "twin"):
        cloud.put("networks", name, cidr="10.1.0.0/24")
    made = {name: cloud.put("instances", name, **small(placement={"node": node}, networks=[{"network": on, "address": address}]))
            for name, (node, on, address) in HOMES.items()}
    assert cloud.call("PUT", "/pools/public", json={"spec": {"cidr": POOL}}).ok
    front = cloud.put("floating-ips", "front", pool="public", instance="b")
    with ThreadPoolExecutor() as pool:
        list(pool.map(cloud.booted, made.values()))
    cloud.ready("floating-ips", "front")
    guests = {name: Guest(cloud, shown) for name, shown in made.items()}
    town = Town(cloud, cloud.ready("networks", "lan"), cloud.ready("networks", "twin"), guests, front["binding"]["address"])
    assert (town.carrier("lan"), town.carrier("twin")) == ("n1", "n2")
    yield town
    for guest in guests.values():
        guest.hang_up()
    cloud.mend()
    cloud.gone("floating-ips", "front")
    assert cloud.call("DELETE", "/pools/public").status_code == 204


__all__ = ["OUTSIDE", "Doc", "Guest", "Town", "page", "town"]
