"""What the kernel of each node should have, worked out from the documents that the API shows, and what it has.

Nothing here is taken from the code of wisp: the names of devices, whom an FDB names and what a rule's set holds are said
once more, in the words of the handbook. `agreed` is asked after every scenario.
"""
from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from machine.conftest import until

from .conftest import NODES, Cluster

Doc = dict[str, Any]
Facts = dict[str, list[str]]
EVERYBODY = "00:00:00:00:00:00"
GATES = ["ip prerouting accept 1", "ip output accept 1", "ip postrouting accept 3", "ip forward drop 4"]
NODES_OWN = ["ip postrouting accept 1", "ip forward accept 1", "ip input accept 2"]
BRIDGES = ["bridge prerouting accept 11", "bridge forward accept 1"]
"""Rules that are the same everywhere: of a gateway with NAT, of a node with such a one, of a node with bridges.
Hook, policy, number of rules; what they do is shown by what guests reach."""


class Documents:
    """All there are, at about one time."""

    def __init__(self, cloud: Cluster) -> None:
        kinds = ("networks", "instances", "floating-ips")
        self.networks, self.instances, self.floating = (_items(cloud, f"/namespaces/default/{kind}") for kind in kinds)
        self.underlay = {node["name"]: node["status"].get("underlay", "") for node in _items(cloud, "/nodes")}

    def interfaces(self, network: Doc) -> Iterator[tuple[str, Doc, bool]]:
        """(node, what it was given, whether it runs) of each interface on it."""
        for instance in self.instances:
            for nic, given in zip(instance["spec"]["networks"], instance["binding"]["interfaces"], strict=True):
                if nic["network"] == network["name"]:
                    yield instance["binding"]["node"], given, instance["spec"]["power"] != "off"

    def carrier(self, network: Doc) -> str:
        return str(network["binding"]["gateway"].get("node", "")) if network["spec"]["nat"] or network["spec"]["dhcp"] else ""

    def led(self, network: Doc) -> Iterator[tuple[str, str]]:
        """(floating address, address inside) of those that lead onto it."""
        for each in self.floating:
            target = next((i for i in self.instances if i["name"] == each["spec"].get("instance")), None)
            if target and target["spec"]["networks"][each["spec"]["interface"]]["network"] == network["name"]:
                yield each["binding"]["address"], target["binding"]["interfaces"][each["spec"]["interface"]]["address"]

    def node(self, name: str) -> Facts:
        """What is to be there."""
        facts: Facts = {kind: [] for kind in ("links", "fdb", "spaces", "guards", "chains", "nat", "routes", "answers", "servers")}
        facts["links"] = ["eth0", "eth1", "lo"]
        for network in self.networks:
            vni = f"{network['binding']['vni']:06x}"
            here = [(given, runs) for node, given, runs in self.interfaces(network) if node == name]
            places = {node for node, _, _ in self.interfaces(network)} | {self.carrier(network)} - {""}
            if name in places:
                self._segment(facts, network, vni, name, places)
                taps = [_tap(given["mac"]) for given, runs in here if runs]
                facts["links"] += [f"{tap} in br-{vni}" for tap in taps]
            if self.carrier(network) == name:
                self._gateway(facts, network, vni)
        facts["chains"] += NODES_OWN if facts["routes"] else []
        facts["chains"] += BRIDGES if facts["guards"] else []
        return {kind: sorted(each) for kind, each in facts.items()}

    def _segment(self, facts: Facts, network: Doc, vni: str, name: str, places: set[str]) -> None:
        facts["links"] += [f"br-{vni}", f"vx-{vni} in br-{vni} is {int(vni, 16)} {self.underlay[name]} 4789 eth0 nolearning"]
        facts["fdb"] += [f"vx-{vni} {EVERYBODY} {self.underlay[other]}" for other in places - {name}]
        facts["guards"] += [f"devices vx-{vni}", f"devices gi-{vni}"]
        known = [(node, given["mac"], given["address"]) for node, given, _ in self.interfaces(network)]
        if carrier := self.carrier(network):
            known.append((carrier, network["binding"]["gateway"]["mac"], ""))
        for node, mac, address in known:
            if node != name:
                facts["fdb"].append(f"vx-{vni} {mac} {self.underlay[node]}")
                continue
            facts["guards"].append(f"home vx-{vni} {mac}")
            if address:
                facts["guards"] += [f"devices {_tap(mac)}", f"macs {_tap(mac)} {mac}", f"addresses {_tap(mac)} {address}"]

    def _gateway(self, facts: Facts, network: Doc, vni: str) -> None:
        gateway, prefix = network["binding"]["gateway"], network["spec"]["cidr"].partition("/")[2]
        facts["links"] += [f"gi-{vni} in br-{vni}"]
        facts["spaces"] += [f"gw-{vni} in0 {gateway['mac']} {gateway['address']}/{prefix}"]
        facts["servers"] += [f"{vni}"] if network["spec"]["dhcp"] else []
        if network["spec"]["nat"]:
            facts["links"] += [f"go-{vni}"]
            facts["spaces"] += [f"gw-{vni} out0 {gateway['transit']}/32"]
            facts["routes"] += [f"{gateway['transit']} go-{vni}"]
            facts["chains"] += [f"gw-{vni} {each}" for each in GATES]
        for address, inside in self.led(network):
            facts["nat"] += [f"gw-{vni} dnat4 {address} {inside}", f"gw-{vni} snat4 {inside} {address}"]
            facts["routes"] += [f"{address} go-{vni}"]
            facts["answers"] += [f"{address} eth1"]


