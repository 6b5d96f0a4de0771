"""Which node an instance goes to: filters in order, then the best of what is left.

Each filter is a stage; the refusal names the stage at which nothing was left and what would have
fitted. Room is what a node has, less what its operator keeps back, times what of it may be promised,
less what is bound to it already. Who else is there is judged once, when an instance is placed: what is
bound to the chosen node is fenced, so two that must not meet do not, however close they come.
"""
from __future__ import annotations

from collections.abc import Mapping

from wisp.errors import Problem
from wisp.kinds.kind import Asked
from wisp.resource import Json, node_ref
from wisp.world import World

SIZES = ("cpus", "memory_mib", "disk_gib")
COMPANY = {"affinity": True, "anti_affinity": False}
"""A stage of placement -> whether such instances should be on the node already."""


def room(world: World, node: str) -> dict[str, int]:
    """What may still be bound to a node."""
    facts, load, known = world.facts(node), world.load(node), world.resource(node_ref(node))
    reserve, percent = (known.spec["reserve"], known.spec["overcommit_percent"]) if known else ({}, {})
    return {what: (facts.get(what, 0) - reserve.get(what, 0)) * percent.get(what, 100) // 100 - load.get(what, 0)
            for what in SIZES}


def place(world: World, asked: Asked, images: frozenset[str]) -> str:
    """Raises Problem `no_capacity` when no node is left. `images`: the references of images it begins as."""
    weight, wished = weigh(asked.spec), asked.spec["placement"].get("node")
    nodes = open_nodes(world, "instances")
    if wished:
        nodes = [name for name in nodes if name == wished]
    if not nodes:
        raise Problem("no_capacity", f"The node {wished} is not there or takes nothing new." if wished
                      else "No node is there that takes anything new.", stage="nodes", requested={}, best_available={})
    rooms = {name: room(world, name) for name in nodes}
    for what in SIZES:
        best = max(free[what] for free in rooms.values())
        rooms = {name: free for name, free in rooms.items() if free[what] >= weight[what]}
        if not rooms:
            raise Problem("no_capacity", f"No node has {weight[what]} {what} left; the most is {max(best, 0)}.",
                          stage=what, requested={what: weight[what]}, best_available={what: max(best, 0)})
    for stage in COMPANY:
        rooms = {name: free for name, free in rooms.items() if stage not in _unmet(world, name, asked, "require")}
        if not rooms:
            raise Problem("no_capacity", f"No node that has room for it meets its {stage}.", stage=stage, requested={},
                          best_available={})
    return min(rooms, key=lambda name: (len(_unmet(world, name, asked, "prefer")), -_cached(world, name, images),
                                        -rooms[name]["memory_mib"], name))


def fits(world: World, node: str, more: Mapping[str, int]) -> None:
    """Raises Problem `no_capacity` when a node has not so much more room."""
    free = room(world, node)
    for what in SIZES:
        if more.get(what, 0) > 0 and more[what] > free[what]:
            raise Problem("no_capacity", f"Its node {node} has only {max(free[what], 0)} more {what}.",
                          stage=what, requested={what: more[what]}, best_available={what: max(free[what], 0)})


def open_nodes(world: World, purpose: str) -> list[str]:
    """Those that are alive, carry such things, and take new ones."""
    known = ((node.name, world.resource(node_ref(node.name))) for node in world.live_nodes())
    return [name for name, node in known if node and not (node.spec["cordoned"] or node.spec["drained"])
            and _carries(world, name, purpose)]


def let_go(world: World, node: str, purpose: str) -> bool:
    """Whether what a node carries should go elsewhere: it is lost or drained, or carries such things no more."""
    known = world.resource(node_ref(node))
    return not (known and world.node(node)) or known.spec["drained"] or not _carries(world, node, purpose)


def _carries(world: World, node: str, purpose: str) -> bool:
    return purpose in world.facts(node).get("carries", (purpose,))


def _unmet(world: World, node: str, asked: Asked, mode: str) -> list[str]:
    """The stages of those rules of this mode that a node does not meet."""
    rules = [(stage, rule["metadata"].items()) for stage in COMPANY for rule in asked.spec["placement"][stage]
             if rule["mode"] == mode]
    home = (asked.ref.kind, asked.ref.namespace)
    refs = [ref for ref in world.bound_to(node) if (ref.kind, ref.namespace) == home] if rules else []
    there = [found.intent.metadata.items() for ref in refs if (found := world.resource(ref))]
    return [stage for stage, tags in rules if any(tags <= each for each in there) != COMPANY[stage]]


def _cached(world: World, node: str, images: frozenset[str]) -> int:
    return sum(1 for key in images if world.taken(f"{key}/{node}"))


def weigh(spec: Json) -> dict[str, int]:
    """What an instance takes of its node and of its namespace."""
    return {"instances": 1, "cpus": spec["cpus"], "memory_mib": spec["memory_mib"],
            "disk_gib": sum(disk["size_gib"] for disk in spec["disks"]), "addresses": len(spec["networks"])}
