"""Rules: one nftables table in each gateway's namespace, one of the cluster's on the node.

A table is replaced as a whole in one transaction of `nft -j -f -`, so that no packet meets half of one;
what is being translated goes on, since conntrack knows it. Every rule carries a digest of itself as its comment:
reading back compares chains and comments, not nft's spelling of a rule, which differs between versions. The
kernel counts the changes of a namespace's rules (its generation), so a table that stood stands until the count
moves, and looking costs no process.

Everything here acts on the network namespace of the calling thread.
"""
from __future__ import annotations

import hashlib
import ipaddress
import json
import socket
import struct
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from wisp.adapters.program import must, run

TRANSIT = ipaddress.ip_network("100.64.0.0/10")
NETLINK_NETFILTER, NFT_MSG_GETGEN, NLMSG_ERROR = 12, 10 << 8 | 16, 2
SO_NETNS_COOKIE = 71
INSIDE, OUTSIDE = "in0", "out0"
FAILED = "GatewayFailed"

Expression = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Chain:
    name: str
    type: str
    hook: str
    prio: int
    policy: str
    rules: tuple[tuple[Expression, ...], ...]


@dataclass(frozen=True, slots=True)
class Table:
    """An nftables table, as a whole. `sets`: name -> types of what an element is made of; `maps`: names of those from
    address to address, whose elements others add (`floating`)."""

    name: str
    chains: tuple[Chain, ...]
    family: str = "ip"
    sets: Mapping[str, list[str]] = field(default_factory=dict)
    maps: tuple[str, ...] = ()

    def commands(self) -> list[Expression]:
        """For `nft -j -f -`. Added first so that deleting it cannot fail."""
        me = {"family": self.family, "table": self.name}
        table = {"table": {"family": self.family, "name": self.name}}
        adds: list[Expression] = [table]
        adds += [{"set": {**me, "name": name, "type": types if len(types) > 1 else types[0]}}
                 for name, types in self.sets.items()]
        adds += [{"map": {**me, "name": name, "type": "ipv4_addr", "map": "ipv4_addr"}} for name in self.maps]
        for chain in self.chains:
            adds.append({"chain": {**me, "name": chain.name, "type": chain.type, "hook": chain.hook, "prio": chain.prio,
                                   "policy": chain.policy}})
            adds += [{"rule": {**me, "chain": chain.name, "expr": list(rule), "comment": _digest(rule)}}
                     for rule in chain.rules]
        return [{"add": table}, {"delete": table}, *({"add": each} for each in adds)]

    def is_in(self, listing: str) -> bool:
        """Whether the answer of `nft -j list table` shows this table, and nothing beside."""
        chains: list[tuple[object, ...]] = []
        rules: list[tuple[str, str]] = []
        sets: dict[str, list[str]] = {}
        for each in json.loads(listing)["nftables"]:
            if chain := each.get("chain"):
                chains.append(tuple(chain.get(key) for key in ("name", "type", "hook", "prio", "policy")))
            elif known := each.get("set"):
                sets[known["name"]] = known["type"] if isinstance(known["type"], list) else [known["type"]]
            elif rule := each.get("rule"):
                rules.append((rule["chain"], rule.get("comment", "")))
        ours = [(each.name, each.type, each.hook, each.prio, each.policy) for each in self.chains]
        return (sorted(chains, key=str) == sorted(ours, key=str) and sets == self.sets
                and all([digest for chain, digest in rules if chain == each.name] == [_digest(r) for r in each.rules]
                        for each in self.chains))

    def apply(self) -> None:
        transact(self.commands(), FAILED)

    def stands(self) -> bool:
        """Whether it is in force as it should be. Nothing is listed again until the rules were changed by anyone."""
        at = generation()
        if at not in _whole.get(self.name, ()):
            listing = self.listing()
            if not listing or not self.is_in(listing):
                return False
            _whole[self.name] = {each for each in _whole.get(self.name, set()) if each[0] != at[0]} | {at}
        return True

    def drop(self) -> None:
        if self.listing():
            must(["nft", "delete", "table", self.family, self.name], FAILED)

    def listing(self) -> str:
        """Of what stands, as JSON; "" when nothing does."""
        return run(["nft", "-j", "list", "table", self.family, self.name], FAILED).stdout


def transact(commands: Iterable[Expression], reason: str) -> None:
    """All of them, or none."""
    must(["nft", "-j", "-f", "-"], reason, json.dumps({"nftables": list(commands)}))


