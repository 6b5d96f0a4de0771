from __future__ import annotations

import signal
from hashlib import sha256

import pytest

from .conftest import Cloud, Terraform, eventually, flat, kill_provider

MACHINE = """
variable "host" { default = "nowhere.invalid" }
variable "existing" { default = "refuse" }
provider "wisp" {
  on_existing = var.existing
}
resource "wisp_image" "i" {
  name   = "i"
  source = { kind = "url", url = "http://${var.host}/i.qcow2" }
  sha256 = "DIGEST"
}
resource "wisp_instance" "vm" {
  name       = "vm"
  cpus       = 1
  memory_mib = 64
  disks      = [{ image = wisp_image.i.name, size_gib = 1 }]
}
"""
FOUND = ("-var", "host=images.example")


@pytest.fixture
def waiting(cloud: Cloud, terraform: Terraform, namespace: str) -> Terraform:
    """A configuration whose instance waits for an image that cannot be fetched, until `host` is another."""
    terraform.write(MACHINE.replace("DIGEST", sha256(namespace.encode()).hexdigest()))
    return terraform


def uid(cloud: Cloud, namespace: str) -> str:
    answer = cloud.call("GET", f"/v1/namespaces/{namespace}/instances/vm")
    return str(answer.json()["uid"]) if answer.ok else ""


def test_a_provider_killed_in_mid_create_leaves_what_the_next_apply_names_and_adopts(
        cloud: Cloud, waiting: Terraform, namespace: str) -> None:
    first = waiting.start("apply", "-auto-approve")
    made = eventually(lambda: uid(cloud, namespace))
    kill_provider(first)
    first.communicate(timeout=60)
    assert first.returncode == 1 and "wisp_instance.vm" not in waiting.state()
    refused = waiting.apply(*FOUND, code=1)
    assert f'import {{ to = wisp_instance.NAME id = "{namespace}/vm" }}' in refused
    assert "Adopted instance" in waiting.apply(*FOUND, "-var", "existing=adopt_identical")
    assert waiting.state()["wisp_instance.vm"]["uid"] == uid(cloud, namespace) == made
    assert cloud.names(namespace, "instances") == ["vm"]
    assert "No changes." in waiting.run("plan", "-detailed-exitcode", *FOUND)


def test_an_interrupt_while_it_waits_keeps_the_state_and_says_what_it_waited_for(
        cloud: Cloud, waiting: Terraform, namespace: str) -> None:
    first = waiting.start("apply", "-auto-approve")
    made = eventually(lambda: uid(cloud, namespace))
    first.send_signal(signal.SIGINT)
    printed = flat(first.communicate(timeout=60)[0])
    assert "is not ready yet" in printed and "Last seen: Ready is False" in printed
    assert waiting.state()["wisp_instance.vm"]["uid"] == made
    again = waiting.apply(*FOUND)
    assert "0 added, 1 changed, 0 destroyed" in again and uid(cloud, namespace) == made
    assert "No changes." in waiting.run("plan", "-detailed-exitcode", *FOUND)
