"""Everything that is recorded, at one revision, as values: what deciding looks at.

A world is a reading of a mirror. It parses an entry when it is first asked for and keeps the result
for as long as the entry does not move, so a turn costs what it looks at and not what there is. Sums
that admission needs (what a node carries, what a namespace holds) are kept as the mirror moves, since
adding them up each time would make every create as dear as the cloud is large. Use it while holding
the mirror (`with mirror.held():`): then everything in it is of one revision.

An intent is read with the defaults of today: one recorded before a field existed has it all the same,
and asking for it again as it was asked for then still changes nothing.
"""
from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from wisp.resource import (
    CLUSTER,
    CLUSTER_KEY,
    PREFIX,
    Intent,
    Json,
    Ref,
    Resource,
    node_key,
    node_ref,
    nodes_of,
    refers_prefix,
)
from wisp.store import Entry

Weigh = Callable[[str, Json], Mapping[str, int]]
"""(kind, spec) -> what it takes of quotas and nodes: {"cpus": 2, "memory_mib": 512, …}"""
Fill = Callable[[str, Json], Json]
"""(kind, spec) -> the spec with the defaults of today"""


class Copy(Protocol):
    """What a world needs of the mirror."""

    @property
    def revision(self) -> int: ...
    def get(self, key: str) -> Entry | None: ...
    def scan(self, prefix: str) -> Iterator[Entry]: ...
    def held(self) -> AbstractContextManager[None]: ...
    def listen(self, callback: Callable[[Entry | None, Entry | None], None]) -> None: ...


@dataclass(frozen=True, slots=True)
class LiveNode:
    """A node whose agent is alive: `at` is the revision of its leased key."""

    name: str
    at: int


