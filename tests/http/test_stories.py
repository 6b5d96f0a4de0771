"""The API's contract told as stories: `stories/*.yaml`, each story one test on a cloud of its own.

A step says what is asked and what must come of it:

    do       method and address; without a leading slash it is inside the namespace `web`.
             `HOLD kind name` is no request: the node says that it has begun with a resource of `web`
    as       who asks (see conftest): admin, editor and viewer of `web`, `stranger` of `shop`, `root` of
             `system`, `nobody` without a key
    spec     the body is {"spec": …};   body: the whole of it;   raw: as it is;   raw_times: [text, count]
    headers  of the request
    gives    status, and the problem's code where it is one: `422 invalid`
    at       pointers that the problem names, all of them
    shows    a part of the answer: lists whole, objects by their named members, "/…/" a pattern
    lacks    text that stands nowhere in the answer
    answers  headers of the answer; null is absent
    keep     names for later steps (`<name>`): a member of the answer, or `header ETag`
    together so many at once, the number of each being `<n>`; `gives` then counts: {201: 1, 200: 49}
    writes   `nothing`: the store's revision does not move
"""
from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from wisp.resource import Ref

STORIES = Path(__file__).with_name("stories")
WORDS = {"do", "as", "spec", "body", "raw", "raw_times", "headers", "gives", "at", "shows", "lacks", "answers", "keep",
         "together", "writes"}


class JsonTypes(yaml.SafeLoader):
    """YAML as JSON sees it: `on` is a word, not true."""


JsonTypes.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag.rsplit(":", 1)[1] in ("int", "float", "null", "merge")]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()}
JsonTypes.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(true|false)$"), list("tf"))


def stories() -> Iterator[Any]:
    for file in sorted(STORIES.glob("*.yaml")):
        for story in yaml.load(file.read_text(), JsonTypes):
            yield pytest.param(story["steps"], id=f"{file.stem}: {story['story']}")


@pytest.mark.parametrize("steps", list(stories()))
def test_story(steps: list[dict[str, Any]], cloud: Any) -> None:
    kept: dict[str, str] = {}
    for number, step in enumerate(steps, 1):
        told = f"step {number}: {step['do']}"
        assert step.keys() <= WORDS, f"{told}: no such word {step.keys() - WORDS}"
        before = cloud.revision()
        if step["do"].startswith("HOLD "):
            kind, name = step["do"].split()[1:]
            cloud.hold(Ref(kind, "web", name))
            continue
        if "together" in step:
            with ThreadPoolExecutor(16) as pool:
                answers = list(pool.map(lambda n, step=step: ask(cloud, step, {"n": str(n)}), range(step["together"])))
            assert Counter(answer.status_code for answer in answers) == step["gives"], told
            continue
        answer = ask(cloud, step, kept)
        judge(told, answer, _filled(step, kept))
        if step.get("writes") == "nothing":
            assert cloud.revision() == before, f"{told}: it wrote"
        for name, where in step.get("keep", {}).items():
            kept[name] = answer.headers[where[7:]] if where.startswith("header ") else _member(answer.json, where)


def ask(cloud: Any, step: dict[str, Any], kept: dict[str, str]) -> Any:
    step = _filled(step, kept)
    method, address = step["do"].split(" ", 1)
    path = address if address.startswith("/") else f"/v1/namespaces/web/{address}"
    body = step.get("raw", step["raw_times"][0] * step["raw_times"][1] if "raw_times" in step else None)
    if "spec" in step or "body" in step:
        body = json.dumps(step.get("body", {"spec": step.get("spec")}))
    headers = {"Content-Type": "application/json"} if body is not None else {}
    return cloud.ask(step.get("as", "admin"), method, path, body, headers | step.get("headers", {}))


def judge(told: str, answer: Any, step: dict[str, Any]) -> None:
    status, _, code = str(step["gives"]).partition(" ")
    assert answer.status_code == int(status), f"{told}: {answer.status} {answer.text}"
    if answer.status_code >= 400:
        problem = answer.json
        assert answer.headers["content-type"] == "application/problem+json", told
        assert problem["code"] == code, f"{told}: {problem}"
        assert problem["status"] == answer.status_code and problem["request_id"] == answer.headers["x-request-id"], told
        pointers = {fault["pointer"] for fault in problem.get("errors", [])}
        assert pointers >= set(_several(step.get("at"))), f"{told}: {problem}"
    assert answer.headers["cache-control"] == "no-store", told
    _subset(f"{told}: {answer.text}", step.get("shows", {}), answer.json if "shows" in step else {})
    for text in _several(step.get("lacks")):
        assert text not in answer.text, f"{told}: {text!r} is in {answer.text}"
    for name, value in step.get("answers", {}).items():
        _subset(f"{told}: header {name}", value, answer.headers.get(name.lower()))


def _subset(told: str, wanted: Any, seen: Any) -> None:
    if isinstance(wanted, dict):
        assert isinstance(seen, dict), f"{told}: {seen!r} is not an object"
        for name, value in wanted.items():
            assert name in seen or value is None, f"{told}: no {name}"
            _subset(f"{told}: {name}", value, seen.get(name))
    elif isinstance(wanted, list):
        assert isinstance(seen, list) and len(seen) == len(wanted), f"{told}: {seen!r} against {wanted!r}"
        for index, (one, other) in enumerate(zip(wanted, seen, strict=True)):
            _subset(f"{told}: {index}", one, other)
    elif isinstance(wanted, str) and len(wanted) > 2 and wanted[0] == wanted[-1] == "/":
        assert isinstance(seen, str) and re.fullmatch(wanted[1:-1], seen), f"{told}: {seen!r} is not {wanted}"
    else:
        assert seen == wanted, f"{told}: {seen!r}, not {wanted!r}"


def _filled(value: Any, kept: dict[str, str]) -> Any:
    """With `<name>` replaced by what an earlier step kept."""
    if isinstance(value, str):
        return re.sub(r"<(\w+)>", lambda found: kept.get(found[1], found[0]), value)
    if isinstance(value, list):
        return [_filled(item, kept) for item in value]
    if isinstance(value, dict):
        return {name: _filled(item, kept) for name, item in value.items()}
    return value


def _member(document: Any, path: str) -> str:
    for step in path.split("."):
        document = document[int(step) if step.isdigit() else step]
    return str(document)


def _several(value: Any) -> list[str]:
    return [] if value is None else value if isinstance(value, list) else [value]
