"""What is true of a resource, as it is shown: a pure view of its documents and the live nodes.

Nobody writes the status that a user reads. Each agent says what is so on its node; here that is put
together: the worst first, the least observed generation, Unknown for a node that is lost. Ready is True
when every place says so, and for what has no place, when it is recorded. `Failed` is there when a place
says that it will not come about without a change; `Deleting` once the document is retired.
"""
from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from wisp.resource import CLUSTER, Json, Ref, Resource

RANK = {"False": 0, "Unknown": 1, "True": 2}


@dataclass(frozen=True, slots=True)
class Lack:
    """Why a resource lacks a place that it should have. `lasting`: until somebody changes something."""

    reason: str
    message: str
    lasting: bool = False


def condition(type_: str, status: str, reason: str, message: str, since: str) -> dict[str, str]:
    return {"type": type_, "status": status, "reason": reason, "message": message, "since": since}


def find(status: Json, type_: str) -> Json:
    """The condition of this type; {} when there is none."""
    return next((each for each in status.get("conditions", ()) if each["type"] == type_), {})


def kept(before: Json, fresh: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    """The fresh conditions, each with the `since` of its forerunner if nothing but the message moved."""
    def since(each: dict[str, str]) -> str:
        was = find(before, each["type"])
        same = was and (was["status"], was["reason"]) == (each["status"], each["reason"])
        return str(was["since"]) if same else each["since"]
    return [{**each, "since": since(each)} for each in fresh]


def view(resource: Resource, places: Collection[str], live: Collection[str],
         lack: Lack | None = None, remarks: Collection[dict[str, str]] = ()) -> dict[str, Any]:
    """The status shown. `places`: nodes that should have a part of it; `live`: nodes whose agent is alive;
    `lack`: why there is one place less than there should be; `remarks`: further conditions, by the kind."""
    parts = [_part(resource, node, live) for node in sorted(places)]
    unplaced = [_unplaced(resource, "Ready", lack)] if lack or not parts else []
    ready = min([*unplaced, *(part["ready"] for part in parts)], key=lambda each: RANK[each["status"]])
    failed = [part["failed"] for part in parts if part["failed"]]
    if lack and lack.lasting:
        failed.append(_unplaced(resource, "Failed", lack))
    shown: dict[str, Any] = {"observed_generation": min((part["observed"] for part in parts),
                                                        default=resource.intent.generation)}
    if resource.retired:
        ready = condition("Ready", "False", "Deleting", "", resource.intent.retired)
        shown["conditions"] = [*(remarks or [_deleting(resource, live)]), ready]
    else:
        shown["conditions"] = [*failed[:1], ready, *remarks]
    for part in parts:
        shown.update(part["effective"])
    return shown


def over(before: Json, ready: bool, reason: str, message: str, at: str) -> dict[str, Any]:
    """The status of an action that nothing more comes of: it was done, or it has failed."""
    failed = [] if ready else [condition("Failed", "True", reason, message, at)]
    final = condition("Ready", "True" if ready else "False", reason, message, at)
    return {**before, "finished_at": at, "conditions": [*failed, final]}


def addressed(ref: Ref) -> dict[str, str]:
    """How a resource is named to a caller; a cluster kind has no namespace."""
    return {"kind": ref.kind, **({"namespace": ref.namespace} if ref.namespace != CLUSTER else {}), "name": ref.name}


def document(resource: Resource, places: Collection[str], live: Collection[str],
             hidden: Collection[str], lack: Lack | None = None,
             remarks: Collection[dict[str, str]] = ()) -> dict[str, Any]:
    """The resource as it is shown."""
    ref, intent = resource.ref, resource.intent
    return {**addressed(ref), "uid": intent.uid, "generation": intent.generation,
            "created_at": intent.created_at, "updated_at": intent.updated_at, "metadata": dict(intent.metadata),
            "spec": {name: value for name, value in intent.spec.items() if name not in hidden},
            "binding": dict(resource.binding), "status": view(resource, places, live, lack, remarks)}


def is_ready(shown: Json) -> bool:
    status = shown["status"]
    return bool(find(status, "Ready")["status"] == "True") and status["observed_generation"] == shown["generation"]


def has_failed(shown: Json) -> bool:
    status = shown["status"]
    return bool(find(status, "Failed")) and status["observed_generation"] == shown["generation"]


OURS = ("node", "observed_generation", "conditions", "disks_made", "incarnation", "machine")
"""Members of a status that are the agents' own, or said in another way."""


def _unplaced(resource: Resource, type_: str, lack: Lack | None) -> dict[str, str]:
    status = "False" if lack and type_ == "Ready" else "True"
    reason, message = (lack.reason, lack.message) if lack else ("Recorded", "")
    return condition(type_, status, reason, message, resource.intent.updated_at)


def _part(resource: Resource, node: str, live: Collection[str]) -> Mapping[str, Any]:
    said = resource.statuses.get(node)
    if said is None:
        message = f"The node {node} has not begun yet."
        pending = condition("Ready", "False", "Pending", message, resource.intent.updated_at)
        return {"ready": pending, "failed": {}, "observed": 0, "effective": {}}
    ready, final = dict(find(said, "Ready")), "finished_at" in said
    if node not in live and not final:      # what is over stays so, whatever becomes of the node or the metadata
        ready |= {"status": "Unknown", "reason": "NodeLost", "message": f"The node {node} does not answer."}
    observed = resource.intent.generation if final else said["observed_generation"]
    return {"ready": ready, "failed": find(said, "Failed"), "observed": observed,
            "effective": {name: value for name, value in said.items() if name not in OURS}}


def _deleting(resource: Resource, live: Collection[str]) -> dict[str, str]:
    lost = sorted(set(resource.statuses) - set(live))
    message = f"Waits for {', '.join(sorted(resource.statuses)) or 'its record to go'}"
    message += f"; lost: {', '.join(lost)}. A node that is gone for good can be deleted." if lost else "."
    return condition("Deleting", "True", "NodeLost" if lost else "TakingDown", message, resource.intent.retired)