def seen(cloud: Cluster, node: str) -> Facts:
    """What is there."""
    links = cloud.look(node, "ip", "-j", "-d", "link")
    spaces = [space["name"] for space in cloud.look(node, "ip", "-j", "netns")]
    facts: Facts = {"links": [_link(link) for link in links], "spaces": [], "nat": []}
    rules = cloud.look(node, "nft", "-j", "list", "ruleset")
    facts["fdb"] = [f"{each['ifname']} {each['mac']} {each['dst']}" for each in cloud.look(node, "bridge", "-j", "fdb") if "dst" in each]
    facts["guards"] = [" ".join([name, *value]) for name, value in _elements(rules)]
    facts["chains"] = list(_chains(rules))
    facts["routes"] = [f"{each['dst']} {each['dev']}" for each in cloud.look(node, "ip", "-j", "route") if each["dev"].startswith("go-")]
    facts["answers"] = [f"{each['dst']} {each['dev']}" for each in cloud.look(node, "ip", "-j", "neigh", "show", "proxy")]
    running = cloud.place(node).run("ps", "-wweo", "args").splitlines()
    facts["servers"] = [match[1] for line in running if line.startswith("dnsmasq") or "/dnsmasq" in line.split(" ")[0]
                        if (match := re.search(r"gateways/([0-9a-f]{6})/", line))]
    for space in spaces:
        inside = ("ip", "netns", "exec", space)
        for link in cloud.look(node, *inside, "ip", "-j", "addr"):
            addresses = [f"{each['local']}/{each['prefixlen']}" for each in link["addr_info"] if each["family"] == "inet"]
            mac = [link["address"]] if link["ifname"] == "in0" else []
            facts["spaces"] += [" ".join([space, link["ifname"], *mac, *addresses])] if link["ifname"] != "lo" else []
        within = cloud.look(node, *inside, "nft", "-j", "list", "ruleset")
        facts["nat"] += [" ".join([space, name, *value]) for name, value in _elements(within)]
        facts["chains"] += [f"{space} {each}" for each in _chains(within)]
    return {kind: sorted(each) for kind, each in facts.items()}


def agreed(cloud: Cluster, *nodes: str) -> None:
    """Until the kernels of these nodes (all, if none are named) say what the documents do."""
    found: list[str] = []

    def differences() -> list[str]:
        documents = Documents(cloud)
        with ThreadPoolExecutor() as pool:
            kernels = list(pool.map(lambda node: seen(cloud, node), nodes or NODES))
        return [line for node, have in zip(nodes or NODES, kernels, strict=True) for line in _differing(node, documents.node(node), have)]

    def equal() -> bool:
        try:
            found[:] = differences()
        except AssertionError as vanished:      # it was being taken down while it was looked at
            found[:] = [str(vanished)]
        return not found

    until(equal, Said(found))


class Said:
    """A text that is put together when it is needed."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = lines

    def __str__(self) -> str:
        return "the kernels as documented; " + "; ".join(self._lines)


def _differing(node: str, want: Facts, have: Facts) -> Iterator[str]:
    for kind in want:
        for line in sorted({*want[kind]} ^ {*have[kind]}):
            yield f"{node}: {kind}: {'missing' if line in want[kind] else 'too much'}: {line}"
        if len(have[kind]) != len({*have[kind]}):
            yield f"{node}: {kind}: twice: {have[kind]}"


def _link(link: Doc) -> str:
    text = str(link["ifname"]) + (f" in {link['master']}" if "master" in link else "")
    about = link.get("linkinfo", {})
    if about.get("info_kind") == "vxlan":
        data = about["info_data"]
        learning = "learning" if data["learning"] else "nolearning"
        text += f" is {data['id']} {data['local']} {data['port']} {data['link']} {learning}"
    ours = re.match(r"(br|vx|gi|go)-", text)
    return text + (" has a wrong MTU" if ours and link["mtu"] != 1450 else "") + (" is down" if ours and "UP" not in link["flags"] else "")


def _chains(rules: Doc) -> Iterator[str]:
    """The hooks that are taken, by tables whose names do not tell whose they are, and how many rules there are."""
    for each in rules["nftables"] if rules else ():
        if chain := each.get("chain"):
            count = sum(1 for other in rules["nftables"] if "rule" in other and _place(other["rule"]) == _place({**chain, "chain": chain["name"]}))
            yield f"{chain['family']} {chain['hook']} {chain['policy']} {count}"


def _place(rule: Doc) -> tuple[str, str, str]:
    return rule["family"], rule["table"], rule["chain"]


def _elements(rules: Doc) -> Iterator[tuple[str, list[str]]]:
    """(set, what it is made of) for each element of each set and map."""
    for each in rules["nftables"] if rules else ():
        known = each.get("set") or each.get("map") or {}
        for element in known.get("elem", ()):
            key, *value = element if "map" in each else [element]
            key = key["elem"]["val"] if isinstance(key, dict) and "elem" in key else key
            yield known["name"], [*(key["concat"] if isinstance(key, dict) else [key]), *value]


def _items(cloud: Cluster, path: str) -> list[Doc]:
    answer = cloud.call("GET", path, params={"limit": 500})
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


def _tap(mac: str) -> str:
    return "t-" + mac.replace(":", "")


