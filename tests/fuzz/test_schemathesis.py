"""Whatever is asked within the OpenAPI document, or in breach of it, is answered as the document says.

schemathesis makes requests from the document: its examples, the bounds of each schema and what lies just beyond them,
random ones good and bad, and walks along its links. They go through the real door to a simulated cloud, and each answer
is held against all of schemathesis's checks. Each tag of the document is a run of its own over a cloud of its own. A run
ends well only if each operation of its tag has succeeded, and each that a link leads to was reached by one: counted by
the document, not by what was run.

What the document cannot say (which parameters go together, which page tokens exist, that what is deleted takes a moment
to go) is seen to beside each call, where schemathesis judges anew whether a request is good. FUZZ_STEPS, as `make fuzz`
has it, makes the runs long and different each time.
"""
from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from ipaddress import IPv4Network
from typing import Any

import pytest
import requests
import schemathesis
import simulated
from hypothesis import strategies as st
from schemathesis import engine, hooks
from schemathesis.engine import events

from strict import closed
from wisp import catalogue
from wisp.api import bearers, build
from wisp.api.openapi import METHODS
from wisp.api.problems import refusal
from wisp.listener import Listener
from wisp.resource import CLUSTER, Ref
from wisp.service import ITSELF

ASKED = int(os.environ.get("FUZZ_STEPS", "0"))
EXAMPLES, WALKS = (ASKED // 20, ASKED // 20) if ASKED else (8, 40)
pytestmark = pytest.mark.timeout(7200 if ASKED else 300)
KINDS = {schema.plural: schema for schema in catalogue.load().kinds.values()}
TAGS = ["cloud", *KINDS]
NAMES = {"pool": "public", "image": "debian", "network": "lan", "instance": "front-1"}
"""What the examples refer to is there from the start, by these names; one of every other kind is `here`."""
CALLER = "caller"
"""The key that asks. It must not delete itself, or all else would be refused."""
SECONDS = 0.01
"""How long an answer is held: that a wait ends rightly matters here, not how long it is."""
SEEDS = range(1, 7)
"""Tried one after the other, until chance has led along every link."""
REFUSALS = [401, 403, 404, 409, 410, 412, 422, 428, 429, 507]
"""How a request that is as the document says may end nevertheless: it asks for what is not there, is taken, or too much."""

for form, longest in (("ipv4-network", 29), ("ipv4-prefix", 32)):
    schemathesis.openapi.format(form, st.builds(
        lambda address, length: str(IPv4Network((address, length), strict=False)), st.integers(0, 2 ** 32 - 1), st.integers(8, longest)))
schemathesis.openapi.format("date-time", st.datetimes(datetime(1970, 1, 1)).map(lambda time: f"{time:%Y-%m-%dT%H:%M:%SZ}"))


@dataclass
class Run:
    succeeded: set[str] = field(default_factory=set)
    reached: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)

    def note(self, event: events.EngineEvent) -> None:
        if isinstance(event, events.FatalError):
            raise event.exception
        if isinstance(event, events.NonFatalError):
            self.wrong.append(f"{event.label}: {event.info.message}")
        elif isinstance(event, events.ScenarioFinished):
            self.scenario(event.recorder)

    def scenario(self, recorder: Any) -> None:
        for case, node in recorder.cases.items():
            asked, name = recorder.interactions.get(case), node.value.operation.definition.raw["operationId"]
            if asked and asked.response is not None and asked.response.status_code < 300:
                self.succeeded.add(name)
            if node.transition and node.is_transition_applied:
                self.reached.add(name)
            self.wrong += [f"{check.name}: {found.failure.title}\n{found.failure.message}\n{found.code_sample}\n{asked.response.text[:1000]}"
                           for check in recorder.checks.get(case, ()) if (found := check.failure_info)]


class Beside:
    """What is done beside each call."""

    def __init__(self, cloud: simulated.Cloud) -> None:
        self.cloud = cloud
        self.pages: set[str] = set()

    def before_call(self, context: Any, case: Any, kwargs: Any) -> None:
        query, headers = case.query, case.headers
        if query.get("wait") in ("ready", "absent") and within_a_minute(query.get("timeout", 30)):
            query["timeout"] = SECONDS
        elif within_a_minute(query.get("wait")):
            query["wait"] = SECONDS
        elif "wait" not in query and within_a_minute(query.get("timeout")):
            del query["timeout"]
        if isinstance(query.get("after"), str) and query["after"] not in self.pages:
            del query["after"]
        if headers.get("If-None-Match") == "*":
            headers.pop("If-Match", None)
        if headers.get("Wisp-Version") == "0":              # schemathesis believes that it matches the pattern
            del headers["Wisp-Version"]
        if case.path_parameters.get("name") == CALLER:
            case.path_parameters["name"] = "another"

    def after_call(self, context: Any, case: Any, response: Any) -> None:
        if case.operation.method == "get" and response.status_code == 200 and '"next":' in response.text:
            self.pages.add(response.json().get("next"))
        if case.method == "DELETE" and response.status_code == 204:
            at = case.path_parameters
            ref = Ref(KINDS[case.operation.tags[0]].kind, at.get("namespace", CLUSTER), at["name"])
            self.cloud.service.resources.wait(ITSELF, ref, "absent", simulated.PATIENCE)


