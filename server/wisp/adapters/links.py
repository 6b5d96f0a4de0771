"""Links, addresses, routes, neighbours, FDB entries and namespaces of the Linux kernel: the only door to pyroute2.

A `Net` speaks with one network namespace over one netlink socket, opened for one piece of work in
one thread (0.3 ms): pyroute2 keeps a socket and an event loop per thread, so a kept one would leak
them into every thread of a pool. pyroute2's own way into another namespace is to fork, which is slow
and dangerous in a process with gRPC threads. A network namespace belongs to a thread, though, not to
a process: `inside` runs a function on a short-lived thread that has entered the namespace (0.15 ms).
Sockets it opens, `/proc/sys/net` and programs it starts are then the namespace's. Nothing is forked.

`dump_filter=None` in a call makes pyroute2 put the arguments into the request, where the kernel
filters by them (strict checking), instead of parsing everything and filtering afterwards.
"""
from __future__ import annotations

import ctypes
import errno
import logging
import os
import select
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pyroute2 import IPRoute, NFCTSocket, netns
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple
from pyroute2.netlink.rtnl import RTMGRP_IPV4_IFADDR, RTMGRP_LINK
from pyroute2.netlink.rtnl.marshal import MarshalRtnl

T = TypeVar("T")
log = logging.getLogger(__name__)

NAMESPACES = Path("/run/netns")
CLONE_NEWNET = 0x40000000
IFF_UP, IFF_LOOPBACK, NTF_PROXY, MAIN = 0x1, 0x8, 0x8, 254
FLOATING = 119
"""The protocol (who made it) of routes and proxy entries of floating IPs."""
NTF_SELF, LASTING = 0x2, 0xC0       # the device's own entry, not its bridge's; one that does not age
EVERYWHERE = "00:00:00:00:00:00"
PAUSE = 1.0
libc = ctypes.CDLL(None, use_errno=True)
_making = threading.Lock()


@dataclass(frozen=True, slots=True)
class Link:
    """A network device. `alias` is the ifalias; `peer` the index of the other end of a veth, or of
    the device below; `facts` what its kind knows of itself, e.g. `IFLA_VXLAN_ID`."""

    index: int
    name: str
    kind: str
    alias: str
    mac: str
    mtu: int
    up: bool
    loopback: bool
    master: int
    peer: int
    facts: dict[str, Any] = field(compare=False)

    @classmethod
    def of(cls, message: Any) -> Link:
        info = message.get_attr("IFLA_LINKINFO")
        data = info.get_attr("IFLA_INFO_DATA") if info else None
        return cls(message["index"], message.get_attr("IFLA_IFNAME"), (info and info.get_attr("IFLA_INFO_KIND")) or "",
                   message.get_attr("IFLA_IFALIAS") or "", message.get_attr("IFLA_ADDRESS") or "",
                   message.get_attr("IFLA_MTU"), bool(message["flags"] & IFF_UP), bool(message["flags"] & IFF_LOOPBACK),
                   message.get_attr("IFLA_MASTER") or 0, message.get_attr("IFLA_LINK") or 0,
                   dict(data["attrs"]) if data else {})

    def fits(self, mtu: int) -> bool:
        return self.up and self.mtu == mtu


