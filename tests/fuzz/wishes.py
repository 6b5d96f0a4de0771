"""What is asked of the cloud: few names and small numbers, so that operations meet each other often.

A `Draft` is an operation that still has to be told what the cloud looks like: which keys there are, which
ETag is the right one, what the other operation is that it should get in the way of.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from model import LONG_AGO, Delete, Get, Hold, Operation, Put

from wisp.resource import CLUSTER, Ref, namespace_ref, node_ref

HOMES = ("web", "shop", "lab")
QUOTAS = ("instances", "cpus", "memory_mib", "disk_gib", "networks", "addresses")
HELD = ("instance", "network", "image")
"""Kinds of which nodes have parts."""
IMAGE = {"source": {"kind": "url", "url": "http://images.example/a"}, "sha256": "0" * 64}
FURNITURE = {
    **{Ref("namespace", CLUSTER, home): {"trusts": trusts} for home, trusts in (("web", []), ("shop", ["web"]), ("lab", []))},
    **{Ref("network", home, "a"): {"cidr": "10.0.0.0/29"} for home in ("web", "shop")},
    **{Ref("image", home, "a"): IMAGE for home in ("web", "shop")},
    **{Ref("key", home, name): {"role": role} for home in ("web", "shop") for name, role in (("a", "editor"), ("b", "viewer"))}}
"""What every cloud begins with."""
SMALL: dict[str, Any] = {"cpus": 1, "memory_mib": 64, "disks": [{"size_gib": 1}]}
PLAIN: dict[str, Any] = {
    "instance": {**SMALL, "networks": [{"network": "a"}]},
    "network": {"cidr": "10.0.0.0/29"}, "image": IMAGE, "key": {}, "namespace": {}}
TURNS: dict[str, list[dict[str, Any]]] = {
    "instance": [{"power": "off"}, {"cpus": 3}, {"memory_mib": 256}], "network": [{"nat": False}], "image": [{}],
    "key": [{"role": "viewer"}, {"rotation": "again"}], "node": [{"cordoned": True}, {"cordoned": False}],
    "namespace": [{"quotas": {"instances": 0, "networks": 0}}, {"trusts": []}, {"quotas": {}}]}
"""Changes that another operation may stand or fall with."""


names = st.sampled_from("abcd")
homes = st.sampled_from(["web", *HOMES])
tenants = st.sampled_from(HOMES)
reached = st.sampled_from(["a", "a", "a", "a", "a", "shop/a", "web/a", "b"])
secrets = st.sampled_from(["s" * 43, "t" * 43])
roles = st.sampled_from(["viewer", "editor", "admin"])
doors = st.integers(0, 1)
picks = st.sampled_from(range(50))
few = st.integers(0, 3)


@st.composite
def of(draw: st.DrawFn, *weighed: tuple[st.SearchStrategy[Any], int]) -> Any:
    """One of several; `st.one_of` would not count one that is named twice."""
    return draw(draw(st.sampled_from([each for each, weight in weighed for _ in range(weight)])))


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with any of these fields."""
    return st.fixed_dictionaries({}, optional=fields)


interfaces = st.fixed_dictionaries({"network": reached}, optional={
    "address": st.sampled_from(["10.0.0.2", "10.0.0.3", "10.0.0.6", "10.0.0.1", "10.0.1.2"]),
    "mac": st.sampled_from(["02:00:00:00:00:01", "02:00:00:00:00:02"])})
instances = st.fixed_dictionaries({
    "cpus": st.sampled_from([1, 2, 4]), "memory_mib": st.sampled_from([64, 128, 256]),
    "disks": st.lists(st.fixed_dictionaries({"size_gib": st.integers(1, 3)}, optional={"image": reached}), min_size=1, max_size=2),
}, optional={"networks": st.lists(interfaces, max_size=2), "power": st.sampled_from(["on", "off"]),
             "placement": some(node=st.sampled_from(["n1", "n2"])), "user_data": st.sampled_from(["#!a", "#!b"])})
networks = st.fixed_dictionaries({"cidr": st.sampled_from(["10.0.0.0/29", "10.0.0.0/29", "10.0.1.0/29"])},
                                 optional={"nat": st.booleans()})
images = st.builds(lambda url, sha: {"source": {"kind": "url", "url": f"http://images.example/{url}"}, "sha256": sha * 64},
                   names, st.sampled_from("01"))
keys = some(role=roles, rotation=names, secret=secrets, expires_at=st.just(LONG_AGO))
quotas = some(instances=few, cpus=st.integers(0, 6), memory_mib=st.integers(0, 512), disk_gib=st.integers(0, 8),
              networks=few, addresses=few)
namespaces = some(trusts=st.lists(tenants, unique=True, max_size=2), quotas=quotas)
SPECS = {"instance": (homes, instances), "network": (homes, networks), "image": (homes, images), "key": (homes, keys)}


