"""A resource is three documents, each with one kind of writer, and this is how they are spelled.

The *intent* is what the user asked for, written by the API alone; the *binding* holds the scarce
things it was given; a *status* is what one node's agent says is true there. They stand under keys
of their own, so that no writer ever has to merge what another one wrote, and so that the ETag can
cover the intent alone. Cluster kinds stand under the namespace `-`, which no name can be.
"""
from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

PREFIX = "/wisp/v1/"
CLUSTER = "-"
CLUSTER_KEY = f"{PREFIX}cluster"
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True, order=True)
class Ref:
    """Which resource: kind, namespace ("-" for cluster kinds) and name."""

    kind: str
    namespace: str
    name: str

    def key(self, document: str) -> str:
        """Key of one of its documents; with a trailing slash appended, the prefix of several."""
        return f"{PREFIX}{document}/{self.namespace}/{self.kind}/{self.name}"

    @property
    def path(self) -> str:
        return self.name if self.namespace == CLUSTER else f"{self.namespace}/{self.name}"

    @classmethod
    def of_key(cls, key: str) -> tuple[str, Ref, str]:
        """`/wisp/v1/status/web/instance/front/n1` -> ("status", its Ref, "n1")."""
        document, namespace, kind, name, *rest = key.removeprefix(PREFIX).split("/")
        return document, cls(kind, namespace, name), "/".join(rest)

    def __str__(self) -> str:
        return f"{self.kind} {self.path}"


def namespace_ref(name: str) -> Ref:
    return Ref("namespace", CLUSTER, name)


def node_ref(name: str) -> Ref:
    return Ref("node", CLUSTER, name)


def node_key(name: str) -> str:
    """The leased key that says the node's agent is alive."""
    return f"{PREFIX}node/{name}"


def claim_key(*path: str) -> str:
    return f"{PREFIX}claim/" + "/".join(path)


def fence_key(*path: str) -> str:
    return f"{PREFIX}fence/" + "/".join(path)


def refers_prefix(target: Ref, tie: str = "ref") -> str:
    return f"{target.key(tie)}/"


def refers_key(target: Ref, referrer: Ref, tie: str = "ref") -> str:
    """Says that `referrer` refers to `target`; its life is that of the referring intent. A tie `follow` holds nothing
    back: the referrer goes when the target does, or lives on without it."""
    return f"{refers_prefix(target, tie)}{referrer.namespace}/{referrer.kind}/{referrer.name}"


def dumps(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()


def now() -> str:
    """RFC 3339 UTC, microseconds: texts in the order of the times they tell."""
    return _text(datetime.now(UTC))


def later(at: str, seconds: int) -> str:
    return _text(datetime.fromisoformat(at) + timedelta(seconds=seconds))


def _text(at: datetime) -> str:
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def seal(uid: str, value: str) -> str:
    """What is kept of a write-only value beside the intent, to know it again."""
    return hashlib.sha256(f"{uid}\0{value}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Intent:
    """What the user asked for. `sealed`: digests of write-only fields; `retired`: when, or ""."""

    ref: Ref
    uid: str
    generation: int
    created_at: str
    updated_at: str
    spec: Json
    metadata: Mapping[str, str] = field(default_factory=dict)
    sealed: Mapping[str, str] = field(default_factory=dict)
    retired: str = ""

    @property
    def etag(self) -> str:
        return f'"{self.uid}-{self.generation}"'

    def dump(self) -> bytes:
        return dumps({name: getattr(self, name) for name in self.__slots__ if name != "ref"})

    @classmethod
    def load(cls, ref: Ref, raw: bytes) -> Intent:
        return cls(ref, **json.loads(raw))

    def revised(self, **changes: Any) -> Intent:
        return replace(self, generation=self.generation + 1, **changes)


@dataclass(frozen=True, slots=True)
class Resource:
    """The three documents together, with the revisions that guards are made of.

    at, born     modification and creation revision of the intent
    bound_at     modification revision of the binding, 0 when it has none
    statuses     node -> what its agent says
    """

    intent: Intent
    at: int
    born: int
    binding: Json = field(default_factory=dict)
    bound_at: int = 0
    statuses: Mapping[str, Json] = field(default_factory=dict)

    @property
    def ref(self) -> Ref:
        return self.intent.ref

    @property
    def uid(self) -> str:
        return self.intent.uid

    @property
    def spec(self) -> Json:
        return self.intent.spec

    @property
    def retired(self) -> bool:
        return bool(self.intent.retired)


def nodes_of(binding: Any) -> frozenset[str]:
    """Every node that a binding names, wherever it stands in it."""
    if isinstance(binding, dict):
        here = {binding["node"]} if binding.get("node") else set()
        return frozenset(here).union(*(nodes_of(value) for value in binding.values()))
    if isinstance(binding, list):
        return frozenset().union(*(nodes_of(value) for value in binding))
    return frozenset()
