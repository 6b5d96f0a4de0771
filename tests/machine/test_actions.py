"""Actions on a machine that really runs: what it wrote, whether it answers, and that it starts anew when asked to."""
from __future__ import annotations

from typing import Any

from .conftest import Cloud, condition, small

Doc = dict[str, Any]


def test_a_machine_is_read_pinged_and_rebooted_as_asked(cloud: Cloud, lan: Doc, guest_image: Doc) -> None:
    vm = cloud.put("instances", "front", **small())
    cloud.booted(vm)
    cloud.put("actions", "look", do="console_log", instance="front")
    assert "GUEST: READY" in cloud.ready("actions", "look")["status"]["output"]

    address = vm["binding"]["interfaces"][0]["address"]
    for name, asked, received in (("there", address, 3), ("gateway", "10.1.0.1", 3), ("nobody", "10.1.0.254", 0)):
        cloud.put("actions", name, do="ping", network="lan", address=asked)
        status = cloud.ready("actions", name)["status"]
        assert (status["sent"], status["received"], len(status["rtt_us"])) == (3, received, received), name

    for times, mode in ((2, "soft"), (3, "hard")):
        cloud.put("actions", mode, do="reboot", instance="front", mode=mode)
        assert condition(cloud.ready("actions", mode), "Ready")["reason"] == "Done"
        said = cloud.booted(vm, times)
        assert said.count("GUEST: POWER BUTTON") == 1, "only the soft one asks the guest"
    assert cloud.put("actions", "hard", do="reboot", instance="front", mode="hard")["generation"] == 1
    assert "local: hard reboot" in cloud.events("actions", "hard")

    cloud.gone("instances", "front")
    for name in ("look", "soft", "hard"):
        answer = cloud.call("GET", cloud.path("actions", name), params={"wait": "absent", "timeout": 60})
        assert answer.status_code == 404