class Net:
    """The network namespace of the thread that opened it. Failures are `OSError` with the kernel's errno."""

    def __init__(self, api: IPRoute) -> None:
        self._api = api

    def _ask(self, what: str, *args: Any, **facts: Any) -> tuple[Any, ...]:
        try:
            return tuple(getattr(self._api, what)(*args, **facts))
        except NetlinkError as error:
            raise OSError(error.code, f"{what} {args[0]}: {error.args[1]}", facts.get("ifname")) from error

    def link(self, name: str) -> Link | None:
        try:
            return Link.of(self._ask("link", "get", ifname=name)[0])
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise

    def links(self) -> list[Link]:
        return [Link.of(message) for message in self._ask("link", "dump")]

    def ports(self, bridge: Link) -> list[Link]:
        return [Link.of(message) for message in self._ask("link", "dump", master=bridge.index, dump_filter=None)]

    def add(self, name: str, kind: str, **facts: Any) -> Link:
        """FileExistsError when the name, or a VXLAN's VNI, is taken."""
        self._ask("link", "add", ifname=name, kind=kind, **facts)
        link = self.link(name)
        assert link, f"{name} was made and is gone"
        return link

    def change(self, link: Link, **facts: Any) -> None:
        self._ask("link", "set", index=link.index, **facts)

    def settle(self, link: Link, **facts: int) -> None:
        """Gives the link what it lacks of these facts (mtu, master), and brings it up."""
        lacking: dict[str, Any] = {key: value for key, value in facts.items() if getattr(link, key) != value}
        if not link.up:
            lacking["state"] = "up"
        if lacking:
            self.change(link, **lacking)

    def delete(self, link: Link) -> None:
        try:
            self._ask("link", "del", index=link.index)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise

    def addresses(self, link: Link) -> frozenset[str]:
        """IPv4, with prefix length."""
        found = self._ask("addr", "dump", family=socket.AF_INET, index=link.index, dump_filter=None)
        return frozenset(f"{each.get_attr('IFA_LOCAL')}/{each['prefixlen']}" for each in found)

    def carrier(self, address: str) -> str | None:
        """Name of the link that has this address."""
        found = self._ask("addr", "dump", family=socket.AF_INET, dump_filter=None)
        indexes = {each["index"] for each in found if each.get_attr("IFA_LOCAL") == address}
        return next((link.name for link in self.links() if link.index in indexes), None)

    def readdress(self, link: Link, wanted: set[str]) -> None:
        """Makes these the link's IPv4 addresses."""
        have = self.addresses(link)
        for verb, some in (("del", have - wanted), ("add", wanted - have)):
            for address, prefix in (each.split("/") for each in sorted(some)):
                self._ask("addr", verb, index=link.index, address=address, prefixlen=int(prefix))

    def routes(self, link: Link) -> frozenset[tuple[str, str]]:
        """(destination, next hop or "") of the IPv4 routes in the main table that leave by the link, but those of
        floating IPs; the default route's destination is "0.0.0.0/0"."""
        found = self._ask("route", "dump", family=socket.AF_INET, table=MAIN, oif=link.index, dump_filter=None)
        return frozenset((f"{route.get_attr('RTA_DST') or '0.0.0.0'}/{route['dst_len']}",
                          route.get_attr("RTA_GATEWAY") or "") for route in found if route["proto"] != FLOATING)

    def reroute(self, link: Link, wanted: set[tuple[str, str]]) -> None:
        """Makes these its routes. A next hop need not be in a subnet of the link's (`onlink`)."""
        have = self.routes(link)
        for verb, some in (("del", have - wanted), ("add", wanted - have)):
            for destination, gateway in sorted(some):
                hop = {"gateway": gateway, "flags": "onlink"} if gateway else {"scope": "link"}
                self._ask("route", verb, dst=destination, oif=link.index, **hop)

    def leads(self) -> dict[str, tuple[int, str]]:
        """Floating address -> index of the link that it is routed to, and next hop there."""
        found = self._ask("route", "dump", family=socket.AF_INET, table=MAIN, proto=FLOATING, dump_filter=None)
        return {route.get_attr("RTA_DST"): (route.get_attr("RTA_OIF"), route.get_attr("RTA_GATEWAY") or "")
                for route in found}

    def lead(self, link: Link, address: str, hop: str) -> None:
        """FileExistsError when it is routed to another link."""
        have = self.leads().get(address, (0, ""))
        if have[0] == link.index and have[1] != hop:
            self.unlead(link, address)
        if have != (link.index, hop):
            self._ask("route", "add", dst=f"{address}/32", oif=link.index, gateway=hop, flags="onlink", proto=FLOATING)

    def unlead(self, link: Link, address: str) -> None:
        self._ask("route", "del", dst=f"{address}/32", oif=link.index, proto=FLOATING)

    def answered(self) -> frozenset[tuple[str, int]]:
        """(floating address, index of a link that ARP questions for it are answered on, though no link has it)"""
        found = self._ask("neigh", "dump", family=socket.AF_INET, flags=NTF_PROXY, state=0, dump_filter=None)
        return frozenset((each.get_attr("NDA_DST"), each["ifindex"]) for each in found
                         if each.get_attr("NDA_PROTOCOL") == FLOATING)

    def answer(self, address: str, index: int) -> None:
        self._ask("neigh", "replace", dst=address, ifindex=index, flags=NTF_PROXY, protocol=FLOATING)

    def silence(self, address: str, index: int) -> None:
        self._ask("neigh", "del", dst=address, ifindex=index, flags=NTF_PROXY)

    def entries(self, link: Link) -> frozenset[tuple[str, str]]:
        """A VXLAN device's FDB: (MAC, underlay address that frames to it go to). The MAC of zeros may have several,
        which all get what goes to everybody, and to MACs that have no entry."""
        found = self._ask("fdb", "dump", ifindex=link.index, dump_filter=None)
        return frozenset((each.get_attr("NDA_LLADDR"), each.get_attr("NDA_DST"))
                         for each in found if each.get_attr("NDA_DST"))

    def put_entries(self, link: Link, wanted: frozenset[tuple[str, str]]) -> None:
        """Makes these its FDB. Zeros are appended (`add` refuses a second one), others replaced: they move at once."""
        have, macs = self.entries(link), {mac for mac, _ in wanted} - {EVERYWHERE}
        for mac, address in sorted(wanted - have):
            self._ask("fdb", "append" if mac == EVERYWHERE else "replace", ifindex=link.index, lladdr=mac, dst=address,
                      flags=NTF_SELF, state=LASTING)
        for mac, address in sorted(have - wanted):
            if mac not in macs:
                self._ask("fdb", "del", ifindex=link.index, lladdr=mac, dst=address)


