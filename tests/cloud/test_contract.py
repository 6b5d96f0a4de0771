"""What the API promises beyond the verbs: rehearsals, the feed of changes, signed pages, clients of older versions."""
from __future__ import annotations

import copy
import dataclasses
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from simulated import BOOTED, IMAGE, LAN, SMALL, Cloud, Make

from wisp import feed
from wisp.admission import Caller
from wisp.errors import Problem
from wisp.resource import Ref, namespace_ref
from wisp.service import ITSELF


def rehearse(cloud: Cloud, kind: str, name: str, spec: dict[str, Any], **more: Any) -> dict[str, Any]:
    ref = Ref(kind, "web", name)
    return cloud.service.resources.put(ITSELF, ref, {"spec": spec}, rehearsed=True, **more).document


def changes(cloud: Cloud, since: int | None, caller: Caller = ITSELF, timeout: float = 0) -> dict[str, Any]:
    return cloud.service.resources.changes(caller, since, timeout)


# --- rehearsals

def test_a_rehearsed_create_foretells_node_and_addresses_and_writes_nothing(cloud: Cloud) -> None:
    cloud.put("network", "lan", LAN)
    cloud.put("image", "guest", IMAGE)
    cloud.ready("network", "lan")
    cloud.settle()
    revision = cloud.store.revision()
    foretold = rehearse(cloud, "instance", "vm", BOOTED)
    assert cloud.store.revision() == revision
    assert foretold["changes"] == {}
    made = cloud.put("instance", "vm", BOOTED).document
    assert (made["binding"], made["spec"]) == (foretold["binding"], foretold["spec"])


def test_a_rehearsed_change_says_for_each_field_what_it_does(cloud: Cloud) -> None:
    cloud.put("instance", "vm", SMALL)
    told = rehearse(cloud, "instance", "vm", {**SMALL, "cpus": 2, "power": "off", "firmware": "uefi"})["changes"]
    assert {pointer: effect for pointer, effect in told.items() if effect != "none"} == {
        "/spec/cpus": "restart", "/spec/power": "in_place", "/spec/firmware": "replace"}
    assert told["/spec/memory_mib"] == told["/metadata"] == "none"
    assert set(rehearse(cloud, "instance", "vm", SMALL)["changes"].values()) == {"none"}


def test_a_rehearsal_is_refused_as_the_write_would_be(cloud: Cloud) -> None:
    for spec, code in (({**SMALL, "networks": [{"network": "none"}]}, "reference"), ({**SMALL, "cpus": 0}, "invalid"),
                       ({**SMALL, "memory_mib": 4194304}, "no_capacity")):
        with pytest.raises(Problem) as refused:
            rehearse(cloud, "instance", "vm", spec)
        assert refused.value.code == code


def test_a_set_in_another_order_is_no_change(cloud: Cloud) -> None:
    first = cloud.put("instance", "vm", {**SMALL, "ssh_keys": ["ssh-ed25519 b", "ssh-ed25519 a"]})
    again = cloud.put("instance", "vm", {**SMALL, "ssh_keys": ["ssh-ed25519 a", "ssh-ed25519 b"]})
    assert again.etag == first.etag
    later = cloud.put("instance", "vm", {**SMALL, "ssh_keys": ["ssh-ed25519 a", "ssh-ed25519 b"], "cpus": 2})
    assert later.document["generation"] == 2


# --- what moved

def test_without_since_the_feed_says_where_it_is(cloud: Cloud) -> None:
    assert changes(cloud, None) == {"revision": cloud.store.revision(), "items": [], "gone": []}


def test_the_feed_tells_each_view_that_moved_once_and_what_is_gone(cloud: Cloud) -> None:
    since = changes(cloud, None)["revision"]
    cloud.put("network", "lan", LAN)
    cloud.ready("network", "lan")
    cloud.put("network", "other", LAN)
    cloud.ready("network", "other")
    cloud.delete("network", "other")
    cloud.settle()
    told = changes(cloud, since)
    assert [item["name"] for item in told["items"] if item["kind"] == "network"] == ["lan"]
    assert {"kind": "network", "namespace": "web", "name": "other"} in told["gone"]
    assert changes(cloud, told["revision"])["items"] == []