class World:
    def __init__(self, copy: Copy, weigh: Weigh, fill: Fill) -> None:
        self.copy = copy
        self._weigh, self._fill = weigh, fill
        self._parsed: dict[str, tuple[int, Any]] = {}
        self._counted: dict[Ref, tuple[str, frozenset[str], Mapping[str, int]]] = {}
        self._by_uid: dict[str, Ref] = {}
        self._on_node: dict[str, set[Ref]] = defaultdict(set)
        self._in_namespace: dict[str, Counter[str]] = defaultdict(Counter)
        self._load: dict[str, Counter[str]] = defaultdict(Counter)
        copy.listen(self._moved)

    # --- documents

    def read(self, intent: Entry) -> Intent:
        """Of any revision."""
        read = Intent.load(Ref.of_key(intent.key)[1], intent.value)
        return replace(read, spec=self._fill(read.ref.kind, read.spec))

    def resource(self, ref: Ref) -> Resource | None:
        entry = self.copy.get(ref.key("intent"))
        if entry is None:
            return None
        bound = self.copy.get(ref.key("binding"))
        statuses = {Ref.of_key(each.key)[2]: self._json(each) for each in self.copy.scan(ref.key("status") + "/")}
        return Resource(self._intent(entry), entry.revision, entry.created,
                        self._json(bound) if bound else {}, bound.revision if bound else 0, statuses)

    def everything(self) -> Iterator[Resource]:
        for entry in list(self.copy.scan(f"{PREFIX}intent/")):
            if found := self.resource(Ref.of_key(entry.key)[1]):
                yield found

    def referrers(self, target: Ref, tie: str = "ref") -> list[Ref]:
        prefix = refers_prefix(target, tie)
        found = (entry.key.removeprefix(prefix).split("/") for entry in self.copy.scan(prefix))
        return [Ref(kind, namespace, name) for namespace, kind, name in found]

    def leaning(self, target: Ref) -> Iterator[Ref]:
        """What refers to it, and what follows it or one of those."""
        referrers = self.referrers(target)
        yield from referrers
        for each in (target, *referrers):
            yield from self.referrers(each, "follow")

    def taken(self, key: str) -> bool:
        return self.copy.get(key) is not None

    def revision_of(self, key: str) -> int:
        """Of a key's last change; 0 when it is absent."""
        return entry.revision if (entry := self.copy.get(key)) else 0

    def record(self, key: str) -> Json | None:
        """What stands under a key, read as JSON."""
        return self._json(entry) if (entry := self.copy.get(key)) else None

    @property
    def cluster(self) -> str:
        """The cluster's uid; "" in a store that is not wisp's yet."""
        return str((self.record(CLUSTER_KEY) or {"uid": ""})["uid"])

    def of_uid(self, uid: str) -> Ref | None:
        """The resource that has this uid."""
        return self._by_uid.get(uid)

    # --- nodes

    def node(self, name: str) -> LiveNode | None:
        return LiveNode(name, entry.revision) if (entry := self.copy.get(node_key(name))) else None

    def gone(self, name: str) -> bool:
        """Whether the node was declared gone for good, and has not joined again."""
        return bool((known := self.resource(node_ref(name))) and known.retired)

    def live_nodes(self) -> list[LiveNode]:
        prefix = node_key("")
        names = [entry.key.removeprefix(prefix) for entry in self.copy.scan(prefix)]
        return [node for name in names if (node := self.node(name))]

    def facts(self, name: str) -> Json:
        """What the node's agent says it is; empty before it has said anything."""
        return self.record(f"{node_ref(name).key('status')}/{name}") or {}

    def bound_to(self, node: str) -> frozenset[Ref]:
        return frozenset(self._on_node[node])

    def load(self, node: str) -> Mapping[str, int]:
        """What is bound to a node, added up."""
        return self._load[node]

    def held_by(self, namespace: str) -> Mapping[str, int]:
        """What a namespace holds, added up."""
        return self._in_namespace[namespace]

    # --- keeping up

    def _moved(self, old: Entry | None, new: Entry | None) -> None:
        key = (new or old).key  # type: ignore[union-attr]
        self._parsed.pop(key, None)     # whatever its revision: a restored store may say something else at the same
        if key.startswith((f"{PREFIX}intent/", f"{PREFIX}binding/")):
            self._count(Ref.of_key(key)[1])

    def _count(self, ref: Ref) -> None:
        uid, nodes, weight = self._counted.pop(ref, ("", frozenset(), {}))
        self._by_uid.pop(uid, None)
        for node in nodes:
            self._on_node[node].discard(ref)
            self._load[node].subtract(weight)
        self._in_namespace[ref.namespace].subtract(weight)
        if not (entry := self.copy.get(ref.key("intent"))):
            return
        bound = self.copy.get(ref.key("binding"))
        nodes = nodes_of(self._json(bound)) if bound else frozenset()
        intent = self._intent(entry)
        weight = self._weigh(ref.kind, intent.spec)
        for node in nodes:
            self._on_node[node].add(ref)
            self._load[node].update(weight)
        self._in_namespace[ref.namespace].update(weight)
        self._by_uid[intent.uid] = ref
        self._counted[ref] = intent.uid, nodes, weight

    def _json(self, entry: Entry) -> Any:
        return self._once(entry, lambda: json.loads(entry.value))

    def _intent(self, entry: Entry) -> Intent:
        return self._once(entry, lambda: self.read(entry))  # type: ignore[no-any-return]

    def _once(self, entry: Entry, parse: Callable[[], Any]) -> Any:
        known = self._parsed.get(entry.key)
        if known is None or known[0] != entry.revision:
            known = self._parsed[entry.key] = entry.revision, parse()
        return known[1]


def target_of(kind: str, name: str, namespace: str, cluster_kinds: frozenset[str]) -> Ref:
    """The resource that a reference written in `namespace` names."""
    if kind in cluster_kinds:
        return Ref(kind, CLUSTER, name)
    owner, slash, own = name.partition("/")
    return Ref(kind, owner, own) if slash else Ref(kind, namespace, name)
