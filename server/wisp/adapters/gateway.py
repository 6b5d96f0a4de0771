"""Gateways: a namespace between a network's bridge and the node, with rules (`nft`) and DHCP (`dnsmasq`).

It stands on two veth pairs. Inside, `gi-` on the bridge meets `in0`. Outside (only with NAT) is a routed link
of two, no subnet: `out0` has the transit address alone, and its default route goes to 169.254.0.1, which
every `go-` carries; the node routes the transit address to its `go-`. Without NAT the transit address
waits on `lo`, so that what is read back is what was asked for. `lo` of the namespace bears the mark.

The node's own ip_forward is switched on with the first NAT gateway and stays on: nobody can tell who
else relies on it.
"""
from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from wisp.adapters import links
from wisp.adapters.dnsmasq import Dhcp
from wisp.adapters.links import Link, Net
from wisp.adapters.marks import Broken, Marks, need
from wisp.adapters.nft import INSIDE, OUTSIDE, WAY_OUT, node_table
from wisp.adapters.program import run
from wisp.errors import StepFailed
from wisp.host import Gateway, Segment

HOP = "169.254.0.1"
DEFAULT = ("0.0.0.0/0", HOP)
NAMESPACE = re.compile(r"gw-[0-9a-f]{6}")


class Gateways:
    """The gateways of one cluster on this node; the files of each are in a directory under `files`."""

    def __init__(self, marks: Marks, files: Path) -> None:
        self._marks = marks
        self._files = files
        self._node = node_table(marks.cluster)
        self._last = threading.Lock()       # the node's table comes with the first NAT gateway and goes with the last

    def astray(self, known: set[int]) -> Iterator[tuple[str, int]]:
        """(uid, VNI) of our namespaces with other VNIs than these."""
        for name in links.namespaces():
            vni = int(name[3:], 16) if NAMESPACE.fullmatch(name) else None
            if vni is not None and vni not in known and (uid := self.owner(name)):
                yield uid, vni

    def owner(self, namespace: str) -> str:
        """The uid on a namespace's mark, "" if it is not ours."""
        return self._marks.uid(_mark_of(namespace))

    def look(self, net: Net, uid: str, vni: int, mtu: int) -> Gateway | None:
        """What stands of it. Its address says what is wrong when it is not whole."""
        part = Gateway(uid, vni, "", "", "")
        inner, outer = self._marks.find(net, _inner(vni), uid), self._marks.find(net, _outer(vni), uid)
        if not inner and not outer and self.owner(part.namespace) != uid:
            return None
        try:
            bridge = need(self._marks.find(net, Segment(uid, vni).bridge, uid), "its bridge is missing")
            plug = need(inner, f"{_inner(vni)} is missing")
            need(plug.master == bridge.index and plug.fits(mtu), f"{plug.name} is unplugged or down")
            need(links.has_namespace(part.namespace), f"{part.namespace} is missing")
            part = links.inside(part.namespace, lambda: self._look_within(part, plug, outer, mtu))
            if outer:
                self._look_outside(net, outer, part, mtu)
            return self._dhcp(vni).look(part, mtu)
        except Broken as broken:
            return replace(part, address=f"?broken: {broken}")

    def _look_within(self, part: Gateway, inner: Link, outer: Link | None, mtu: int) -> Gateway:
        """In the namespace: the gateway as its links and rules show it."""
        with links.opened() as net:
            inside, loopback = (need(net.link(name), f"{name} is missing") for name in (INSIDE, "lo"))
            need(loopback.alias == self._marks.of(part.uid) and loopback.up, f"{part.namespace} is another's")
            need(inside.peer == inner.index and inside.fits(mtu), f"{INSIDE} is unplugged or down")
            outside = need(net.link(OUTSIDE), f"{OUTSIDE} is missing") if outer else loopback
            if outer:
                need(outside.peer == outer.index and outside.fits(mtu), f"{OUTSIDE} is unplugged or down")
                need(net.routes(outside) == {DEFAULT}, f"{OUTSIDE} leads nowhere")
            addresses, transit = net.addresses(inside), net.addresses(outside) - {"127.0.0.1/8"}
            need(len(addresses) == len(transit) == 1, "addresses are missing, or there are too many")
        need(links.setting("net/ipv4/ip_forward") == ("1" if outer else "0"), "forwarding is set wrongly")
        need(not outer or WAY_OUT.stands(), "the rules are not whole")
        return replace(part, mac=inside.mac, address=min(addresses), transit=min(transit).removesuffix("/32"),
                       nat=outer is not None)

    def _look_outside(self, net: Net, outer: Link, part: Gateway, mtu: int) -> None:
        need(outer.fits(mtu) and f"{HOP}/32" in net.addresses(outer), f"{outer.name} is down or has no address")
        need(net.routes(outer) == {(f"{part.transit}/32", "")}, f"the node has no route to {part.transit}")
        need(links.setting("net/ipv4/ip_forward") == "1" and self._node.stands(), "the node does not forward")

    def build(self, net: Net, gateway: Gateway, mtu: int) -> None:
        bridge = self._marks.find(net, Segment(gateway.uid, gateway.vni).bridge, gateway.uid)
        if not bridge:
            raise StepFailed("SegmentMissing", f"the bridge of {gateway} is not there yet")
        self._claim_namespace(gateway)
        net.settle(self._pair(net, gateway, _inner(gateway.vni), INSIDE), mtu=mtu, master=bridge.index)
        outer = self._pair(net, gateway, _outer(gateway.vni), OUTSIDE) if gateway.nat else None
        links.inside(gateway.namespace, lambda: self._furnish(gateway, mtu))
        if outer:
            self._let_out(net, gateway, outer, mtu)
        else:
            self._shut(net, gateway)

    def remove(self, net: Net, gateway: Gateway) -> None:
        owner = self.owner(gateway.namespace)
        if owner in ("", gateway.uid):
            self._dhcp(gateway.vni).remove()
        self._shut(net, gateway)
        self._marks.delete(net, _inner(gateway.vni), gateway.uid)
        if owner == gateway.uid:
            links.remove_namespace(gateway.namespace)

    def ping(self, gateway: Gateway, address: str, count: int) -> list[int]:
        if self.owner(gateway.namespace) != gateway.uid:
            raise StepFailed("GatewayMissing", f"{gateway} is not here", patience=1)
        argv = ["ping", "-n", "-c", str(count), "-i", "0.2", "-W", "1", address]
        ended = links.inside(gateway.namespace, lambda: run(argv, "PingFailed"))
        if ended.returncode > 1:            # 1: no answer
            raise StepFailed("PingFailed", ended.stderr.strip(), patience=1)
        return [round(1000 * float(ms)) for ms in re.findall(r" time=([0-9.]+) ms", ended.stdout)]

    def server(self, vni: int) -> int | None:
        """Its dnsmasq."""
        return self._dhcp(vni).pid()

    def _dhcp(self, vni: int) -> Dhcp:
        return Dhcp(self._files / f"{vni:06x}")

    def _claim_namespace(self, gateway: Gateway) -> None:
        if not links.has_namespace(gateway.namespace):
            links.remove_namespace(gateway.namespace)
            links.create_namespace(gateway.namespace)

        def mark() -> None:
            with links.opened() as net:
                loopback = net.link("lo")
                assert loopback
                self._marks.adopt(net, loopback, gateway.uid, gateway.namespace)
                net.settle(loopback)

        links.inside(gateway.namespace, mark)

    def _pair(self, net: Net, gateway: Gateway, name: str, end: str) -> Link:
        """The near end of a veth pair whose far end is in the gateway's namespace."""
        near = self._marks.find(net, name, gateway.uid)
        far = links.inside(gateway.namespace, lambda: _link(end))
        if near and not (far and far.peer == near.index and near.peer == far.index):
            net.delete(near)
            near = None
        if not near and end == INSIDE:
            self._dhcp(gateway.vni).end()
        descriptor = os.open(links.NAMESPACES / gateway.namespace, os.O_RDONLY)
        try:
            return self._marks.claim(net, name, gateway.uid, "veth", peer={"ifname": end, "net_ns_fd": descriptor})
        finally:
            os.close(descriptor)

    def _furnish(self, gateway: Gateway, mtu: int) -> None:
        """In the namespace: addresses, the way out, its rules, DHCP."""
        transit = {f"{gateway.transit}/32"}
        with links.opened() as net:
            inside, outside, loopback = (net.link(name) for name in (INSIDE, OUTSIDE, "lo"))
            assert inside and loopback
            if inside.mac != gateway.mac:
                net.change(inside, address=gateway.mac)
            links.put_setting(f"net/ipv4/conf/{INSIDE}/arp_notify", "1")    # coming up, it says where its MAC is
            for each in ("all", INSIDE):        # what asks for a floating address turns round here
                links.put_setting(f"net/ipv4/conf/{each}/send_redirects", "0")
            net.readdress(inside, {gateway.address})
            net.settle(inside, mtu=mtu)
            net.readdress(loopback, {"127.0.0.1/8"} | (set() if gateway.nat else transit))
            if gateway.nat and outside:
                net.readdress(outside, transit)
                net.settle(outside, mtu=mtu)
                net.reroute(outside, {DEFAULT})
        if gateway.nat and not WAY_OUT.stands():
            WAY_OUT.apply()
        links.put_setting("net/ipv4/ip_forward", "1" if gateway.nat else "0")
        self._dhcp(gateway.vni).serve(gateway, mtu)

    def _let_out(self, net: Net, gateway: Gateway, outer: Link, mtu: int) -> None:
        """On the node: the other half of the way out."""
        net.readdress(outer, {f"{HOP}/32"})
        net.settle(outer, mtu=mtu)
        try:
            net.reroute(outer, {(f"{gateway.transit}/32", "")})
        except FileExistsError as error:
            raise StepFailed("TransitTaken", f"{gateway.transit} leads somewhere else already") from error
        with self._last:
            if not self._node.stands():
                self._node.apply()
            links.put_setting("net/ipv4/ip_forward", "1")

    def _shut(self, net: Net, gateway: Gateway) -> None:
        """On the node: nothing leaves this gateway any more; with the last one the node's table goes first."""
        mine = _outer(gateway.vni)
        with self._last:
            if not any(link.name.startswith("go-") and link.name != mine and self._marks.uid(link.alias)
                       for link in net.links()):
                self._node.drop()
            self._marks.delete(net, mine, gateway.uid)


def _inner(vni: int) -> str:
    return f"gi-{vni:06x}"


def _outer(vni: int) -> str:
    return f"go-{vni:06x}"


def _link(name: str) -> Link | None:
    with links.opened() as net:
        return net.link(name)


def _mark_of(namespace: str) -> str:
    if not links.has_namespace(namespace):
        return ""
    with suppress(FileNotFoundError):
        loopback = links.inside(namespace, lambda: _link("lo"))
        return loopback.alias if loopback else ""
    return ""
