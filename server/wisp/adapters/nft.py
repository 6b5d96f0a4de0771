"""Rules: one nftables table in each gateway's namespace, one of the cluster's on the node.

A table is replaced as a whole in one transaction of `nft -j -f -`, so that no packet meets half of one;
what is being translated goes on, since conntrack knows it. Every rule carries a digest of itself as its comment:
reading back compares chains and comments, not nft's spelling of a rule, which differs between versions. The
kernel counts the changes of a namespace's rules (its generation), so a table that stood stands until the count
moves, and looking costs no process. Floating addresses will be maps in the namespace's table, and elements of them.

Everything here acts on the network namespace of the calling thread.
"""
from __future__ import annotations

import hashlib
import ipaddress
import json
import socket
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from wisp.adapters.program import must, run

TRANSIT = ipaddress.ip_network("100.64.0.0/10")
NETLINK_NETFILTER, NFT_MSG_GETGEN, NLMSG_ERROR = 12, 10 << 8 | 16, 2
SO_NETNS_COOKIE = 71
INSIDE, OUTSIDE = "in0", "out0"

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
    """An nftables table of family ip, as a whole."""

    name: str
    chains: tuple[Chain, ...]

    def commands(self) -> str:
        """For `nft -j -f -`. Added first so that deleting it cannot fail."""
        me = {"family": "ip", "table": self.name}
        table = {"table": {"family": "ip", "name": self.name}}
        adds: list[Expression] = [table]
        for chain in self.chains:
            adds.append({"chain": {**me, "name": chain.name, "type": chain.type, "hook": chain.hook, "prio": chain.prio,
                                   "policy": chain.policy}})
            adds += [{"rule": {**me, "chain": chain.name, "expr": list(rule), "comment": _digest(rule)}}
                     for rule in chain.rules]
        return json.dumps({"nftables": [{"add": table}, {"delete": table}, *({"add": each} for each in adds)]})

    def is_in(self, listing: str) -> bool:
        """Whether the answer of `nft -j list table` shows this table, and nothing beside."""
        chains: list[tuple[object, ...]] = []
        rules: list[tuple[str, str]] = []
        for each in json.loads(listing)["nftables"]:
            if chain := each.get("chain"):
                chains.append(tuple(chain.get(key) for key in ("name", "type", "hook", "prio", "policy")))
            elif rule := each.get("rule"):
                rules.append((rule["chain"], rule.get("comment", "")))
        ours = [(each.name, each.type, each.hook, each.prio, each.policy) for each in self.chains]
        return (sorted(chains, key=str) == sorted(ours, key=str)
                and all([digest for chain, digest in rules if chain == each.name] == [_digest(r) for r in each.rules]
                        for each in self.chains))

    def apply(self) -> None:
        must(["nft", "-j", "-f", "-"], self.commands())

    def stands(self) -> bool:
        """Whether it is in force as it should be. Nothing is listed again until the rules were changed by anyone."""
        at = _generation()
        if at not in _whole.get(self.name, ()):
            listing = self._listing()
            if not listing or not self.is_in(listing):
                return False
            _whole[self.name] = {each for each in _whole.get(self.name, set()) if each[0] != at[0]} | {at}
        return True

    def drop(self) -> None:
        if self._listing():
            must(["nft", "delete", "table", "ip", self.name])

    def _listing(self) -> str:
        return run(["nft", "-j", "list", "table", "ip", self.name]).stdout


def _generation() -> tuple[int, int]:
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


def _match(left: Expression, right: object, op: str = "==") -> Expression:
    return {"match": {"op": op, "left": left, "right": right}}


def _leaves(link: str, op: str = "==") -> Expression:
    return _match({"meta": {"key": "oifname"}}, link, op)


def _comes(link: str) -> Expression:
    return _match({"meta": {"key": "iifname"}}, link)


def _transit(end: str) -> Expression:
    prefix = {"prefix": {"addr": str(TRANSIT.network_address), "len": TRANSIT.prefixlen}}
    return _match({"payload": {"protocol": "ip", "field": end}}, prefix)


def _state(*states: str) -> Expression:
    return _match({"ct": {"key": "state"}}, list(states) if len(states) > 1 else states[0], "in")


def _source_nat(*rules: tuple[Expression, ...]) -> Chain:
    return Chain("postrouting", "nat", "postrouting", 100, "accept", rules)


SYN = _match({"&": [{"payload": {"protocol": "tcp", "field": "flags"}}, ["syn", "rst"]]}, "syn")
CLAMP = {"mangle": {"key": {"tcp option": {"name": "maxseg", "field": "size"}}, "value": {"rt": {"key": "mtu"}}}}
MASQUERADE: Expression = {"masquerade": None}
ACCEPT: Expression = {"accept": None}

WAY_OUT = Table("wisp", (
    _source_nat((_leaves(OUTSIDE), MASQUERADE)),
    Chain("forward", "filter", "forward", 0, "drop", (
        (SYN, CLAMP),
        (_comes(INSIDE), _leaves(OUTSIDE), ACCEPT),
        (_state("established", "related"), ACCEPT)))))
"""Of a gateway's namespace: everything may leave, as the transit address; only answers come in."""


def node_table(cluster: str) -> Table:
    """Of the node: what gateways let out leaves as the node itself; no network reaches another's transit address."""
    ours = "go-*"
    return Table(f"wisp-{cluster[:8]}", (
        _source_nat((_comes(ours), _leaves(ours, "!="), _transit("saddr"), MASQUERADE)),
        Chain("forward", "filter", "forward", 0, "accept", (
            (_comes(ours), _leaves(ours), _transit("daddr"), _state("new"), {"drop": None}),))))
