"""What Prometheus is told of a cloud at work."""
from __future__ import annotations

from typing import Any

import pytest
from falcon import testing
from prometheus_client.parser import text_string_to_metric_families
from simulated import BOOTED, IMAGE, LAN, Cloud

from wisp.errors import Problem, StepFailed
from wisp.resource import PREFIX
from wisp.store import Put


@pytest.fixture
def built(cloud: Cloud) -> Cloud:
    """A cloud in which one instance runs."""
    for kind, name, spec in (("network", "lan", LAN), ("image", "guest", IMAGE), ("instance", "vm", BOOTED)):
        cloud.put(kind, name, spec)
    cloud.ready("instance", "vm")
    return cloud


def told(cloud: Cloud) -> dict[tuple[str, ...], float]:
    """Metric, and the values of its labels in the order of the labels' names -> value."""
    text = testing.TestClient(cloud.service.metrics.app).simulate_get("/metrics").text
    return {(sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text) for sample in family.samples}


def failing(reason: str, failing_verb: str) -> Any:
    def between(verb: str, args: tuple[Any, ...], go_on: Any) -> Any:
        if verb == failing_verb:
            raise StepFailed(reason, "It does not work.", patience=1)
        return go_on()
    return between


def test_resources_are_counted_by_their_worst_condition(built: Cloud) -> None:
    built.room.between = failing("DiskFull", "create_disk")
    built.put("instance", "second", BOOTED)
    built.said("instance", "second", "Failed", "DiskFull")
    now = told(built)
    assert now["wisp_resources", "Ready", "instance", "Running", "True"] == 1
    assert now["wisp_resources", "Failed", "instance", "DiskFull", "True"] == 1
    assert now["wisp_resources", "Ready", "node", "Alive", "True"] == now["wisp_nodes_live",] == 1


def test_turns_and_steps_are_counted_by_how_they_ended(built: Cloud) -> None:
    now = told(built)
    assert now["wisp_steps_total", "n1", "done", "start domain"] == 1
    assert now["wisp_steps_total", "n1", "done", "fetch image"] == 1
    assert now["wisp_turns_total", "n1", "done"] >= 1


def test_a_step_that_fails_is_counted_by_its_reason(built: Cloud) -> None:
    built.room.between = failing("DiskFull", "create_disk")
    built.put("instance", "second", BOOTED)
    built.until(lambda: told(built).get(("wisp_steps_total", "n1", "DiskFull", "create disk"), 0) >= 1)


def test_a_turn_that_comes_to_nothing_has_failed(built: Cloud) -> None:
    def unreadable(uid: str) -> bool:
        raise OSError("the state directory is gone")
    built.belongs = unreadable
    built.service.agents["n1"].bell.ring_all()
    built.until(lambda: told(built).get(("wisp_turns_total", "n1", "failed"), 0) >= 1)


def test_a_lost_node_is_not_live(built: Cloud) -> None:
    built.lose("n1")
    now = told(built)
    assert now["wisp_nodes_live",] == 0
    assert now["wisp_resources", "Ready", "instance", "NodeLost", "Unknown"] == 1


def test_the_store_is_timed(built: Cloud) -> None:
    now = told(built)
    assert now["wisp_store_seconds_count", "commit"] >= 3 and now["wisp_store_seconds_count", "revision"] >= 1


def test_a_mirror_that_is_held_up_shows_how_far_it_is_behind(built: Cloud) -> None:
    built.settle()
    assert told(built)["wisp_mirror_lag_revisions",] == 0
    with built.service.mirror.held():
        for number in range(3):
            built.store.commit([], [Put(f"{PREFIX}test/{number}", b"")])
        assert told(built)["wisp_mirror_lag_revisions",] == 3


def test_an_outage_of_the_store_can_be_seen(built: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> int:
        raise Problem("store_unavailable", "The store does not answer.")
    assert told(built)["wisp_store_up",] == 1
    monkeypatch.setattr(built.service.store, "revision", gone)
    now = told(built)
    assert now["wisp_store_up",] == 0 and ("wisp_mirror_lag_revisions",) not in now


def test_asking_writes_nothing(built: Cloud) -> None:
    built.settle()
    before = built.store.revision()
    told(built)
    assert built.store.revision() == before
