"""The two worlds in which one contract is asked of a fabric: a fake kernel, and the real one.

The real world is a network and a mount namespace that the calling thread moves into and back out of
(both belong to threads), with `/run` of its own, an underlay link `ul0`, and behind it a namespace
`outside`. Nothing in it can be seen from the machine's own network, and it goes when it is left.
"""
from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from wisp.adapters import links
from wisp.adapters.fabric import KernelFabric
from wisp.fakes.fabric import FakeFabric, FakeKernel
from wisp.host import Nic, Station
from wisp.ports import Fabric

libc = ctypes.CDLL(None, use_errno=True)
CLONE_FS, CLONE_NEWNS, CLONE_NEWNET, MS_REC, MS_PRIVATE = 0x200, 0x20000, 0x40000000, 0x4000, 1 << 18
UNDERLAY, OUTSIDE = "192.0.2.1", "192.0.2.2"
MAC, TAP = "52:54:00:00:00:05", "t-525400000005"
HERE, GATE, FAR = Station(MAC, "10.1.0.5"), Station("52:54:00:00:00:01"), Station("52:54:00:00:00:06", underlay=OUTSIDE)


def sh(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def entry(verb: str, node: str, mac: str = links.EVERYWHERE) -> str:
    return sh("bridge", "fdb", verb, mac, "dev", "vx-0000a1", "dst", node)


def element(verb: str, name: str, what: str) -> str:
    return sh("nft", f"{verb} element bridge wisp-c1 {name} {{ {what} }}")


def within(namespace: str, *argv: str) -> str:
    return sh("ip", "netns", "exec", namespace, *argv)


class FakeWorld:
    def __init__(self) -> None:
        self.kernel = FakeKernel()
        none = self.kernel.lose
        wrong = self.kernel.spoil
        self.segment_hands: dict[str, Callable[[], object]] = {
            "bridge deleted": lambda: none("br-0000a1"),
            "vxlan deleted": lambda: none("vx-0000a1"),
            "vxlan down": lambda: wrong("vx-0000a1", "down"),
            "vxlan unplugged": lambda: wrong("vx-0000a1", "unplugged"),
            "vxlan with another MTU": lambda: wrong("vx-0000a1", "MTU"),
            "peer removed": lambda: self.kernel.peers.update({"vx-0000a1": frozenset()}),
            "peer added": lambda: self.kernel.peers.update({"vx-0000a1": frozenset({"192.0.2.2", "192.0.2.66"})}),
            "somebody elsewhere forgotten": lambda: self._know(HERE, GATE),
            "somebody elsewhere moved": lambda: self._know(HERE, GATE, replace(FAR, underlay="192.0.2.66")),
            "somebody here forgotten": lambda: self._know(GATE, FAR),
            "another address for somebody here": lambda: self._know(replace(HERE, address="10.1.0.66"), GATE, FAR),
        }
        self.gateway_hands: dict[str, Callable[[], object]] = {
            "bridge deleted": lambda: none("br-0000a1"),
            "inside plug deleted": lambda: none("gi-0000a1"),
            "outside plug deleted": lambda: none("go-0000a1"),
            "namespace deleted": lambda: none("gw-0000a1"),
            "dnsmasq killed": lambda: wrong("gw-0000a1", "dnsmasq"),
        }

    def _know(self, *stations: Station) -> None:
        self.kernel.stations["vx-0000a1"] = frozenset(stations)

    def fabric(self, cluster: str = "c1") -> Fabric:
        return FakeFabric(cluster, self.kernel)

    def tap(self, name: str) -> None:
        self.kernel.taps[name] = ""

    def bridge_of(self, name: str) -> str:
        return self.kernel.taps.get(name, "")

    def guest(self, bridge: str, address: str) -> None:
        """Whose MAC has the lease of this address."""
        self.kernel.taps["t-" + MAC.replace(":", "")] = bridge

    def snapshot(self) -> object:
        return (sorted(self.kernel.marks.items()), sorted(self.kernel.spoilt), sorted(self.kernel.peers.items()),
                sorted(self.kernel.stations.items()),
                sorted(map(str, self.kernel.gateways.values())))


class KernelWorld:
    def __init__(self, state: Path) -> None:
        self.state = state
        self._files = state / "c1/gateways/0000a1"
        self._fabrics: list[KernelFabric] = []
        gw = "gw-0000a1"
        self.segment_hands: dict[str, Callable[[], object]] = {
            "bridge deleted": lambda: sh("ip", "link", "del", "br-0000a1"),
            "vxlan deleted": lambda: sh("ip", "link", "del", "vx-0000a1"),
            "vxlan down": lambda: sh("ip", "link", "set", "vx-0000a1", "down"),
            "vxlan unplugged": lambda: sh("ip", "link", "set", "vx-0000a1", "nomaster"),
            "vxlan with another MTU": lambda: sh("ip", "link", "set", "vx-0000a1", "mtu", "1400"),
            "peer removed": lambda: entry("del", "192.0.2.2"),
            "peer added": lambda: entry("append", "192.0.2.66"),
            "somebody elsewhere forgotten": lambda: entry("del", "192.0.2.2", FAR.mac),
            "somebody elsewhere moved": lambda: entry("replace", "192.0.2.66", FAR.mac),
            "somebody here forgotten": lambda: element("delete", "home", f"vx-0000a1 . {MAC}"),
            "another address for somebody here": lambda: (
                element("delete", "addresses", f"{TAP} . 10.1.0.5"), element("add", "addresses", f"{TAP} . 10.1.0.66")),
            "a second address for somebody here": lambda: element("add", "addresses", f"{TAP} . 10.1.0.66"),
            "another MAC for somebody here": lambda: element("add", "macs", f"{TAP} . 52:54:00:00:00:66"),
            "the taps' rules flushed": lambda: sh("nft", "flush", "ruleset"),
            "the taps' rules emptied": lambda: sh("nft", "flush", "table", "bridge", "wisp-c1"),
            "a rule for taps added": lambda: sh("nft", "insert rule bridge wisp-c1 prerouting accept"),
            "learning on": lambda: sh("ip", "link", "set", "vx-0000a1", "type", "vxlan", "learning"),
            "underlay address changed": lambda: (sh("ip", "link", "del", "vx-0000a1"), self._foreign_vxlan()),
        }
        self.gateway_hands: dict[str, Callable[[], object]] = {
            "bridge deleted": lambda: sh("ip", "link", "del", "br-0000a1"),
            "inside plug deleted": lambda: sh("ip", "link", "del", "gi-0000a1"),
            "inside plug pulled": lambda: sh("ip", "link", "set", "gi-0000a1", "nomaster"),
            "outside plug deleted": lambda: sh("ip", "link", "del", "go-0000a1"),
            "namespace deleted": lambda: sh("ip", "netns", "del", gw),
            "dnsmasq killed": lambda: kill(int((self._files / "pid").read_text())),
            "files gone": lambda: shutil.rmtree(self._files),
            "pid file gone": lambda: (self._files / "pid").unlink(),
            "dnsmasq not told": lambda: (self._files / "served").unlink(),
            "leases edited": lambda: (self._files / "hosts").write_text(""),
            "inside address removed": lambda: within(gw, "ip", "addr", "del", "10.1.0.1/24", "dev", "in0"),
            "inside address added": lambda: within(gw, "ip", "addr", "add", "10.1.0.9/24", "dev", "in0"),
            "inside MAC changed": lambda: within(gw, "ip", "link", "set", "in0", "address", "52:54:00:00:00:99"),
            "inside down": lambda: within(gw, "ip", "link", "set", "in0", "down"),
            "default route removed": lambda: within(gw, "ip", "route", "del", "default"),
            "transit address removed": lambda: within(gw, "ip", "addr", "flush", "dev", "out0"),
            "transit route removed": lambda: sh("ip", "route", "del", "100.64.0.1"),
            "rules flushed": lambda: within(gw, "nft", "flush", "ruleset"),
            "rules emptied": lambda: within(gw, "nft", "flush", "table", "ip", "wisp"),
            "a rule added": lambda: within(gw, "nft", "insert rule ip wisp forward accept"),
            "policy changed": lambda: within(gw, "nft", "chain ip wisp forward { policy accept; }"),
            "forwarding off": lambda: within(gw, "sysctl", "-qw", "net.ipv4.ip_forward=0"),
            "the node's rules flushed": lambda: sh("nft", "flush", "ruleset"),
            "the node's forwarding off": lambda: sh("sysctl", "-qw", "net.ipv4.ip_forward=0"),
        }

    def fabric(self, cluster: str = "c1") -> Fabric:
        self._fabrics.append(KernelFabric(cluster, self.state / cluster, UNDERLAY))
        return self._fabrics[-1]

    def tap(self, name: str) -> None:
        """What a running domain has on the node, hanging on nothing."""
        sh("ip", "link", "add", name, "type", "veth", "peer", "guest-end")

    def bridge_of(self, name: str) -> str:
        return str(json.loads(sh("ip", "-j", "link", "show", name))[0].get("master", ""))

    def guest(self, bridge: str, address: str) -> None:
        self.plug(bridge, address)

    def fabric_outside(self) -> Fabric:
        """Of a second node, whose network namespace is `outside`."""
        return KernelFabric("c1", self.state / "outside", OUTSIDE)

    def snapshot(self) -> object:
        """Lines: devices, addresses, routes, FDB, rules of every namespace; processes and files of ours."""
        spaces = ["", *sorted(space["name"] for space in json.loads(sh("ip", "-j", "netns") or "[]"))]
        return [*(f"{space}: {line}" for space in spaces for line in self._space(space)),
                *(f"process {pid}" for pid in self.processes()),
                *(f"{path}: {path.read_text() if path.is_file() else ''}"
                  for path in sorted(self.state.glob("*/gateways/**/*")))]

    def _space(self, space: str) -> list[str]:
        ask = partial(within, space) if space else sh
        devices = [" ".join(map(str, (
            each["ifindex"], each["ifname"], each["mtu"], each.get("master"), "UP" in each["flags"], each.get("ifalias"),
            each["address"], sorted(f"{a['local']}/{a['prefixlen']}" for a in each["addr_info"] if a["family"] == "inet"))))
            for each in json.loads(ask("ip", "-j", "addr"))]
        entries = [line for line in ask("bridge", "fdb").splitlines() if not line.startswith("33:33:")]     # IPv6's own
        return [*devices, *ask("ip", "route").splitlines(), *sorted(entries),
                *ask("nft", "-a", "list", "ruleset").splitlines()]

    def processes(self) -> list[int]:
        """Of those that were started with one of our files."""
        found = []
        for pid in (each for each in os.listdir("/proc") if each.isdigit()):
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:
                continue
            if f"={self.state}/".encode() in command:
                found.append(int(pid))
        return sorted(found)

    def _foreign_vxlan(self) -> None:
        """Ours by mark, but with another source address."""
        sh("ip", "link", "add", "vx-0000a1", "type", "vxlan", "id", str(0xa1), "local", "192.0.2.7", "dstport", "4789")
        sh("ip", "link", "set", "vx-0000a1", "alias", "wisp:c1:u1", "mtu", "1450", "master", "br-0000a1", "up")
        entry("append", "192.0.2.2")

    def plug(self, bridge: str, address: str = "", gateway: str = "", name: str = "guest", node: str = "",
             mac: str = "") -> str:
        """A namespace with `eth0` in the bridge. Returns its name. With a MAC it is what a guest would be, behind a
        tap of that name; without, a port that nobody minds."""
        on_node, port = partial(within, node) if node else sh, Nic(mac, "").tap if mac else f"p-{name}"
        sh("ip", "netns", "add", name)
        on_node("ip", "link", "add", port, "mtu", "1450", "type", "veth", "peer", "eth0", "netns", name)
        if mac:
            within(name, "ip", "link", "set", "eth0", "address", mac)
        on_node("ip", "link", "set", port, "master", bridge, "up")
        within(name, "ip", "link", "set", "eth0", "mtu", "1450", "up")
        if address:
            within(name, "ip", "addr", "add", address, "dev", "eth0")
        if gateway:
            within(name, "ip", "route", "add", "default", "via", gateway)
        return name

    def close(self) -> None:
        for fabric in self._fabrics:
            fabric.close()
        for pid in self.processes():
            kill(pid)


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        assert select.select([descriptor], [], [], 10)[0], f"{pid} does not end"
        os.close(descriptor)


@contextmanager
def kernel_world(state: Path) -> Iterator[KernelWorld]:
    homes = [os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY) for kind in ("net", "mnt")]
    _call("unshare", CLONE_NEWNET | CLONE_NEWNS)
    try:
        _call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)
        _call("mount", b"tmpfs", b"/run", b"tmpfs", 0, None)
        sh("ip", "link", "set", "lo", "up")
        sh("ip", "netns", "add", "outside")
        sh("ip", "link", "add", "ul0", "type", "veth", "peer", "eth0", "netns", "outside")
        sh("ip", "addr", "add", f"{UNDERLAY}/24", "dev", "ul0")
        sh("ip", "link", "set", "ul0", "up")
        within("outside", "ip", "addr", "add", f"{OUTSIDE}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            within("outside", "ip", "link", "set", link, "up")
        world = KernelWorld(state)
        try:
            yield world
        finally:
            world.close()
    finally:
        _call("unshare", CLONE_FS)          # a thread that is just ending may still share it, and setns would refuse
        for home in homes:
            _call("setns", home, 0)
            os.close(home)


def _call(name: str, *args: Any) -> None:
    if getattr(libc, name)(*args):
        raise OSError(ctypes.get_errno(), name)


Answer = dict[str, Any]


def ask_dhcp(namespace: str, *macs: str) -> dict[str, Answer]:
    """Asks for each MAC in turn, and returns what was answered, by MAC, until the last one was."""
    def ask() -> dict[str, Answer]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
            s.bind(("", 68))
            s.settimeout(1)
            answers: dict[str, Answer] = {}
            for _ in range(30):             # like any client: asks again until it is answered
                for mac in macs:
                    s.sendto(_packet(mac, 1), ("255.255.255.255", 67))
                with suppress(TimeoutError):
                    while macs[-1] not in answers:
                        mac, answer = _parse(s.recv(2048))
                        if answer[53] == b"\2":
                            chosen = {50: answer["address"], 54: answer[54]}
                            s.sendto(_packet(mac, 3, chosen), ("255.255.255.255", 67))
                        else:
                            answers[mac] = answer
                    break
            return answers
    return links.inside(namespace, ask)


def _packet(mac: str, kind: int, options: dict[int, bytes] | None = None) -> bytes:
    head = struct.pack("!BBBBIHH16s16s192sI", 1, 1, 6, 0, 7, 0, 0x8000, b"", bytes.fromhex(mac.replace(":", "")), b"",
                       0x63825363)
    chosen = {53: bytes([kind]), 55: bytes([1, 3, 6, 12, 15, 26]), **(options or {})}
    return head + b"".join(bytes([code, len(value)]) + value for code, value in chosen.items()) + b"\xff"


def _parse(data: bytes) -> tuple[str, Answer]:
    answer: Answer = {"address": data[16:20]}
    at = 240
    while data[at] != 255:
        answer[data[at]] = data[at + 2:at + 2 + data[at + 1]]
        at += 2 + data[at + 1]
    return data[28:34].hex(":"), answer
