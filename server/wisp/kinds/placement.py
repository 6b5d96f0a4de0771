"""Which node an instance goes to: filters in order, then the best of what is left.

Each filter is a stage; the refusal names the stage at which nothing was left and what would have
fitted. Room is what a node has, times what of it may be promised, less what is bound to it already.
"""
from __future__ import annotations

from collections.abc import Mapping

from wisp.errors import Problem
from wisp.resource import Json, node_ref
from wisp.world import World

OVERCOMMIT = {"cpus": 3.0, "memory_mib": 1.0, "disk_gib": 1.0}
RESERVE = {"cpus": 0, "memory_mib": 0, "disk_gib": 5}


def room(world: World, node: str) -> dict[str, int]:
    """What may still be bound to a node."""
    facts, load = world.facts(node), world.load(node)
    return {what: int((facts.get(what, 0) - RESERVE[what]) * factor) - load.get(what, 0)
            for what, factor in OVERCOMMIT.items()}


def place(world: World, weight: Mapping[str, int], wished: str | None, images: frozenset[str]) -> str:
    """Raises Problem `no_capacity` when no node is left. `images`: the references of images it begins as."""
    nodes = open_nodes(world)
    if wished:
        nodes = [name for name in nodes if name == wished]
    if not nodes:
        raise Problem("no_capacity", f"The node {wished} is not there or takes nothing new." if wished
                      else "No node is there that takes anything new.", stage="nodes", requested={}, best_available={})
    rooms = {name: room(world, name) for name in nodes}
    for what in OVERCOMMIT:
        best = max(free[what] for free in rooms.values())
        rooms = {name: free for name, free in rooms.items() if free[what] >= weight[what]}
        if not rooms:
            raise Problem("no_capacity", f"No node has {weight[what]} {what} left; the most is {max(best, 0)}.",
                          stage=what, requested={what: weight[what]}, best_available={what: max(best, 0)})
    return min(rooms, key=lambda name: (-_cached(world, name, images), -rooms[name]["memory_mib"], name))


def fits(world: World, node: str, more: Mapping[str, int]) -> None:
    """Raises Problem `no_capacity` when a node has not so much more room."""
    free = room(world, node)
    for what in OVERCOMMIT:
        if more.get(what, 0) > 0 and more[what] > free[what]:
            raise Problem("no_capacity", f"Its node {node} has only {max(free[what], 0)} more {what}.",
                          stage=what, requested={what: more[what]}, best_available={what: max(free[what], 0)})


def open_nodes(world: World) -> list[str]:
    """Those that are alive and take new things."""
    known = ((node.name, world.resource(node_ref(node.name))) for node in world.live_nodes())
    return [name for name, node in known if node and not node.retired and not node.spec["cordoned"]]


def _cached(world: World, node: str, images: frozenset[str]) -> int:
    return sum(1 for key in images if world.taken(f"{key}/{node}"))


def weigh(spec: Json) -> dict[str, int]:
    """What an instance takes of its node and of its namespace."""
    return {"instances": 1, "cpus": spec["cpus"], "memory_mib": spec["memory_mib"],
            "disk_gib": sum(disk["size_gib"] for disk in spec["disks"]), "addresses": len(spec["networks"])}
