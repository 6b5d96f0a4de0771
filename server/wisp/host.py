"""A machine as a value: what a node should look like and, equally, what it does look like.

Every part is a frozen dataclass; two are equal when nothing needs doing. Fields that only carry
what a step needs to build the part, or what an observer learned beside it, do not take part in
the comparison. A part belongs to a `token`, the thing that is observed and planned by itself:
the uid of the resource it comes from, or for a cached image its content ("sha256:…"), since two
image resources with the same content are one file.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any


def beside(default: Any) -> Any:
    """A field that travels with a part without being compared."""
    return field(default=default, compare=False)


@dataclass(frozen=True, slots=True, order=True)
class Station:
    """Whom a network knows by MAC: an interface of an instance, or the gateway.

    address   IPv4, of an interface on this node: the only one its tap may speak as; else ""
    underlay  of the other node that it is on; "" when it is on this one
    """

    mac: str
    address: str = ""
    underlay: str = ""


@dataclass(frozen=True, slots=True)
class Segment:
    """A network's presence on a node: bridge `br-<vni>` and, enslaved to it, VXLAN device `vx-<vni>`.

    peers     underlay addresses of the other nodes that hold a part of the network; each is an
              all-zero entry of the VXLAN device's FDB (flooded to by head-end replication)
    stations  everybody who is on it, wherever: frames to one elsewhere go to its node alone, and one
              here speaks as itself alone
    busy      an observer saw ports on the bridge that are not the segment's own: some domain's taps
    """

    uid: str
    vni: int
    peers: frozenset[str] = frozenset()
    stations: frozenset[Station] = frozenset()
    busy: bool = beside(False)

    @property
    def token(self) -> str:
        return self.uid

    @property
    def bridge(self) -> str:
        return f"br-{self.vni:06x}"

    def __str__(self) -> str:
        return f"segment {self.vni:06x}"


@dataclass(frozen=True, slots=True, order=True)
class Lease:
    """A fixed DHCP lease: this MAC always gets this address and name; DNS knows it as `<name>.<domain>`."""

    mac: str
    address: str
    name: str
    domain: str = ""


@dataclass(frozen=True, slots=True)
class Gateway:
    """A network's way out, in a namespace `gw-<vni>` of its own: first host address, DHCP, DNS, NAT.

    address  with prefix length, e.g. "10.1.0.1/24"; mac: of the inside interface
    transit  the address (no prefix) by which the node reaches the namespace from outside; what
             leaves is masqueraded as it, then by the node as itself
    nat      whether anything leaves at all
    dhcp     whether it hands out leases, and answers for names
    dns      servers it asks for names that it does not know itself; if there are none and `nat`, the node's own
    domain   of the network's own instances, which are known by their bare names too
    leases   one for each interface of an instance on the network
    """

    uid: str
    vni: int
    address: str
    mac: str
    transit: str
    nat: bool = True
    dhcp: bool = True
    dns: tuple[str, ...] = ()
    domain: str = ""
    leases: frozenset[Lease] = frozenset()

    @property
    def token(self) -> str:
        return self.uid

    @property
    def namespace(self) -> str:
        return f"gw-{self.vni:06x}"

    def __str__(self) -> str:
        return f"gateway {self.vni:06x}"


@dataclass(frozen=True, slots=True)
class Floating:
    """An address of the outside that leads to a guest, by way of the gateway of its network.

    network  uid of the network, `vni` its number: on the node that carries its gateway this is
    inside   the guest's address there, which what it sends outside then comes from `address` for
    """

    uid: str
    network: str
    vni: int
    address: str
    inside: str

    @property
    def token(self) -> str:
        return self.uid

    def __str__(self) -> str:
        return f"floating IP {self.address}"


@dataclass(frozen=True, slots=True)
class Image:
    """A cached image, found by its content: once here it is whole, checked, read-only and qcow2.

    format       what the origin declares it to be: "qcow2" or "raw" (converted on arrival)
    url          where it comes from
    """

    sha256: str
    format: str = beside("qcow2")
    url: str = beside("")

    @property
    def token(self) -> str:
        return f"sha256:{self.sha256}"

    def __str__(self) -> str:
        return f"image {self.sha256[:12]}"


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk of an instance: a qcow2 overlay on a cached image, or empty.

    sha256   content of the image below it; "" for an empty disk
    size_gib wanted virtual size, GiB (a disk is never smaller than its image); an observer reports
             the real size rounded up
    made     it existed once: if it is missing now, it is lost, and nothing makes it anew
    """

    uid: str
    index: int
    size_gib: int
    sha256: str = ""
    made: bool = beside(False)

    @property
    def token(self) -> str:
        return self.uid

    def __str__(self) -> str:
        return f"disk {self.index}"


@dataclass(frozen=True, slots=True)
class Seed:
    """The config drive of an instance (ISO 9660, label `config-2`), found by the digest of its content.

    files        path inside the drive -> text, e.g. "openstack/latest/meta_data.json"
    user_data    where the user data is kept in the store, "" for none; it is read when the drive is
                 written and at no other time, since it may hold secrets
    """

    uid: str
    digest: str
    files: tuple[tuple[str, str], ...] = beside(())
    user_data: str = beside("")

    @property
    def token(self) -> str:
        return self.uid

    def __str__(self) -> str:
        return "config drive"


@dataclass(frozen=True, slots=True)
class Nic:
    """An interface of a domain. `bridge` and `uid` name the segment it is plugged into.

    plugged  False: the domain runs, and its tap hangs on no bridge or on another one
    """

    mac: str
    bridge: str
    model: str = "virtio"
    plugged: bool = True
    uid: str = beside("")

    @property
    def tap(self) -> str:
        """The kernel's name of it on the node: traceable, and within 15 characters."""
        return "t-" + self.mac.replace(":", "")


@dataclass(frozen=True, slots=True)
class Domain:
    """A virtual machine as libvirt knows it.

    name       for people: `<namespace>.<name>.<uid's first eight>`; libvirt's UUID is `uid`
    disks      bus of each disk, in order
    seed       digest of the config drive it has in its drive
    firmware   "bios" or "uefi"
    power      "on", "off" or "paused"; an observer also reports "crashed"
    generation of the intent it was defined from
    note       why it is not running, when the hypervisor said so
    """

    uid: str
    name: str
    cpus: int
    memory_mib: int
    disks: tuple[str, ...]
    nics: tuple[Nic, ...]
    seed: str
    firmware: str = "bios"
    video: str = "none"
    power: str = "on"
    generation: int = beside(0)
    note: str = beside("")

    @property
    def token(self) -> str:
        return self.uid

    def __str__(self) -> str:
        return f"domain {self.name}"


Part = Segment | Gateway | Floating | Image | Disk | Seed | Domain


@dataclass(frozen=True, slots=True)
class Host:
    """A set of parts: of one machine, wished or seen."""

    parts: frozenset[Part] = frozenset()

    @classmethod
    def of(cls, parts: Iterable[Part]) -> Host:
        return cls(frozenset(parts))

    def __iter__(self) -> Iterator[Part]:
        return iter(self.parts)

    def only(self, tokens: Iterable[str]) -> Host:
        """The parts that belong to these tokens."""
        wanted = frozenset(tokens)
        return Host(frozenset(part for part in self.parts if part.token in wanted))

    def tokens(self) -> frozenset[str]:
        return frozenset(part.token for part in self.parts)
