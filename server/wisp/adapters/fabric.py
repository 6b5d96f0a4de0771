"""The networks of this cluster on this node, built in and read back from the kernel: segments here, gateways
in `gateway`, floating IPs in `floating`.

A segment is a bridge and, in it, a VXLAN device. The device's all-zero FDB entries say whom to send what goes to
everybody: every peer (head-end replication). Where each MAC lives is written down too, so the device learns nothing
from what arrives, and no stranger's frame moves a MAC; the bridge, which only knows that it is not here, does learn.
No spanning tree, since a mesh whose members do not pass on has no loops. Who is here speaks as itself alone (`taps`).

Finding a network's devices by their marks means parsing every link of the node (25 ms per 100), so the VNIs that
a uid was seen or built with are remembered, and only devices of those names are asked for. Looking at everything
finds anew.

Docker and Kubernetes have bridged frames pass iptables (`bridge-nf-call-iptables`), where Docker drops what it does
not know; no rule of ours could undo that, and no single bridge can be excepted. Where it is on it is switched off,
for all bridges of the node, and a warning says so: a node of ours is not a Kubernetes node as well.
"""
from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from wisp.adapters import links
from wisp.adapters.floating import Floatings
from wisp.adapters.gateway import Gateways
from wisp.adapters.links import Link, Net
from wisp.adapters.marks import Broken, Marks, need
from wisp.adapters.taps import Taps, Told
from wisp.errors import StepFailed
from wisp.host import Floating, Gateway, Segment, Station
from wisp.ports import Ring

log = logging.getLogger(__name__)
PORT = 4789
OVERHEAD = 50
OURS = re.compile(r"(?:br|vx|gi|go)-([0-9a-f]{6})")


