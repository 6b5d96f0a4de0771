"""The service may go and come back, and at rest it does nothing; and what is not known is not taken for empty."""
from __future__ import annotations

import pytest
from simulated import BOOTED, IMAGE, LAN, SMALL, Cloud, Make

from wisp.conditions import find
from wisp.host import Disk, Domain, Gateway, Segment
from wisp.resource import Ref
from wisp.store import Clear, Delete


@pytest.fixture
def furnished(clouds: Make) -> Cloud:
    """Two nodes, with instances of every power on both."""
    cloud = clouds(nodes=2)
    cloud.put("network", "lan", LAN)
    cloud.put("image", "guest", IMAGE)
    for node in cloud.rooms:
        for power in ("on", "off", "paused"):
            cloud.put("instance", f"{node}-{power}", {**BOOTED, "power": power, "placement": {"node": node}})
            cloud.ready("instance", f"{node}-{power}")
    cloud.settle()
    for room in cloud.rooms.values():
        room.done.clear()
    return cloud


def forget(cloud: Cloud, *refs: Ref) -> None:
    """As if the store had been restored from a backup older than they are."""
    keys = cloud.raw_keys()
    ops = [Delete(key) for ref in refs for key in (ref.key("intent"), ref.key("binding")) if key in keys]
    ops += [Delete(key) for ref in refs for key in keys if "/ref/" in key and key.endswith(f"/{ref.name}")]
    clears = [Clear(ref.key("status") + "/") for ref in refs]
    cloud.service.mirror.wait(cloud.store.commit([], [*dict.fromkeys(ops), *clears]), 5)


def test_a_restarted_service_finds_everything_as_it_should_be_and_runs_no_step(furnished: Cloud) -> None:
    before = {name: room.host() for name, room in furnished.rooms.items()}
    furnished.restart()
    furnished.settle()
    assert [room.done for room in furnished.rooms.values()] == [[], []]
    assert {name: room.host() for name, room in furnished.rooms.items()} == before
    assert all(find(furnished.get("instance", f"n1-{power}")["status"], "Ready")["status"] == "True" for power in ("on", "off"))


def test_at_rest_no_turn_writes_anything(furnished: Cloud) -> None:
    revision = furnished.store.revision()
    for _ in range(5):
        furnished.turn()
    assert furnished.store.revision() == revision
    assert [room.done for room in furnished.rooms.values()] == [[], []]


def test_since_tells_when_it_became_so_and_not_when_it_was_last_looked_at(furnished: Cloud) -> None:
    before = find(furnished.get("instance", "n1-on")["status"], "Ready")["since"]
    furnished.restart()
    furnished.settle()
    assert find(furnished.get("instance", "n1-on")["status"], "Ready")["since"] == before


def test_an_agent_whose_machine_belongs_to_another_cluster_touches_nothing(furnished: Cloud) -> None:
    asked: list[str] = []

    def belongs(uid: str) -> bool:
        asked.append(uid)
        return False
    furnished.belongs = belongs
    before = {name: room.host() for name, room in furnished.rooms.items()}
    furnished.restart()
    furnished.delete("instance", "n1-on")
    furnished.put("instance", "new", {**SMALL, "placement": {"node": "n2"}})
    asked.clear()
    furnished.until(lambda: len(asked) >= 6, "the agents have thought about it again")
    assert [room.done for room in furnished.rooms.values()] == [[], []]
    assert {name: room.host() for name, room in furnished.rooms.items()} == before
    furnished.belongs = lambda uid: True
    furnished.restart()
    furnished.gone("instance", "n1-on")
    furnished.ready("instance", "new")


def test_an_empty_store_takes_nothing_from_a_full_machine(clouds: Make) -> None:
    """Even where nothing remembers the cluster: what holds data, and what it stands on, stays."""
    old = clouds()
    old.put("network", "lan", LAN)
    old.put("instance", "vm", {**SMALL, "networks": [{"network": "lan"}]})
    old.ready("instance", "vm")
    old.settle()
    old.service.stop()
    fresh = clouds()
    fresh.service.stop()
    fresh.rooms = old.rooms
    fresh.start()
    fresh.settle()
    domain = fresh.room.only(Domain)
    assert domain.power == "on" and domain.nics[0].plugged
    assert fresh.room.parts(Disk) and fresh.room.parts(Segment)


def test_an_orphan_that_no_document_knows_is_never_stopped_or_destroyed(furnished: Cloud) -> None:
    room = furnished.rooms["n1"]
    uid = furnished.get("instance", "n1-on")["uid"]
    forget(furnished, furnished.ref("instance", "n1-on"))
    furnished.settle()
    furnished.restart()
    furnished.settle()
    (orphan,) = (domain for domain in room.parts(Domain) if domain.uid == uid)
    assert orphan.power == "on" and [disk for disk in room.parts(Disk) if disk.uid == uid]
    assert not {"stop", "shutdown", "undefine", "drop_disk", "drop_seed"} & set(room.done)


def test_the_segment_under_an_orphan_stays(furnished: Cloud) -> None:
    forget(furnished, *(furnished.ref("instance", f"{node}-{power}") for node in furnished.rooms for power in ("on", "off", "paused")),
           furnished.ref("network", "lan"))
    furnished.settle()
    for room in furnished.rooms.values():
        assert room.parts(Segment) and room.parts(Gateway) == []
        assert all(domain.nics[0].plugged for domain in room.parts(Domain))


def test_what_has_no_parts_takes_nothing_down(furnished: Cloud) -> None:
    furnished.put("namespace", "web", {"trusts": ["system"]}, metadata={"a": "b"})
    furnished.put("node", "n1", {"cordoned": True})
    furnished.put("key", "k", {"role": "viewer"})
    furnished.settle()
    assert [room.done for room in furnished.rooms.values()] == [[], []]
    assert furnished.ready("node", "n1")["status"]["observed_generation"] == 2
    assert furnished.ready("namespace", "web")["status"]["conditions"][0]["reason"] == "Recorded"


def test_a_network_stands_on_every_node_that_needs_it_and_its_gateway_on_one(furnished: Cloud) -> None:
    one, two = furnished.rooms["n1"].only(Segment), furnished.rooms["n2"].only(Segment)
    assert (one.peers, two.peers) == ({"192.0.2.2"}, {"192.0.2.1"})
    assert sorted(len(room.parts(Gateway)) for room in furnished.rooms.values()) == [0, 1]
    carrier = furnished.get("network", "lan")["binding"]["gateway"]["node"]
    (other,) = furnished.rooms.keys() - {carrier}
    for power in ("on", "off", "paused"):
        furnished.remove("instance", f"{other}-{power}")
    furnished.settle()
    assert furnished.rooms[other].parts(Segment) == []
    assert furnished.rooms[carrier].only(Segment).peers == frozenset()
