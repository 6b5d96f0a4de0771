"""Who may speak from which tap: one nftables table of the bridge family for all segments of the cluster on this node.

A guest's frame is judged as it leaves its tap, before the bridge learns from it. It must bear the tap's own MAC, and
as IPv4 or ARP its own address (or none yet: a DHCP question, an ARP probe); IPv6 passes, and nothing else, since
under a VLAN tag an address could hide. What comes over VXLAN with the MAC of somebody here comes from one who
has not heard yet that this one moved, and the bridge must not believe it.

Taps of another cluster on this host have names like ours, and no match tells the bridge that they are in. So only
names that were told are judged; and from a tap that nobody told of nothing passes to a device of ours.

The rules are the same for all. Who is who stands in sets, whose elements have the network and VNI they are of as their
comment: a segment is changed by its own elements alone, and what its devices left behind is known to be its.
"""
from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from wisp.adapters.nft import ACCEPT, Chain, Expression, Table, comes, generation, leaves, match, transact
from wisp.host import Nic, Segment, Station

Element = tuple[str, tuple[str, ...]]
"""(set, what it is made of)"""
Owner = tuple[str, int]
"""(uid of the network, VNI)"""
NOBODY = ("", 0)
FAILED = "SegmentFailed"
DROP: Expression = {"drop": None}
SETS = {"devices": ["ifname"], "macs": ["ifname", "ether_addr"], "addresses": ["ifname", "ipv4_addr"],
        "home": ["ifname", "ether_addr"]}


def _field(protocol: str, name: str) -> Expression:
    return {"payload": {"protocol": protocol, "field": name}}


def _pair(protocol: str, name: str, known: str, op: str = "==") -> Expression:
    """Whether the device that a frame comes from is in a set, together with one of the frame's fields."""
    return match({"concat": [{"meta": {"key": "iifname"}}, _field(protocol, name)]}, known, op)


TYPE, ANY = _field("ether", "type"), "0.0.0.0"
ARP, IPV4, IPV6 = (match(TYPE, name) for name in ("arp", "ip", "ip6"))
DHCP = [match(_field("udp", "sport"), 68), match(_field("udp", "dport"), 67)]
CHAINS = (
    Chain("prerouting", "filter", "prerouting", -300, "accept", (
        (_pair("ether", "saddr", "@home"), DROP),
        (match({"meta": {"key": "iifname"}}, "t-*", "!="), ACCEPT),
        (match({"meta": {"key": "iifname"}}, "@devices", "!="), ACCEPT),
        (_pair("ether", "saddr", "@macs", "!="), DROP),
        (ARP, _pair("arp", "saddr ether", "@macs", "!="), DROP),
        (ARP, match(_field("arp", "saddr ip"), ANY), ACCEPT),
        (ARP, _pair("arp", "saddr ip", "@addresses"), ACCEPT),
        (IPV4, match(_field("ip", "saddr"), ANY), *DHCP, ACCEPT),
        (IPV4, _pair("ip", "saddr", "@addresses"), ACCEPT),
        (IPV6, ACCEPT),
        (DROP,))),
    Chain("forward", "filter", "forward", 0, "accept", (
        (comes("t-*"), match({"meta": {"key": "iifname"}}, "@devices", "!="), leaves("@devices"), DROP),)))


@dataclass(frozen=True, slots=True)
class Told:
    """What the table says. `whole`: its rules and sets are as they should be, and no element is a stranger's."""

    whole: bool
    owners: Mapping[Element, Owner] = field(default_factory=dict)

    def of(self, owner: Owner) -> frozenset[Element]:
        return frozenset(element for element, its in self.owners.items() if its == owner)

    def stations(self, owner: Owner) -> frozenset[Station]:
        """Who is here."""
        mine = self.of(owner)
        addresses = {value[0]: value[1] for name, value in mine if name == "addresses"}
        macs = [value[1] for name, value in mine if name == "home"]
        return frozenset(Station(mac, addresses.get(_tap(mac), "")) for mac in macs)

    def is_of(self, segment: Segment) -> bool:
        """Whether it says just this of the segment."""
        return self.whole and self.of((segment.uid, segment.vni)) == elements(segment)


