"""Where an instance goes, who keeps it company, and what its node gives away."""
from __future__ import annotations

from typing import Any

import pytest
from paper import SMALL, UPKEEP, Paper

from wisp.errors import Problem
from wisp.kinds import KINDS
from wisp.resource import Ref, Resource, fence_key, node_key, node_ref
from wisp.store import Absent, At, Delete

DB = {"role": "db"}


def placed(paper: Paper, name: str, placement: dict[str, Any], namespace: str = "web", **metadata: str) -> str:
    made = paper.put(Ref("instance", namespace, name), {**SMALL, "placement": placement}, metadata=metadata)
    return str(made.binding["node"])


def beside(**tags: str) -> list[dict[str, Any]]:
    return [{"metadata": tags}]


def rather(**tags: str) -> list[dict[str, Any]]:
    return [{"metadata": tags, "mode": "prefer"}]


def stage(paper: Paper, placement: dict[str, Any], **spec: Any) -> Any:
    with pytest.raises(Problem) as refused:
        paper.vm("refused", placement=placement, **spec)
    assert refused.value.code == "no_capacity"
    return refused.value.extra["stage"]


def wish(paper: Paper, node: str, **spec: Any) -> Resource:
    return paper.put(node_ref(node), spec)


def lose(paper: Paper, node: str) -> None:
    paper.copy.commit([], [Delete(node_key(node))])


def rebound(paper: Paper, network: Resource) -> str:
    """Where its gateway is to go, "" when it stays."""
    found = paper.world.resource(network.ref)
    assert found
    bound = KINDS["network"].rebind(found, paper.world)
    return str(bound.binding["gateway"]["node"]) if bound else ""


# --- company

def test_an_instance_goes_where_the_company_it_requires_is() -> None:
    paper = Paper()
    placed(paper, "db", {"node": "n2"}, **DB, tier="one")
    assert [placed(paper, f"front-{n}", {"affinity": beside(**DB)}) for n in range(3)] == ["n2"] * 3


def test_it_is_refused_where_that_is_nowhere_or_only_anothers() -> None:
    paper = Paper()
    placed(paper, "db", {}, "shop", **DB)
    assert stage(paper, {"affinity": beside(**DB)}) == "affinity"
    assert placed(paper, "front", {"affinity": rather(**DB)}) in ("n1", "n2")


def test_company_has_all_the_tags_asked_for() -> None:
    paper = Paper()
    placed(paper, "db", {}, **DB)
    assert stage(paper, {"affinity": beside(**DB, tier="one")}) == "affinity"
    assert stage(paper, {"affinity": [*beside(**DB), *beside(role="front")]}) == "affinity"


def test_those_that_must_keep_apart_do_until_no_node_is_left() -> None:
    paper = Paper()
    apart = {"anti_affinity": beside(**DB)}
    assert sorted(placed(paper, f"db-{n}", apart, **DB) for n in range(2)) == ["n1", "n2"]
    assert stage(paper, apart) == "anti_affinity"
    assert placed(paper, "other", apart, "shop", **DB) in ("n1", "n2")


def test_those_that_rather_keep_apart_do_while_they_can() -> None:
    paper = Paper()
    placed(paper, "big", {"node": "n1"}, size="big")
    paper.vm("ballast", memory_mib=2048, placement={"node": "n2"})
    assert placed(paper, "one", {"anti_affinity": rather(size="big")}) == "n2", "rather than on the emptier one"
    placed(paper, "bigger", {"node": "n2"}, size="big")
    assert placed(paper, "two", {"anti_affinity": rather(size="big")}) == "n1"


def test_of_two_that_must_keep_apart_the_second_finds_the_fence_moved() -> None:
    """Both were decided before either was written."""
    paper = Paper()
    lose(paper, "n2")
    apart = {**SMALL, "placement": {"anti_affinity": beside(**DB)}}
    one, two = (paper.decide(Ref("instance", "web", name), apart, metadata=DB) for name in ("one", "two"))
    fence = fence_key("node", "n1")
    assert At(fence, 0) in one.guards and At(fence, 0) in two.guards and one.fenced
    paper.commit(one)
    with pytest.raises(Exception, match="guard"):
        paper.commit(two)
    assert stage(paper, {"anti_affinity": beside(**DB)}) == "anti_affinity"


# --- what a node gives away

def test_what_is_reserved_is_not_placed() -> None:
    paper = Paper()
    for node in ("n1", "n2"):
        wish(paper, node, reserve={"memory_mib": 4000})
    assert stage(paper, {}, memory_mib=97) == "memory_mib"
    assert paper.vm(memory_mib=96).binding["node"] in ("n1", "n2")


def test_what_is_promised_more_than_once_is_the_operators_choice() -> None:
    paper = Paper()
    wish(paper, "n1", overcommit_percent={"cpus": 100, "memory_mib": 150})
    assert stage(paper, {"node": "n1"}, cpus=9) == "cpus"
    assert paper.vm("vm", memory_mib=6144, cpus=8, placement={"node": "n1"}).binding["node"] == "n1"
    assert stage(paper, {"node": "n1"}, memory_mib=32) == "cpus"


def test_a_promise_taken_back_takes_nothing_from_those_who_have_it() -> None:
    paper = Paper()
    vm = paper.vm(cpus=20, placement={"node": "n1"})
    wish(paper, "n1", overcommit_percent={"cpus": 100})
    assert paper.put(vm.ref, {**SMALL, "cpus": 20, "placement": {"node": "n1"}, "power": "off"}).spec["power"] == "off"
    assert stage(paper, {"node": "n1"}) == "cpus"


