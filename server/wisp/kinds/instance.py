"""An instance: a domain with its disks and config drive, on one node, plugged into segments.

Addresses and MACs are claims found upward from a hash of namespace, name and index; a MAC's begins with the
cluster too, since taps are named after MACs and two clouds may share a kernel. The content that each disk
begins as is written into the binding, so that an image may go once the disks exist. A disk that was made
once and is missing is lost: the manifest says so, and no step makes it anew.
"""
from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from wisp.conditions import Lack, condition
from wisp.errors import Fault, Problem
from wisp.host import Disk, Domain, Host, Nic, Part, Segment
from wisp.kinds.config_drive import config_drive
from wisp.kinds.kind import Asked, Bound, Kind, running, upward
from wisp.kinds.placement import fits, place, weigh
from wisp.resource import Json, Ref, Resource, claim_key, node_ref
from wisp.world import World, target_of

POWER = {"on": "Running", "off": "Stopped", "paused": "Paused"}


class Instance(Kind):
    keeps = frozenset({"user_data"})
    restarts = frozenset({"cpus", "memory_mib"})

    def weigh(self, spec: Json) -> Mapping[str, int]:
        return weigh(spec)

    def check(self, asked: Asked, world: World) -> Iterator[Fault]:
        if asked.was:
            return
        for index, (nic, network) in enumerate(_networks(asked.ref, asked.spec, world)):
            cidr = ipaddress.IPv4Network(network.spec["cidr"])
            if nic.get("mac") == network.binding["gateway"]["mac"]:
                yield Fault(f"/spec/networks/{index}/mac", "mac", "Must not be the gateway's.")
            if (wished := nic.get("address")) and not _usable(cidr, wished):
                yield Fault(f"/spec/networks/{index}/address", "address",
                            f"Must be a host address of {cidr} other than the gateway's.")

    def bind(self, asked: Asked, world: World) -> Bound:
        if asked.was:
            return self._grown(asked, asked.was, world)
        images = [_image(asked.ref, disk, world) for disk in asked.spec["disks"]]
        cached = frozenset(image.ref.key("status") for image in images if image)
        node = place(world, asked, cached)
        interfaces, claims = _interfaces(asked, world)
        disks = [{"sha256": image.spec["sha256"] if image else ""} for image in images]
        return Bound({"node": node, "interfaces": interfaces, "disks": disks}, claims=tuple(claims), grows=(node,))

    def _grown(self, asked: Asked, was: Resource, world: World) -> Bound:
        before, after = weigh(was.spec), weigh(asked.spec)
        more = {what: after[what] - before[what] for what in after}
        if not (node := was.binding.get("node")):
            return Bound(was.binding)
        fits(world, node, more)
        return Bound(was.binding, grows=(node,) if any(value > 0 for value in more.values()) else ())

    def keys(self, resource: Resource, world: World) -> Iterator[str]:
        given = resource.binding["interfaces"]
        for (_, network), interface in zip(_networks(resource.ref, resource.spec, world), given, strict=True):
            yield _address_claim(network, interface["address"])
            yield claim_key("mac", interface["mac"])

    def places(self, resource: Resource, world: World) -> frozenset[str]:
        return frozenset(filter(None, [resource.binding.get("node")]))

    def rebind(self, resource: Resource, world: World) -> Bound | None:
        """Once its node is gone for good it has none: one that joins under that name later must not make its disks."""
        node = resource.binding.get("node")
        if not node or not world.gone(node):
            return None
        return Bound({**{name: value for name, value in resource.binding.items() if name != "node"}, "lost": node})

    def lack(self, resource: Resource, world: World) -> Lack | None:
        if not (node := resource.binding.get("lost")):
            return None
        message = f"Its node {node} is gone for good, and its disks with it: delete it, and create it anew."
        return Lack("NodeGone", message, lasting=True)

    def remarks(self, resource: Resource, world: World) -> Iterator[dict[str, str]]:
        node = world.resource(node_ref(resource.binding.get("node", "")))
        if node and node.spec["drained"] and not resource.retired:
            message = f"Its node {node.ref.name} is being drained. Its disks are there and do not move: it stays."
            yield condition("Draining", "True", "DisksStay", message, node.intent.updated_at)

    def manifest(self, resource: Resource, world: World, node: str) -> Iterator[Part]:
        made = _made(resource)
        spec, uid = resource.spec, resource.uid
        for index, (disk, given) in enumerate(zip(spec["disks"], resource.binding["disks"], strict=True)):
            yield Disk(uid, index, disk["size_gib"], given["sha256"], made=index in made)
        seed = config_drive(resource, list(_networks(resource.ref, spec, world)), world.facts(node).get("mtu", 1450))
        yield seed
        yield Domain(uid, f"{resource.ref.namespace}.{resource.ref.name}.{uid[:8]}", spec["cpus"], spec["memory_mib"],
                     tuple(disk["bus"] for disk in spec["disks"]), tuple(_nics(resource, world)), seed.digest,
                     spec["firmware"], spec["video"], spec["power"], resource.intent.generation)

    def told(self, resource: Resource, have: Host) -> tuple[str, Mapping[str, Any]]:
        domain = running(have, resource.uid)
        made = {part.index for part in have if isinstance(part, Disk) and part.uid == resource.uid}
        return POWER[resource.spec["power"]], {"power": domain.power if domain else "off",
                                               "disks_made": sorted(made.union(_made(resource)))}

    def settled(self, resource: Resource) -> Iterable[str]:
        return ("image",) if len(_made(resource)) == len(resource.spec["disks"]) else ()


