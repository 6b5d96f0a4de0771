"""An API key: `wisp_<key id>_<secret>`, of which only a hash of the secret is kept.

The hash stands under a key of its own, found by the public key id, so that knowing a bearer costs one
look; it goes with the resource, and a rotated or deleted key is refused from the next request on. A
256-bit secret drawn at random needs no slow hash.
"""
from __future__ import annotations

import hashlib
from collections.abc import Iterable

from wisp.kinds.kind import Asked, Bound, Kind
from wisp.resource import PREFIX, Json, Resource, dumps
from wisp.world import World


def record_key(key_id: str) -> str:
    return f"{PREFIX}key/{key_id}"


def hashed(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


class Key(Kind):
    privileged = True

    def bind(self, asked: Asked, world: World) -> Bound:
        key_id = asked.was.binding["key_id"] if asked.was else asked.uid.replace("-", "")[:16]
        known = world.record(record_key(key_id)) or {}
        record = {"namespace": asked.ref.namespace, "name": asked.ref.name, "role": asked.spec["role"],
                  "expires_at": asked.spec.get("expires_at", ""), "hash": known.get("hash", "")}
        token = ""
        if fresh := self._secret(asked, known):
            record["hash"], token = hashed(fresh), f"wisp_{key_id}_{fresh}"
        puts = {record_key(key_id): dumps(record)} if record != known else {}
        made = ("secret",) if token and "secret" not in asked.hidden else ()
        return Bound({"key_id": key_id}, puts=puts, unseals=made, token=token)

    def _secret(self, asked: Asked, known: Json) -> str:
        """The new secret when there is to be one, else ""."""
        if given := asked.hidden.get("secret"):
            return given
        rotated = asked.was and asked.was.spec.get("rotation") != asked.spec.get("rotation")
        return asked.secret() if rotated or not known.get("hash") else ""

    def keys(self, resource: Resource, world: World) -> Iterable[str]:
        yield record_key(resource.binding["key_id"])
