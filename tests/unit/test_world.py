"""The world: what stands in the copy, at one revision, and sums that move with it."""
from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from paper import SCHEMAS, Copy, Paper

from wisp.resource import Ref, dumps, node_ref, nodes_of
from wisp.service import weigh
from wisp.store import Delete, Op, Put
from wisp.world import World, target_of

NAMES = [Ref("instance", namespace, name) for namespace in ("web", "shop") for name in ("a", "b", "c")]


def test_a_resource_is_its_three_documents_together() -> None:
    paper = Paper()
    vm = paper.vm()
    paper.say(vm.ref, "n1", power="on")
    found = paper.world.resource(vm.ref)
    assert found and found.spec["cpus"] == 1 and found.binding["node"] in ("n1", "n2") and found.statuses["n1"]["power"] == "on"
    assert found.born == found.at == found.bound_at
    assert paper.world.resource(Ref("instance", "web", "nobody")) is None


def test_a_name_that_begins_another_is_not_mistaken_for_it() -> None:
    paper = Paper()
    for name in ("vm", "vm-1", "vm1"):
        paper.say(paper.vm(name).ref, "n1")
    assert len(paper.world.resource(Ref("instance", "web", "vm")).statuses) == 1  # type: ignore[union-attr]
    assert [each.ref.name for each in paper.world.everything() if each.ref.kind == "instance"] == ["vm", "vm-1", "vm1"]


def test_who_refers_to_what_is_known_until_it_goes() -> None:
    paper = Paper()
    lan = paper.lan()
    vm = paper.vm(networks=[{"network": "lan"}])
    assert paper.world.referrers(lan.ref) == [vm.ref]
    paper.commit(paper.retire(vm.ref))
    assert paper.world.referrers(lan.ref) == []


def test_a_reference_names_ones_own_or_anothers_or_the_clusters() -> None:
    cluster = frozenset({"node"})
    assert target_of("network", "lan", "web", cluster) == Ref("network", "web", "lan")
    assert target_of("network", "shop/lan", "web", cluster) == Ref("network", "shop", "lan")
    assert target_of("node", "n1", "web", cluster) == node_ref("n1")


def test_a_node_is_found_wherever_a_binding_names_it() -> None:
    assert nodes_of({"node": "a", "gateway": {"node": "b"}, "parts": [{"node": "c"}, {"node": ""}], "other": "node"}) == {"a", "b", "c"}


def test_a_document_is_read_anew_when_it_moved() -> None:
    paper = Paper()
    lan = paper.lan()
    assert paper.world.resource(lan.ref).spec["dns_servers"] == []  # type: ignore[union-attr]
    paper.lan(dns_servers=["9.9.9.9"])
    assert paper.world.resource(lan.ref).spec["dns_servers"] == ["9.9.9.9"]  # type: ignore[union-attr]


def documents(ref: Ref, uid: int, cpus: int, node: str) -> dict[str, Any]:
    spec = {"cpus": cpus, "memory_mib": 64, "disks": [{"size_gib": 1}], "networks": []}
    intent = {"uid": str(uid), "generation": 1, "created_at": "", "updated_at": "", "spec": spec, "metadata": {}, "sealed": {}, "retired": ""}
    return {ref.key("intent"): intent, ref.key("binding"): {"node": node}}


MOVES = st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 3), st.sampled_from(["n1", "n2"]), st.booleans()), max_size=20)


@given(MOVES)
def test_sums_kept_as_things_move_are_the_sums_of_what_is_there(moves: list[tuple[Ref, int, str, bool]]) -> None:
    copy = Copy()
    world = World(copy, weigh, SCHEMAS.filled)
    for uid, (ref, cpus, node, binding_first) in enumerate(moves):
        ops: list[Op] = [Put(key, dumps(value)) for key, value in documents(ref, uid, cpus, node).items()]
        if not cpus:
            ops = [Delete(op.key) for op in ops]        # type: ignore[union-attr]
        copy.commit([], ops[::-1] if binding_first else ops)
    there = [world.resource(ref) for ref in NAMES if world.resource(ref)]
    for node in ("n1", "n2"):
        here = [each for each in there if each and each.binding["node"] == node]
        assert world.bound_to(node) == {each.ref for each in here}
        assert {what: world.load(node)[what] for what in ("cpus", "instances")} == {
            "cpus": sum(each.spec["cpus"] for each in here), "instances": len(here)}
    for namespace in ("web", "shop"):
        assert world.held_by(namespace)["memory_mib"] == 64 * sum(1 for each in there if each and each.ref.namespace == namespace)
    assert all(each and world.of_uid(each.uid) == each.ref for each in there)
    assert sum(world.of_uid(str(uid)) is not None for uid in range(len(moves))) == len(there)
