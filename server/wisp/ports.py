"""What a node's agent needs of the machine it stands on.

Each port has one real adapter and one fake, and one contract suite runs against both. Observing
never changes anything; every doing verb is idempotent (done already is done) and raises
`StepFailed` when it does not work out. What does not carry this cluster's uid is invisible: an
adapter is made for one cluster, marks what it builds and reports only what is so marked.

`tokens` of `observe`: look only for parts of these; None: for everything of this cluster's.
"""
from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Protocol

from wisp.host import Disk, Domain, Floating, Gateway, Image, Seed, Segment

Ring = Callable[[str | None], None]
"""Called with a token whose parts may have moved, or None when anything may have."""


class Hypervisor(Protocol):
    """Virtual machines. A token is a domain's uid."""

    def observe(self, tokens: Collection[str] | None) -> Iterable[Domain]: ...
    def watch(self, ring: Ring) -> None:
        """Ring when a domain of ours moves, and with None after the connection came back."""
    def define(self, domain: Domain) -> None:
        """Makes the definition, or replaces it; a running domain goes on as it was until started anew."""
    def start(self, domain: Domain) -> None: ...
    def stop(self, domain: Domain) -> None:
        """Power off at once."""
    def shutdown(self, domain: Domain) -> None:
        """Ask the guest to power off, wait for it, and power off when it does not within 60 s."""
    def suspend(self, domain: Domain) -> None: ...
    def resume(self, domain: Domain) -> None: ...
    def undefine(self, domain: Domain) -> None: ...
    def reboot(self, uid: str, hard: bool) -> None:
        """Asks the guest to start anew, and does not wait for it; or `hard`, resets it. Not idempotent."""
    def virt_type(self) -> tuple[str, str]:
        """("kvm" or "qemu", one sentence why)."""
    def close(self) -> None: ...


class Fabric(Protocol):
    """Links, bridges, VXLAN, gateways in their namespaces, floating IPs. A token is the uid of one, or of a network."""

    def observe(self, tokens: Collection[str] | None) -> Iterable[Segment | Gateway | Floating]:
        """A part that is there but not whole (link down, rule or process missing) is reported with
        what is really there, so that it differs from any part that is whole."""
    def watch(self, ring: Ring) -> None: ...
    def build_segment(self, segment: Segment) -> None:
        """Makes it, or mends whatever differs."""
    def remove_segment(self, segment: Segment) -> None: ...
    def build_gateway(self, gateway: Gateway) -> None: ...
    def remove_gateway(self, gateway: Gateway) -> None:
        """Its floating IPs go with it."""
    def build_floating(self, floating: Floating) -> None:
        """Refused without its gateway. Its neighbours outside are told that the address is here now."""
    def remove_floating(self, floating: Floating) -> None: ...
    def held_elsewhere(self, address: str) -> bool:
        """Asks outside, for up to a second, whether another machine answers for the address."""
    def plug(self, tap: str, bridge: str) -> None:
        """Enslave a domain's tap to the bridge, up; one that is not there is no error."""
    def ping(self, gateway: Gateway, address: str, count: int) -> list[int]:
        """Asks an address from inside the gateway so many times, for a second or two: microseconds of each answer."""
    def mtu(self) -> int:
        """Of every segment and of what is plugged into one, bytes: the underlay's less 50."""
    def close(self) -> None: ...


class Depot(Protocol):
    """Files: cached images, disks, config drives. A token is "sha256:…" or an instance's uid."""

    def observe(self, tokens: Collection[str] | None) -> Iterable[Image | Disk | Seed]: ...
    def fetch(self, image: Image) -> None:
        """Download (resuming what was cut), verify, check, convert, publish at once. Slow."""
    def drop_image(self, image: Image) -> None: ...
    def create_disk(self, disk: Disk) -> None: ...
    def drop_disk(self, disk: Disk) -> None: ...
    def write_seed(self, seed: Seed, user_data: str | None) -> None: ...
    def drop_seed(self, seed: Seed) -> None: ...
    def console(self, uid: str, limit: int) -> str:
        """The last of what an instance wrote to its serial console, at most `limit` bytes of it; "" if nothing."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The three together: all that an agent can see and do on its node."""

    hypervisor: Hypervisor
    fabric: Fabric
    depot: Depot


@dataclass(frozen=True, slots=True)
class Facts:
    """What a node is: sizes as the kernel tells them, addresses and versions. Published as its status."""

    cpus: int
    memory_mib: int
    disk_gib: int
    mtu: int
    underlay: str
    virt_type: str
    virt_reason: str
    versions: tuple[tuple[str, str], ...] = ()
    carries: tuple[str, ...] = ("instances", "gateways")
    egress: str = ""