def _made(instance: Resource) -> list[int]:
    """Indices of the disks that its node has made, as far as that was recorded."""
    return list(instance.statuses.get(instance.binding.get("node", ""), {}).get("disks_made", ()))


def _usable(cidr: ipaddress.IPv4Network, address: str) -> bool:
    """Not the network's own, the gateway's or the broadcast address."""
    return cidr[1] < ipaddress.IPv4Address(address) < cidr.broadcast_address


def _networks(ref: Ref, spec: Json, world: World) -> Iterator[tuple[Json, Resource]]:
    for nic in spec["networks"]:
        network = world.resource(target_of("network", nic["network"], ref.namespace, frozenset()))
        if network is None:
            raise Problem("reference", f"The network {nic['network']} is gone.")
        yield nic, network


def _image(ref: Ref, disk: Json, world: World) -> Resource | None:
    return world.resource(target_of("image", disk["image"], ref.namespace, frozenset())) if "image" in disk else None


def _interfaces(asked: Asked, world: World) -> tuple[list[Json], list[str]]:
    given: list[Json] = []
    claims: list[str] = []
    plugged = list(_networks(asked.ref, asked.spec, world))
    wished = [_address_claim(network, nic["address"]) for nic, network in plugged if "address" in nic]
    wished += [claim_key("mac", nic["mac"]) for nic, _ in plugged if "mac" in nic]
    for index, (nic, network) in enumerate(plugged):
        seed = f"{asked.ref.namespace}/{asked.ref.name}/{index}"
        address = nic.get("address") or _free_address(network, seed, world, claims + wished)
        mac = nic.get("mac") or _free_mac(f"{world.cluster}/{seed}", world, claims + wished)
        for field, key in (("address", _address_claim(network, address)), ("mac", claim_key("mac", mac))):
            if world.taken(key) or key in claims:
                pointer = f"/spec/networks/{index}/{field}"
                raise Problem("address_taken", f"{pointer}: It belongs to another interface.",
                              [Fault(pointer, "address_taken", "Choose another one, or leave it out.")])
            claims.append(key)
        given.append({"address": address, "mac": mac})
    return given, claims


def _address_claim(network: Resource, address: str) -> str:
    return claim_key("address", network.uid, address)


def _free_address(network: Resource, seed: str, world: World, mine: list[str]) -> str:
    cidr = ipaddress.IPv4Network(network.spec["cidr"])
    for offset in upward(seed, cidr.num_addresses - 1, 2):
        key = _address_claim(network, address := str(cidr[offset]))
        if not world.taken(key) and key not in mine:
            return address
    raise Problem("addresses_exhausted", f"Every address of the {network.ref} is taken.")


def _free_mac(seed: str, world: World, mine: list[str]) -> str:
    for number in upward(seed, 1 << 40):
        mac = ":".join(f"{byte:02x}" for byte in b"\x02" + number.to_bytes(5))
        if not world.taken(key := claim_key("mac", mac)) and key not in mine:
            return mac
    raise Problem("addresses_exhausted", "Every MAC address is taken.")


def _nics(resource: Resource, world: World) -> Iterator[Nic]:
    given = resource.binding["interfaces"]
    for (nic, network), interface in zip(_networks(resource.ref, resource.spec, world), given, strict=True):
        segment = Segment(network.uid, network.binding["vni"])
        yield Nic(interface["mac"], segment.bridge, nic["model"], uid=network.uid)
