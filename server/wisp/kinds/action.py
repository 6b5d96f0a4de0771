"""An action: something done once, to an instance on its node or by a network's gateway.

Nothing is ever wished of a machine by it, so it has no manifest: its node takes it up when nobody has
begun it yet, and what is known of it afterwards is its status. It is bound to the uid of what it is done
to, since a name may be another's by the time it is begun. It never keeps that from going, and goes with
it. Not begun within a minute it has expired; a day after it was asked for it is forgotten.
"""
from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from functools import partial

from wisp.conditions import over
from wisp.errors import Fault, Problem
from wisp.host import Gateway
from wisp.kinds.kind import Act, Asked, Bound, Kind, Lapse
from wisp.ports import Machine
from wisp.resource import Json, Ref, Resource, later
from wisp.world import World, target_of

BEGUN_WITHIN = 60
KEPT = 24 * 3600
PINGS = 3
CONSOLE = 16 * 1024
TAKES = {"reboot": {"instance", "mode"}, "console_log": {"instance"}, "ping": {"network", "address"}}
OPTIONAL = {"mode"}


class Action(Kind):
    def check(self, asked: Asked, world: World) -> Iterator[Fault]:
        if asked.was:
            return
        do, given = asked.spec["do"], asked.spec.keys() - {"do"}
        for name in sorted(TAKES[do] - OPTIONAL - given):
            yield Fault(f"/spec/{name}", "required", f"The action {do} needs this field.")
        for name in sorted(given - TAKES[do]):
            yield Fault(f"/spec/{name}", "unknown_field", f"The action {do} does not take this field.")
        if do == "ping" and given == TAKES[do] and (network := _target(asked.ref, asked.spec, world)):
            cidr = ipaddress.IPv4Network(network.spec["cidr"])
            if not cidr[0] < ipaddress.IPv4Address(asked.spec["address"]) < cidr[-1]:
                yield Fault("/spec/address", "address", f"Must be a host address of {cidr}.")
            if not (network.spec["nat"] or network.spec["dhcp"]):
                yield Fault("/spec/network", "gateway", "The network has no gateway: neither NAT nor DHCP is wished.")

    def bind(self, asked: Asked, world: World) -> Bound:
        if asked.was:
            return Bound(asked.was.binding)
        target = _target(asked.ref, asked.spec, world)
        if target is None or not (node := _node(target)):
            raise Problem("no_capacity", "No node carries the gateway that would do it.", stage="nodes",
                          requested={}, best_available={})
        return Bound({"node": node, "target": target.uid})

    def places(self, resource: Resource, world: World) -> frozenset[str]:
        return frozenset({resource.binding["node"]})

    def act(self, resource: Resource, world: World) -> Act | None:
        target = _standing(resource, world)
        if target is None or _node(target) != resource.binding["node"]:
            return None
        spec = resource.spec
        match spec["do"]:
            case "reboot":
                mode = spec.get("mode", "soft")
                what, do = f"{mode} reboot", partial(_reboot, target.uid, mode == "hard")
            case "console_log":
                what, do = "console log", partial(_console, target.uid)
            case _:
                what, do = f"ping {spec['address']}", partial(_ping, _gateway(target), spec["address"])
        until = later(resource.intent.created_at, BEGUN_WITHIN)
        return Act(what, target.ref.key("binding"), target.bound_at, until, do)

    def lapse(self, resource: Resource, world: World) -> Lapse:
        if _standing(resource, world) is None:
            return Lapse("")
        if resource.statuses:
            return Lapse(later(resource.intent.created_at, KEPT))
        at = later(resource.intent.created_at, BEGUN_WITHIN)
        message = f"The node {resource.binding['node']} did not begin it within {BEGUN_WITHIN} seconds."
        return Lapse(at, over({"observed_generation": resource.intent.generation}, False, "Expired", message, at))


def _target(ref: Ref, spec: Json, world: World) -> Resource | None:
    kind = "network" if spec["do"] == "ping" else "instance"
    return world.resource(target_of(kind, spec[kind], ref.namespace, frozenset()))


def _standing(action: Resource, world: World) -> Resource | None:
    """What it is done to, as long as that is the one that was meant, and stays."""
    target = _target(action.ref, action.spec, world)
    return target if target and not target.retired and target.uid == action.binding["target"] else None


def _node(target: Resource) -> str:
    return str(target.binding.get("gateway", target.binding).get("node", ""))


def _gateway(network: Resource) -> Gateway:
    given = network.binding["gateway"]
    return Gateway(network.uid, network.binding["vni"], given["address"], given["mac"], given["transit"])


def _reboot(uid: str, hard: bool, machine: Machine) -> Json:
    machine.hypervisor.reboot(uid, hard)
    return {}


def _console(uid: str, machine: Machine) -> Json:
    return {"output": machine.depot.console(uid, CONSOLE)}


def _ping(gateway: Gateway, address: str, machine: Machine) -> Json:
    answers = machine.fabric.ping(gateway, address, PINGS)
    return {"sent": PINGS, "received": len(answers), "rtt_us": answers}
