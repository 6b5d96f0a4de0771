"""A floating IP: an address of a pool that leads to one interface of an instance.

It is attached by name. Where it leads is looked up whenever something on the way moves, and written down
nowhere: so an instance goes without asking, one of the same name that comes in its place has the address at
once, and a gateway that moves to another node takes it along. Its part stands where that gateway is.

Two claims are its own: the address, of all pools together, since the outside is only one; and, while it names
an instance, that interface, since what an interface sends outside can come from one address only.
"""
from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from wisp.conditions import Lack
from wisp.errors import Fault, Problem
from wisp.host import Floating, Host
from wisp.kinds.kind import Asked, Bound, Kind, upward
from wisp.resource import CLUSTER, Json, Ref, Resource, claim_key
from wisp.world import World, target_of


@dataclass(frozen=True, slots=True)
class _Target:
    network: Resource
    inside: str


class FloatingIp(Kind):
    lets_go = frozenset({"instance"})

    def weigh(self, spec: Json) -> Mapping[str, int]:
        return {"floating_ips": 1}

    def check(self, asked: Asked, world: World) -> Iterator[Fault]:
        cidr = _cidr(asked.spec, world)
        if (wished := asked.spec.get("address")) and ipaddress.IPv4Address(wished) not in cidr:
            yield Fault("/spec/address", "address", f"Must be an address of {cidr}.")
        moved = asked.was is None or _attachment(asked.ref, asked.was.spec) != _attachment(asked.ref, asked.spec)
        found = _target(asked.ref, asked.spec, world)
        if moved and isinstance(found, Lack) and found.lasting:
            yield Fault("/spec/interface", "interface", found.message)

    def bind(self, asked: Asked, world: World) -> Bound:
        before = _attachment(asked.ref, asked.was.spec) if asked.was else ()
        after = _attachment(asked.ref, asked.spec)
        for key in set(after) - set(before):
            if taken := world.record(key):
                detail = f"That interface has the floating IP {taken['name']}; detach that first."
                raise Problem("in_use", f"/spec/interface: {detail}", [Fault("/spec/interface", "in_use", detail)])
        claims = [key for key in after if key not in before]
        frees = tuple(key for key in before if key not in after)
        if asked.was:
            return Bound(asked.was.binding, claims=tuple(claims), frees=frees)
        address = _address(asked, world)
        return Bound({"address": address}, claims=(_claim(address), *claims))

    def keys(self, resource: Resource, world: World) -> Iterable[str]:
        return (_claim(resource.binding["address"]), *_attachment(resource.ref, resource.spec))

    def places(self, resource: Resource, world: World) -> frozenset[str]:
        found = _target(resource.ref, resource.spec, world)
        return frozenset({found.network.binding["gateway"]["node"]}) if isinstance(found, _Target) else frozenset()

    def lack(self, resource: Resource, world: World) -> Lack | None:
        found = _target(resource.ref, resource.spec, world)
        return found if isinstance(found, Lack) else None

    def manifest(self, resource: Resource, world: World, node: str) -> Iterator[Floating]:
        if isinstance(found := _target(resource.ref, resource.spec, world), _Target):
            network = found.network
            yield Floating(resource.uid, network.uid, network.binding["vni"], resource.binding["address"], found.inside)

    def told(self, resource: Resource, have: Host) -> tuple[str, Mapping[str, Any]]:
        return "Attached", {}


def _target(ref: Ref, spec: Json, world: World) -> _Target | Lack | None:
    """Where it leads, or why nowhere; None when it is to lead nowhere."""
    if "instance" not in spec:
        return None
    instance = world.resource(Ref("instance", ref.namespace, spec["instance"]))
    if instance is None or instance.retired:
        return Lack("Detached", f"There is no instance {spec['instance']}; when there is one again, it leads there.")
    if spec["interface"] >= len(instance.spec["networks"]):
        return Lack("NoInterface", f"The {instance.ref} has no interface {spec['interface']}.", lasting=True)
    name = instance.spec["networks"][spec["interface"]]["network"]
    network = world.resource(target_of("network", name, ref.namespace, frozenset()))
    if network is None or not network.spec["nat"]:
        return Lack("NoNat", f"The network {name} of that interface has no NAT, so nothing outside reaches it.",
                    lasting=True)
    if not network.binding["gateway"].get("node"):
        return Lack("Waiting", f"No node carries the gateway of the {network.ref}.")
    return _Target(network, instance.binding["interfaces"][spec["interface"]]["address"])


def _attachment(ref: Ref, spec: Json) -> tuple[str, ...]:
    """The claim on the interface that it names."""
    if "instance" not in spec:
        return ()
    return (claim_key("interface", ref.namespace, spec["instance"], str(spec["interface"])),)


def _claim(address: str) -> str:
    return claim_key("floating", address)


def _cidr(spec: Json, world: World) -> ipaddress.IPv4Network:
    pool = world.resource(Ref("pool", CLUSTER, spec["pool"]))
    if pool is None:
        raise Problem("reference", f"The pool {spec['pool']} is gone.")
    return ipaddress.IPv4Network(pool.spec["cidr"])


def _address(asked: Asked, world: World) -> str:
    cidr = _cidr(asked.spec, world)
    if wished := asked.spec.get("address"):
        if world.taken(_claim(wished)):
            raise Problem("address_taken", "/spec/address: It belongs to another floating IP.",
                          [Fault("/spec/address", "address_taken", "Choose another one, or leave it out.")])
        return str(wished)
    for offset in upward(f"{asked.ref.namespace}/{asked.ref.name}", cidr.num_addresses):
        if not world.taken(_claim(address := str(cidr[offset]))):
            return address
    raise Problem("addresses_exhausted", f"Every address of the pool {asked.spec['pool']} is taken.")
