"""Broken off at any moment, or stumbling there, the same life ends the same: nothing is missing, doubled or left.

Every run tells the whole story with one trouble in it, at each moment in turn until there are no more.
"""
from __future__ import annotations

from typing import Any

import pytest
from scenario import How, Story, Trouble, Where
from simulated import Cloud, Wire

UNTROUBLED = 10_000
PLACES: list[tuple[Where, How]] = [
    ("step", "crash before"), ("step", "crash after"), ("step", "stumble before"), ("step", "stumble after"), ("step", "twice"),
    ("commit", "crash before"), ("commit", "crash after"), ("commit", "stumble before"), ("commit", "stumble after"),
    ("commit", "lost race")]


def told(trouble: Trouble) -> list[dict[str, Any]]:
    cloud = Cloud(store=Wire())
    try:
        return Story(cloud, trouble).tell()
    finally:
        cloud.stop()


@pytest.fixture(scope="module")
def undisturbed() -> list[dict[str, Any]]:
    return told(Trouble("step", "twice", UNTROUBLED))


def test_the_undisturbed_story_ends_as_it_should(undisturbed: list[dict[str, Any]]) -> None:
    made, changed, deleted = undisturbed
    assert [line.split(",")[0] for line in made["machine"]] == ["('disk'", "('domain'", "('drive'", "('floating'", "('gateway'", "('image'", "('segment'"]
    assert "128, 'on', [True]" in str(changed["machine"]) and "9.9.9.9" in str(changed["machine"])
    assert changed["documents"]["instance web/vm"][0] == 2
    assert deleted == {"documents": {}, "machine": [], "drives": [], "taps": 0, "orphans": [], "dangling": [], "keys": 0}


@pytest.mark.parametrize(("where", "how"), PLACES)
def test_trouble_at_any_moment_changes_nothing_in_the_end(where: Where, how: How, undisturbed: list[dict[str, Any]]) -> None:
    at = 0
    while True:
        at += 1
        trouble = Trouble(where, how, at)
        ends = told(trouble)
        if not trouble.struck:
            break
        for chapter, wished, end in zip(("made", "changed", "deleted"), undisturbed, ends, strict=True):
            assert end == wished, f"{how} {where} {at}: {chapter}"
    assert at > 10
