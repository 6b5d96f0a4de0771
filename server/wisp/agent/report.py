"""What an agent says of one resource on its node: the status document, from what is to be done. Pure."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from wisp.conditions import condition, kept
from wisp.resource import Json, Resource
from wisp.steps import Todo


@dataclass(frozen=True, slots=True)
class Failure:
    """A step that did not work out, `attempts` times in a row. `lasting`: it is not expected to any more."""

    reason: str
    message: str
    attempts: int
    lasting: bool
    generation: int


@dataclass(frozen=True, slots=True)
class Blocked:
    """Something waited for, and why it is not there, when that is known."""

    what: str
    failure: Failure | None


def status(resource: Resource, before: Json, todo: Todo, done: str, effective: Mapping[str, Any],
           failure: Failure | None, blocked: Iterable[Blocked], now: str) -> dict[str, Any]:
    """The document. `done`: the word for a place where nothing is to be done; `effective`: further members."""
    ready, failed = _conditions(todo, done, failure, list(blocked), now)
    return {**effective, "observed_generation": resource.intent.generation,
            "conditions": kept(before, [*failed, ready])}


def unseen(resource: Resource, before: Json, failure: Failure, now: str) -> dict[str, Any]:
    """The document of a place that cannot be looked at: what was true, and that nobody knows whether it still is."""
    unknown = condition("Ready", "Unknown", failure.reason, failure.message, now)
    return {**before, "observed_generation": resource.intent.generation, "conditions": kept(before, [unknown])}


def _conditions(todo: Todo, done: str, failure: Failure | None, blocked: list[Blocked],
                now: str) -> tuple[dict[str, str], list[dict[str, str]]]:
    if todo.done:
        return condition("Ready", "True", done, "", now), []
    if todo.lost:
        text = f"{' and '.join(f'disk {disk.index}' for disk in todo.lost)} existed and cannot be found."
        return _not_ready("DiskLost", text[0].upper() + text[1:], now, lasting=True)
    if failure:
        return _not_ready(failure.reason, failure.message, now, failure.lasting)
    if blocked:
        reasons = [f"{each.what} ({each.failure.reason}: {each.failure.message})" if each.failure else each.what
                   for each in blocked]
        lasting = any(each.failure and each.failure.lasting for each in blocked)
        return _not_ready("Waiting", f"Waits for {', '.join(reasons)}.", now, lasting)
    return _not_ready("Building", f"Next: {todo.steps[0]}.", now, lasting=False)


def _not_ready(reason: str, message: str, now: str, lasting: bool) -> tuple[dict[str, str], list[dict[str, str]]]:
    failed = [condition("Failed", "True", reason, message, now)] if lasting else []
    return condition("Ready", "False", reason, message, now), failed
