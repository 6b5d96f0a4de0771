"""The cluster itself: its nodes are seen, guests run on them, and each of its breakages is what it says and can be mended."""
from __future__ import annotations

from typing import Any

import pytest

from machine.conftest import condition, small, until

from .conftest import NODES, OUTSIDE, Cluster

Doc = dict[str, Any]


@pytest.fixture(scope="module")
def lan(cloud: Cluster) -> Doc:
    return cloud.put("networks", "lan", cidr="10.1.0.0/24")


@pytest.fixture(scope="module")
def guests(cloud: Cluster, lan: Doc, guest_image: Doc) -> list[Doc]:
    """One on n1, one on n2."""
    return [cloud.put("instances", f"on-{node}", **small(placement={"node": node})) for node in NODES[:2]]


def alive(cloud: Cluster) -> set[str]:
    nodes = cloud.call("GET", "/nodes").json()["items"]
    return {node["name"] for node in nodes if condition(node, "Ready").get("status") == "True"}


def reached(cloud: Cluster, place: str, *addresses: str) -> set[str]:
    """Those of them that answer a ping from there."""
    ask = 'for each; do { ping -c 1 -W 2 "$each" > /dev/null 2>&1 && echo "$each"; } & done; wait'
    return set(cloud.place(place).run("bash", "-c", ask, "-", *addresses).split())


def test_three_nodes_are_alive_and_each_says_where_it_is(cloud: Cluster) -> None:
    until(lambda: alive(cloud) == set(NODES), "three nodes are alive")
    underlays = {node["name"]: node["status"]["underlay"] for node in cloud.call("GET", "/nodes").json()["items"]}
    assert underlays == {"n1": "172.30.0.11", "n2": "172.30.0.12", "n3": "172.30.0.13"}


def test_both_apis_say_the_same(cloud: Cluster, lan: Doc) -> None:
    assert cloud.second().get("networks", "lan")["uid"] == lan["uid"]


def test_a_guest_boots_on_each_of_two_nodes(cloud: Cluster, guests: list[Doc]) -> None:
    for guest, node in zip(guests, NODES, strict=False):
        assert guest["binding"]["node"] == node
        cloud.booted(guest)
        assert guest["name"] in cloud.place(node).run("virsh", "-q", "list", "--name")


def test_nodes_share_nothing_but_their_cables(cloud: Cluster) -> None:
    assert {cloud.place(node).run("hostname").strip() for node in NODES} == set(NODES)
    assert len({cloud.place(node).run("virsh", "-q", "capabilities").split("<uuid>")[1][:36] for node in NODES}) == 3
    for node in NODES:
        assert reached(cloud, node, OUTSIDE, "172.30.0.13") == {OUTSIDE, "172.30.0.13"}
    assert not reached(cloud, "outside", "172.30.0.11"), "the underlay is nobody else's"


def test_the_outside_answers_a_node_that_asks_over_http(cloud: Cluster) -> None:
    ask = f"exec 3<>/dev/tcp/{OUTSIDE}/80 && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3"
    assert "guest.qcow2" in cloud.place("n1").run("timeout", "20", "bash", "-c", ask)


@pytest.mark.parametrize("cable, gone", [("store", {"172.30.0.1", "172.30.0.2", "172.30.0.4"}), ("egress", {OUTSIDE}),
                                         ("underlay", {"172.30.0.1", "172.30.0.2", "172.30.0.4", "172.30.0.11"})])
def test_a_cut_cable_cuts_what_it_says_and_nothing_else(cloud: Cluster, cable: str, gone: set[str]) -> None:
    others = {"172.30.0.1", "172.30.0.2", "172.30.0.4", "172.30.0.11", OUTSIDE}
    cloud.cut("n3", cable)
    assert others - reached(cloud, "n3", *others) == gone
    cloud.heal("n3")
    until(lambda: reached(cloud, "n3", *others) == others, "n3 reaches everything again")


def test_two_members_of_the_store_are_enough_and_one_is_not(cloud: Cluster, lan: Doc) -> None:
    cloud.kill("etcd1")
    until(lambda: cloud.call("GET", "/namespaces/default/networks/lan").status_code == 200, "two members agree")
    cloud.cut("etcd2", "underlay")
    until(lambda: cloud.call("GET", "/namespaces/default/networks/lan").status_code == 503, "one member is no majority")
    cloud.mend()
    until(lambda: cloud.get("networks", "lan").get("uid") == lan["uid"], "the store answers again")


def test_a_killed_agent_and_api_are_gone_until_they_are_started(cloud: Cluster) -> None:
    for daemon, place, word in (("agent3", "n3", "agent"), ("api2", "world", "api2")):
        def running(place: str = place, word: str = word) -> bool:
            return any("bin/wisp" in line and word in line for line in cloud.place(place).run("ps", "-wweo", "args").splitlines())
        assert running()
        cloud.kill(daemon)
        assert not running()
        cloud.start(daemon)
        assert running()


def test_a_node_whose_plug_is_pulled_is_gone_at_once_and_boots_with_its_disk_and_nothing_else(cloud: Cluster) -> None:
    disk, memory = cloud.state_of("n3") / "kept", "/run/forgotten"
    disk.touch()
    cloud.place("n3").run("bash", "-c", f"touch {memory}; ip link add left-over type bridge; ip netns add left-over")
    identity = cloud.place("n3").run("virsh", "-q", "capabilities").split("<uuid>")[1][:36]
    cloud.power_off("n3")
    assert not reached(cloud, "n1", "172.30.0.13") and not cloud.place("n3").works("true")
    assert not [link for link in cloud.look("world", "ip", "-j", "link") if link["ifname"].startswith("n3-")]
    cloud.power_on("n3")
    assert reached(cloud, "n1", "172.30.0.13") and disk.exists()
    assert not cloud.place("n3").works("test", "-e", memory)
    assert "left-over" not in str(cloud.place("n3").traces())
    assert cloud.place("n3").run("virsh", "-q", "capabilities").split("<uuid>")[1][:36] == identity
    until(lambda: "n3" in alive(cloud), "the node is alive again")
