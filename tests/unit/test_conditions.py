"""What is shown of a resource: the worst that any of its places says, and never more than is known."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from wisp.conditions import RANK, Lack, condition, document, find, has_failed, is_ready, kept, view
from wisp.resource import Intent, Ref, Resource

REF = Ref("instance", "web", "vm")


def resource(statuses: Mapping[str, Any] | None = None, generation: int = 2, retired: str = "", **intent: Any) -> Resource:
    made = Intent(REF, "uid-1", generation, "t0", "t1", intent.get("spec", {}), {}, {}, retired)
    return Resource(made, 7, 5, {}, 0, statuses or {})


def said(status: str = "True", reason: str = "Running", observed: int = 2, failed: bool = False, **effective: Any) -> dict[str, Any]:
    conditions = [condition("Failed", "True", reason, "", "t2")] if failed else []
    return {**effective, "observed_generation": observed, "conditions": [*conditions, condition("Ready", status, reason, "", "t2")]}


def ready(shown: Mapping[str, Any]) -> tuple[str, str]:
    found = find(shown, "Ready")
    return found["status"], found["reason"]


def test_what_has_no_place_is_ready_when_it_is_recorded() -> None:
    shown = view(resource(), (), ())
    assert ready(shown) == ("True", "Recorded") and shown["observed_generation"] == 2


def test_what_should_have_a_place_and_has_none_says_why_and_fails_if_that_lasts() -> None:
    for lasting in (False, True):
        shown = view(resource(), (), (), Lack("NoNat", "There is no NAT.", lasting))
        assert ready(shown) == ("False", "NoNat") and find(shown, "Ready")["message"] == "There is no NAT."
        assert has_failed({"status": shown, "generation": 2}) == lasting
    assert ready(view(resource({"n1": said()}, retired="t9"), (), ("n1",), Lack("NoNat", ""))) == ("False", "Deleting")


def test_a_place_that_has_said_nothing_yet_is_waited_for() -> None:
    shown = view(resource({"n1": said()}), ("n1", "n2"), ("n1", "n2"))
    assert ready(shown) == ("False", "Pending") and shown["observed_generation"] == 0
    assert "n2" in find(shown, "Ready")["message"]


def test_the_word_of_a_lost_node_is_unknown() -> None:
    assert ready(view(resource({"n1": said()}), ("n1",), ())) == ("Unknown", "NodeLost")


def test_a_place_that_is_not_ready_is_worse_than_one_that_is_lost() -> None:
    shown = view(resource({"n1": said(), "n2": said("False", "DiskLost")}), ("n1", "n2"), ("n2",))
    assert ready(shown) == ("False", "DiskLost")


def test_what_failed_for_good_stands_first() -> None:
    shown = view(resource({"n1": said("False", "ChecksumMismatch", failed=True), "n2": said()}), ("n1", "n2"), ("n1", "n2"))
    assert [each["type"] for each in shown["conditions"]] == ["Failed", "Ready"]
    assert has_failed({"status": shown, "generation": 2}) and not is_ready({"status": shown, "generation": 2})


def test_a_failure_of_an_earlier_generation_is_not_yet_one_of_this() -> None:
    shown = {"status": view(resource({"n1": said("False", "DiskLost", 1, failed=True)}), ("n1",), ("n1",)), "generation": 2}
    assert not has_failed(shown)


def test_ready_for_an_earlier_generation_is_not_ready() -> None:
    shown = {"status": view(resource({"n1": said(observed=1)}), ("n1",), ("n1",)), "generation": 2}
    assert not is_ready(shown) and is_ready({**shown, "generation": 1})


def test_what_is_retired_is_deleting_and_names_who_still_holds_it() -> None:
    shown = view(resource({"n1": said(), "n2": said()}, retired="t3"), ("n1",), ("n1", "n2"))
    assert [each["type"] for each in shown["conditions"]] == ["Deleting", "Ready"]
    assert find(shown, "Deleting")["message"] == "Waits for n1, n2." and ready(shown) == ("False", "Deleting")
    lost = find(view(resource({"n1": said(), "n2": said()}, retired="t3"), (), ("n1",)), "Deleting")
    assert lost["reason"] == "NodeLost" and "lost: n2." in lost["message"]


def test_what_only_agents_need_is_not_shown() -> None:
    shown = view(resource({"n1": said(power="on", disks_made=[0])}), ("n1",), ("n1",))
    assert shown.keys() == {"observed_generation", "conditions", "power"}


def test_what_is_hidden_is_not_shown() -> None:
    shown = document(resource(spec={"cpus": 1, "user_data": "secret"}), (), (), {"user_data"})
    assert shown["spec"] == {"cpus": 1} and shown["namespace"] == "web"


def test_since_moves_only_with_status_and_reason() -> None:
    before = {"conditions": [condition("Ready", "False", "Waiting", "for a", "t1")]}
    assert kept(before, [condition("Ready", "False", "Waiting", "for b", "t9")]) == [condition("Ready", "False", "Waiting", "for b", "t1")]
    assert kept(before, [condition("Ready", "False", "Building", "", "t9")])[0]["since"] == "t9"
    assert kept({}, [condition("Ready", "True", "Running", "", "t9")])[0]["since"] == "t9"


NODES = ["n1", "n2", "n3", "n4"]
WORDS = st.builds(said, st.sampled_from(["True", "False"]), st.sampled_from(["Running", "Waiting"]), st.integers(0, 3), st.booleans())


@given(st.dictionaries(st.sampled_from(NODES), WORDS), st.sets(st.sampled_from(NODES), min_size=1), st.sets(st.sampled_from(NODES)))
def test_the_worst_word_counts_and_the_least_generation(statuses: dict[str, Any], places: set[str], live: set[str]) -> None:
    shown = view(resource(statuses), places, live)
    each = [ready(view(resource(statuses), [node], live))[0] for node in places]
    assert RANK[ready(shown)[0]] == min(RANK[status] for status in each)
    assert shown["observed_generation"] == min(statuses.get(node, {"observed_generation": 0})["observed_generation"] for node in places)
    assert bool(find(shown, "Failed")) == any(find(statuses.get(node, {}), "Failed") for node in places)
    if ready(shown)[0] == "True":
        assert places <= live & statuses.keys()


@given(st.dictionaries(st.sampled_from(NODES), WORDS), st.permutations(NODES))
def test_it_does_not_matter_in_which_order_places_are_named(statuses: dict[str, Any], order: list[str]) -> None:
    assert view(resource(statuses), order, NODES) == view(resource(statuses), NODES, NODES)
