"""The command `wisp` against the real API on loopback."""
from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from wisp.cli import files, main
from wisp.resource import Ref, claim_key, dumps
from wisp.store import Put

LAN = Ref("network", "web", "lan")


@pytest.fixture
def wisp(served: Any, monkeypatch: Any, capsys: Any) -> Any:
    """`wisp("get", "networks")` -> (exit code, stdout, stderr), as admin of `web`."""
    monkeypatch.setenv("WISP_ENDPOINT", served.url)
    monkeypatch.setenv("WISP_TOKEN", served.cloud.tokens["admin"])
    monkeypatch.setenv("WISP_NAMESPACE", "web")

    def call(*words: str) -> tuple[int, str, str]:
        code = main(words)
        return (code, *capsys.readouterr())
    call.cloud = served.cloud  # type: ignore[attr-defined]
    return call


DOCUMENTS = """\
kind: instance
name: front
metadata: {role: front}
spec:
  cpus: 1
  memory_mib: 64
  disks: [{size_gib: 1}]
  networks: [{network: lan, mac: 02:11:22:33:44:55}]
  power: on
---
kind: network
name: lan
spec: {cidr: 10.1.0.0/24}
"""


@pytest.fixture
def applied(wisp: Any, tmp_path: Path) -> Any:
    (tmp_path / "all.yaml").write_text(DOCUMENTS)
    assert wisp("apply", "-f", str(tmp_path / "all.yaml"))[0] == 0
    return wisp


