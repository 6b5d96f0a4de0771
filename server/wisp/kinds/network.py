"""A network: a segment on every node that needs it, and one gateway.

Its VNI, the address by which a node reaches its gateway, and that gateway's MAC begin at a hash of the
network's uid rather than of its name: two clouds on one host then do not draw the same ones for
networks of the same name. The first host address is always the gateway's and is never claimed.
"""
from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from wisp.conditions import Lack, find
from wisp.errors import Fault
from wisp.host import Gateway, Lease, Part, Segment, Station
from wisp.kinds.kind import TRANSIT, Asked, Bound, Kind, clashes, upward
from wisp.kinds.placement import let_go, open_nodes
from wisp.resource import Json, Resource, claim_key
from wisp.world import World, target_of

VNIS = 1 << 24
DOMAIN = "wisp.internal"


class Network(Kind):
    def check(self, asked: Asked, world: World) -> Iterable[Fault]:
        return clashes(asked.spec)

    def weigh(self, spec: Json) -> Mapping[str, int]:
        return {"networks": 1}

    def bind(self, asked: Asked, world: World) -> Bound:
        if asked.was:
            return Bound(asked.was.binding)
        vni, transit = _free_vni(asked.uid, world), _free_transit(asked.uid, world)
        network = ipaddress.IPv4Network(asked.spec["cidr"])
        gateway = {"address": str(network[1]), "mac": _mac(asked.uid), "transit": transit}
        if node := lightest(world):
            gateway["node"] = node
        return Bound({"vni": vni, "gateway": gateway},
                     claims=(_vni_claim(vni), _transit_claim(transit)))

    def keys(self, resource: Resource, world: World) -> Iterable[str]:
        yield _vni_claim(resource.binding["vni"])
        yield _transit_claim(resource.binding["gateway"]["transit"])

    def places(self, resource: Resource, world: World) -> frozenset[str]:
        carrier = resource.binding["gateway"].get("node") if has_gateway(resource.spec) else None
        holders = frozenset(str(member.binding["node"]) for member in members(resource, world))
        return holders | {carrier} if carrier else holders

    def manifest(self, resource: Resource, world: World, node: str) -> Iterable[Part]:
        underlays = {other: str(world.facts(other).get("underlay", ""))
                     for other in self.places(resource, world) - {node}}
        yield Segment(resource.uid, resource.binding["vni"], frozenset(filter(None, underlays.values())),
                      frozenset(_stations(resource, world, node, underlays)))
        gateway, spec = resource.binding["gateway"], resource.spec
        if has_gateway(spec) and gateway.get("node") == node:
            network = ipaddress.IPv4Network(spec["cidr"])
            bare = Gateway(resource.uid, resource.binding["vni"], f"{gateway['address']}/{network.prefixlen}",
                           gateway["mac"], gateway["transit"], nat=spec["nat"], dhcp=False)
            yield replace(bare, dhcp=True, dns=tuple(spec["dns_servers"]), domain=_domain(resource),
                          leases=frozenset(_leases(resource, world))) if spec["dhcp"] else bare

    def rebind(self, resource: Resource, world: World) -> Bound | None:
        gateway = resource.binding["gateway"]
        stays = gateway.get("node") and not let_go(world, gateway["node"], "gateways")
        if stays or not (node := lightest(world)):
            return _redrawn(resource, world)
        return Bound({**resource.binding, "gateway": {**gateway, "node": node}})

    def lack(self, resource: Resource, world: World) -> Lack | None:
        node = resource.binding["gateway"].get("node")
        if not has_gateway(resource.spec) or (node and world.node(node)):
            return None
        where = f"The node {node} that carries its gateway does not answer" if node else "No node carries its gateway"
        return Lack("NoCarrier", f"{where}; the first other one that can will carry it.")


def has_gateway(spec: Json) -> bool:
    return bool(spec["nat"] or spec["dhcp"])


def lightest(world: World) -> str | None:
    """The live node that carries the fewest networks' gateways, of those that can."""
    nodes = open_nodes(world, "gateways")
    return min(nodes, key=lambda name: (world.load(name).get("networks", 0), name), default=None)


def members(network: Resource, world: World) -> Iterator[Resource]:
    """The instances that have an interface on it, those that are being taken down too."""
    for ref in world.referrers(network.ref):
        if (found := world.resource(ref)) and found.binding.get("node"):
            yield found


def _vni_claim(vni: int) -> str:
    return claim_key("vni", str(vni))


def _transit_claim(address: str) -> str:
    return claim_key("transit", address)


def _free_vni(seed: str, world: World) -> int:
    return next(n for n in upward(seed, VNIS, 1) if not world.taken(_vni_claim(n)))


def _free_transit(seed: str, world: World) -> str:
    return next(address for n in upward(seed, TRANSIT.num_addresses - 1, 1)
                if not world.taken(_transit_claim(address := str(TRANSIT[n]))))


def _redrawn(network: Resource, world: World) -> Bound | None:
    """With other numbers than those that a kernel refuses, because another cloud on its node has them. A new VNI means
    new bridges, so not while a member runs."""
    binding, gateway, refused = network.binding, network.binding["gateway"], _refused(network, world)
    if "VniTaken" in refused and not any(_runs(member) for member in members(network, world)):
        vni = _free_vni(f"{network.uid} {binding['vni']}", world)
        return Bound({**binding, "vni": vni}, claims=(_vni_claim(vni),), frees=(_vni_claim(binding["vni"]),))
    if "TransitTaken" in refused:
        transit = _free_transit(f"{network.uid} {gateway['transit']}", world)
        return Bound({**binding, "gateway": {**gateway, "transit": transit}},
                     claims=(_transit_claim(transit),), frees=(_transit_claim(gateway["transit"]),))
    return None


def _refused(network: Resource, world: World) -> frozenset[str]:
    """Reasons that its nodes give since it was bound as it is: what they said before was of other numbers."""
    key = network.ref.key("status")
    return frozenset(find(said, "Ready").get("reason", "") for node, said in network.statuses.items()
                     if world.revision_of(f"{key}/{node}") > network.bound_at)


def _runs(member: Resource) -> bool:
    return bool(member.statuses.get(member.binding["node"], {}).get("power", "off") != "off")


def _interfaces(network: Resource, world: World) -> Iterator[tuple[Resource, Json]]:
    """Each member with what one of its interfaces on the network was given."""
    for member in members(network, world):
        for nic, given in zip(member.spec["networks"], member.binding["interfaces"], strict=True):
            if target_of("network", nic["network"], member.ref.namespace, frozenset()) == network.ref:
                yield member, given


def _leases(network: Resource, world: World) -> Iterator[Lease]:
    for member, given in _interfaces(network, world):
        yield Lease(given["mac"], given["address"], member.ref.name, _domain(member))


def _stations(network: Resource, world: World, node: str, underlays: Mapping[str, str]) -> Iterator[Station]:
    """As seen from a node. `underlays`: of the others; who is on one that has not said its own yet is left out."""
    found = [(str(member.binding["node"]), given["mac"], given["address"])
             for member, given in _interfaces(network, world)]
    gateway = network.binding["gateway"]
    if has_gateway(network.spec) and gateway.get("node"):
        found.append((gateway["node"], gateway["mac"], ""))
    for where, mac, address in found:
        if where == node:
            yield Station(mac, address)
        elif underlay := underlays[where]:
            yield Station(mac, underlay=underlay)


def _domain(resource: Resource) -> str:
    return f"{resource.ref.namespace}.{DOMAIN}"


def _mac(uid: str) -> str:
    digest = hashlib.sha256(f"gateway {uid}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in b"\x02" + digest[:5])