def within_a_minute(value: Any) -> bool:
    try:
        return 0 <= float(value) <= 60
    except (TypeError, ValueError):
        return False


@pytest.fixture
def document(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """As schemathesis has it, closed, with a cloud behind it. Wrong keys are not slowed, or that is all one would see."""
    monkeypatch.setattr(bearers, "TOKENS", 1_000_000)
    with simulated.clouds() as make, ExitStack() as until:
        cloud = make(nodes=2)
        token, beside = furnish(cloud), Beside(cloud)
        until.callback(hooks.unregister_all)
        schemathesis.hook("before_call")(partial(beside.before_call))
        schemathesis.hook("after_call")(partial(beside.after_call))
        app = build(cloud.service.resources, cloud.service.catalogue)
        listener = Listener(app, "127.0.0.1", 0, refusal(cloud.service.catalogue.errors), threads=8)
        thread = threading.Thread(target=listener.run)
        thread.start()
        until.callback(thread.join)
        until.callback(listener.close)
        url = "http://{}:{}".format(*listener.address)
        described = closed(requests.get(f"{url}/openapi.json", timeout=60).json())
        yield lambda seed=1: schemathesis.openapi.from_dict(described, config=config(token, url, seed))
        assert cloud.orphans() == []


def furnish(cloud: simulated.Cloud) -> str:
    """The caller's token."""
    for kind in [*NAMES, *(schema.kind for schema in KINDS.values() if schema.kind not in ("node", *NAMES))]:
        schema = cloud.service.catalogue.kinds[kind]
        ref = Ref(kind, CLUSTER if schema.cluster else "web", NAMES.get(kind, "here"))
        cloud.service.resources.put(ITSELF, ref, {"spec": schema.document["examples"][0]})
    return str(cloud.put("key", CALLER, {"role": "admin"}, namespace="system").document["token"])


def config(token: str, url: str, seed: int) -> schemathesis.Config:
    return schemathesis.Config.from_dict({
        "base-url": url,
        **({} if ASKED else {"seed": seed}), "generation": {"deterministic": not ASKED, "max-examples": EXAMPLES, "database": "none"},
        "phases": {"stateful": {"generation": {"max-examples": WALKS}, "max-steps": 10, "inference": {"algorithms": []}}},
        "suppress-health-check": ["all"], "warnings": False, "cache": {"enabled": False}, "continue-on-failure": True,
        "request-timeout": 60, "auth": {"openapi": {"key": {"bearer": token}}},
        "checks": {"positive_data_acceptance": {"expected-statuses": ["2xx", *REFUSALS]},
                   "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", 507]}},
        "dictionaries": {"namespace": {"values": ["web"]}, "limit": {"values": [1]},
                         "name": {"values": ["web", "n1", *NAMES.values(), "here", "one", "two"]}},
        "parameters": {"path.namespace": {"dictionary": "namespace", "probability": 0.9},
                       "path.name": {"dictionary": "name", "probability": 0.8},
                       "query.limit": {"dictionary": "limit", "probability": 0.8}},
    })


def operations(document: Any, tag: str) -> dict[str, Any]:
    told = (item[method] for item in document.raw_schema["paths"].values() for method in METHODS if method in item)
    return {operation["operationId"]: operation for operation in told if tag in ("", *operation["tags"])}


def test_every_operation_is_of_one_run(document: Any) -> None:
    for name, operation in operations(document(), "").items():
        assert len(operation["tags"]) == 1 and operation["tags"][0] in TAGS, name


@pytest.mark.parametrize("tag", TAGS)
def test_it_is_answered_as_the_document_says(document: Any, tag: str) -> None:
    run = Run()
    described = operations(document(), tag)
    links = {link for name, operation in described.items() for answer in operation["responses"].values()
             for link in answer.get("links", {}) if link != name}       # there need not be a next page
    for seed in SEEDS:
        for event in engine.from_schema(document(seed).include(tag=tag)).execute():
            run.note(event)
        assert not run.wrong, "\n\n".join([f"{len(run.wrong)} failures, seed {seed}", *run.wrong[:5]])
        if not (described.keys() - run.succeeded or links - run.reached):
            break
    assert described.keys() - run.succeeded == set(), "these never succeeded"
    assert links - run.reached == set(), "no link was followed to these"
