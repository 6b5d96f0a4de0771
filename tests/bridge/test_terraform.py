from __future__ import annotations

import json
import re
from collections.abc import Callable
from hashlib import sha256

from .conftest import Cloud, Terraform

NETWORK = 'resource "wisp_network" "lan" {\n  name = "lan"\n  cidr = "10.1.0.0/24"\n}\n'
EVERYTHING = NETWORK + """
variable "size" { default = 1 }
variable "team" {}
resource "wisp_namespace" "team" {
  name     = var.team
  quotas   = { instances = var.size }
  metadata = { size = tostring(var.size) }
}
resource "wisp_key" "ci" {
  namespace = wisp_namespace.team.name
  name      = "ci"
  role      = var.size == 1 ? "viewer" : "editor"
  secret    = "planted-secret-planted-secret-planted-secret"
}
resource "wisp_image" "debian" {
  name   = "debian"
  source = { kind = "url", url = "http://images-${var.size}.example/debian.qcow2" }
  sha256 = "DIGEST"
}
resource "wisp_instance" "vm" {
  count      = 2
  name       = "vm-${count.index}"
  cpus       = var.size
  memory_mib = 256
  disks      = [{ image = wisp_image.debian.name, size_gib = 2 }, { size_gib = 1, bus = "scsi" }]
  networks   = [{ network = wisp_network.lan.name }]
  ssh_keys   = ["ssh-ed25519 b", "ssh-ed25519 a"]
  user_data  = "#!/bin/sh\\necho planted"
}
data "wisp_instance" "vm" {
  name = wisp_instance.vm[0].name
}
output "address" { value = wisp_instance.vm[0].binding.interfaces[0].address }
output "ready" { value = data.wisp_instance.vm.status.conditions[0].status }
""".replace("DIGEST", sha256(b"debian").hexdigest())


def test_a_whole_cloud_is_made_changed_planned_empty_and_destroyed(cloud: Cloud, terraform: Terraform, namespace: str) -> None:
    terraform.write(EVERYTHING)
    terraform.environment["TF_VAR_team"] = namespace + "-team"
    printed = terraform.apply()
    assert "6 added" in printed and 'ready = "True"' in printed and re.search(r'address = "10\.1\.0\.\d+"', printed)
    assert terraform.plans_nothing()
    changed = terraform.apply("-var", "size=2")
    assert "0 added, 5 changed, 0 destroyed" in changed
    assert cloud.call("GET", f"/v1/namespaces/{namespace}/instances/vm-1").json()["spec"]["cpus"] == 2
    assert "No changes." in terraform.run("plan", "-detailed-exitcode", "-var", "size=2")
    kept = (terraform.directory / "terraform.tfstate").read_text()
    assert "planted" not in kept and not re.search(r"wisp_[0-9a-f]{16}_", kept)
    assert "6 destroyed" in terraform.run("destroy", "-auto-approve", "-var", "size=2")
    assert cloud.names(namespace, "instances") == cloud.names(namespace, "networks") == []


def test_an_update_shows_the_binding_as_it_stays(terraform: Terraform) -> None:
    terraform.write(NETWORK)
    terraform.apply()
    terraform.write(NETWORK.replace("}\n", "  nat  = false\n}\n"))
    terraform.run("plan", "-out", "plan")
    planned = json.loads(terraform.run("show", "-json", "plan"))["resource_changes"][0]["change"]
    assert planned["actions"] == ["update"]
    assert planned["after_unknown"] == {} or True not in planned["after_unknown"].values()
    assert planned["after"]["binding"] == planned["before"]["binding"]


def test_an_immutable_field_replaces(cloud: Cloud, terraform: Terraform, namespace: str) -> None:
    terraform.write(NETWORK)
    terraform.apply()
    before = terraform.state()["wisp_network.lan"]["uid"]
    terraform.write(NETWORK.replace("10.1.0.0/24", "10.2.0.0/24"))
    assert "1 added, 0 changed, 1 destroyed" in terraform.apply()
    assert terraform.state()["wisp_network.lan"]["uid"] != before
    assert terraform.plans_nothing()


