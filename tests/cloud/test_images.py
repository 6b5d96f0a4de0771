"""Images: fetched when first needed, told of when they fail, and let go when the disks stand for themselves."""
from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from simulated import BOOTED, IMAGE, PATIENCE, SMALL, Cloud, Make, at_once, boot, undisturbed

from wisp.conditions import find
from wisp.errors import Problem, StepFailed
from wisp.host import Disk, Domain, Image
from wisp.resource import PREFIX

DISKED = {**SMALL, "disks": [{"image": "guest", "size_gib": 1}]}


def failing(verb: str, failure: StepFailed) -> Callable[..., Any]:
    """A machine on which this verb never works out."""
    def between(now: str, args: tuple[Any, ...], go_on: Callable[[], Any]) -> Any:
        if now == verb:
            raise failure
        return go_on()
    return between


def holding(verb: str, until: threading.Event) -> Callable[..., Any]:
    """A machine on which this verb takes until the event is set."""
    def between(now: str, args: tuple[Any, ...], go_on: Callable[[], Any]) -> Any:
        if now == verb:
            assert until.wait(PATIENCE)
        return go_on()
    return between


def attempts(cloud: Cloud) -> int:
    return cloud.room.done.count("fetch")


def test_an_instance_says_that_it_waits_for_its_image_and_why(cloud: Cloud) -> None:
    cloud.put("image", "guest", {**IMAGE, "source": {"kind": "url", "url": "http://images.invalid/guest.qcow2"}})
    cloud.put("instance", "vm", DISKED)
    def reason() -> Any:
        found = find(cloud.get("instance", "vm")["status"], "Ready")
        return found if "DownloadFailed" in found["message"] else None
    said = cloud.until(reason)
    assert said["reason"] == "Waiting"
    assert said["message"].startswith("Waits for image 555555555555 (DownloadFailed: The download from http://images.invalid/guest.qcow2 ")
    assert cloud.said("image", "guest", "Ready", "DownloadFailed")["status"] == "False"
    assert not find(cloud.get("instance", "vm")["status"], "Failed"), "a host may come back"
    cloud.put("image", "guest", IMAGE)
    cloud.ready("instance", "vm")
    cloud.ready("image", "guest")


def test_a_wrong_checksum_is_tried_again_and_then_fails_the_image_and_who_waits_for_it(cloud: Cloud) -> None:
    wrong = StepFailed("ChecksumMismatch", "The origin serves something else.", patience=3)
    cloud.room.between = failing("fetch", wrong)
    cloud.put("image", "guest", IMAGE)
    cloud.put("instance", "vm", DISKED)
    assert cloud.said("image", "guest", "Failed", "ChecksumMismatch")["message"] == "The origin serves something else."
    assert attempts(cloud) >= 3
    failed = cloud.said("instance", "vm", "Failed", "Waiting")
    assert "ChecksumMismatch: The origin serves something else." in failed["message"]
    shown = cloud.service.resources.wait(cloud.bearer(cloud.service.admin_token()), cloud.ref("instance", "vm"), "ready", PATIENCE)
    assert shown and find(shown["status"], "Ready")["status"] == "False", "and nobody waits for it any longer"
    cloud.room.between = undisturbed
    cloud.put("image", "guest", {**IMAGE, "source": {"kind": "url", "url": "http://mirror.example/guest.qcow2"}})
    cloud.said("instance", "vm", "Ready", "Running")
    assert not find(cloud.ready("image", "guest")["status"], "Failed")


def test_one_failure_does_not_fail_what_has_patience(cloud: Cloud) -> None:
    cloud.room.depot.failures += [StepFailed("ChecksumMismatch", "Cut.", patience=3)] * 2
    cloud.put("image", "guest", IMAGE)
    cloud.put("instance", "vm", DISKED)
    cloud.ready("instance", "vm")
    assert attempts(cloud) == 3
    assert len([text for text in cloud.events("image", "guest") if "ChecksumMismatch" in text]) == 1, "told once"


def test_ten_instances_of_one_image_cost_one_download(cloud: Cloud) -> None:
    cloud.put("image", "guest", IMAGE)
    at_once([partial(cloud.put, "instance", f"vm-{n}", DISKED) for n in range(10)])
    for n in range(10):
        cloud.ready("instance", f"vm-{n}")
    assert attempts(cloud) == 1


