"""A node: its facts are its agent's to say, what it takes and keeps the operator's to wish.

One that was declared gone for good stays, retired, as long as what it said of itself does: so a machine that
comes back after all learns of it, and stands down.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from wisp.conditions import condition
from wisp.host import Host
from wisp.kinds.kind import Kind
from wisp.resource import Resource, fence_key, node_key
from wisp.store import Absent
from wisp.world import World

LISTED = 5


class Node(Kind):
    appears = True

    def keys(self, resource: Resource, world: World) -> Iterable[str]:
        yield fence_key("node", resource.ref.name)

    def stays_while(self, resource: Resource) -> Iterable[Absent]:
        yield Absent(node_key(resource.ref.name))

    def places(self, resource: Resource, world: World) -> frozenset[str]:
        return frozenset({resource.ref.name})

    def remarks(self, resource: Resource, world: World) -> Iterator[dict[str, str]]:
        since = resource.intent.updated_at
        if resource.retired:
            message = "It is gone for good. Should its machine return, it stands down until it joins anew."
            yield condition("Deleting", "True", "NodeGone", message, since)
        elif resource.spec["drained"]:
            left = sorted(str(ref) for ref in world.bound_to(resource.ref.name) if ref.kind != "action")
            more = f" and {len(left) - LISTED} more" if len(left) > LISTED else ""
            yield condition("Draining", "True", "Occupied", f"Still there: {', '.join(left[:LISTED])}{more}.", since) \
                if left else condition("Draining", "False", "Empty", "Nothing is bound to it any more.", since)

    def told(self, resource: Resource, have: Host) -> tuple[str, Mapping[str, Any]]:
        said = resource.statuses.get(resource.ref.name, {})
        aside = ("conditions", "observed_generation")
        return "Alive", {name: value for name, value in said.items() if name not in aside}