def test_what_exists_is_imported_by_the_block_that_the_error_shows(workspace: Callable[[], Terraform], namespace: str) -> None:
    workspace().write(NETWORK)
    owner, other = workspace(), workspace()
    owner.write(NETWORK)
    owner.apply()
    other.write(NETWORK)
    refused = other.apply(code=1)
    assert f'"{namespace}/lan" exists already' in refused and "with wisp_network.lan" in refused
    block = re.search(r"import \{ to = (\S+) id = (\S+) \}", refused)
    assert block, refused
    other.write(NETWORK + f"import {{\n  to = {block[1].replace('NAME', 'lan')}\n  id = {block[2]}\n}}\n")
    assert "1 imported, 0 added, 0 changed, 0 destroyed" in other.apply()
    assert other.plans_nothing()
    assert other.state() == owner.state()


def test_what_another_made_to_the_same_words_is_imported_and_changed_in_place(cloud: Cloud, terraform: Terraform, namespace: str) -> None:
    spec = {"cpus": 1, "memory_mib": 64, "disks": [{"size_gib": 1}], "ssh_keys": ["ssh-ed25519 b", "ssh-ed25519 a"]}
    assert cloud.call("PUT", f"/v1/namespaces/{namespace}/instances/vm", json={"spec": spec}).status_code == 201
    body = ('resource "wisp_instance" "vm" {\n  name = "vm"\n  cpus = CPUS\n  memory_mib = 64\n  disks = [{ size_gib = 1 }]\n'
            '  ssh_keys = ["ssh-ed25519 a", "ssh-ed25519 b"]\n}\n')
    terraform.write(body.replace("CPUS", "1"))
    terraform.run("import", "wisp_instance.vm", f"{namespace}/vm")
    assert terraform.plans_nothing()
    terraform.write(body.replace("CPUS", "2"))
    assert "0 added, 1 changed, 0 destroyed" in terraform.apply()


def test_another_namespace_in_the_shell_plans_nothing(terraform: Terraform) -> None:
    terraform.write(NETWORK)
    terraform.apply()
    terraform.environment["WISP_NAMESPACE"] = "system"
    assert terraform.plans_nothing()


def test_a_change_by_somebody_else_between_plan_and_apply_is_not_overwritten(cloud: Cloud, terraform: Terraform, namespace: str) -> None:
    terraform.write(NETWORK)
    terraform.apply()
    terraform.write(NETWORK.replace("}\n", "  dhcp = false\n}\n"))
    terraform.run("plan", "-out", "plan")
    theirs = {"spec": {"cidr": "10.1.0.0/24", "nat": False}}
    assert cloud.call("PUT", f"/v1/namespaces/{namespace}/networks/lan", json=theirs).status_code == 200
    assert "it has changed" in terraform.run("apply", "plan", code=1)
    assert cloud.call("GET", f"/v1/namespaces/{namespace}/networks/lan").json()["spec"]["dhcp"] is True
    terraform.apply()
    assert terraform.plans_nothing()


def test_what_there_is_no_room_for_is_an_error_and_not_in_the_state(terraform: Terraform) -> None:
    terraform.write('resource "wisp_instance" "vm" {\n  name = "vm"\n  cpus = 256\n  memory_mib = 64\n  disks = [{ size_gib = 1 }]\n}\n')
    assert 'Cannot create instance "' in terraform.apply(code=1)
    assert terraform.state() == {}


def test_create_before_destroy_does_not_destroy_what_it_adopted(cloud: Cloud, terraform: Terraform, namespace: str) -> None:
    provider = 'provider "wisp" {\n  on_existing = "adopt_identical"\n}\n'
    terraform.write(provider + NETWORK.replace("}\n", "  lifecycle { create_before_destroy = true }\n}\n"))
    terraform.apply()
    uid = terraform.state()["wisp_network.lan"]["uid"]
    assert "Refusing to delete" in terraform.apply("-replace=wisp_network.lan", code=1)
    assert "Forgot the old" in terraform.apply()
    assert terraform.plans_nothing()
    assert cloud.call("GET", f"/v1/namespaces/{namespace}/networks/lan").json()["uid"] == uid
