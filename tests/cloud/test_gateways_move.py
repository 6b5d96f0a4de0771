"""Gateways that lose their node find another one, at once and together with what leads to them."""
from __future__ import annotations

from collections import Counter

import pytest
from simulated import LAN, SMALL, Cloud, Make

from wisp.host import Floating, Gateway, Segment

NODES = ("n1", "n2", "n3")


@pytest.fixture
def cloud(clouds: Make) -> Cloud:
    return clouds(nodes=3)


def carriers(cloud: Cloud, *networks: str) -> list[str]:
    return [cloud.get("network", name)["binding"]["gateway"].get("node", "") for name in networks]


def moved(cloud: Cloud, name: str, away: str) -> str:
    """Where it is ready again, once it is not there any more."""
    cloud.until(lambda: carriers(cloud, name) != [away], f"{name} to leave {away}")
    shown = cloud.ready("network", name)
    return str(shown["binding"]["gateway"]["node"])


def standing(cloud: Cloud, kind: type[Gateway | Floating]) -> list[str]:
    """The nodes that have such a part."""
    return [name for name, room in cloud.rooms.items() for _ in room.parts(kind)]


def sound(cloud: Cloud) -> None:
    assert cloud.orphans() == [] and cloud.dangling() == []


def test_a_gateway_whose_node_is_lost_stands_elsewhere(cloud: Cloud) -> None:
    cloud.put("network", "lan", LAN)
    (old,) = carriers(cloud, "lan")
    cloud.ready("network", "lan")
    cloud.lose(old)
    new = moved(cloud, "lan", old)
    (gateway,) = cloud.rooms[new].parts(Gateway)
    assert [gateway] == cloud.rooms[old].parts(Gateway), "the same addresses and the same MAC"
    assert f"bound to {new} instead of {old}" in cloud.events("network", "lan")
    sound(cloud)


def test_the_old_carrier_takes_its_own_down_when_it_returns_and_nothing_moves_back(cloud: Cloud) -> None:
    cloud.put("network", "lan", LAN)
    (old,) = carriers(cloud, "lan")
    cloud.put("instance", "vm", {**SMALL, "networks": [{"network": "lan"}], "placement": {"node": old}})
    cloud.ready("instance", "vm")
    cloud.ready("network", "lan")
    cloud.lose(old)
    cloud.until(lambda: carriers(cloud, "lan") != [old])
    (new,) = carriers(cloud, "lan")
    cloud.join(old)
    cloud.until(lambda: standing(cloud, Gateway) == [new], "one gateway only")
    cloud.settle()
    assert standing(cloud, Gateway) == [new] and carriers(cloud, "lan") == [new]
    assert len(cloud.rooms[old].parts(Segment)) == 1, "its instance is still there"
    assert cloud.ready("instance", "vm") and cloud.ready("network", "lan")
    sound(cloud)


def test_many_gateways_of_one_lost_node_spread_over_those_that_are_left(cloud: Cloud) -> None:
    names = [f"lan-{n}" for n in range(18)]
    for name in names:
        cloud.put("network", name, LAN)
    assert Counter(carriers(cloud, *names)) == dict.fromkeys(NODES, 6)
    cloud.lose("n2")
    cloud.until(lambda: "n2" not in carriers(cloud, *names))
    assert Counter(carriers(cloud, *names)) == {"n1": 9, "n3": 9}
    sound(cloud)


def test_a_floating_ip_goes_where_its_gateway_goes(cloud: Cloud) -> None:
    cloud.put("pool", "outside", {"cidr": "203.0.113.0/28"})
    cloud.put("network", "lan", LAN)
    (old,) = carriers(cloud, "lan")
    (host,) = sorted({*NODES} - {old})[:1]
    cloud.put("instance", "vm", {**SMALL, "networks": [{"network": "lan"}], "placement": {"node": host}})
    cloud.put("floating-ip", "front", {"pool": "outside", "instance": "vm"})
    cloud.ready("floating-ip", "front")
    cloud.lose(old)
    new = moved(cloud, "lan", old)
    cloud.until(lambda: new in standing(cloud, Floating))
    cloud.ready("floating-ip", "front")
    cloud.join(old)
    cloud.until(lambda: standing(cloud, Floating) == [new], "the old one to let go of it")
    sound(cloud)


def test_draining_a_node_moves_its_gateways_at_once_and_its_old_ones_go(cloud: Cloud) -> None:
    cloud.put("network", "lan", LAN)
    (old,) = carriers(cloud, "lan")
    cloud.ready("network", "lan")
    cloud.put("node", old, {"drained": True})
    new = moved(cloud, "lan", old)
    cloud.until(lambda: standing(cloud, Gateway) == [new], "one gateway only")
    cloud.put("node", old, {})
    cloud.settle()
    assert carriers(cloud, "lan") == [new]
    sound(cloud)


def test_a_gateway_that_can_go_nowhere_says_so_and_stands_again_when_a_node_returns(cloud: Cloud) -> None:
    cloud.put("network", "lan", LAN)
    cloud.ready("network", "lan")
    (first,) = carriers(cloud, "lan")
    for name in NODES:
        cloud.lose(name)
    said = cloud.said("network", "lan", "Ready", "NoCarrier")
    assert said["status"] == "False"
    cloud.join(first)
    cloud.ready("network", "lan")
    sound(cloud)


def test_a_gateway_that_could_go_nowhere_goes_to_a_node_that_comes(cloud: Cloud) -> None:
    for name in ("n2", "n3"):
        cloud.put("node", name, {"cordoned": True})
    cloud.put("network", "lan", LAN)
    cloud.ready("network", "lan")
    cloud.lose("n1")
    cloud.said("network", "lan", "Ready", "NoCarrier")
    cloud.put("node", "n3", {})
    assert cloud.ready("network", "lan")["binding"]["gateway"]["node"] == "n3"
    sound(cloud)
