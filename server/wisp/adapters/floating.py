"""Floating IPs: an address of the outside, led to a guest by way of the gateway of its network.

In the gateway's namespace two maps of its table translate, `dnat4` from the address to the guest's own and `snat4`
back; the comment of their elements is the floating IP's uid, and so its mark. On the node a route leads the address
to the gateway's transit address. On the egress link the node answers ARP for it (a proxy entry), so that no router
needs to know. They are made in this order and taken away in the other: nothing is answered for that leads nowhere,
and what a crash leaves is known by its mark. What has no mark any more, since the namespace was deleted by somebody,
is reported as nobody's; but not where a route leads to a gateway of another cluster.

With the maps conntrack has to change: a client that never pauses (a ping) would reach the old guest for ever.
"""
from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from wisp.adapters import arp, links
from wisp.adapters.gateway import NAMESPACE
from wisp.adapters.links import Link, Net
from wisp.adapters.marks import Broken, Marks, need
from wisp.adapters.nft import WAY_OUT, Expression, generation, transact
from wisp.errors import StepFailed
from wisp.host import Floating, Gateway

Element = tuple[str, str, str]
"""(map, address that it translates, into what)"""
FAILED = "FloatingFailed"


class Floatings:
    """Those of one cluster on this node. `owner`: uid of the network whose gateway has a namespace, "" if it is not
    ours; `egress`: name of the link to the outside, "" if there is none."""

    def __init__(self, marks: Marks, owner: Callable[[str], str], egress: str) -> None:
        self._marks, self._owner, self._egress = marks, owner, egress
        self._changing = threading.Lock()
        self._listed: dict[int, tuple[int, Mapping[Element, str]]] = {}
        self._seen: dict[str, set[int]] = {}
        self._surveyed = False

    def observe(self, net: Net, tokens: Collection[str] | None) -> list[Floating]:
        whole = tokens is None or not self._surveyed
        vnis = {int(name[3:], 16) for name in links.namespaces() if NAMESPACE.fullmatch(name)} if whole else {
            vni for token in tokens or () for vni in self._seen.get(token, ())}
        if not (vnis or whole):
            return []
        answered, leads = net.answered(), net.leads()       # before the maps: what is being built is in these first
        found = [part for vni in sorted(vnis) for part in self._of(net, vni, answered, leads)]
        for part in found:
            self._seen.setdefault(part.uid, set()).add(part.vni)
        self._surveyed = True
        if tokens is None:
            return [*found, *self._stray(net, {address for address, _ in answered} | leads.keys(), leads, found)]
        return [part for part in found if part.uid in tokens]

    def _of(self, net: Net, vni: int, answered: Collection[tuple[str, int]],
            leads: Mapping[str, tuple[int, str]]) -> Iterator[Floating]:
        """Those that lead through one gateway. `inside` says what is wrong with one that is not whole."""
        network, elements = self._within(vni)
        way, egress = self._way(net, vni, network), net.link(self._egress) if self._egress else None
        for uid in sorted(set(elements.values())):
            mine = {element for element, its in elements.items() if its == uid}
            address, inside = min((key, value) if name == "dnat4" else (value, key) for name, key, value in mine)
            part = Floating(uid, network, vni, address, inside)
            try:
                need(mine == _elements(part), "its translation is not whole")
                need(way and leads.get(address) == (way[0].index, way[1]), "no route leads there")
                need(egress or not self._egress, f"{self._egress} is missing")
                where = {index for each, index in answered if each == address}
                need(where == ({egress.index} if egress else set()), "its neighbours outside get no answer")
            except Broken as broken:
                part = replace(part, inside=f"?broken: {broken}")
            yield part

    def _stray(self, net: Net, addresses: set[str], leads: Mapping[str, tuple[int, str]],
               found: Iterable[Floating]) -> Iterator[Floating]:
        """What is led or answered for, and no map knows."""
        if strays := sorted(addresses - {part.address for part in found}):
            ways = {link.index: link for link in net.links()}
            for address in strays:
                link = ways.get(leads.get(address, (0, ""))[0])
                uid = self._marks.uid(link.alias) if link else ""
                if uid or not link:
                    yield Floating(f"stray {address}", uid, int(link.name[3:], 16) if link else 0, address, "")

    def build(self, net: Net, floating: Floating) -> None:
        with self._changing:
            way = self._way(net, floating.vni, floating.network)
            network, elements = self._within(floating.vni)
            if not way or network != floating.network:
                raise StepFailed("GatewayMissing", f"the gateway of {floating} is not there yet")
            self._seen.setdefault(floating.uid, set()).add(floating.vni)
            self._translate(floating, elements)
            try:
                net.lead(way[0], floating.address, way[1])
            except FileExistsError as error:
                raise StepFailed("AddressTaken", f"{floating.address} leads somewhere else already") from error
            self._answer(net, floating.address)

    def _translate(self, floating: Floating, elements: Mapping[Element, str]) -> None:
        wanted = _elements(floating)
        mine = {element for element, uid in elements.items() if uid == floating.uid}
        taken = {element[:2] for element in elements.keys() - mine}
        if any(element[:2] in taken for element in wanted):
            raise StepFailed("AddressTaken", f"{floating.address} or {floating.inside} is translated already")
        self._change(floating.vni, floating.uid, mine - wanted, wanted - mine)

    def _answer(self, net: Net, address: str) -> None:
        egress = self._link(net) if self._egress else None
        for each, index in net.answered():
            if each == address and not (egress and egress.index == index):
                net.silence(address, index)
        if egress:
            links.put_setting(f"net/ipv4/neigh/{egress.name}/proxy_delay", "0")     # else an answer takes up to 0.8 s
            net.answer(address, egress.index)
            arp.announce(egress, address)

    def remove(self, net: Net, floating: Floating) -> None:
        with self._changing:
            network, elements = self._within(floating.vni)
            elements = elements if network == floating.network else {}
            mine = {element for element, uid in elements.items() if uid == floating.uid}
            known = {element[1] for element in elements.keys() - mine if element[0] == "dnat4"}
            addresses = {key if name == "dnat4" else value for name, key, value in mine} or {floating.address}
            outer = self._marks.find(net, _outer(floating.vni), floating.network)
            for address in sorted(addresses - known):
                self._hush(net, outer, address)
            self._change(floating.vni, floating.uid, mine, set())

    def clear(self, net: Net, gateway: Gateway) -> None:
        """Takes down all that lead through a gateway."""
        for part in list(self._of(net, gateway.vni, net.answered(), net.leads())):
            if part.network == gateway.uid:
                self.remove(net, part)

    def is_held_elsewhere(self, net: Net, address: str) -> bool:
        if not self._egress:
            return False
        link = self._link(net)
        return arp.is_held(link, min(net.addresses(link), default="0.0.0.0").split("/")[0], address)

    def _hush(self, net: Net, outer: Link | None, address: str) -> None:
        """Nobody is told to come here any more, unless for another one's sake."""
        led = net.leads().get(address)
        if led is None or (outer and led[0] == outer.index):
            for each, index in net.answered():
                if each == address:
                    net.silence(address, index)
            if outer and led:
                net.unlead(outer, address)

    def _link(self, net: Net) -> Link:
        link = net.link(self._egress)
        if not link:
            raise StepFailed("EgressMissing", f"there is no link {self._egress}")
        return link

    def _way(self, net: Net, vni: int, network: str) -> tuple[Link, str] | None:
        """The node's link to a gateway, and the gateway's transit address there."""
        outer = self._marks.find(net, _outer(vni), network) if network else None
        hops = [destination.removesuffix("/32") for destination, _ in net.routes(outer)] if outer else []
        return (outer, hops[0]) if outer and hops else None

    def _within(self, vni: int) -> tuple[str, Mapping[Element, str]]:
        """Whose namespace it is, and which element of its maps is whose; "" and nothing if it is not ours."""
        namespace = f"gw-{vni:06x}"
        network = self._owner(namespace)
        return network, links.inside(namespace, self._list) if network else {}

    def _list(self) -> Mapping[Element, str]:
        """Listed again only when the rules there were changed by anyone."""
        space, at = generation()
        known, elements = self._listed.get(space, (0, {}))
        if known != at:
            elements = _parsed(WAY_OUT.listing())
            self._listed[space] = at, elements
        return elements

    def _change(self, vni: int, uid: str, gone: Collection[Element], come: Collection[Element]) -> None:
        def change() -> None:
            transact([*_commands("delete", uid, gone), *_commands("add", uid, come)], FAILED)
            for name, key, value in gone:
                links.cut(*((key, value) if name == "dnat4" else (value, key)))

        if gone or come:
            links.inside(f"gw-{vni:06x}", change)


def _outer(vni: int) -> str:
    return f"go-{vni:06x}"


def _elements(floating: Floating) -> set[Element]:
    return {("dnat4", floating.address, floating.inside), ("snat4", floating.inside, floating.address)}


def _commands(verb: str, uid: str, elements: Iterable[Element]) -> Iterator[Expression]:
    for name, key, value in sorted(elements):
        marked = {"elem": {"val": key, "comment": uid}}
        yield {verb: {"element": {"family": "ip", "table": WAY_OUT.name, "name": name, "elem": [[marked, value]]}}}


def _parsed(listing: str) -> Mapping[Element, str]:
    """Element -> its comment."""
    found: dict[Element, str] = {}
    for each in json.loads(listing)["nftables"] if listing else ():
        for key, value in each.get("map", {}).get("elem", ()):
            marked = key["elem"] if isinstance(key, dict) else {"val": key}
            found[each["map"]["name"], marked["val"], value] = marked.get("comment", "")
    return found
