"""Every route, asked by every role, about one's own namespace, one that trusts it, and one that does not.

Routes are read from the application and documents from the examples of the schemas, so a new kind is covered the
moment it has a schema. What must come of it follows from `expected`, a few rules; the table in the handbook is what
did come of it:

    .venv/bin/python tests/http/test_tenants.py     writes docs/handbook/tenants.md anew
"""
from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from falcon import inspect

from wisp import catalogue
from wisp.kinds import KINDS
from wisp.resource import CLUSTER, Ref

PAGE = Path(__file__).parents[2] / "docs" / "handbook" / "tenants.md"
SCHEMAS = catalogue.load()
OWN, TRUSTING, FOREIGN = "ours", "friends", "strangers"
ROLES = ("no key", "viewer", "editor", "admin", "administrator of the cluster")
LET_IN = "yes"
Cells = dict[str, dict[str, str]]
"""Role -> whose -> `yes`, or the status of the refusal."""


# --- the rules

def expected(path: str, method: str, role: str, whose: str) -> str:
    """What must come of it."""
    schema = kind_of(path)
    if not path.startswith("/v1/"):
        return LET_IN                   # 1. What is outside /v1 is for everybody.
    if role == "no key":
        return "401"                    # 2. All else needs a key,
    if role == ROLES[-1]:
        return LET_IN                   # 3. and with one of an administrator of the cluster one may do everything.
    if path == "/v1/audit":
        return "403"                    # 4. The audit is for those alone.
    if path == "/v1/changes" or (schema and path == f"/v1/{schema.plural}"):
        return LET_IN                   # 5. What goes over all namespaces anybody may ask: it shows what one may see.
    assert schema, f"no rule covers {path}"
    visible = whose == OWN or (whose == TRUSTING and schema.kind in shared())
    if not visible or (schema.cluster and schema.kind != "namespace"):
        return "404"                    # 6. One sees one's own, and of those who trust one what can be referred to.
    if method == "GET":
        return LET_IN                   # 7. What one may see, every role may read.
    secret = KINDS[schema.kind].privileged
    mine = whose == OWN and not schema.cluster
    return LET_IN if mine and role in (("admin",) if secret else ("editor", "admin")) else "403"
    # 8. Editors and admins change what is their namespace's own; keys only admins; a namespace itself nobody in it.


RULES = """\
1. What is outside `/v1` is for everybody.
2. All else needs a key (401).
3. An admin of the namespace `system` administers the cluster and may do everything.
4. The audit is for those alone.
5. What goes over all namespaces anybody may ask: it shows what the caller may see.
6. One sees one's own namespace, and of a namespace that trusts it the kinds that can be referred to across namespaces.
   All else is 404, whether it is there or not.
7. What one may see, every role may read.
8. Editors and admins change what is their namespace's own; keys, only admins do. A namespace itself, and what is not
   one's own, is changed by nobody but the administrators of the cluster (403).
"""


def shared() -> set[str]:
    """Kinds that some schema refers to as `namespace/name`."""
    def named(node: Any) -> set[str]:
        if isinstance(node, list):
            return set().union(*map(named, node))
        if not isinstance(node, dict):
            return set()
        here = {node["x-refers-to"]["kind"]} if str(node.get("$ref", "")).endswith("/reference") else set()
        return here.union(*map(named, node.values()))
    return set().union(*(named(json.loads(file.read_text())) for file in (catalogue.directory() / "v1").glob("*.json")))


def kind_of(path: str) -> Any:
    """The schema of the kind that a route is about."""
    words = [word for word in path.split("/") if not word.startswith("{") and word != "events"]
    return next((schema for schema in SCHEMAS.kinds.values() if words and schema.plural == words[-1]), None)


# --- asking