def within(kind: str) -> st.SearchStrategy[tuple[Ref, Any]]:
    space, specs = SPECS[kind]
    return st.tuples(st.builds(Ref, st.just(kind), space, names), specs)


wished = of((within("instance"), 5), (within("network"), 1), (within("image"), 1), (within("key"), 1),
            (st.tuples(st.builds(Ref, st.just("namespace"), st.just(CLUSTER), tenants), namespaces), 1),
            (st.tuples(st.builds(node_ref, st.sampled_from(["n1", "n2"])), some(cordoned=st.booleans())), 1))
kinds = st.sampled_from([*["instance"] * 5, "network", "image", "key", "key", "namespace"])
aims = st.builds(lambda kind, home, name: Ref("namespace", CLUSTER, home) if kind == "namespace" else Ref(kind, home, name),
                 kinds, homes, names)
changes = some(cpus=st.sampled_from([1, 3, 5]), memory_mib=st.sampled_from([64, 256, 384]), power=st.sampled_from(["on", "off"]),
               nat=st.booleans(), role=roles, rotation=names, secret=secrets, quotas=quotas, dns_servers=st.just(["192.0.2.1"]),
               trusts=st.lists(tenants, unique=True, max_size=2), cordoned=st.booleans())
metadata = st.sampled_from([{}, {}, {"tier": "x"}, {"tier": "y"}])
ROOTS = 14
whos = st.sampled_from(range(ROOTS + 12))
"""Below ROOTS it is the administrator; the others bear some key that was ever shown, revoked ones too."""
conditions = st.sampled_from(["", "", "", "", "now", "stale", "any", "absent"])
Draft = Callable[[Any], Operation]


def _put(who: int, wish: tuple[Ref, Any], tags: dict[str, str], condition: str) -> Draft:
    def op(cloud: Any) -> Put:
        return Put(cloud.token(who, wish[0].namespace), wish[0], wish[1], tags, cloud.tag(wish[0], condition), condition == "absent")
    return op


def _again(who: int, ref: Ref, pick: int, changed: dict[str, Any]) -> Draft:
    """What is there already, but for this or that field; or something plain."""
    return lambda cloud: cloud.again(who, ref if pick % 3 == 0 else cloud.something(pick, ref), changed)


def _rival(pick: int, ends: bool) -> Draft:
    """Ends or changes what the other operation rests on: its target, its namespace, what it names, a node, its key."""
    def op(cloud: Any) -> Operation:
        ground = sorted(cloud.ground_of(cloud.first))
        ref = ground[pick % len(ground)]
        turns = TURNS[ref.kind]
        return Delete(cloud.root, ref) if ends and ref.kind != "node" else cloud.again(0, ref, turns[pick % len(turns)])
    return op


def _contender(name: str, node: str) -> Draft:
    """Wants the same as the other operation, or needs what that deletes."""
    def op(cloud: Any) -> Operation:
        first, ref = cloud.first, cloud.first.ref
        if isinstance(first, Put) and ref.namespace != CLUSTER:
            where = {"placement": {"node": node}} if ref.kind == "instance" else {}
            return Put(cloud.root, Ref(ref.kind, ref.namespace, name or ref.name), {**first.spec, **where}, {})
        if ref.kind == "namespace":
            return Put(cloud.root, Ref("image", ref.name, name or "d"), IMAGE, {})
        if ref.kind in ("network", "image") and node == "n1":
            uses = {"network": {"networks": [{"network": ref.name}]}, "image": {"disks": [{"size_gib": 1, "image": ref.name}]}}
            return Put(cloud.root, Ref("instance", ref.namespace, name or "d"), {**SMALL, **uses[ref.kind]}, {})
        return Hold(ref) if ref.kind in HELD else Get(cloud.root, ref)
    return op


def _delete(who: int, ref: Ref, condition: str) -> Draft:
    return lambda cloud: Delete(cloud.token(who, ref.namespace), ref, cloud.tag(ref, condition))


def _clear(who: int, ref: Ref, pick: int) -> Draft:
    """Deletes something that is there."""
    return lambda cloud: Delete(cloud.token(who, ref.namespace), cloud.something(pick, ref))


puts = st.builds(_put, whos, wished, metadata, conditions)
agains = st.builds(_again, whos, aims, picks, changes)
clears = st.builds(_clear, whos, aims, picks)
deletes = st.builds(_delete, whos, aims, conditions)
dissolutions = st.builds(_delete, st.just(0), st.just(namespace_ref("lab")), st.just(""))
operations = of((puts, 4), (agains, 4), (clears, 1), (deletes, 1), (dissolutions, 1))


rivals = of((st.builds(_rival, picks, st.booleans()), 1), (st.builds(_contender, st.sampled_from(["", "", "c", "d"]), st.sampled_from(["n1", "n2"])), 1))
