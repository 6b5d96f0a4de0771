"""`terraform apply` against the real cloud: the quickstart from nothing to nothing, and a service killed in the middle."""
from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import PROJECT, Cloud, Origin, until

LAB = """
terraform {
  required_providers {
    wisp = { source = "wisp-cloud/wisp" }
  }
}
provider "wisp" {
  on_existing = "adopt_identical"
}
variable "url" {}
variable "sha256" {}
resource "wisp_network" "lan" {
  name = "lan"
  cidr = "10.9.0.0/24"
}
resource "wisp_image" "guest" {
  name   = "guest"
  sha256 = var.sha256
  source = { kind = "url", url = var.url }
}
resource "wisp_instance" "lab" {
  count      = 3
  name       = "lab-${count.index}"
  cpus       = 1
  memory_mib = 128
  disks      = [{ image = wisp_image.guest.name, size_gib = 1 }]
  networks   = [{ network = wisp_network.lan.name }]
  power      = "off"
}
"""


class Terraform:
    """terraform (or tofu) on a directory of its own, with the provider just built."""

    def __init__(self, directory: Path, cloud: Cloud) -> None:
        self.directory, self._cloud = directory, cloud
        tool = PROJECT / ".cache/bin/terraform"
        self._tool = str(tool.resolve()) if tool.exists() else str(shutil.which("terraform") or shutil.which("tofu"))

    def start(self, *words: str, **variables: str) -> subprocess.Popen[str]:
        env = os.environ | self._cloud.env | {f"TF_VAR_{name}": value for name, value in variables.items()} | {
            "TF_CLI_CONFIG_FILE": str(PROJECT / "provider-bridge/dev.tfrc"), "CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"}
        return subprocess.Popen([self._tool, *words], cwd=self.directory, env=env, text=True, errors="replace",
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def run(self, *words: str, **variables: str) -> tuple[int, str]:
        process = self.start(*words, **variables)
        said, _ = process.communicate()
        return process.returncode, said

    def works(self, *words: str, **variables: str) -> str:
        code, said = self.run(*words, **variables)
        assert code == 0, said
        return said

    def output(self) -> dict[str, Any]:
        process = self.start("output", "-json")
        assert process.stdout
        text = process.stdout.read()
        return {name: each["value"] for name, each in json.loads(text[text.index("\n{") if "\n{" in text else 0:]).items()}


@pytest.fixture
def image(origin: Origin) -> dict[str, str]:
    return {"url": origin.url("guest.qcow2"), "sha256": hashlib.sha256(origin.files["guest.qcow2"]).hexdigest()}


@pytest.fixture
def key(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    yield path


def test_the_quickstart_from_nothing_to_nothing(cloud: Cloud, image: dict[str, str], key: Path, tmp_path: Path) -> None:
    directory = tmp_path / "tf"
    shutil.copytree(PROJECT / "terraform-examples/quickstart", directory)
    terraform = Terraform(directory, cloud)
    variables = {"image_url": image["url"], "image_sha256": image["sha256"],
                 "ssh_keys": json.dumps([key.with_suffix(".pub").read_text().strip()])}
    terraform.works("apply", "-auto-approve", "-input=false", **variables)
    told = terraform.output()
    vm, lan = cloud.get("instances", "front"), cloud.get("networks", "lan")
    assert (told["address"], told["uid"], told["vni"]) == (vm["binding"]["interfaces"][0]["address"], vm["uid"], lan["binding"]["vni"])
    assert "GUEST: hello from Terraform, I am front" in cloud.booted(vm)
    assert cloud.reaches(lan, vm) and "front" in cloud.page(lan, vm)
    assert "front" in log_in(cloud, cloud.gateway(lan), told["address"], key)
    code, plan = terraform.run("plan", "-detailed-exitcode", "-input=false", **variables)
    assert code == 0 and "No changes" in plan, plan
    terraform.works("destroy", "-auto-approve", "-input=false", **variables)
    assert cloud.call("GET", "/namespaces/default/instances").json()["items"] == []


def log_in(cloud: Cloud, gateway: str, address: str, key: Path) -> str:
    """What `hostname` says over ssh with the key that Terraform gave."""
    options = ["-i", str(key), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
               "-o", "BatchMode=yes", "-o", "ConnectTimeout=30"]
    return cloud.world.run("ip", "netns", "exec", gateway, "ssh", *options, f"root@{address}", "hostname", check=False)


def test_a_service_killed_at_ten_random_moments_of_an_apply_ends_with_exactly_what_was_asked_for(
        cloud: Cloud, image: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "main.tf").write_text(LAB)
    terraform = Terraform(tmp_path, cloud)
    for kill in range(10):
        apply = terraform.start("apply", "-auto-approve", "-input=false", **image)
        reader = threading.Thread(target=apply.communicate)
        reader.start()
        time.sleep(random.uniform(0.1, 4.0))
        cloud.end(signal.SIGKILL)
        cloud.start()
        if kill % 2:
            apply.terminate()
        reader.join()
        if kill in (3, 6):
            terraform.run("destroy", "-auto-approve", "-input=false", **image)
    terraform.works("apply", "-auto-approve", "-input=false", **image)
    names = [item["name"] for item in cloud.call("GET", "/namespaces/default/instances").json()["items"]]
    assert names == ["lab-0", "lab-1", "lab-2"]
    code, plan = terraform.run("plan", "-detailed-exitcode", "-input=false", **image)
    assert code == 0, plan
    for name in names:
        cloud.ready("instances", name)
    domains = [name for name in cloud.world.run("virsh", "-q", "list", "--all", "--name").split() if name.startswith("default.")]
    assert len(domains) == 3
    assert cloud.orphans() == []
    terraform.works("destroy", "-auto-approve", "-input=false", **image)
    until(lambda: not cloud.world.traces()["domains"], "no domain is left")
