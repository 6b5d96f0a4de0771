"""Many at once, and a store that loses its members one after the other: nothing is lost, done twice, or left behind."""
from __future__ import annotations

import base64
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from machine.conftest import until

from .conftest import NODES, Cluster
from .kernel import agreed

MANY = 30
STORE = "http://172.30.0.2:2379/v3/kv/range"
MEMBERS = ("etcd1", "etcd2", "etcd3")


def claims(cloud: Cluster) -> list[str]:
    """Keys of all that is taken, from the store itself."""
    first, last = (base64.b64encode(text.encode()).decode() for text in ("/wisp/v1/claim/", "/wisp/v1/claim0"))
    with cloud.world.inside(), requests.Session() as session:
        session.trust_env = False
        answer = session.post(STORE, json={"key": first, "range_end": last, "keys_only": True}, timeout=30).json()
    return sorted(base64.b64decode(each["key"]).decode() for each in answer.get("kvs", ()))


def tiny(number: int) -> dict[str, Any]:
    """It runs as soon as it is there, and has nothing to boot from."""
    return {"cpus": 1, "memory_mib": 32, "disks": [{"size_gib": 1}], "networks": [{"network": f"many-{number % 2}"}]}


@pytest.fixture
def room(cloud: Cluster) -> Iterator[None]:
    """Promises each processor ten times: thirty machines that wait for nothing to boot hardly use one."""
    def promise(**wishes: object) -> None:
        for node in NODES:
            assert cloud.call("PUT", f"/nodes/{node}", json={"spec": wishes}).status_code == 200
    promise(overcommit_percent={"cpus": 1000})
    yield
    promise()


def running(cloud: Cluster) -> Counter[str]:
    return Counter({node: len(cloud.place(node).run("virsh", "-q", "list", "--name").split()) for node in NODES})


def test_thirty_machines_come_at_once_and_go_at_once_and_leave_nothing(cloud: Cluster, room: None) -> None:
    before, taken, names = cloud.traces(), claims(cloud), [f"tiny-{number}" for number in range(MANY)]
    sides = (cloud, cloud.second())
    for number in range(2):
        cloud.put("networks", f"many-{number}", cidr="10.1.0.0/24")
    with ThreadPoolExecutor(MANY) as pool:
        made = list(pool.map(lambda number: sides[number % 2].put("instances", names[number], **tiny(number)), range(MANY)))
        list(pool.map(lambda name: cloud.ready("instances", name), names))
    given = [made_one["binding"]["interfaces"][0] for made_one in made]
    assert len({each["mac"] for each in given}) == MANY
    assert len({(number % 2, each["address"]) for number, each in enumerate(given)}) == MANY
    assert running(cloud) == Counter(each["binding"]["node"] for each in made)
    assert set(running(cloud)) == set(NODES)
    assert len(claims(cloud)) == len(taken) + 2 * MANY + 2 * 2
    agreed(cloud)
    with ThreadPoolExecutor(MANY) as pool:
        list(pool.map(lambda number: sides[number % 2].gone("instances", names[number]), range(MANY)))
    for number in range(2):
        cloud.gone("networks", f"many-{number}")
    agreed(cloud)
    assert (cloud.orphans(), claims(cloud), cloud.traces()) == ([], taken, before)
    assert [list((cloud.state_of(node) / "instances").glob("*")) for node in NODES] == [[], [], []]


class Writer(threading.Thread):
    """A client that counts in a document, one PUT a number, and says each again until it is acknowledged."""

    def __init__(self, cloud: Cluster, name: str) -> None:
        super().__init__(daemon=True)
        self.cloud, self.name_of_it = cloud, name
        self.said, self.refused, self.ending = 0, list[str](), False

    def run(self) -> None:
        while not self.ending:
            self._say(self.said + 1)
            self.said += 1
            time.sleep(0.02)

    def _say(self, number: int) -> None:
        body = {"metadata": {"count": str(number)}, "spec": {"cidr": "10.1.0.0/24"}}
        while (answer := self.cloud.call("PUT", self.cloud.path("networks", self.name_of_it), json=body)).status_code not in (200, 201):
            self.refused.append(f"{answer.status_code} {answer.json().get('retryable')}")
            time.sleep(0.1)


def test_a_client_that_says_it_again_loses_no_write_and_makes_none_twice_as_members_of_the_store_are_killed(cloud: Cluster) -> None:
    writers = [Writer(cloud, "first"), Writer(cloud.second(), "second")]
    for writer in writers:
        writer.start()
    for member in MEMBERS:          # one of them is the leader
        heard = [writer.said for writer in writers]
        until(lambda heard=heard: all(writer.said > before + 3 for writer, before in zip(writers, heard, strict=True)), "writes go on")
        cloud.kill(member)
        heard = [writer.said for writer in writers]
        until(lambda heard=heard: all(writer.said > before + 3 for writer, before in zip(writers, heard, strict=True)),
              f"writes go on without {member}")
        cloud.mend()
    for writer in writers:
        writer.ending = True
        writer.join(60)
        assert not writer.is_alive()
    for writer in writers:
        shown = cloud.get("networks", writer.name_of_it)
        assert (shown["metadata"], shown["generation"]) == ({"count": str(writer.said)}, writer.said), "each once, and in order"
        assert set(writer.refused) <= {"503 True"}
    assert cloud.orphans() == []
    print(f"\nwrites acknowledged: {[writer.said for writer in writers]}; said again: {[len(writer.refused) for writer in writers]}")
