"""Networks that are only remembered, under the kernel's rules.

A `FakeKernel` is one node's: it knows the names of devices and namespaces, whose mark each bears, and
what is wrong with which. Several clusters' fabrics may share one, and then collide like real ones: over a VNI, over a
transit address. A gateway needs its bridge, and a floating IP its gateway; a bridge that goes unplugs what was in it.
`lose` and `spoil` are the hands of others, for tests and for simulated trouble.
"""
from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from wisp.errors import StepFailed
from wisp.host import Floating, Gateway, Nic, Segment, Station
from wisp.ports import Ring


class FakeKernel:
    """`marks`: name -> "<cluster>:<uid>" of every device and namespace. `spoilt`: name, or floating address -> what is
    wrong with it. `taps`: tap of a running domain -> bridge it hangs on, "" for none. `floating`: (namespace, uid) ->
    what leads to a guest there. `elsewhere`: addresses that other machines answer for."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.marks: dict[str, str] = {}
        self.spoilt: dict[str, str] = {}
        self.taps: dict[str, str] = {}
        self.peers: dict[str, frozenset[str]] = {}
        self.stations: dict[str, frozenset[Station]] = {}
        self.gateways: dict[str, Gateway] = {}
        self.floating: dict[tuple[str, str], Floating] = {}
        self.elsewhere: set[str] = set()
        self.rings: list[tuple[str, Ring]] = []

    def claim(self, name: str, mark: str) -> None:
        if self.marks.setdefault(name, mark) != mark:
            raise StepFailed("VniTaken", f"{name} belongs to another")
        self.spoilt.pop(name, None)

    def lose(self, name: str) -> None:
        """As `ip link del` or `ip netns del`: what hangs on it hangs in the air."""
        with self.lock:
            mark = self.marks.pop(name, "")
            self.spoilt.pop(name, None)
            kind, vni = name.split("-")
            for other in {"br": ("vx", "gi"), "gw": ("gi", "go")}.get(kind, ()):
                if f"{other}-{vni}" in self.marks:
                    self.spoilt[f"{other}-{vni}"] = f"{other}-{vni} is unplugged"
            self.taps.update({tap: "" for tap, bridge in self.taps.items() if bridge == name})
            self.peers.pop(name, None)
            self.gateways.pop(name, None)
            for place, floating in [each for each in self.floating.items() if each[0][0] == f"gw-{vni}"]:
                if kind == "gw":
                    del self.floating[place]
                    self.spoilt.pop(floating.address, None)
                elif kind == "go":
                    self.spoilt[floating.address] = f"{floating.address} leads nowhere"
        self.ring(mark)

    def spoil(self, name: str, why: str) -> None:
        with self.lock:
            self.spoilt[name] = why
        self.ring(self.marks.get(name, ""))

    def ring(self, mark: str) -> None:
        cluster, _, uid = mark.rpartition(":")
        for owner, ring in list(self.rings):
            if cluster and owner == cluster:
                ring(uid)


class FakeFabric:
    """`failures`: what the next steps end with, in turn."""

    def __init__(self, cluster: str = "simulated", kernel: FakeKernel | None = None) -> None:
        self.failures: list[StepFailed] = []
        self.kernel = kernel or FakeKernel()
        self._cluster = cluster
        self._lock = self.kernel.lock

    def has_bridge(self, name: str) -> bool:
        return name in self.kernel.marks

    def observe(self, tokens: Collection[str] | None) -> Iterable[Segment | Gateway | Floating]:
        with self._lock:
            found = {(mark.rpartition(":")[2], int(name[3:], 16)) for name, mark in self.kernel.marks.items()
                     if mark.startswith(f"{self._cluster}:")}
            parts = [look(uid, vni) for uid, vni in sorted(found) if tokens is None or uid in set(tokens)
                     for look in (self._segment, self._gateway)]
            floating = [self._floating(each) for (namespace, uid), each in sorted(self.kernel.floating.items())
                        if self.kernel.marks[namespace].startswith(f"{self._cluster}:")]
        return [*(part for part in parts if part),
                *(each for each in floating if tokens is None or each.uid in set(tokens))]

    def watch(self, ring: Ring) -> None:
        self.kernel.rings.append((self._cluster, ring))

    def mtu(self) -> int:
        return 1450

    def close(self) -> None:
        self.kernel.rings[:] = [each for each in self.kernel.rings if each[0] != self._cluster]

    def build_segment(self, segment: Segment) -> None:
        with self._step(segment.uid) as mark:
            vxlan = f"vx-{segment.vni:06x}"
            self.kernel.claim(vxlan, mark)
            self.kernel.claim(segment.bridge, mark)
            self.kernel.peers[vxlan] = segment.peers
            self.kernel.stations[vxlan] = segment.stations

    def remove_segment(self, segment: Segment) -> None:
        with self._step(segment.uid) as mark:
            vxlan = f"vx-{segment.vni:06x}"
            if self.kernel.marks.get(vxlan, mark) == mark:
                self.kernel.stations.pop(vxlan, None)
            self._drop(mark, vxlan, segment.bridge)

    def build_gateway(self, gateway: Gateway) -> None:
        with self._step(gateway.uid) as mark:
            if self.kernel.marks.get(Segment(gateway.uid, gateway.vni).bridge) != mark:
                raise StepFailed("SegmentMissing", f"the bridge of {gateway} is not there yet")
            for name in (gateway.namespace, f"gi-{gateway.vni:06x}"):
                self.kernel.claim(name, mark)
            if not gateway.nat:
                self._drop(mark, f"go-{gateway.vni:06x}")
            elif any(other.nat and other.transit == gateway.transit and name != gateway.namespace
                     for name, other in self.kernel.gateways.items()):
                raise StepFailed("TransitTaken", f"{gateway.transit} leads somewhere else already")
            else:
                self.kernel.claim(f"go-{gateway.vni:06x}", mark)
            self.kernel.gateways[gateway.namespace] = gateway

    def remove_gateway(self, gateway: Gateway) -> None:
        with self._step(gateway.uid) as mark:
            self._drop(mark, f"go-{gateway.vni:06x}", f"gi-{gateway.vni:06x}", gateway.namespace)

    def build_floating(self, floating: Floating) -> None:
        with self._step(floating.uid):
            namespace = f"gw-{floating.vni:06x}"
            if not self._is_way_out(namespace, floating.network):
                raise StepFailed("GatewayMissing", f"the gateway of {floating} is not there yet")
            others = {place: each for place, each in self.kernel.floating.items() if place != (namespace, floating.uid)}
            if any(floating.address == each.address or (place[0], floating.inside) == (namespace, each.inside)
                   for place, each in others.items()):
                raise StepFailed("AddressTaken", f"{floating.address} leads somewhere else already")
            self.kernel.floating[namespace, floating.uid] = floating
            self.kernel.spoilt.pop(floating.address, None)

    def remove_floating(self, floating: Floating) -> None:
        place = f"gw-{floating.vni:06x}", floating.uid
        with self._step(floating.uid):
            if self.kernel.marks.get(place[0], "").startswith(f"{self._cluster}:") and place in self.kernel.floating:
                self.kernel.spoilt.pop(self.kernel.floating.pop(place).address, None)

    def held_elsewhere(self, address: str) -> bool:
        return address in self.kernel.elsewhere

    def plug(self, tap: str, bridge: str) -> None:
        mark = self.kernel.marks.get(bridge, "")
        with self._step(mark.rpartition(":")[2]):
            if not mark.startswith(f"{self._cluster}:"):
                raise StepFailed("SegmentMissing", f"{bridge} is not there yet")
            if tap in self.kernel.taps:
                self.kernel.taps[tap] = bridge

    def ping(self, gateway: Gateway, address: str, count: int) -> list[int]:
        """Who answers is who has a lease and a tap in the bridge, and the gateway itself."""
        with self._lock:
            there = self.kernel.gateways.get(gateway.namespace)
            if there is None or self.kernel.marks.get(gateway.namespace) != f"{self._cluster}:{gateway.uid}":
                raise StepFailed("GatewayMissing", f"{gateway} is not here", patience=1)
            taps = {Nic(lease.mac, "").tap for lease in there.leases if lease.address == address}
            bridge = Segment(gateway.uid, gateway.vni).bridge
            plugged = any(self.kernel.taps.get(tap) == bridge for tap in taps)
            return [500] * count if plugged or there.address.split("/")[0] == address else []

    @contextmanager
    def _step(self, uid: str) -> Iterator[str]:
        """One at a time; the next failure that was asked for comes first; the bell rings when it is done."""
        mark = f"{self._cluster}:{uid}"
        with self._lock:
            if self.failures:
                raise self.failures.pop(0)
        try:
            with self._lock:
                yield mark
        finally:
            self.kernel.ring(mark)

    def _is_way_out(self, namespace: str, uid: str) -> bool:
        there, mark = self.kernel.gateways.get(namespace), f"{self._cluster}:{uid}"
        names = (namespace, namespace.replace("gw", "go"))
        return bool(there and there.nat and not self._trouble(mark, *names))

    def _floating(self, part: Floating) -> Floating:
        trouble = self.kernel.spoilt.get(part.address)
        return replace(part, inside=f"?broken: {trouble}") if trouble else part

    def _drop(self, mark: str, *names: str) -> None:
        for name in names:
            if self.kernel.marks.get(name) == mark:
                self.kernel.lose(name)

    def _trouble(self, mark: str, *names: str) -> str:
        """What is wrong with the first of these devices that is not as it should be."""
        for name in names:
            if self.kernel.marks.get(name) != mark:
                return f"?broken: {name} is missing"
            if name in self.kernel.spoilt:
                return f"?broken: {self.kernel.spoilt[name]}"
        return ""

    def _segment(self, uid: str, vni: int) -> Segment | None:
        part, vxlan, mark = Segment(uid, vni), f"vx-{vni:06x}", f"{self._cluster}:{uid}"
        if mark not in (self.kernel.marks.get(part.bridge), self.kernel.marks.get(vxlan)):
            return None
        trouble = self._trouble(mark, part.bridge, vxlan)
        return replace(part, peers=frozenset({trouble}) if trouble else self.kernel.peers[vxlan],
                       stations=self.kernel.stations.get(vxlan, frozenset()),
                       busy=part.bridge in self.kernel.taps.values())

    def _gateway(self, uid: str, vni: int) -> Gateway | None:
        mark, names = f"{self._cluster}:{uid}", [f"{kind}-{vni:06x}" for kind in ("gw", "gi", "go")]
        if mark not in (self.kernel.marks.get(name) for name in names):
            return None
        part = self.kernel.gateways.get(names[0], Gateway(uid, vni, "", "", ""))
        trouble = self._trouble(mark, Segment(uid, vni).bridge, *(names if part.nat else names[:2]))
        return replace(part, address=trouble) if trouble else part
