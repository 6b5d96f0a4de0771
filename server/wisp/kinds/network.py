"""A network: a segment on every node that needs it, and one gateway.

Its VNI, the address by which a node reaches its gateway, and that gateway's MAC begin at a hash of the
network's uid rather than of its name: two clouds on one host then do not draw the same ones for
networks of the same name. The first host address is always the gateway's and is never claimed.
"""
from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Iterator, Mapping

from wisp.errors import Fault
from wisp.host import Gateway, Lease, Part, Segment
from wisp.kinds.kind import Asked, Bound, Kind, upward
from wisp.kinds.placement import open_nodes
from wisp.resource import Json, Resource, claim_key
from wisp.world import World, target_of

TRANSIT = ipaddress.IPv4Network("100.64.0.0/10")
VNIS = 1 << 24
TAKEN = [TRANSIT, *map(ipaddress.IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"))]
"""Ours, and those of special use that no guest could reach or answer from."""


class Network(Kind):
    def check(self, asked: Asked, world: World) -> Iterable[Fault]:
        cidr = ipaddress.IPv4Network(asked.spec["cidr"])
        if clash := next((taken for taken in TAKEN if cidr.overlaps(taken)), None):
            yield Fault("/spec/cidr", "cidr", f"Must not overlap {clash}, which has a meaning of its own.")

    def weigh(self, spec: Json) -> Mapping[str, int]:
        return {"networks": 1}

    def bind(self, asked: Asked, world: World) -> Bound:
        if asked.was:
            return Bound(asked.was.binding)
        vni = next(n for n in upward(asked.uid, VNIS, 1) if not world.taken(claim_key("vni", str(n))))
        transit = next(address for n in upward(asked.uid, TRANSIT.num_addresses - 1, 1)
                       if not world.taken(claim_key("transit", address := str(TRANSIT[n]))))
        network = ipaddress.IPv4Network(asked.spec["cidr"])
        gateway = {"address": str(network[1]), "mac": _mac(asked.uid), "transit": transit}
        if node := lightest(world):
            gateway["node"] = node
        return Bound({"vni": vni, "gateway": gateway},
                     claims=(claim_key("vni", str(vni)), claim_key("transit", transit)))

    def keys(self, resource: Resource, world: World) -> Iterable[str]:
        yield claim_key("vni", str(resource.binding["vni"]))
        yield claim_key("transit", resource.binding["gateway"]["transit"])

    def places(self, resource: Resource, world: World) -> frozenset[str]:
        carrier = resource.binding["gateway"].get("node") if has_gateway(resource.spec) else None
        holders = frozenset(str(member.binding["node"]) for member in members(resource, world))
        return holders | {carrier} if carrier else holders

    def manifest(self, resource: Resource, world: World, node: str) -> Iterable[Part]:
        others = self.places(resource, world) - {node}
        underlays = (world.facts(other).get("underlay") for other in others)
        yield Segment(resource.uid, resource.binding["vni"], frozenset(filter(None, underlays)))
        gateway = resource.binding["gateway"]
        if has_gateway(resource.spec) and gateway.get("node") == node:
            network = ipaddress.IPv4Network(resource.spec["cidr"])
            yield Gateway(resource.uid, resource.binding["vni"], f"{gateway['address']}/{network.prefixlen}",
                          gateway["mac"], gateway["transit"], nat=resource.spec["nat"], dhcp=resource.spec["dhcp"],
                          dns=tuple(resource.spec["dns_servers"]),
                          leases=frozenset(_leases(resource, world)) if resource.spec["dhcp"] else frozenset())

    def rebind(self, resource: Resource, world: World) -> Json | None:
        gateway = resource.binding["gateway"]
        if gateway.get("node") or not (node := lightest(world)):
            return None
        return {**resource.binding, "gateway": {**gateway, "node": node}}


def has_gateway(spec: Json) -> bool:
    return bool(spec["nat"] or spec["dhcp"])


def lightest(world: World) -> str | None:
    """The live node that carries the fewest networks' gateways."""
    return min(open_nodes(world), key=lambda name: (world.load(name).get("networks", 0), name), default=None)


def members(network: Resource, world: World) -> Iterator[Resource]:
    """The instances that have an interface on it, those that are being taken down too."""
    for ref in world.referrers(network.ref):
        if (found := world.resource(ref)) and found.binding.get("node"):
            yield found


def _leases(network: Resource, world: World) -> Iterator[Lease]:
    for member in members(network, world):
        for nic, given in zip(member.spec["networks"], member.binding["interfaces"], strict=True):
            if target_of("network", nic["network"], member.ref.namespace, frozenset()) == network.ref:
                yield Lease(given["mac"], given["address"], member.ref.name)


def _mac(uid: str) -> str:
    digest = hashlib.sha256(f"gateway {uid}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in b"\x02" + digest[:5])
