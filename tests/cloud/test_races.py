"""Two who contradict each other: whichever is second loses, and nothing is left hanging between them."""
from __future__ import annotations

from functools import partial

from simulated import LAN, SMALL, Cloud, at_once

from wisp.errors import Problem
from wisp.resource import Ref

ROUNDS = 30


def lost(outcome: object) -> str:
    return outcome.code if isinstance(outcome, Problem) else ""


def test_a_network_deleted_while_an_instance_is_made_on_it_never_leaves_a_dangling_reference(cloud: Cloud) -> None:
    spec = {**SMALL, "networks": [{"network": "lan"}]}
    ways = set()
    for n in range(ROUNDS):
        cloud.put("network", "lan", LAN)
        made, deleted = at_once([partial(cloud.put, "instance", f"vm-{n}", spec), partial(cloud.delete, "network", "lan")])
        ways.add((lost(made), lost(deleted)))
        assert cloud.dangling() == []
        cloud.remove("instance", f"vm-{n}")
        cloud.remove("network", "lan")
    assert ways <= {("reference", ""), ("", "in_use")}
    assert cloud.orphans() == []


def test_a_namespace_deleted_while_something_is_made_in_it_leaves_nothing_homeless(cloud: Cloud) -> None:
    ways = set()
    for n in range(ROUNDS):
        cloud.put("namespace", "brief", {})
        made, deleted = at_once([partial(cloud.put, "network", f"lan-{n}", LAN, namespace="brief"),
                                 partial(cloud.delete, "namespace", "brief")])
        ways.add((lost(made), lost(deleted)))
        homes = {Ref.of_key(key)[1].name for key in cloud.recorded() if "/intent/-/namespace/" in key}
        homeless = {key for key in cloud.recorded() if "/intent/" in key and Ref.of_key(key)[1].namespace not in homes | {"-"}}
        assert homeless == set()
        if not lost(made):
            cloud.remove("network", f"lan-{n}", namespace="brief")
            cloud.delete("namespace", "brief")
    assert ways <= {("not_found", ""), ("", "in_use")}


def test_made_and_deleted_by_many_at_once_it_ends_made_or_gone_and_the_machine_agrees(cloud: Cloud) -> None:
    cloud.put("network", "lan", LAN)
    spec = {**SMALL, "networks": [{"network": "lan"}]}
    for _ in range(ROUNDS // 3):
        at_once([partial(cloud.put, "instance", "vm", spec), partial(cloud.delete, "instance", "vm")] * 4)
        cloud.settle()
        recorded = cloud.service.world.resource(cloud.ref("instance", "vm"))
        assert {part.uid for part in cloud.room.hypervisor.observe(None)} == ({recorded.uid} if recorded else set())
        assert cloud.orphans() == [] and cloud.dangling() == []
    cloud.remove("instance", "vm")
    assert cloud.room.hypervisor.observe(None) == []


def test_trust_withdrawn_while_it_is_used_wins_or_loses_as_a_whole(cloud: Cloud) -> None:
    cloud.put("namespace", "shop", {})
    cloud.put("network", "lan", LAN)
    spec = {**SMALL, "networks": [{"network": "web/lan"}]}
    for n in range(ROUNDS // 3):
        cloud.put("namespace", "web", {"trusts": ["shop"]})
        made, withdrawn = at_once([partial(cloud.put, "instance", f"vm-{n}", spec, namespace="shop"),
                                   partial(cloud.put, "namespace", "web", {"trusts": []})])
        assert lost(made) in ("", "reference") and not lost(withdrawn)
        assert cloud.dangling() == []