def test_a_node_carries_what_it_says_it_does() -> None:
    paper = Paper()
    paper.say(node_ref("n1"), "n1", cpus=8, memory_mib=4096, disk_gib=105, carries=["gateways"])
    paper.say(node_ref("n2"), "n2", cpus=8, memory_mib=4096, disk_gib=105, carries=["instances"])
    assert {paper.vm(f"vm-{n}").binding["node"] for n in range(3)} == {"n2"}
    assert {paper.lan(f"lan-{n}").binding["gateway"]["node"] for n in range(3)} == {"n1"}
    assert stage(paper, {"node": "n1"}) == "nodes"


@pytest.mark.parametrize("spec", [{"cordoned": True}, {"drained": True}])
def test_a_cordoned_and_a_drained_node_take_nothing_new(spec: dict[str, Any]) -> None:
    paper = Paper()
    wish(paper, "n1", **spec)
    assert paper.vm().binding["node"] == "n2" and paper.lan().binding["gateway"]["node"] == "n2"


# --- gateways that move

LEFT: dict[str, Any] = {
    "lost": lambda paper: lose(paper, "n1"),
    "drained": lambda paper: wish(paper, "n1", drained=True),
    "no carrier of gateways any more": lambda paper: paper.say(node_ref("n1"), "n1", carries=["instances"]),
}


@pytest.mark.parametrize("why", LEFT)
def test_a_gateway_leaves_a_node_that_is(why: str) -> None:
    paper = Paper()
    lan = paper.lan()
    assert lan.binding["gateway"]["node"] == "n1" and rebound(paper, lan) == ""
    LEFT[why](paper)
    assert rebound(paper, lan) == "n2"


def test_a_gateway_stays_on_a_node_that_is_only_cordoned() -> None:
    paper = Paper()
    lan = paper.lan()
    wish(paper, "n1", cordoned=True)
    assert rebound(paper, lan) == ""


def test_nothing_moves_back_by_itself() -> None:
    paper = Paper()
    lan = paper.lan()
    lose(paper, "n1")
    tidied(paper, lan)
    paper.write(node_key("n1"), {"incarnation": "2"})
    assert rebound(paper, lan) == ""


def tidied(paper: Paper, resource: Resource) -> tuple[Any, ...]:
    """Does the next thing that is to be done about it: its guards."""
    found = paper.world.resource(resource.ref)
    decision = found and UPKEEP.tidy(paper.world, found)
    assert decision
    paper.commit(decision)
    return decision.guards


def test_a_gateway_leaves_a_lost_node_only_as_long_as_that_is_lost() -> None:
    paper = Paper()
    lan = paper.lan()
    lose(paper, "n1")
    guards = tidied(paper, lan)
    assert Absent(node_key("n1")) in guards
    assert At(node_key("n2"), paper.world.revision_of(node_key("n2"))) in guards


def test_a_gateway_leaves_a_drained_node_only_as_long_as_it_is_drained() -> None:
    paper = Paper()
    lan = paper.lan()
    node = wish(paper, "n1", drained=True)
    assert At(node.ref.key("intent"), node.at) in tidied(paper, lan)


def test_a_network_whose_gateway_can_go_nowhere_says_so() -> None:
    paper = Paper()
    lan, bare = paper.lan(), paper.lan("bare", nat=False, dhcp=False)
    for node in ("n1", "n2"):
        lose(paper, node)
    assert rebound(paper, lan) == ""
    lack = KINDS["network"].lack(lan, paper.world)
    assert lack and lack.reason == "NoCarrier" and not lack.lasting and "n1" in lack.message
    assert KINDS["network"].lack(bare, paper.world) is None


# --- nodes that are gone for good

def gone(paper: Paper, node: str) -> None:
    lose(paper, node)
    paper.commit(paper.retire(node_ref(node)))


def test_a_node_that_lives_is_not_gone() -> None:
    with pytest.raises(Problem) as refused:
        Paper().retire(node_ref("n1"))
    assert refused.value.code == "in_use"


def test_an_instance_outlives_its_node_without_a_place_and_says_that_it_failed() -> None:
    paper = Paper()
    vm = paper.vm(placement={"node": "n1"})
    paper.say(vm.ref, "n1", disks_made=[0])
    gone(paper, "n1")
    tidied(paper, vm)
    vm = paper.world.resource(vm.ref)  # type: ignore[assignment]
    lack = KINDS["instance"].lack(vm, paper.world)
    assert lack and lack.reason == "NodeGone" and lack.lasting
    assert vm.binding["lost"] == "n1" and "node" not in vm.binding
    assert KINDS["instance"].places(vm, paper.world) == frozenset() and paper.world.load("n1")["instances"] == 0
    tidied(paper, vm)
    assert paper.retire(vm.ref).after.retired and paper.world.resource(vm.ref).statuses == {}  # type: ignore[union-attr]


def test_a_lost_instance_may_still_be_changed() -> None:
    paper = Paper()
    vm = paper.vm(placement={"node": "n1"})
    gone(paper, "n1")
    tidied(paper, vm)
    assert paper.put(vm.ref, {**SMALL, "cpus": 2, "placement": {"node": "n1"}}).spec["cpus"] == 2


def test_what_a_gone_node_held_is_forgotten_and_what_it_said_of_itself_stays() -> None:
    paper = Paper()
    image = paper.image()
    paper.say(image.ref, "n1")
    paper.commit(paper.retire(image.ref))
    gone(paper, "n1")
    tidied(paper, image)
    tidied(paper, image)
    assert paper.world.resource(image.ref) is None
    node = paper.world.resource(node_ref("n1"))
    assert node and node.retired and node.statuses and UPKEEP.tidy(paper.world, node) is None
