"""Planning is subtraction: what a node should have, less what it has, as steps in order.

A step is a verb and a part; as text it is the log line and the user's event. A plan makes no choice
that is not in its input, does nothing by itself, and remembers nothing: planned again after a crash,
or after somebody meddled, it holds what is still to be done. Three rules keep data safe. What has no
wish is taken down only when its document says `retired`; what is bound to another node is stopped and
kept; and a disk that was made and is missing is lost, not made anew.
"""
from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeVar

from wisp.host import Disk, Domain, Floating, Gateway, Host, Image, Part, Seed, Segment
from wisp.ports import Machine

P = TypeVar("P", bound=Part)


@dataclass(frozen=True, slots=True)
class Step:
    verb: str
    part: Part

    def __str__(self) -> str:
        return f"{self.verb} {self.part}"

    def do(self, machine: Machine, user_data: Callable[[str], str | None]) -> None:
        """Raises StepFailed. `user_data`: reads a key of the store, when a config drive is written."""
        match self.part:
            case Seed() as seed if self.verb == "write":
                machine.depot.write_seed(seed, user_data(seed.user_data) if seed.user_data else None)
            case Domain() as domain if self.verb == "plug":
                for nic in domain.nics:
                    machine.fabric.plug(nic.tap, nic.bridge)
            case part:
                VERBS[self.verb, type(part)](machine)(part)


VERBS: Mapping[tuple[str, type[Part]], Callable[[Machine], Callable[..., None]]] = {
    ("build", Segment): lambda machine: machine.fabric.build_segment,
    ("remove", Segment): lambda machine: machine.fabric.remove_segment,
    ("build", Gateway): lambda machine: machine.fabric.build_gateway,
    ("remove", Gateway): lambda machine: machine.fabric.remove_gateway,
    ("build", Floating): lambda machine: machine.fabric.build_floating,
    ("remove", Floating): lambda machine: machine.fabric.remove_floating,
    ("fetch", Image): lambda machine: machine.depot.fetch,
    ("drop", Image): lambda machine: machine.depot.drop_image,
    ("create", Disk): lambda machine: machine.depot.create_disk,
    ("drop", Disk): lambda machine: machine.depot.drop_disk,
    ("drop", Seed): lambda machine: machine.depot.drop_seed,
    ("define", Domain): lambda machine: machine.hypervisor.define,
    ("start", Domain): lambda machine: machine.hypervisor.start,
    ("stop", Domain): lambda machine: machine.hypervisor.stop,
    ("shut down", Domain): lambda machine: machine.hypervisor.shutdown,
    ("suspend", Domain): lambda machine: machine.hypervisor.suspend,
    ("resume", Domain): lambda machine: machine.hypervisor.resume,
    ("undefine", Domain): lambda machine: machine.hypervisor.undefine,
}


class Fate(Enum):
    """What the documents say of parts that nobody wishes for here."""

    RETIRED = "retired: take them down"
    ELSEWHERE = "bound to another node: stop them, keep their data"
    UNKNOWN = "in no document: leave what holds data"


@dataclass(frozen=True, slots=True)
class Wait:
    """Something of another token's that must be there first."""

    token: str
    what: str


@dataclass(frozen=True, slots=True)
class Todo:
    """`steps` can be run now; `waits` hold back others; `lost` are disks that were made and are gone."""

    steps: tuple[Step, ...] = ()
    waits: tuple[Wait, ...] = ()
    lost: tuple[Disk, ...] = ()

    @property
    def done(self) -> bool:
        return not (self.steps or self.waits or self.lost)


def plan(want: Host, have: Host, around: Host) -> Todo:
    """What takes one subject from `have` to `want`. `around`: in it is looked up what its parts stand on."""
    waits = tuple(_waits(want, have, around))
    lost = tuple(part for part in _of(Disk, want) if part.made and not _seen(part, have))
    return Todo(tuple(_built(want, have, held_back=bool(waits or lost))), waits, lost)


def take_down(have: Host, fate: Fate) -> Todo:
    """What takes down a subject that nobody wishes for here, as far as its fate allows."""
    return Todo(tuple(_taken_down(have, fate)))


def _built(want: Host, have: Host, held_back: bool) -> Iterator[Step]:
    for segment in _of(Segment, want):
        if _seen(segment, have) != segment:
            yield Step("build", segment)
    yield from (Step("remove", stale) for stale in _of(Gateway, have) if not _seen(stale, want))
    yield from (Step("remove", stale) for stale in _of(Segment, have) if not (stale.busy or _seen(stale, want)))
    for gateway in _of(Gateway, want):
        if _seen(gateway, have) != gateway:
            yield Step("build", gateway)
    yield from (Step("remove", stale) for stale in _of(Floating, have) if not _seen(stale, want))
    for image in _of(Image, want):
        if not _seen(image, have):
            yield Step("fetch", image)
    if not held_back:
        yield from (Step("build", floating) for floating in _of(Floating, want) if _seen(floating, have) != floating)
        yield from _machine(want, have)
    for domain in _of(Domain, want) if held_back else ():
        is_now = _seen(domain, have)
        if is_now and domain.power == "off" != is_now.power:
            yield Step("shut down" if is_now.power == "on" else "stop", domain)


