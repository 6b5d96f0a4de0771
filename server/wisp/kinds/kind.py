"""What the engine asks of a kind, and what a kind that is only recorded answers.

A kind is pure: it looks at a world and says what follows. Binding a resource is saying which scarce
things it gets (claims, which the admitting transaction then guards), and the manifest is saying which
parts a node should have because of it. Kinds do not know of one another's modules; what one needs of
another's resources it reads from the world, as the schema files describe them.
"""
from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from wisp.conditions import Lack
from wisp.errors import Fault
from wisp.host import Domain, Host, Part
from wisp.ports import Machine
from wisp.resource import Json, Ref, Resource
from wisp.store import Absent, Empty
from wisp.world import World

TRANSIT = ipaddress.IPv4Network("100.64.0.0/10")
"""Where nodes reach gateways."""
TAKEN = [TRANSIT, *map(ipaddress.IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"))]
"""That, and those of special use that nobody could reach or answer from."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A resource about to be recorded.

    was      as it is recorded now, None when it is being created
    metadata  its tags
    hidden   write-only values that came with this request, by field
    secret   makes 256 bits of chance as text
    """

    ref: Ref
    uid: str
    spec: Json
    was: Resource | None
    metadata: Mapping[str, str]
    hidden: Mapping[str, str]
    secret: Callable[[], str]


@dataclass(frozen=True, slots=True)
class Bound:
    """What a resource is given.

    claims   keys to be taken with it, absent until now
    grows    nodes that it takes more room of
    frees    claims of before that it gives back
    puts     further keys written with it
    unseals  write-only fields whose last value holds no more
    token    a new API key, whole, to be shown once
    """

    binding: Json = field(default_factory=dict)
    claims: tuple[str, ...] = ()
    grows: tuple[str, ...] = ()
    frees: tuple[str, ...] = ()
    puts: Mapping[str, bytes] = field(default_factory=dict)
    unseals: tuple[str, ...] = ()
    token: str = ""


@dataclass(frozen=True, slots=True)
class Act:
    """What a node is to do once.

    binding  key of the binding of what it is done to, and `at` its revision, when this was decided
    until    when it is too late to begin
    do       does it and tells the result, as members of the status; raises StepFailed
    """

    what: str
    binding: str
    at: int
    until: str
    do: Callable[[Machine], Json]


@dataclass(frozen=True, slots=True)
class Lapse:
    """What becomes of a resource by itself, and when ("" now): it gets this status, or without one is forgotten."""

    at: str
    status: Json = field(default_factory=dict)


class Kind:
    """A kind that is recorded and nothing else.

    keeps        write-only fields whose text is kept in the store, for an agent to read
    privileged   only admins may write it
    appears      by itself: no caller makes one
    restarts     fields whose change restarts what runs
    lets_go      kinds that it refers to with `detach` and never holds back
    """

    restarts: frozenset[str] = frozenset()
    lets_go: frozenset[str] = frozenset()

    privileged = False
    appears = False
    keeps: frozenset[str] = frozenset()

    def stays_while(self, resource: Resource) -> Iterable[Empty | Absent]:
        """What must be empty or absent before it may go."""
        return ()

    def check(self, asked: Asked, world: World) -> Iterable[Fault]:
        """What is wrong beyond the schema."""
        return ()

    def weigh(self, spec: Json) -> Mapping[str, int]:
        """What it takes of quotas and of the node it is bound to."""
        return {}

    def bind(self, asked: Asked, world: World) -> Bound:
        return Bound(asked.was.binding if asked.was else {})

    def keys(self, resource: Resource, world: World) -> Iterable[str]:
        """Claims and other keys that go when it is forgotten."""
        return ()

    def places(self, resource: Resource, world: World) -> frozenset[str]:
        """Nodes that should have a part of it."""
        return frozenset()

    def lack(self, resource: Resource, world: World) -> Lack | None:
        """Why it lacks a place that it should have."""
        return None

    def remarks(self, resource: Resource, world: World) -> Iterable[dict[str, str]]:
        """Conditions beside Ready; of a retired one, what is to be said instead of what it waits for."""
        return ()

    def manifest(self, resource: Resource, world: World, node: str) -> Iterable[Part]:
        """The parts that one of its places should have."""
        return ()

    def told(self, resource: Resource, have: Host) -> tuple[str, Mapping[str, Any]]:
        """Of a place where all is as it should be: one word for the condition, and effective values."""
        return "Realized", {}

    def settled(self, resource: Resource) -> Iterable[str]:
        """Kinds it no longer depends on, though it still names them (`when_gone: detach`)."""
        return ()

    def rebind(self, resource: Resource, world: World) -> Bound | None:
        """What it should be given instead, if the conductor must move it."""
        return None

    def act(self, resource: Resource, world: World) -> Act | None:
        """Of an imperative: what its node is to do, as things stand."""
        return None

    def lapse(self, resource: Resource, world: World) -> Lapse | None:
        return None


def upward(seed: str, size: int, first: int = 0) -> Iterator[int]:
    """Every number of [first, size) once, beginning at a place that the seed decides.

    Taking the first free one of these, fifty at once do not collide, and asking beforehand tells truly.
    """
    count = size - first
    start = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8])
    return (first + (start + step) % count for step in range(count))


def clashes(spec: Json) -> Iterator[Fault]:
    cidr = ipaddress.IPv4Network(spec["cidr"])
    if clash := next((taken for taken in TAKEN if cidr.overlaps(taken)), None):
        yield Fault("/spec/cidr", "cidr", f"Must not overlap {clash}, which has a meaning of its own.")


def running(have: Host, uid: str) -> Domain | None:
    return next((part for part in have if isinstance(part, Domain) and part.uid == uid), None)