class Taps:
    """The table of one cluster on this node."""

    def __init__(self, cluster: str) -> None:
        self._table = Table(f"wisp-{cluster[:8]}", CHAINS, "bridge", SETS)
        self._changing = threading.Lock()
        self._at, self._told = (0, 0), Told(False)

    def told(self) -> Told:
        """Listed again only when some rule of the node was changed by anyone."""
        at = generation()
        if at != self._at:
            self._told = _read(self._table)
            self._at = at
        return self._told

    def tell(self, segment: Segment) -> None:
        """Makes it say just this of the segment, and lays it anew, with what it says of others, if it is not whole."""
        owner, wanted = (segment.uid, segment.vni), elements(segment)
        with self._changing:
            told = self.told()
            stale = {element for element, its in told.owners.items()
                     if (its == owner) != (element in wanted) or its == NOBODY}
            fresh = {element: owner for element in wanted if element in stale or element not in told.owners}
            commands = [*self._commands("delete", stale), *self._commands("add", fresh)]
            if not told.whole:
                kept = {element: its for element, its in told.owners.items() if element not in stale}
                commands = [*self._table.commands(), *self._commands("add", kept | fresh)]
            if commands:
                transact(commands, FAILED)

    def forget(self, segment: Segment) -> None:
        """With the last segment the table goes."""
        with self._changing:
            told = self.told()
            mine = told.of((segment.uid, segment.vni))
            if mine == told.owners.keys():
                self._table.drop()
            elif mine:
                transact(self._commands("delete", mine), FAILED)

    def _commands(self, verb: str, some: Iterable[Element]) -> Iterator[Expression]:
        owners = some if isinstance(some, Mapping) else {}
        for name in SETS:
            found = [_spelled(element, owners.get(element)) for element in sorted(some) if element[0] == name]
            if found:
                yield {verb: {"element": {"family": "bridge", "table": self._table.name, "name": name, "elem": found}}}


def elements(segment: Segment) -> frozenset[Element]:
    vxlan = f"vx-{segment.vni:06x}"
    found: set[Element] = {("devices", (vxlan,)), ("devices", (f"gi-{segment.vni:06x}",))}
    for station in segment.stations:
        if not station.underlay:
            found.add(("home", (vxlan, station.mac)))
        if station.address:
            tap = _tap(station.mac)
            found |= {("devices", (tap,)), ("macs", (tap, station.mac)), ("addresses", (tap, station.address))}
    return frozenset(found)


def _tap(mac: str) -> str:
    return Nic(mac, "").tap


def _spelled(element: Element, owner: Owner | None) -> Any:
    parts = list(element[1])
    value = {"concat": parts} if len(parts) > 1 else parts[0]
    return {"elem": {"val": value, "comment": f"{owner[0]} {owner[1]:06x}"}} if owner else value


def _read(table: Table) -> Told:
    listing = table.listing()
    if not listing:
        return Told(False)
    sets = [each["set"] for each in json.loads(listing)["nftables"] if "set" in each]
    owners = dict(_parsed(known["name"], each) for known in sets if known["name"] in SETS
                  for each in known.get("elem", ()))
    return Told(table.is_in(listing) and NOBODY not in owners.values(), owners)


def _parsed(name: str, listed: Any) -> tuple[Element, Owner]:
    said = listed.get("elem", {"val": listed}) if isinstance(listed, dict) else {"val": listed}
    uid, _, vni = said.get("comment", "").rpartition(" ")
    value = said["val"]
    return (name, tuple(value["concat"]) if isinstance(value, dict) else (value,)), (uid, int(vni, 16) if uid else 0)