def test_two_images_of_the_same_content_are_one_file(cloud: Cloud) -> None:
    cloud.put("image", "guest", IMAGE)
    cloud.put("image", "twin", IMAGE)
    cloud.put("instance", "one", DISKED)
    cloud.put("instance", "two", {**SMALL, "disks": [{"image": "twin", "size_gib": 1}]})
    for name in ("one", "two"):
        cloud.ready("instance", name)
    assert len(cloud.room.parts(Image)) == 1
    cloud.settle()
    cloud.remove("image", "twin")
    cloud.settle()
    assert len(cloud.room.parts(Image)) == 1, "the other one still wants it"


def test_a_slow_download_holds_up_nobody_else(cloud: Cloud) -> None:
    arrived = threading.Event()
    cloud.room.between = holding("fetch", arrived)
    cloud.put("image", "guest", IMAGE)
    cloud.put("instance", "waiting", DISKED)
    cloud.put("instance", "other", SMALL)
    cloud.ready("instance", "other")
    assert cloud.said("instance", "waiting", "Ready", "Waiting")["message"] == "Waits for image 555555555555."
    arrived.set()
    cloud.ready("instance", "waiting")


def test_an_image_may_not_go_before_the_disk_is_made(cloud: Cloud) -> None:
    arrived = threading.Event()
    cloud.room.between = holding("fetch", arrived)
    cloud.put("image", "guest", IMAGE)
    cloud.put("instance", "vm", DISKED)
    problem = cloud.refused_delete("image", "guest")
    assert problem.code == "in_use" and "instance web/vm" in problem.detail
    arrived.set()
    cloud.ready("instance", "vm")


def test_an_image_may_go_once_the_disks_are_made_and_the_instance_goes_on(cloud: Cloud) -> None:
    boot(cloud)
    cloud.until(lambda: not any(key.startswith(f"{PREFIX}ref/web/image/") for key in cloud.recorded()), "the reference is given up")
    cloud.remove("image", "guest")
    cloud.settle()
    assert cloud.room.only(Image).sha256 == cloud.room.only(Disk).sha256, "a disk still lies on it"
    for power in ("off", "on"):
        cloud.put("instance", "vm", {**BOOTED, "power": power})
        cloud.until(lambda: cloud.room.only(Domain).power == power)  # noqa: B023
        cloud.ready("instance", "vm")
    cloud.restart()
    cloud.settle()
    cloud.ready("instance", "vm")
    assert not cloud.put("instance", "vm", BOOTED).created
    cloud.remove("instance", "vm")
    cloud.settle()
    assert cloud.room.parts(Image) == []


def test_another_image_made_under_the_old_ones_name_is_not_taken_for_it(cloud: Cloud) -> None:
    cloud.put("image", "guest", IMAGE)
    cloud.put("instance", "vm", DISKED)
    cloud.ready("instance", "vm")
    cloud.settle()
    cloud.remove("image", "guest")
    cloud.put("image", "guest", {**IMAGE, "sha256": "6" * 64})
    cloud.settle()
    cloud.ready("instance", "vm")
    assert cloud.room.only(Disk).sha256 == IMAGE["sha256"]
    cloud.remove("image", "guest")


def test_an_image_deleted_while_its_first_instance_is_made_refuses_one_of_the_two(cloud: Cloud) -> None:
    for n in range(20):
        cloud.put("image", "guest", IMAGE)
        made, deleted = at_once([partial(cloud.put, "instance", f"vm-{n}", DISKED), partial(cloud.delete, "image", "guest")])
        if isinstance(made, Problem):
            assert made.code == "reference" and not isinstance(deleted, Problem)
        else:
            cloud.ready("instance", f"vm-{n}")
            assert not isinstance(deleted, Problem) or deleted.code == "in_use"
        assert cloud.dangling() == []
        cloud.settle()
        cloud.remove("image", "guest")


def test_a_node_that_has_the_image_is_preferred(clouds: Make) -> None:
    cloud = clouds(nodes=3)
    cloud.put("image", "guest", IMAGE)
    cloud.put("instance", "first", {**DISKED, "placement": {"node": "n3"}})
    cloud.ready("instance", "first")
    for n in range(3):
        assert cloud.put("instance", f"vm-{n}", DISKED).document["binding"]["node"] == "n3"
