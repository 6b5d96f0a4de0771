"""What an agent says of a resource on its node."""
from __future__ import annotations

from typing import Any

from wisp.agent.report import Blocked, Failure, status
from wisp.conditions import find
from wisp.host import Disk
from wisp.resource import Intent, Ref, Resource
from wisp.steps import Step, Todo, Wait

DISK = Disk("uid-1", 0, 8)
THING = Resource(Intent(Ref("instance", "web", "vm"), "uid-1", 3, "t0", "t0", {}), 1, 1)
BUSY = Todo((Step("create", DISK),))
WAITING = Todo(waits=(Wait("sha256:5", "image 5"),))


def says(todo: Todo, failure: Failure | None = None, blocked: tuple[Blocked, ...] = (), before: Any = None) -> dict[str, Any]:
    return status(THING, before or {}, todo, "Running", {"power": "on"}, failure, blocked, "t9")


def test_a_place_with_nothing_to_do_is_ready_for_this_generation() -> None:
    said = says(Todo())
    assert said["observed_generation"] == 3 and said["power"] == "on"
    assert find(said, "Ready") == {"type": "Ready", "status": "True", "reason": "Running", "message": "", "since": "t9"}


def test_a_place_under_construction_says_what_comes_next() -> None:
    assert find(says(BUSY), "Ready")["message"] == "Next: create disk 0."


def test_who_waits_says_for_what_and_why_when_that_is_known() -> None:
    assert find(says(WAITING, blocked=(Blocked("image 5", None),)), "Ready")["message"] == "Waits for image 5."
    failure = Failure("DownloadFailed", "No such host.", 1, False, 1)
    assert find(says(WAITING, blocked=(Blocked("image 5", failure),)), "Ready")["message"] == "Waits for image 5 (DownloadFailed: No such host.)."


def test_only_a_lasting_failure_is_failed() -> None:
    for lasting in (False, True):
        said = says(BUSY, Failure("NoSpace", "Full.", 3, lasting, 3))
        assert find(said, "Ready")["reason"] == "NoSpace" and bool(find(said, "Failed")) == lasting
        said = says(WAITING, blocked=(Blocked("image 5", Failure("ChecksumMismatch", "No.", 3, lasting, 1)),))
        assert bool(find(said, "Failed")) == lasting


def test_a_lost_disk_is_worse_than_anything_else() -> None:
    said = says(Todo(BUSY.steps, WAITING.waits, (DISK, Disk("uid-1", 2, 8))), Failure("NoSpace", "Full.", 1, False, 3))
    assert find(said, "Failed")["message"] == "Disk 0 and disk 2 existed and cannot be found."


def test_saying_the_same_again_is_saying_nothing_new() -> None:
    first = says(BUSY)
    assert status(THING, first, BUSY, "Running", {"power": "on"}, None, (), "t10") == first
