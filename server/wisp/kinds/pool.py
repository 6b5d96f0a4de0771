"""A pool is recorded; its addresses are claims of the floating IPs that have them, and so it knows none itself."""
from __future__ import annotations

from collections.abc import Iterator

from wisp.errors import Fault
from wisp.kinds.kind import Asked, Kind, clashes
from wisp.world import World


class Pool(Kind):
    def check(self, asked: Asked, world: World) -> Iterator[Fault]:
        return clashes(asked.spec)
