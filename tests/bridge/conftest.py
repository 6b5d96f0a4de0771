"""Terraform as its users run it: the built provider under a development override, against a simulated cloud.

What Go's own tests cannot do is done here, since there the provider runs inside the test: kill it, interrupt
Terraform, look at the state file. Every test has a namespace of its own, so they may share a cloud.
"""
from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import requests

PROJECT = Path(__file__).resolve().parents[2]
HEADER = """
terraform {
  required_providers {
    wisp = { source = "wisp-cloud/wisp" }
  }
}
"""


@dataclass(frozen=True)
class Cloud:
    """A running simulated cloud, and how to speak to it past Terraform."""

    environment: dict[str, str]

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.environment['WISP_TOKEN']}"}
        return requests.request(method, self.environment["WISP_ENDPOINT"] + path, headers=headers, timeout=30, **options)

    def names(self, namespace: str, kind: str) -> list[str]:
        items = self.call("GET", f"/v1/namespaces/{namespace}/{kind}").json()["items"]
        return [item["name"] for item in items]


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    state = tmp_path_factory.mktemp("cloud")
    words = [str(Path(sys.executable).with_name("wisp")), "dev", "--simulate", "--state", str(state), "--listen", "127.0.0.1:0"]
    with (state / "log").open("w") as log, subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, text=True) as service:
        try:
            assert service.stdout is not None
            assert service.stdout.readline().startswith("ready "), (state / "log").read_text()
            lines = (state / "env").read_text().splitlines()
            pairs = [line.removeprefix("export ").partition("=") for line in lines]
            yield Cloud({name: "".join(shlex.split(value)) for name, _, value in pairs})
        finally:
            service.terminate()


@pytest.fixture(scope="session")
def override(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLI configuration that makes Terraform take the provider as it stands in this checkout."""
    place = tmp_path_factory.mktemp("provider")
    subprocess.run([PROJECT / "tools" / "go", "build", "-o", place / "terraform-provider-wisp", "."],
                   cwd=PROJECT / "provider-bridge", check=True)
    config = place / "dev.tfrc"
    config.write_text(f'provider_installation {{\n  dev_overrides {{ "wisp-cloud/wisp" = "{place}" }}\n  direct {{}}\n}}\n')
    return config


@dataclass
class Terraform:
    """One working directory: a configuration and its state."""

    directory: Path
    environment: dict[str, str]

    def write(self, configuration: str) -> None:
        (self.directory / "main.tf").write_text(HEADER + configuration)

    def start(self, *words: str) -> subprocess.Popen[str]:
        tool = shutil.which("terraform") or shutil.which("tofu")
        assert tool, "there is neither terraform nor tofu on PATH"
        return subprocess.Popen([tool, *words, "-no-color"], cwd=self.directory, env=self.environment, text=True,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def run(self, *words: str, code: int = 0) -> str:
        """What it printed, in one line and without the frames around diagnostics."""
        process = self.start(*words)
        printed, _ = process.communicate(timeout=120)
        assert process.returncode == code, printed
        return flat(printed)

    def apply(self, *words: str, code: int = 0) -> str:
        return self.run("apply", "-auto-approve", *words, code=code)

    def plans_nothing(self) -> bool:
        return "No changes." in self.run("plan", "-detailed-exitcode")

    def state(self) -> dict[str, dict[str, Any]]:
        """Attributes by address, of everything in the state."""
        path = self.directory / "terraform.tfstate"
        resources = json.loads(path.read_text())["resources"] if path.exists() else []
        return {f"{each['type']}.{each['name']}": one["attributes"] for each in resources if each["mode"] == "managed"
                for one in each["instances"] if "deposed" not in one}


def flat(printed: str) -> str:
    return " ".join(printed.replace("│", " ").split())


@pytest.fixture
def namespace(cloud: Cloud) -> str:
    name = f"t{uuid4().hex[:8]}"
    assert cloud.call("PUT", f"/v1/namespaces/{name}", json={"spec": {}}).status_code == 201
    return name


@pytest.fixture
def workspace(tmp_path: Path, cloud: Cloud, override: Path, namespace: str) -> Callable[[], Terraform]:
    """Makes working directories, each with a state of its own."""
    def make() -> Terraform:
        directory = tmp_path / uuid4().hex[:6]
        directory.mkdir()
        own = {"WISP_NAMESPACE": namespace, "TF_CLI_CONFIG_FILE": str(override), "CHECKPOINT_DISABLE": "1"}
        return Terraform(directory, {**os.environ, **cloud.environment, **own})
    return make


@pytest.fixture
def terraform(workspace: Callable[[], Terraform]) -> Terraform:
    return workspace()


def eventually(what: Callable[[], Any], within: float = 30) -> Any:
    until = time.monotonic() + within
    while not (found := what()):
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.05)
    return found


def kill_provider(of: subprocess.Popen[str]) -> None:
    """SIGKILL to the provider that this Terraform has started; Terraform itself goes on."""
    children = Path(f"/proc/{of.pid}/task").glob("*/children")
    for child in (int(pid) for path in children for pid in path.read_text().split()):
        if "terraform-provider-wisp" in Path(f"/proc/{child}/cmdline").read_text():
            os.kill(child, signal.SIGKILL)
            return
    raise AssertionError("the provider does not run")