def matrix(cloud: Any) -> dict[tuple[str, str], Cells]:
    """What comes of each route and method."""
    trusts = {OWN: [], TRUSTING: [OWN], FOREIGN: []}
    for whose, trusted in trusts.items():
        cloud.put(Ref("namespace", CLUSTER, whose), {"trusts": trusted})
        for schema in SCHEMAS.kinds.values():
            make(cloud, schema.kind, whose, "thing")
    cloud.tokens |= {role: cloud.put(Ref("key", OWN, f"key-{role}"), {"role": role})["token"] for role in ROLES[1:-1]}
    return {(route.path, asked.method): {role: {whose: once(cloud, route.path, asked.method, role, whose)
                                                for whose in trusts} for role in ROLES}
            for route in inspect.inspect_routes(cloud.app) for asked in route.methods if not asked.internal}


def make(cloud: Any, kind: str, whose: str, name: str) -> None:
    """One by its schema's example, and what that refers to."""
    if kind in ("namespace", "node"):       # they are there
        return
    schema = SCHEMAS.kinds[kind]
    spec = schema.document["examples"][0]
    for reference in schema.references(spec):
        make(cloud, reference.kind, whose, reference.name.rpartition("/")[2])
    cloud.put(Ref(kind, CLUSTER, whose if name == "thing" else name) if schema.cluster else Ref(kind, whose, name), spec)


def once(cloud: Any, path: str, method: str, role: str, whose: str) -> str:
    schema = kind_of(path)
    outer = "n1" if schema and schema.kind == "node" else whose
    address = path.replace("{outer}", outer).replace("{inner}", "thing").replace("{file}", "docs.css")
    body = None
    if method == "PUT":
        now = cloud.ask("root", "GET", address).json["spec"]
        body = json.dumps({"spec": schema.document["examples"][0] if not schema.cluster else now})
    who = {"no key": "nobody", ROLES[-1]: "root"}.get(role, role)
    status = cloud.ask(who, method, address, body, {"Content-Type": "application/json"} if body else {}).status_code
    if method == "DELETE" and status == 204:
        make(cloud, schema.kind, whose, "thing")
    assert status < 500, f"{method} {address} as {role}: {status}"
    let_in = status < 400 or status == 409 or (not path.startswith("/v1/") and status == 404)
    return LET_IN if let_in else str(status)


# --- telling

def page(found: dict[tuple[str, str], Cells]) -> str:
    rows = [f"| `{method}` | `{told(path)}` | {' | '.join(cell(cells[role]) for role in ROLES)} |"
            for (path, method), cells in sorted(found.items(), key=lambda each: each[0])]
    return f"""# Who may do what

<!-- Written by tests/http/test_tenants.py from what the API answered; do not edit. -->

Every route, asked with a key of each role. Where it matters whose the thing is, a cell has three answers: *one's own* ·
*of a namespace that trusts one's own* · *of another*. `yes` is being let in; else it is the status of the refusal.

{RULES}
| | address | {' | '.join(ROLES)} |
|---|---|{'---|' * len(ROLES)}
""" + "\n".join(rows) + "\n"


def told(path: str) -> str:
    document = "{name}" if path.startswith(("/v1/nodes", "/v1/pools")) else "{namespace}"
    return path.replace("{outer}", document).replace("{inner}", "{name}")


def cell(answers: dict[str, str]) -> str:
    several = list(dict.fromkeys(answers.values()))
    return several[0] if len(several) == 1 else " · ".join(answers.values())


# --- the tests

def test_who_may_do_what_follows_from_a_few_rules(cloud: Any) -> None:
    wrong = [f"{method} {path}, {role} of {OWN} about {whose}: {answer}, not {wanted}"
             for (path, method), cells in matrix(cloud).items() for role, answers in cells.items()
             for whose, answer in answers.items() if answer != (wanted := expected(path, method, role, whose))]
    assert wrong == []


def test_the_handbook_shows_the_matrix(cloud: Any) -> None:
    assert PAGE.read_text() == page(matrix(cloud)), "write it anew: .venv/bin/python tests/http/test_tenants.py"


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    from conftest import Cloud

    there = Cloud()
    try:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(page(matrix(there)))
    finally:
        there.mirror.stop()