def test_who_waits_for_changes_is_told_when_one_comes(cloud: Cloud) -> None:
    since, told = changes(cloud, None)["revision"], list[dict[str, Any]]()
    waiting = threading.Thread(target=lambda: told.append(changes(cloud, since, timeout=20)))
    waiting.start()
    cloud.put("network", "lan", LAN)
    waiting.join(20)
    assert [item["name"] for item in told[0]["items"]] == ["lan"]


def test_a_feed_goes_on_where_it_was_after_the_service_was_restarted(cloud: Cloud) -> None:
    since = changes(cloud, None)["revision"]
    cloud.put("network", "lan", LAN)
    cloud.ready("network", "lan")
    cloud.restart()
    assert "lan" in [item["name"] for item in changes(cloud, since)["items"]]


def test_a_revision_of_another_history_is_gone(cloud: Cloud) -> None:
    with pytest.raises(Problem) as refused:
        changes(cloud, cloud.store.revision() + 1000)
    assert refused.value.code == "gone"


def test_a_lost_node_moves_what_it_holds_though_nothing_is_written(cloud: Cloud) -> None:
    cloud.put("instance", "vm", SMALL)
    cloud.ready("instance", "vm")
    since = changes(cloud, None)["revision"]
    cloud.lose("n1")
    told = {item["name"]: item["status"]["conditions"][0]["status"] for item in changes(cloud, since)["items"]}
    assert told["vm"] == "Unknown"


def test_a_tenant_is_told_of_its_own_things_only(cloud: Cloud) -> None:
    cloud.service.ensure_namespace("shop")
    since = changes(cloud, None)["revision"]
    cloud.put("network", "lan", LAN)
    assert changes(cloud, since, Caller("shop", "viewer", "shop/x"))["items"] == []


def since_then(cloud: Cloud, since: int, caller: Caller) -> str:
    """Names of what is told to the caller, or the code of the refusal."""
    try:
        return " ".join(item["name"] for item in changes(cloud, since, caller)["items"])
    except Problem as problem:
        return problem.code


def test_the_feed_tells_that_a_drained_node_is_empty_when_its_last_instance_went(cloud: Cloud) -> None:
    cloud.put("instance", "vm", SMALL)
    cloud.ready("instance", "vm")
    cloud.put("node", "n1", {"drained": True})
    cloud.settle()
    since = changes(cloud, None)["revision"]
    cloud.remove("instance", "vm")
    (node,) = (item for item in changes(cloud, since)["items"] if item["kind"] == "node")
    assert "Empty" in [each["reason"] for each in node["status"]["conditions"]]


@pytest.mark.parametrize("restarted", [False, True])
def test_who_is_trusted_or_no_longer_has_to_begin_again_and_nobody_else(cloud: Cloud, restarted: bool) -> None:
    shop, other = (Caller(name, "viewer", f"{name}/x") for name in ("shop", "other"))
    for name in ("shop", "other", "own"):
        cloud.service.ensure_namespace(name)
    cloud.put("image", "guest", IMAGE, namespace="own")

    def told(act: Callable[[], object]) -> list[str]:
        since = changes(cloud, None)["revision"]
        act()
        if restarted:
            cloud.restart()
        return [since_then(cloud, since, shop), "" if restarted else since_then(cloud, since, other)]

    def go() -> None:
        cloud.remove("image", "guest", namespace="own")
        cloud.service.resources.delete(ITSELF, namespace_ref("own"))
        cloud.until(lambda: not cloud.service.world.resource(namespace_ref("own")))
    assert told(lambda: cloud.put("namespace", "own", {"trusts": ["shop"]})) == ["gone", ""]
    assert told(lambda: cloud.put("namespace", "own", {"trusts": []})) == ["gone", ""]
    assert told(lambda: cloud.put("namespace", "own", {"trusts": ["shop"]})) == ["gone", ""]
    assert told(go) == ["gone", ""]