@contextmanager
def opened() -> Iterator[Net]:
    with IPRoute(strict_check=True, ext_ack=True) as api:
        yield Net(api)


def cut(address: str, inside: str) -> None:
    """Has conntrack forget what it translates between the two, in the calling thread's network namespace."""
    with NFCTSocket() as conntrack:
        for given in (NFCTAttrTuple(daddr=address), NFCTAttrTuple(saddr=inside)):
            for each in list(conntrack.dump(tuple_orig=given)):
                asked, answered = (NFCTAttrTuple.from_netlink(socket.AF_INET, each.get_attr(f"CTA_TUPLE_{way}"))
                                   for way in ("ORIG", "REPLY"))
                if address in (asked.daddr, answered.daddr):
                    with suppress(NetlinkError):        # it has ended by itself
                        conntrack.entry("del", tuple_orig=asked)


def _on_a_thread(do: Callable[[], T]) -> T:
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(do())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, name="wisp-namespace", daemon=True).start()
    return done.result()


def inside(namespace: str, do: Callable[[], T]) -> T:
    """What `do` returns when called in that network namespace."""
    def enter() -> T:
        netns.setns(str(NAMESPACES / namespace), flags=0, fork=False)
        return do()
    return _on_a_thread(enter)


def create_namespace(namespace: str) -> None:
    def make() -> None:
        if libc.unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare", namespace)
        netns.attach(str(NAMESPACES / namespace), "thread-self")
    with _making:           # the first of all makes /run/netns a mount
        _on_a_thread(make)


def remove_namespace(namespace: str) -> None:
    with suppress(FileNotFoundError):
        netns.remove(str(NAMESPACES / namespace))


def has_namespace(namespace: str) -> bool:
    """A file nothing is mounted on is what a crash in the midst of making a namespace leaves; it is none."""
    try:
        return (NAMESPACES / namespace).stat().st_dev != NAMESPACES.stat().st_dev
    except FileNotFoundError:
        return False


def namespaces() -> list[str]:
    return sorted(netns.listnetns(str(NAMESPACES)))


def setting(name: str) -> str:
    """A kernel setting (sysctl), e.g. "net/ipv4/ip_forward", of the calling thread's network namespace."""
    return Path("/proc/sys", name).read_text().strip()


def put_setting(name: str, value: str) -> bool:
    """Whether it had to be changed. Where the kernel has no such setting, nothing."""
    with suppress(FileNotFoundError):
        if setting(name) != value:
            Path("/proc/sys", name).write_text(value)
            return True
    return False


class Watcher:
    """Calls `heard` with the ifalias of each link that appears, changes, goes, or whose addresses do, or whose process
    ends; with None when messages were lost. Asking the kernel causes no messages, so looking never feeds itself."""

    def __init__(self, heard: Callable[[str | None], None]) -> None:
        self._heard = heard
        self._marshal = MarshalRtnl()
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.bind((0, RTMGRP_LINK | RTMGRP_IPV4_IFADDR))
        self._wake, self._waker = os.pipe()
        self._minded: dict[int, str] = {}
        self._ready = selectors.DefaultSelector()
        self._ready.register(self._socket, selectors.EVENT_READ)
        self._ready.register(self._wake, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="wisp-links", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while self._wake not in (said := {key.fd: key for key, _ in self._ready.select()}):
            try:
                for key in said.values():
                    self._hear_end(key) if key.data else self._hear()
            except Exception:       # no files left, say: what was to be heard is lost
                log.exception("listening to the kernel failed; it goes on in %s s", PAUSE)
                select.select([self._wake], [], [], PAUSE)
                self._heard(None)

    def mind(self, pid: int, alias: str) -> None:
        """This process is that one's."""
        if pid not in self._minded:
            with suppress(ProcessLookupError):
                descriptor = os.pidfd_open(pid)
                self._minded[pid] = alias
                self._ready.register(descriptor, selectors.EVENT_READ, pid)

    def _hear_end(self, process: selectors.SelectorKey) -> None:
        self._ready.unregister(process.fileobj)
        os.close(process.fd)
        self._heard(self._minded.pop(process.data, None))

    def _hear(self) -> None:
        try:
            data = self._socket.recv(1 << 16)
        except OSError:         # ENOBUFS: the kernel had more to say than the socket holds
            self._heard(None)
            return
        for message in self._marshal.parse(data):
            if label := message.get_attr("IFA_LABEL"):
                with opened() as net:
                    link = net.link(label)
                self._heard(link.alias if link else "")
            else:
                self._heard(message.get_attr("IFLA_IFALIAS") or "")

    def close(self) -> None:
        os.write(self._waker, b".")
        self._thread.join()
        self._socket.close()
        for descriptor in (self._wake, self._waker, *(key.fd for key in self._ready.get_map().values() if key.data)):
            os.close(descriptor)
        self._ready.close()