def generation() -> tuple[int, int]:
    """(namespace, how often its rules have changed): one question to the kernel, no process."""
    header = struct.pack("=IHHIIBBH", 20, NFT_MSG_GETGEN, 1, 0, 0, socket.AF_UNSPEC, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as kernel:
        kernel.send(header)
        answer = kernel.recv(4096)
        namespace = kernel.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)        # unlike an inode never used again
    if struct.unpack_from("=H", answer, 4)[0] == NLMSG_ERROR:
        raise OSError(-struct.unpack_from("=i", answer, 16)[0], "nftables")
    return int.from_bytes(namespace, sys.byteorder), struct.unpack_from("!I", answer, 24)[0]


_whole: dict[str, set[tuple[int, int]]] = {}
"""Table -> where, and at which generation, it was seen to stand."""


def _digest(rule: Iterable[Expression]) -> str:
    return hashlib.sha256(json.dumps(list(rule), sort_keys=True).encode()).hexdigest()[:12]


def match(left: Expression, right: object, op: str = "==") -> Expression:
    return {"match": {"op": op, "left": left, "right": right}}


def leaves(link: str, op: str = "==") -> Expression:
    return match({"meta": {"key": "oifname"}}, link, op)


def comes(link: str) -> Expression:
    return match({"meta": {"key": "iifname"}}, link)


def _transit(end: str) -> Expression:
    prefix = {"prefix": {"addr": str(TRANSIT.network_address), "len": TRANSIT.prefixlen}}
    return match({"payload": {"protocol": "ip", "field": end}}, prefix)


def _state(*states: str) -> Expression:
    return match({"ct": {"key": "state"}}, list(states) if len(states) > 1 else states[0], "in")


def _source_nat(*rules: tuple[Expression, ...]) -> Chain:
    return Chain("postrouting", "nat", "postrouting", 100, "accept", rules)


def _mapped(verb: str, end: str) -> Expression:
    return {verb: {"addr": {"map": {"key": {"payload": {"protocol": "ip", "field": end}}, "data": f"@{verb}4"}}}}


LED = match({"ct": {"key": "status"}}, "dnat", "in")
SYN = match({"&": [{"payload": {"protocol": "tcp", "field": "flags"}}, ["syn", "rst"]]}, "syn")
CLAMP = {"mangle": {"key": {"tcp option": {"name": "maxseg", "field": "size"}}, "value": {"rt": {"key": "mtu"}}}}
MASQUERADE: Expression = {"masquerade": None}
ACCEPT: Expression = {"accept": None}

WAY_OUT = Table("wisp", (
    Chain("prerouting", "nat", "prerouting", -100, "accept", ((_mapped("dnat", "daddr"),),)),
    Chain("output", "nat", "output", -100, "accept", ((_mapped("dnat", "daddr"),),)),
    _source_nat((comes(INSIDE), leaves(INSIDE), LED, MASQUERADE),
                (leaves(OUTSIDE), _mapped("snat", "saddr")),
                (leaves(OUTSIDE), MASQUERADE)),
    Chain("forward", "filter", "forward", 0, "drop", (
        (SYN, CLAMP),
        (comes(INSIDE), leaves(OUTSIDE), ACCEPT),
        (leaves(INSIDE), LED, ACCEPT),
        (_state("established", "related"), ACCEPT)))), maps=("dnat4", "snat4"))
"""Of a gateway's namespace: everything may leave, as its floating address or else as the transit address; what comes
in are answers, and what asks for a floating address. A guest that asks for one of its own network's is answered by
way of the gateway, since it would not know the other's own address in the answer."""


def node_table(cluster: str) -> Table:
    """Of the node: what gateways let out leaves as the node itself; no network reaches another's transit address, and
    none the node, but for answers to what it asked."""
    ours = "go-*"
    return Table(f"wisp-{cluster[:8]}", (
        _source_nat((comes(ours), leaves(ours, "!="), _transit("saddr"), MASQUERADE)),
        Chain("forward", "filter", "forward", 0, "accept", (
            (comes(ours), leaves(ours), _transit("daddr"), _state("new"), {"drop": None}),)),
        Chain("input", "filter", "input", 0, "accept", (
            (comes(ours), _state("established", "related"), ACCEPT),
            (comes(ours), {"drop": None})))))