class KernelFabric:
    """The port `Fabric`.

    cluster    the cluster's uid
    state      directory for the files of gateways
    underlay   this node's address on the network that carries VXLAN; a loopback one will do on a lone node
    egress     name of the link to the outside, where floating IPs are answered for; "" if there is none
    """

    def __init__(self, cluster: str, state: Path, underlay: str, egress: str = "") -> None:
        self._marks = Marks(cluster)
        self._taps = Taps(cluster)
        self._gateways = Gateways(self._marks, state.absolute() / "gateways")
        self._floatings = Floatings(self._marks, self._gateways.owner, egress)
        self._underlay = underlay
        self._lower_name: str | None = None
        self._seen: dict[str, set[int]] = {}
        self._surveyed = False
        self._watcher: links.Watcher | None = None

    def observe(self, tokens: Collection[str] | None) -> Iterable[Segment | Gateway | Floating]:
        with _failing("ObserveFailed"), links.opened() as net:
            found = self._find(net, tokens)
            lower, told = (self._lower(net), self._taps.told()) if found else (None, None)
            parts = [part for uid, vni in found if lower and told for part in (
                self._look(net, uid, vni, lower, told), self._gateways.look(net, uid, vni, _mtu(lower)))]
            self._mind(part for part in parts if isinstance(part, Gateway))
            return [*(part for part in parts if part), *self._floatings.observe(net, tokens)]

    def _mind(self, gateways: Iterable[Gateway]) -> None:
        for gateway in gateways:
            if self._watcher and (pid := self._gateways.server(gateway.vni)):
                self._watcher.mind(pid, self._marks.of(gateway.uid))

    def watch(self, ring: Ring) -> None:
        def heard(alias: str | None) -> None:
            uid = alias and self._marks.uid(alias)
            if uid or alias is None:
                ring(uid)

        self._watcher = links.Watcher(heard)

    def build_segment(self, segment: Segment) -> None:
        vxlan_name = _vxlan(segment.vni)
        with _failing("SegmentFailed"), links.opened() as net:
            self._remember(segment)
            lower = self._lower(net)
            vxlan = self._marks.find(net, vxlan_name, segment.uid)
            if vxlan and not self._carries(vxlan, segment.vni, lower):
                net.delete(vxlan)
            below = {} if lower.loopback else {"vxlan_link": lower.index}       # the kernel then minds its MTU
            vxlan = self._marks.claim(net, vxlan_name, segment.uid, "vxlan", vxlan_id=segment.vni, vxlan_port=PORT,
                                      vxlan_local=self._underlay, vxlan_learning=0, **below)
            bridge = self._marks.claim(net, segment.bridge, segment.uid, "bridge", br_stp_state=0, br_forward_delay=0)
            self._taps.tell(segment)
            if links.put_setting("net/bridge/bridge-nf-call-iptables", "0"):
                log.warning("bridge-nf-call-iptables was on and is off now: no bridged frame passes the iptables here")
            links.put_setting(f"net/ipv6/conf/{bridge.name}/disable_ipv6", "1")  # else the node is on the network
            net.settle(bridge, mtu=_mtu(lower))
            net.settle(vxlan, mtu=_mtu(lower), master=bridge.index)
            net.put_entries(vxlan, _entries(segment))

    def remove_segment(self, segment: Segment) -> None:
        with _failing("SegmentFailed"), links.opened() as net:
            for name in (_vxlan(segment.vni), segment.bridge):
                self._marks.delete(net, name, segment.uid)
            self._taps.forget(segment)

    def build_gateway(self, gateway: Gateway) -> None:
        with _failing("GatewayFailed"), links.opened() as net:
            self._remember(gateway)
            self._gateways.build(net, gateway, _mtu(self._lower(net)))

    def remove_gateway(self, gateway: Gateway) -> None:
        with _failing("GatewayFailed"), links.opened() as net:
            self._floatings.clear(net, gateway)
            self._gateways.remove(net, gateway)

    def build_floating(self, floating: Floating) -> None:
        with _failing("FloatingFailed"), links.opened() as net:
            self._floatings.build(net, floating)

    def remove_floating(self, floating: Floating) -> None:
        with _failing("FloatingFailed"), links.opened() as net:
            self._floatings.remove(net, floating)

    def held_elsewhere(self, address: str) -> bool:
        with _failing("EgressMissing"), links.opened() as net:
            return self._floatings.is_held_elsewhere(net, address)

    def plug(self, tap: str, bridge: str) -> None:
        with _failing("SegmentFailed"), links.opened() as net:
            there = net.link(bridge)
            if not there or not self._marks.uid(there.alias):
                raise StepFailed("SegmentMissing", f"{bridge} is not there yet")
            if link := net.link(tap):
                net.settle(link, master=there.index)

    def ping(self, gateway: Gateway, address: str, count: int) -> list[int]:
        with _failing("PingFailed"):
            return self._gateways.ping(gateway, address, count)

    def mtu(self) -> int:
        with _failing("UnderlayMissing"), links.opened() as net:
            return _mtu(self._lower(net))

    def close(self) -> None:
        if self._watcher:
            self._watcher.close()
            self._watcher = None

    def _lower(self, net: Net) -> Link:
        self._lower_name = self._lower_name or net.carrier(self._underlay)
        link = net.link(self._lower_name) if self._lower_name else None
        if not link:
            raise StepFailed("UnderlayMissing", f"no link carries the underlay address {self._underlay}")
        return link

    def _remember(self, part: Segment | Gateway) -> None:
        self._seen.setdefault(part.uid, set()).add(part.vni)

    def _find(self, net: Net, tokens: Collection[str] | None) -> list[tuple[str, int]]:
        """(uid, VNI) of what there may be of these tokens."""
        if tokens is None or not self._surveyed:
            there = self._survey(net)
            for uid, vni in there:
                self._seen.setdefault(uid, set()).add(vni)
            self._surveyed = True
            if tokens is None:
                return sorted(there)
        return [(uid, vni) for uid in sorted(tokens) for vni in sorted(self._seen.get(uid, ()))]

    def _survey(self, net: Net) -> set[tuple[str, int]]:
        """Everything of ours. Namespaces have to be entered to see whose they are; those of gateways whose links on
        the node tell enough are not."""
        there = {(uid, int(match[1], 16)) for link in net.links()
                 if (uid := self._marks.uid(link.alias)) and (match := OURS.fullmatch(link.name))}
        there |= {owner for owner in self._taps.told().owners.values() if owner[0]}
        return there | set(self._gateways.astray({vni for _, vni in there}))

    def _look(self, net: Net, uid: str, vni: int, lower: Link, told: Told) -> Segment | None:
        """What stands of a segment. Its peers say what is wrong when it is not whole."""
        part = Segment(uid, vni, stations=told.stations((uid, vni)))
        bridge, vxlan = self._marks.find(net, part.bridge, uid), self._marks.find(net, _vxlan(vni), uid)
        if not (bridge or vxlan or told.of((uid, vni))):
            return None
        if bridge:
            part = replace(part, busy=any(not OURS.fullmatch(port.name) for port in net.ports(bridge)))
        try:
            bridge, vxlan = need(bridge, f"{part.bridge} is missing"), need(vxlan, f"{_vxlan(vni)} is missing")
            need(self._carries(vxlan, vni, lower), f"{vxlan.name} is set up for something else")
            need(vxlan.master == bridge.index, f"{vxlan.name} is unplugged")
            for link in (bridge, vxlan):
                need(link.fits(_mtu(lower)), f"{link.name} is down or has a wrong MTU")
            need(told.is_of(part), "the rules for its taps are not whole")
            entries = net.entries(vxlan)
            peers = frozenset(at for mac, at in entries if mac == links.EVERYWHERE)
            away = {Station(mac, underlay=at) for mac, at in entries if mac != links.EVERYWHERE}
            return replace(part, peers=peers, stations=part.stations | away)
        except Broken as broken:
            return replace(part, peers=frozenset({f"?broken: {broken}"}))

    def _carries(self, vxlan: Link, vni: int, lower: Link) -> bool:
        facts = [vxlan.facts.get(f"IFLA_VXLAN_{name}") for name in ("ID", "LOCAL", "PORT", "LEARNING", "LINK")]
        return facts == [vni, self._underlay, PORT, 0, None if lower.loopback else lower.index]


def _mtu(lower: Link) -> int:
    return (1500 if lower.loopback else lower.mtu) - OVERHEAD


def _entries(segment: Segment) -> frozenset[tuple[str, str]]:
    """The FDB of its VXLAN device."""
    known = {(station.mac, station.underlay) for station in segment.stations if station.underlay}
    return frozenset(known | {(links.EVERYWHERE, peer) for peer in segment.peers})


def _vxlan(vni: int) -> str:
    return f"vx-{vni:06x}"


@contextmanager
def _failing(reason: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StepFailed(reason, f"{error.filename or 'the kernel'}: {error.strerror}") from error
