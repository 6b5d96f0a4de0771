"""A namespace is recorded, and goes only when nothing is left in it. Its quotas are read by admission."""
from __future__ import annotations

from collections.abc import Iterable

from wisp.kinds.kind import Kind
from wisp.resource import PREFIX, Resource, fence_key
from wisp.store import Empty
from wisp.world import World


class Namespace(Kind):
    def stays_while(self, resource: Resource) -> Iterable[Empty]:
        yield Empty(f"{PREFIX}intent/{resource.ref.name}/")

    def keys(self, resource: Resource, world: World) -> Iterable[str]:
        yield fence_key("namespace", resource.ref.name)
