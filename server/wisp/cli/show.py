"""How documents look in a terminal: a table, JSON, YAML or bare names.

The table knows no kinds. Its columns are what every document has, and of the binding the two words
that mean the same everywhere: `node` and `address`.
"""
from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import yaml

from wisp.conditions import find

Document = Mapping[str, Any]
FORMATS = ("table", "json", "yaml", "name")
WHOLE = ("json", "yaml")        # one value, for programs
EFFECTS = ("in_place", "restart", "replace")        # from the mildest to the hardest


def documents(shown: Sequence[Document], form: str, *, one: bool = False) -> None:
    """`one`: the document itself rather than a list of one."""
    titles = ("NAME", "READY", "REASON", "NODE", "ADDRESS", "AGE")
    answer(shown[0] if one else {"items": list(shown)}, form, map(called, shown),
           lambda: table(titles, [row(each) for each in shown]))


def answer(value: Any, form: str, names: Iterable[str], people: Callable[[], None]) -> None:
    """In one of the four forms. `names`: what `-o name` prints; `people`: prints it for people.

    A reader that has seen enough (`| head`) ends the talk, not the work: what is said later goes nowhere.
    """
    try:
        _answer(value, form, names, people)
        sys.stdout.flush()
    except BrokenPipeError:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _answer(value: Any, form: str, names: Iterable[str], people: Callable[[], None]) -> None:
    if form == "table":
        people()
    elif form == "name":
        for name in names:
            print(name)
    elif form == "json":
        print(json.dumps(value, indent=2))
    else:
        yaml.safe_dump(value, sys.stdout, sort_keys=False, allow_unicode=True)


def called(document: Document) -> str:
    return f"{document['kind']}/{document['name']}"


def nodes(shown: Sequence[Document]) -> None:
    facts = ("cpus", "memory_mib", "disk_gib", "virt_type", "underlay")
    table(("NAME", "READY", "REASON", "CORDONED", *(fact.upper() for fact in facts), "AGE"), [
        (*row(each)[:3], "yes" if each["spec"]["cordoned"] else "no",
         *(str(each["status"].get(fact, "-")) for fact in facts), age(each["created_at"])) for each in shown])


def applied(document: Document) -> None:
    """A PUT, or what would come of it: the hardest effect, and which fields have which."""
    if "changes" not in document:
        key = [f"  its key, shown only now: {document['token']}"] if "token" in document else []
        print(called(document), *key, sep="\n")
        return
    moved = {field: effect for field, effect in document["changes"].items() if effect != "none"}
    worst = max(moved.values(), key=EFFECTS.index, default="unchanged" if document["changes"] else "create")
    print(f"{called(document)}: {worst}", *(f"  {field}: {effect}" for field, effect in moved.items()), sep="\n")


def row(document: Document) -> tuple[str, ...]:
    worst, given = document["status"]["conditions"][0], document["binding"]
    nodes, addresses = (",".join(words(given, wanted)) or "-" for wanted in ("node", "address"))
    ready = find(document["status"], "Ready")["status"]
    return document["name"], ready, worst["reason"], nodes, addresses, age(document["created_at"])


def words(value: Any, wanted: str) -> Iterator[str]:
    """Every text that stands under this key, however deep."""
    if isinstance(value, dict) and isinstance(value.get(wanted), str):
        yield value[wanted]
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from words(inner, wanted)


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    for line in [titles, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def age(moment: str) -> str:
    seconds = max(0, int((datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def described(document: Document, events: Sequence[Document]) -> None:
    """Everything about one resource, for a person who wonders why."""
    yaml.safe_dump(dict(document), sys.stdout, sort_keys=False, allow_unicode=True)
    print("events:" if events else "events: none")
    happenings(events)


def happenings(events: Sequence[Document]) -> None:
    """In the order in which they happened."""
    table(("WHEN", "WHO", "WHAT"), sorted((event["at"], event["actor"], event["text"]) for event in events))