def test_files_may_name_things_before_they_make_them(wisp: Any, tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(DOCUMENTS)
    assert wisp("apply", "-f", str(tmp_path)) == (0, "network/lan\ninstance/front\n", "")


def test_a_table_says_where_it_is_and_how_it_is(applied: Any) -> None:
    code, out, _ = applied("get", "instances")
    titles, front = (line.split() for line in out.splitlines())
    assert (code, titles) == (0, ["NAME", "READY", "REASON", "NODE", "ADDRESS", "AGE"])
    assert front[:4] == ["front", "False", "Pending", "n1"] and front[4].startswith("10.1.0.")


@pytest.mark.parametrize("kind", ["instance", "instances"])
def test_a_kind_is_named_in_singular_or_plural(applied: Any, kind: str) -> None:
    assert applied("list", kind, "-o", "name") == (0, "instance/front\n", "")
    assert applied("get", kind, "front", "-o", "name") == (0, "instance/front\n", "")


def test_a_list_follows_every_page(wisp: Any) -> None:
    for number in range(60):
        wisp.cloud.put(Ref("network", "web", f"n{number}"), {"cidr": "10.1.0.0/24"})
    assert len(wisp("list", "networks", "-o", "name")[1].splitlines()) == 60


def test_tags_select(applied: Any) -> None:
    assert applied("get", "instances", "-l", "role=front", "-o", "name")[1] == "instance/front\n"
    assert applied("get", "instances", "-l", "role=back", "-o", "name")[1] == ""


@pytest.mark.parametrize(("form", "parse"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_what_is_got_can_be_applied_again(applied: Any, tmp_path: Path, form: str, parse: Any) -> None:
    text = applied("get", "instance", "front", "-o", form)[1]
    assert parse(text)["spec"]["power"] == "on"
    (tmp_path / f"again.{form}").write_text(text)
    before = applied.cloud.revision()
    assert applied("apply", "-f", str(tmp_path / f"again.{form}"))[0] == 0
    assert applied.cloud.revision() == before


def test_a_whole_list_can_be_applied_again(applied: Any, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text(applied("list", "instances", "-o", "json")[1])
    assert applied("apply", "-f", str(tmp_path / "list.json"))[1] == "instance/front\n"


def test_a_refusal_points_at_the_field(wisp: Any, tmp_path: Path) -> None:
    (tmp_path / "n.json").write_text('{"kind": "network", "name": "lan", "spec": {"cidr": "10.1.0.1/24", "colour": 1}}')
    code, out, err = wisp("apply", "-f", str(tmp_path / "n.json"))
    assert (code, out) == (1, "")
    assert "network lan: Invalid" in err and "/spec/cidr: " in err and "/spec/colour: There is no such field." in err


def test_one_refusal_does_not_keep_the_others_from_being_made(wisp: Any, tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(DOCUMENTS + "---\nkind: network\nname: bad\nspec: {cidr: x}\n")
    code, out, err = wisp("apply", "-f", str(tmp_path / "all.yaml"))
    assert (code, out) == (1, "network/lan\ninstance/front\n") and err.startswith("network bad: ")


def test_a_new_key_is_shown_when_it_is_made(wisp: Any, tmp_path: Path) -> None:
    (tmp_path / "k.yaml").write_text("kind: key\nname: ci\nspec: {role: viewer}\n")
    assert "wisp_" in wisp("apply", "-f", str(tmp_path / "k.yaml"))[1]
    assert "wisp_" not in wisp("apply", "-f", str(tmp_path / "k.yaml"))[1]


def test_waiting_ends_well_when_it_is_ready(applied: Any) -> None:
    waiting: list[int] = []
    thread = threading.Thread(target=lambda: waiting.append(applied("wait", "network", "lan", "--timeout", "60")[0]))
    thread.start()
    applied.cloud.hold(LAN)
    thread.join()
    assert waiting == [0]


def test_waiting_tells_too_late_from_failed(applied: Any) -> None:
    assert applied("wait", "network", "lan", "--timeout", "0")[0] == 4
    condition = {"reason": "Broken", "message": "", "since": "2026-01-01T00:00:00Z"}
    applied.cloud.hold(LAN, conditions=[condition | {"type": "Failed", "status": "True"},
                                        condition | {"type": "Ready", "status": "False"}])
    assert applied("wait", "network", "lan", "--timeout", "60")[0] == 5


def test_deleting_can_wait_until_it_is_gone(applied: Any) -> None:
    applied.cloud.hold(Ref("instance", "web", "front"))
    assert applied("delete", "network", "lan")[0] == 1
    assert applied("delete", "instance", "front", "--wait", "--timeout", "0")[0] == 4
    assert applied("wait", "instance", "front", "--for", "absent", "--timeout", "0")[0] == 4
    assert applied("wait", "network", "none", "--for", "absent")[0] == 0


def test_describe_and_events_tell_what_happened(applied: Any) -> None:
    code, out, _ = applied("describe", "network", "lan")
    assert code == 0 and "cidr: 10.1.0.0/24" in out and "created" in out
    assert "web/admin" in applied("events", "network", "lan")[1]


def test_the_exit_code_says_what_kind_of_no(applied: Any, served: Any, monkeypatch: Any) -> None:
    assert applied("get", "network", "none")[0] == 3
    assert applied("get", "network", "lan?wait=ready&timeout=0")[0] == 3
    assert applied("get", "dragons")[0] == 2
    assert applied("apply", "-f", "/nonexistent")[0] == 2
    assert applied("audit")[0] == 1
    monkeypatch.setenv("WISP_TOKEN", served.cloud.tokens["root"])
    assert applied("audit")[0] == 0
    monkeypatch.delenv("WISP_NAMESPACE")
    assert applied("get", "networks")[0] == 2
    assert applied("get", "networks", "-n", "web")[0] == 0
    monkeypatch.setenv("WISP_ENDPOINT", "http://127.0.0.1:1")
    assert applied("get", "nodes")[0] == 6


def test_a_stray_claim_is_found(wisp: Any, served: Any, monkeypatch: Any) -> None:
    owner = {"kind": "network", "namespace": "web", "name": "x", "uid": "u"}
    served.cloud.write(Put(claim_key("vni", "7"), dumps(owner)))
    monkeypatch.setenv("WISP_TOKEN", served.cloud.tokens["root"])
    code, out, _ = wisp("audit")
    assert code == 1 and "vni/7" in out


def read(tmp_path: Path, text: str, name: str = "x.yaml") -> list[dict[str, Any]]:
    (tmp_path / name).write_text(text)
    return list(files.documents(str(tmp_path / name)))


def test_yaml_holds_no_surprises(tmp_path: Path) -> None:
    spec = "{power: on, mac: 10:20:30:40:50:59, since: 2026-11-22T10:00:00Z, n: 012, t: true, i: 7, f: 1.5, z: null}"
    assert read(tmp_path, f"kind: k\nname: no\nspec: {spec}\n") == [{"kind": "k", "name": "no", "spec": {
        "power": "on", "mac": "10:20:30:40:50:59", "since": "2026-11-22T10:00:00Z", "n": "012", "t": True, "i": 7,
        "f": 1.5, "z": None}}]


@pytest.mark.parametrize("text", ["kind: k", "[1]", "kind: k\nname: n\nspce: {}", "kind: k\nkind: k\nname: n", "{",
                                  "kind: k\nname: !!python/name:os.system x"])
def test_what_is_no_document_is_said_with_its_file(tmp_path: Path, text: str) -> None:
    with pytest.raises(files.Unreadable, match=r"x\.yaml"):
        read(tmp_path, text)


def test_json_files_are_read_as_strictly_as_the_api_reads(tmp_path: Path) -> None:
    with pytest.raises(files.Unreadable, match="twice"):
        read(tmp_path, '{"kind": "k", "name": "n", "name": "m"}', "x.json")