def test_history_is_read_with_nothing_held_and_once(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    since = changes(cloud, None)["revision"]
    cloud.put("network", "lan", LAN)
    cloud.restart()
    cloud.settle()
    read, free = cloud.store.watch, list[bool]()

    def watch(since: int, stop: threading.Event) -> Any:
        def hold() -> None:
            free.append(cloud.service.mirror.held().acquire(timeout=5))  # type: ignore[attr-defined]
            cloud.service.mirror.held().release()  # type: ignore[attr-defined]
        other = threading.Thread(target=hold)
        other.start()
        other.join()
        return read(since, stop)
    monkeypatch.setattr(cloud.store, "watch", watch)
    assert changes(cloud, since, Caller("shop", "viewer", "shop/x"), 2.5)["items"] == []
    assert free == [True]


def test_a_history_that_does_not_come_is_an_outage(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "PATIENCE", 0.1)
    since = changes(cloud, None)["revision"]
    cloud.put("network", "lan", LAN)
    cloud.restart()

    def silent(since: int, stop: threading.Event) -> Iterator[Any]:
        stop.wait()
        yield from ()
    monkeypatch.setattr(cloud.store, "watch", silent)
    assert since_then(cloud, since, ITSELF) == "store_unavailable"


# --- pages

def test_a_page_token_is_good_for_its_own_list_only(cloud: Cloud) -> None:
    for name in ("a", "b", "c"):
        cloud.put("network", name, LAN)
        cloud.put("image", name, IMAGE)
    listing = cloud.service.resources.list
    page = listing(ITSELF, "network", "web", limit=2)
    rest = listing(ITSELF, "network", "web", limit=2, after=page["next"])
    assert [item["name"] for item in page["items"] + rest["items"]] == ["a", "b", "c"]
    for kind, token in (("image", page["next"]), ("network", page["next"][:-4] + "AAAA"), ("network", "nonsense")):
        with pytest.raises(Problem) as refused:
            listing(ITSELF, kind, "web", after=token)
        assert refused.value.code == "unknown_parameter"


def test_all_pages_of_a_walk_are_of_one_revision(cloud: Cloud) -> None:
    for name in ("a", "b", "c"):
        cloud.put("network", name, LAN)
    listing = cloud.service.resources.list
    page = listing(ITSELF, "network", "web", limit=1)
    cloud.put("network", "aa", LAN)
    cloud.put("network", "b", {**LAN, "dns_servers": ["192.0.2.1"]})
    rest = listing(ITSELF, "network", "web", limit=10, after=page["next"])
    assert [item["name"] for item in rest["items"]] == ["b", "c"]
    assert rest["items"][0]["generation"] == 1 and rest["revision"] == page["revision"]


# --- clients of older versions

def test_fields_that_an_older_client_cannot_know_are_kept_on_its_put(clouds: Make) -> None:
    cloud = clouds()
    catalogue = cloud.service.resources.catalogue
    known = copy.deepcopy(dict(catalogue.kinds["instance"].document))
    del known["properties"]["power"]
    del known["properties"]["disks"]["items"]["properties"]["bus"]
    cloud.service.resources.catalogue = dataclasses.replace(catalogue, released={0: {"instance": known}})
    spec = {**SMALL, "power": "off", "disks": [{"size_gib": 1, "bus": "scsi"}]}
    cloud.put("instance", "vm", spec)
    answer = cloud.service.resources.put(ITSELF, Ref("instance", "web", "vm"), {"spec": {**SMALL, "cpus": 2}}, minor=0)
    assert answer.document["spec"]["power"] == "off"
    assert answer.document["spec"]["disks"] == [{"size_gib": 1, "bus": "scsi"}]
    assert cloud.put("instance", "vm", {**spec, "power": "on"}).document["spec"]["power"] == "on"


# --- keys

def test_a_key_that_was_revoked_meanwhile_reads_nothing_more(cloud: Cloud) -> None:
    made = cloud.service.resources.put(ITSELF, Ref("key", "web", "reader"), {"spec": {"role": "viewer"}})
    reader = cloud.service.resources.authenticate(f"Bearer {made.document['token']}")
    cloud.service.resources.delete(ITSELF, Ref("key", "web", "reader"))
    with pytest.raises(Problem) as refused:
        cloud.service.resources.get(reader, namespace_ref("web"))
    assert refused.value.code == "unauthenticated"


def test_what_a_node_has_none_of_is_not_among_its_facts(cloud: Cloud) -> None:
    status = cloud.ready("node", "n1")["status"]
    assert "underlay" in status and "egress" not in status
