"""A node: its facts are its agent's to say; the operator's only wish so far is `cordoned`."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from wisp.host import Host
from wisp.kinds.kind import Kind
from wisp.resource import Resource, fence_key, node_key
from wisp.store import Absent
from wisp.world import World


class Node(Kind):
    appears = True

    def keys(self, resource: Resource, world: World) -> Iterable[str]:
        yield fence_key("node", resource.ref.name)

    def stays_while(self, resource: Resource) -> Iterable[Absent]:
        yield Absent(node_key(resource.ref.name))

    def places(self, resource: Resource, world: World) -> frozenset[str]:
        return frozenset({resource.ref.name})

    def told(self, resource: Resource, have: Host) -> tuple[str, Mapping[str, Any]]:
        said = resource.statuses.get(resource.ref.name, {})
        aside = ("conditions", "observed_generation")
        return "Alive", {name: value for name, value in said.items() if name not in aside}