def _machine(want: Host, have: Host) -> Iterator[Step]:
    for disk in _of(Disk, want):
        if not _seen(disk, have):
            yield Step("create", disk)
    for domain in _of(Domain, want):
        is_now = _seen(domain, have)
        for seed in _of(Seed, want):
            if not _seen(seed, have):
                yield Step("write", seed)
        yield from _power(domain, is_now)
        if is_now is None or "off" in (is_now.power, domain.power):
            yield from (Step("drop", seed) for seed in _of(Seed, have) if seed not in want.parts)


def _power(want: Domain, have: Domain | None) -> Iterator[Step]:
    state = have.power if have else "off"
    if have is None or replace(have, seed=want.seed, nics=want.nics, power=want.power) != want or _rewired(want, have):
        if state != "off":
            yield Step("stop" if state == "crashed" else "shut down", want)
            state = "off"
        yield Step("define", want)
    elif have.seed != want.seed:
        yield Step("define", want)
    if state != "off" and have and any(not nic.plugged for nic in have.nics):
        yield Step("plug", want)
    if state == "crashed":
        yield Step("stop", want)
        state = "off"
    yield from (Step(verb, want) for verb in TO[want.power][state])


TO: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "on": {"on": (), "off": ("start",), "paused": ("resume",)},
    "off": {"on": ("shut down",), "off": (), "paused": ("stop",)},
    "paused": {"on": ("suspend",), "off": ("start", "suspend"), "paused": ()},
}
"""Wished power -> power now -> what to do."""


def _rewired(want: Domain, have: Domain) -> bool:
    """Whether its interfaces differ in more than being plugged in."""
    return tuple(replace(nic, plugged=True) for nic in have.nics) != want.nics


def _waits(want: Host, have: Host, around: Host) -> Iterator[Wait]:
    images = {image.sha256 for image in _of(Image, around)}
    for disk in _of(Disk, want):
        if disk.sha256 and disk.sha256 not in images and not _seen(disk, have):
            yield Wait(f"sha256:{disk.sha256}", f"image {disk.sha256[:12]}")
    gateways = {gateway.uid for gateway in _of(Gateway, around) if gateway.nat and gateway.transit}
    for floating in _of(Floating, want):
        if floating.network not in gateways:
            yield Wait(floating.network, f"gateway {floating.vni:06x}")
    known = {(segment.bridge, station.mac) for segment in _of(Segment, around) for station in segment.stations}
    for domain in _of(Domain, want):
        yield from (Wait(nic.uid, f"segment {nic.bridge}") for nic in domain.nics if (nic.bridge, nic.mac) not in known)


def _taken_down(have: Host, fate: Fate) -> Iterator[Step]:
    for domain in _of(Domain, have):
        if domain.power != "off" and fate is not Fate.UNKNOWN:
            yield Step("stop", domain)
        if fate is Fate.RETIRED:
            yield Step("undefine", domain)
    if fate is Fate.RETIRED:
        yield from (Step("drop", disk) for disk in _of(Disk, have))
        yield from (Step("drop", seed) for seed in _of(Seed, have))
    yield from (Step("remove", floating) for floating in _of(Floating, have))
    yield from (Step("remove", gateway) for gateway in _of(Gateway, have))
    yield from (Step("remove", segment) for segment in _of(Segment, have) if not segment.busy)


def reap(have: Host, wanted: Collection[str]) -> tuple[Step, ...]:
    """What can go of all that a node has: devices and cached images of no `wanted` token, with nothing on them."""
    spare = Host.of(part for part in have if part.token not in wanted)
    below = {disk.sha256 for disk in _of(Disk, have)}
    devices = _taken_down(Host.of([*_of(Floating, spare), *_of(Gateway, spare), *_of(Segment, spare)]), Fate.UNKNOWN)
    return (*devices, *(Step("drop", image) for image in _of(Image, spare) if image.sha256 not in below))


def _of(kind: type[P], host: Iterable[Part]) -> list[P]:
    """The parts of one kind, in an order that does not depend on a set's."""
    return sorted((part for part in host if isinstance(part, kind)), key=lambda part: str(_slot(part)))


def _slot(part: Part) -> tuple[str | int, ...]:
    """What two versions of the same part share."""
    match part:
        case Disk():
            return ("disk", part.uid, part.index)
        case Seed():
            return ("seed", part.uid, part.digest)
        case Floating() | Segment() | Gateway():
            return (type(part).__name__, part.uid, part.vni)
        case _:
            return (type(part).__name__, part.token)


def _seen(wish: P, have: Host) -> P | None:
    """The same part as it is now."""
    return next((part for part in have if isinstance(part, type(wish)) and _slot(part) == _slot(wish)), None)
