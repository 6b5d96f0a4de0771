"""Every code of the registry is raised once, through the real door, by what the registry says of it.

The table below names for each code a request that provokes it. A code that is added to the registry fails here until
somebody shows how it comes about; one that nothing raises any more has no business in the registry.
"""
from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
import requests

from wisp import catalogue
from wisp.catalogue import directory
from wisp.dialect import FORMATS, Validator
from wisp.resource import Ref
from wisp.store import Put, Span

REGISTRY = catalogue.load().errors
PROBLEM = json.loads((directory() / "v1/common.json").read_text())["$defs"]["problem"]
LAN = Ref("network", "web", "lan")
CIDR = {"cidr": "10.1.0.0/29"}
SMALL = {"cpus": 1, "memory_mib": 64, "disks": [{"size_gib": 1}]}


class Door:
    """Asks what a person with curl would ask; a path without a leading slash is inside the namespace `web`."""

    def __init__(self, served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cloud, self.url, self.monkeypatch = served.cloud, served.url, monkeypatch

    def ask(self, method: str, path: str, spec: Any = None, who: str = "admin", body: str | None = None, **headers: str) -> requests.Response:
        if spec is not None:
            body = json.dumps({"spec": spec})
        known = {"Authorization": f"Bearer {self.cloud.tokens[who]}", "Content-Type": "application/json"}
        path = path if path.startswith("/") else f"/v1/namespaces/web/{path}"
        sent = known | {name.replace("_", "-"): value for name, value in headers.items()}
        return requests.request(method, self.url + path, data=body, headers=sent, timeout=60)

    def get(self, path: str, **how: Any) -> requests.Response:
        return self.ask("GET", path, **how)

    def put(self, path: str, spec: Any, **how: Any) -> requests.Response:
        return self.ask("PUT", path, spec, **how)

    def lan(self) -> Door:
        assert self.put("networks/lan", CIDR).status_code == 201
        return self

    def web(self, **spec: Any) -> Door:
        """The namespace, changed."""
        assert self.put("/v1/namespaces/web", spec, who="root").status_code == 200
        return self


def deleting(door: Door) -> requests.Response:
    door.lan().cloud.hold(LAN)
    assert door.ask("DELETE", "networks/lan").status_code == 204
    return door.put("networks/lan", CIDR)


def address_taken(door: Door) -> requests.Response:
    plugged = {**SMALL, "networks": [{"network": "lan", "address": "10.1.0.3"}]}
    assert door.lan().put("instances/one", plugged).status_code == 201
    return door.put("instances/two", plugged)


def conflict(door: Door) -> requests.Response:
    """Somebody else is always faster."""
    store, commit, key = door.lan().cloud.store, door.cloud.store.commit, LAN.key("intent")

    def late(guards: Any, ops: Any) -> int:
        commit([], [Put(key, store.read(Span(key)).spans[0][0].value)])
        return commit(guards, ops)  # type: ignore[no-any-return]
    door.monkeypatch.setattr("wisp.resources.PATIENCE", 0.2)
    door.monkeypatch.setattr(store, "commit", late)
    return door.put("networks/lan", {**CIDR, "nat": False})


def too_many_requests(door: Door) -> requests.Response:
    while (answer := door.get("networks", who="forger")).status_code == 401:
        pass
    return answer


def internal(door: Door) -> requests.Response:
    """What is recorded cannot be read."""
    door.lan().cloud.write(Put(f"{LAN.key('event')}/0", b"{"))
    return door.get("networks/lan/events")


def store_unavailable(door: Door) -> requests.Response:
    door.lan().cloud.store.close()
    return door.get("networks/lan")


def lagging(door: Door) -> requests.Response:
    """What the server knows is older than what the store holds."""
    door.lan().cloud.mirror.stop()
    door.cloud.store.commit([], [Put(LAN.key("event"), b"{}")])
    door.monkeypatch.setattr("wisp.resources.LAG", 0.2)
    return door.get("networks/lan")


def busy(door: Door) -> requests.Response:
    """Everybody who may wait does."""
    door.lan()
    waiting = [threading.Thread(target=door.get, args=("networks/lan?wait=absent&timeout=60",)) for _ in range(2)]
    for each in waiting:
        each.start()
    while (answer := door.get("networks/lan?wait=absent&timeout=0")).status_code == 200:
        pass
    door.ask("DELETE", "networks/lan")
    for each in waiting:
        each.join()
    return answer


RAISED: dict[str, Callable[[Door], requests.Response]] = {
    "malformed": lambda door: door.ask("PUT", "networks/lan", body="{"),
    "unknown_parameter": lambda door: door.get("networks?limt=5"),
    "unauthenticated": lambda door: door.get("networks", who="forger"),
    "forbidden": lambda door: door.put("networks/lan", CIDR, who="viewer"),
    "not_found": lambda door: door.get("networks/lan"),
    "method_not_allowed": lambda door: door.ask("POST", "networks", CIDR),
    "in_use": lambda door: door.lan().ask("DELETE", "/v1/namespaces/web", who="root"),
    "deleting": deleting,
    "address_taken": address_taken,
    "conflict": conflict,
    "gone": lambda door: door.get("/v1/changes?since=999999"),
    "precondition_failed": lambda door: door.lan().put("networks/lan", CIDR, If_None_Match="*"),
    "precondition_required": lambda door: door.lan().web(require_if_match=True).ask("DELETE", "networks/lan"),
    "too_large": lambda door: door.ask("PUT", "networks/lan", body=" " * ((1 << 20) + 1)),
    "unsupported_media_type": lambda door: door.put("networks/lan", CIDR, Content_Type="application/yaml"),
    "invalid": lambda door: door.put("networks/lan", {"cidr": "10.1.0.1/29"}),
    "immutable": lambda door: door.lan().put("networks/lan", {"cidr": "10.2.0.0/29"}),
    "reference": lambda door: door.put("instances/one", {**SMALL, "networks": [{"network": "lan"}]}),
    "quota_exceeded": lambda door: door.web(quotas={"networks": 0}).put("networks/lan", CIDR),
    "too_many_requests": too_many_requests,
    "internal": internal,
    "store_unavailable": store_unavailable,
    "busy": busy,
    "no_capacity": lambda door: door.put("instances/one", {**SMALL, "cpus": 256}),
    "addresses_exhausted": lambda door: door.lan().put("instances/one", {**SMALL, "networks": [{"network": "lan"}] * 6}),
}


def test_every_code_of_the_registry_has_a_request_that_raises_it() -> None:
    assert RAISED.keys() == REGISTRY.keys()


@pytest.mark.parametrize(("code", "raised"), [*RAISED.items(), ("store_unavailable", lagging)])
def test_a_code_is_raised_as_the_registry_says(served: Any, monkeypatch: pytest.MonkeyPatch, code: str, raised: Callable[[Door], requests.Response]) -> None:
    answer, entry = raised(Door(served, monkeypatch)), REGISTRY[code]
    problem = answer.json()
    assert [error.message for error in Validator(PROBLEM, format_checker=FORMATS).iter_errors(problem)] == []
    assert answer.headers["Content-Type"] == "application/problem+json"
    told = {name: problem[name] for name in ("code", "status", "title", "retryable", "type")}
    assert told == {"code": code, "status": answer.status_code, "title": entry.title, "retryable": entry.retryable, "type": f"/docs#{code}"}
    assert answer.status_code == entry.status
    assert ("Retry-After" in answer.headers) == (code in ("conflict", "too_many_requests", "store_unavailable", "busy"))
