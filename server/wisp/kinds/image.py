"""An image: recorded until a node needs it, then kept there by its content.

A node holds an image because an instance bound to it still has a disk to make from it, and goes on
holding it, so that the next one starts from the cache, until the image itself is retired.
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from wisp.host import Host, Part
from wisp.host import Image as CachedImage
from wisp.kinds.kind import Kind
from wisp.resource import Resource
from wisp.world import World


class Image(Kind):
    def places(self, resource: Resource, world: World) -> frozenset[str]:
        users = filter(None, map(world.resource, world.referrers(resource.ref)))
        nodes = (user.binding.get("node", "") for user in users)
        return frozenset(filter(None, nodes)) | frozenset(resource.statuses)

    def manifest(self, resource: Resource, world: World, node: str) -> Iterable[Part]:
        yield CachedImage(resource.spec["sha256"], resource.spec["format"], resource.spec["source"]["url"])

    def told(self, resource: Resource, have: Host) -> tuple[str, Mapping[str, Any]]:
        return "Cached", {}
