"""A decision is safe because each fact it rests on is one of its guards: move the fact, and it does not pass."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from paper import ADMISSION, IMAGE, LAN, SMALL, UPKEEP, WISP, Paper

from wisp.admission import Caller, Decision, stray_claims
from wisp.errors import Problem
from wisp.resource import CLUSTER, Ref, claim_key, node_key, node_ref, refers_key
from wisp.store import Absent, At, Delete, Empty, Lost

VM, WEB, NET, GUEST = Ref("instance", "web", "vm"), Ref("namespace", CLUSTER, "web"), Ref("network", "web", "lan"), Ref("image", "web", "guest")
SPEC = {**SMALL, "disks": [{"image": "guest", "size_gib": 1}], "networks": [{"network": "lan"}]}


@pytest.fixture
def paper() -> Paper:
    """`web` with a network, an image and a quota; n1 is the only node that takes anything."""
    made = Paper()
    made.put(WEB, {"quotas": {"instances": 10}})
    made.lan()
    made.image()
    made.put(node_ref("n2"), {"cordoned": True})
    return made


def bearer(paper: Paper, role: str = "admin", namespace: str = "web") -> Caller:
    key = paper.put(Ref("key", namespace, "k"), {"role": role})
    record = f"/wisp/v1/key/{key.binding['key_id']}"
    stands = paper.world.record(record)
    assert stands
    return Caller(namespace, role, f"{namespace}/k", record, paper.world.revision_of(record), stands["hash"])


def passes(paper: Paper, decision: Decision) -> bool:
    try:
        paper.commit(decision)
    except Lost:
        return False
    return True


def refusal(call: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    with pytest.raises(Problem) as refused:
        call(*args, **kwargs)
    return refused.value.code


MEANWHILE: dict[str, Callable[[Paper], object]] = {
    "another made it": lambda paper: paper.put(VM, SMALL),
    "its namespace changed": lambda paper: paper.put(WEB, {"quotas": {"instances": 0}}),
    "its namespace is gone": lambda paper: paper.copy.commit([], [Delete(WEB.key("intent"))]),
    "its network is gone": lambda paper: paper.commit(paper.retire(NET)),
    "its image is gone": lambda paper: paper.commit(paper.retire(GUEST)),
    "another took the room": lambda paper: paper.vm("other"),
    "its node is lost": lambda paper: paper.copy.commit([], [Delete(node_key("n1"))]),
    "its node was cordoned": lambda paper: paper.put(node_ref("n1"), {"cordoned": True}),
    "its key is gone": lambda paper: paper.commit(paper.retire(Ref("key", "web", "k"))),
    "its key was rotated": lambda paper: paper.put(Ref("key", "web", "k"), {"role": "admin", "rotation": "2"}),
}


@pytest.mark.parametrize("what", MEANWHILE)
def test_an_instance_is_not_made_when_meanwhile(what: str, paper: Paper) -> None:
    decision = paper.decide(VM, SPEC, bearer(paper))
    MEANWHILE[what](paper)
    assert not passes(paper, decision)


def test_an_instance_is_made_when_nothing_moved(paper: Paper) -> None:
    decision = paper.decide(VM, SPEC, bearer(paper))
    paper.put(Ref("network", "shop", "lan"), LAN)
    assert passes(paper, decision) and not passes(paper, decision)


def test_an_address_that_another_took_meanwhile_is_not_given_twice(paper: Paper) -> None:
    decision = paper.decide(VM, SPEC)
    address = decision.after.binding["interfaces"][0]["address"]
    network = paper.world.resource(NET)
    assert network
    paper.write(claim_key("address", network.uid, address), {})
    assert not passes(paper, decision)
    assert paper.decide(VM, SPEC).after.binding["interfaces"][0]["address"] != address


def test_trust_withdrawn_meanwhile_stops_who_relied_on_it(paper: Paper) -> None:
    paper.put(WEB, {"trusts": ["shop"]})
    decision = paper.decide(Ref("instance", "shop", "vm"), {**SMALL, "networks": [{"network": "web/lan"}]})
    paper.put(WEB, {})
    assert not passes(paper, decision)


def test_a_network_is_not_retired_when_meanwhile_an_instance_refers_to_it(paper: Paper) -> None:
    decision = paper.retire(NET)
    paper.put(VM, SPEC)
    assert not passes(paper, decision)
    assert refusal(paper.retire, NET) == "in_use"


def test_a_namespace_is_not_deleted_when_meanwhile_something_was_made_in_it(paper: Paper) -> None:
    decision = paper.retire(Ref("namespace", CLUSTER, "shop"))
    paper.lan("lan", "shop")
    assert not passes(paper, decision)
    assert refusal(paper.retire, Ref("namespace", CLUSTER, "shop")) == "in_use"


def test_what_is_retired_is_not_forgotten_at_once_when_meanwhile_a_node_holds_it(paper: Paper) -> None:
    decision = paper.retire(NET)
    assert Empty(NET.key("status") + "/") in decision.guards
    paper.say(NET, "n1")
    assert not passes(paper, decision)
    paper.commit(paper.retire(NET))
    found = paper.world.resource(NET)
    assert found and found.retired and UPKEEP.tidy(paper.world, found) is None
    paper.copy.commit([], [Delete(f"{NET.key('status')}/n1")])
    forget = UPKEEP.tidy(paper.world, paper.world.resource(NET))  # type: ignore[arg-type]
    assert forget and passes(paper, forget) and paper.world.resource(NET) is None


def test_an_equal_put_is_the_same_transaction_without_writes(paper: Paper) -> None:
    made = paper.put(VM, SPEC)
    decision = paper.decide(VM, SPEC)
    assert decision.guards == (At(VM.key("intent"), made.at),) and decision.ops == () and not decision.created


def test_existence_and_equality_come_before_quota_room_and_addresses(paper: Paper) -> None:
    paper.put(VM, SPEC)
    paper.put(WEB, {"quotas": {"instances": 0}})
    for node in ("n1", "n2"):
        paper.copy.commit([], [Delete(node_key(node))])
    assert paper.decide(VM, SPEC).ops == ()
    assert refusal(paper.decide, Ref("instance", "web", "other"), SPEC) == "quota_exceeded"


def test_growing_is_fenced_and_shrinking_is_not(paper: Paper) -> None:
    made = paper.put(VM, SPEC)
    grown = paper.decide(VM, {**SPEC, "memory_mib": 128})
    assert grown.fenced and At(node_key("n1"), paper.world.revision_of(node_key("n1"))) in grown.guards
    assert not paper.decide(VM, {**SPEC, "power": "off"}).fenced
    assert not paper.decide(VM, SPEC, metadata={"a": "b"}).fenced
    assert made.binding == grown.after.binding
    other = paper.decide(VM, {**SPEC, "memory_mib": 192})
    paper.commit(grown)
    assert not passes(paper, other)


def test_preconditions_come_before_everything_else(paper: Paper) -> None:
    made = paper.put(VM, SPEC)
    assert refusal(paper.decide, VM, SPEC, create_only=True) == "precondition_failed"
    assert refusal(paper.decide, VM, SPEC, if_match='"other-1"') == "precondition_failed"
    assert refusal(paper.decide, Ref("instance", "web", "new"), SPEC, if_match="*") == "precondition_failed"
    assert paper.decide(VM, SPEC, if_match=made.intent.etag).ops == ()
    assert paper.decide(VM, SPEC, if_match="*").ops == ()


def test_the_most_that_a_schema_allows_fits_into_one_transaction() -> None:
    paper = Paper(memory_mib=1 << 20, disk_gib=10_000)
    namespaces = [f"owner-{n}" for n in range(16)]
    for name in namespaces:
        paper.put(Ref("namespace", CLUSTER, name), {"trusts": ["web"]})
        paper.lan("lan", name)
        paper.image("guest", name)
    paper.put(WEB, {"quotas": {"instances": 5, "cpus": 9, "memory_mib": 4096, "disk_gib": 99, "addresses": 99}})
    spec = {**SMALL, "user_data": "x", "disks": [{"size_gib": 1, "image": f"{name}/guest"} for name in namespaces],
            "networks": [{"network": f"{name}/lan"} for name in namespaces]}
    decision = paper.decide(VM, spec, bearer(paper))
    assert len(decision.guards) <= 128 and len(decision.ops) + 1 <= 128
    paper.commit(decision)
    assert len(paper.retire(VM).ops) <= 128
    paper.commit(paper.retire(VM))
    assert not list(paper.copy.scan("/wisp/v1/ref/"))


def test_one_network_named_twice_is_referred_to_once(paper: Paper) -> None:
    decision = paper.decide(VM, {**SMALL, "networks": [{"network": "lan"}, {"network": "web/lan"}]})
    assert len([op for op in decision.ops if getattr(op, "key", "").startswith("/wisp/v1/ref/")]) == 1
    assert len(set(decision.guards)) == len(decision.guards)


def test_what_a_node_has_settled_lets_go_of_the_image_and_of_nothing_else(paper: Paper) -> None:
    made = paper.put(VM, SPEC)
    paper.say(VM, made.binding["node"], disks_made=[0])
    decision = UPKEEP.tidy(paper.world, paper.world.resource(VM))  # type: ignore[arg-type]
    assert decision and decision.ops == (Delete(refers_key(GUEST, VM)),)
    paper.commit(decision)
    assert UPKEEP.tidy(paper.world, paper.world.resource(VM)) is None  # type: ignore[arg-type]
    paper.commit(paper.retire(GUEST))
    assert refusal(paper.retire, NET) == "in_use"
    assert paper.decide(VM, {**SPEC, "power": "off"}).after.spec["power"] == "off", "its image's name may stay in it"


def test_a_reference_that_does_not_exist_is_pointed_at() -> None:
    with pytest.raises(Problem) as refused:
        Paper().decide(VM, {**SPEC, "networks": [{"network": "lan"}, {"network": "shop/lan"}]})
    assert refused.value.code == "reference"
    assert [fault.pointer for fault in refused.value.faults] == ["/spec/disks/0/image", "/spec/networks/0/network", "/spec/networks/1/network"]


@pytest.mark.parametrize(("namespace", "role", "kind", "code"), [
    ("web", "viewer", "network", "forbidden"), ("web", "editor", "network", ""), ("web", "editor", "key", "forbidden"), ("web", "admin", "key", ""),
    ("web", "admin", "namespace", "forbidden"), ("web", "admin", "node", "not_found"), ("shop", "admin", "network", "not_found"),
    ("system", "viewer", "network", "forbidden"), ("system", "editor", "network", ""), ("system", "editor", "namespace", "forbidden"),
    ("system", "admin", "namespace", ""), ("system", "admin", "node", "")])
def test_who_may_write_what(namespace: str, role: str, kind: str, code: str) -> None:
    ref = {"namespace": WEB, "node": node_ref("n1")}.get(kind, Ref(kind, "web", "x"))
    try:
        ADMISSION.must_write(Caller(namespace, role, "who"), ref, Paper().world)
        assert code == ""
    except Problem as problem:
        assert problem.code == code


def test_a_claim_without_its_owner_is_found_and_no_other(paper: Paper) -> None:
    paper.put(VM, SPEC)
    assert stray_claims(paper.world) == []
    paper.write(claim_key("address", "net", "10.0.0.9"), {"kind": "instance", "namespace": "web", "name": "gone", "uid": "u"})
    paper.write(claim_key("mac", "02:00"), {"kind": "instance", "namespace": "web", "name": "vm", "uid": "an-earlier-life"})
    assert sorted(each["claim"] for each in stray_claims(paper.world)) == ["address/net/10.0.0.9", "mac/02:00"]


def test_a_new_name_is_absent_until_it_is_made(paper: Paper) -> None:
    decision = paper.decide(Ref("image", "web", "new"), IMAGE, WISP)
    assert Absent("/wisp/v1/intent/web/image/new") in decision.guards and decision.created and not decision.fenced
