"""The command `wisp` against the real API on loopback."""
from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from wisp import environment
from wisp.cli import EPILOG, files, main
from wisp.resource import CLUSTER, Ref, claim_key, dumps
from wisp.store import Put

LAN = Ref("network", "web", "lan")


@pytest.fixture
def wisp(served: Any, monkeypatch: Any, capsys: Any, tmp_path_factory: Any) -> Any:
    """`wisp("get", "networks")` -> (exit code, stdout, stderr), as admin of `web`."""
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
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


def test_the_server_is_told_which_version_the_command_was_built_for(wisp: Any, tmp_path: Path, monkeypatch: Any) -> None:
    put, minors = wisp.cloud.resources.put, []

    def noted(*asked: Any, **how: Any) -> Any:
        minors.append(how["minor"])
        return put(*asked, **how)
    monkeypatch.setattr(wisp.cloud.resources, "put", noted)
    (tmp_path / "lan.yaml").write_text("kind: network\nname: lan\nspec: {cidr: 10.1.0.0/24}\n")
    assert wisp("apply", "-f", str(tmp_path))[0] == 0
    assert minors == [wisp.cloud.resources.catalogue.minor]


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


@pytest.fixture
def guarded(applied: Any) -> Any:
    """Where nobody changes what they have not seen."""
    applied.cloud.put(Ref("namespace", CLUSTER, "web"), {"require_if_match": True})
    return applied


def test_where_it_is_demanded_what_is_there_is_read_before_it_is_changed_or_deleted(guarded: Any, tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(DOCUMENTS.replace("role: front", "role: back"))
    assert guarded("apply", "-f", str(tmp_path), "--dry-run")[0] == 0
    assert guarded("apply", "-f", str(tmp_path)) == (0, "instance/front\nnetwork/lan\n", "")
    assert guarded("list", "instances", "-l", "role=back", "-o", "name")[1] == "instance/front\n"
    assert guarded("delete", "instance", "front")[0] == guarded("delete", "instance", "front")[0] == 0
    assert guarded("get", "instance", "front")[0] == 3


@pytest.mark.parametrize("words", [("apply", "-f", "{folder}"), ("delete", "network", "lan")], ids=["apply", "delete"])
def test_what_was_changed_since_it_was_read_is_left_as_it_is(wisp: Any, tmp_path: Path, monkeypatch: Any, words: tuple[str, ...]) -> None:
    wisp.cloud.put(LAN, {"cidr": "10.1.0.0/24"})
    (tmp_path / "lan.yaml").write_text("kind: network\nname: lan\nspec: {cidr: 10.1.0.0/24, nat: false}\n")
    read = wisp.cloud.resources.get

    def just_before(*asked: Any) -> Any:
        try:
            return read(*asked)
        finally:
            wisp.cloud.put(LAN, {"cidr": "10.1.0.0/24", "dhcp": False})
    monkeypatch.setattr(wisp.cloud.resources, "get", just_before)
    code, _, err = wisp(*(word.format(folder=tmp_path) for word in words))
    assert code == 1 and "precondition_failed" in err
    assert json.loads(wisp("get", "network", "lan", "-o", "json")[1])["spec"] == {
        "cidr": "10.1.0.0/24", "nat": True, "dhcp": False, "dns_servers": []}


@pytest.mark.parametrize("theirs", ["10.1.0.0/24", "10.2.0.0/24"], ids=["the same", "another"])
def test_what_somebody_else_made_meanwhile_is_left_as_it_is(wisp: Any, tmp_path: Path, monkeypatch: Any, theirs: str) -> None:
    (tmp_path / "lan.yaml").write_text("kind: network\nname: lan\nspec: {cidr: 10.1.0.0/24}\n")
    read = wisp.cloud.resources.get

    def just_before(*asked: Any) -> Any:
        try:
            return read(*asked)
        finally:
            wisp.cloud.put(LAN, {"cidr": theirs})
    monkeypatch.setattr(wisp.cloud.resources, "get", just_before)
    code, out, err = wisp("apply", "-f", str(tmp_path))
    if theirs == "10.1.0.0/24":
        assert (code, out, err) == (0, "network/lan: unchanged\n", "")
    else:
        assert (code, out) == (1, "") and "precondition_failed" in err
    shown = json.loads(wisp("get", "network", "lan", "-o", "json")[1])
    assert (shown["spec"]["cidr"], shown["generation"]) == (theirs, 1)


@pytest.mark.parametrize(("form", "parse"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_what_was_applied_is_one_value(wisp: Any, tmp_path: Path, form: str, parse: Any) -> None:
    (tmp_path / "all.yaml").write_text(DOCUMENTS + "---\nkind: network\nname: poor\nspec: {}\n")
    code, out, err = wisp("apply", "-f", str(tmp_path), "-o", form)
    assert [shown["name"] for shown in parse(out)["items"]] == ["lan", "front"]
    assert code == 1 and "network poor" in err


@pytest.mark.parametrize("form", ["table", "name", "json"])
def test_a_reader_that_goes_away_stops_nothing(wisp: Any, tmp_path: Path, form: str) -> None:
    (tmp_path / "all.yaml").write_text(DOCUMENTS)
    deaf, pipe = os.pipe()
    os.close(deaf)
    call = [sys.executable, "-c", "import sys, wisp.cli; sys.exit(wisp.cli.main())"]
    ended = subprocess.run([*call, "apply", "-f", str(tmp_path), "-o", form], stdout=pipe, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(pipe)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert wisp("list", "instances", "-o", "name")[1] == "instance/front\n"


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


def test_a_dry_run_tells_what_would_come_and_changes_nothing(wisp: Any, tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(DOCUMENTS)
    before = wisp.cloud.revision()
    assert wisp("apply", "-f", str(tmp_path), "--dry-run") == (
        0, "instance/front: create, after network/lan\nnetwork/lan: create\n", "")
    assert wisp.cloud.revision() == before


def test_a_dry_run_tells_which_fields_have_which_effect(applied: Any, tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(DOCUMENTS.replace("cpus: 1", "cpus: 2").replace("role: front", "role: back")
                                       .replace("10.1.0.0/24", "10.2.0.0/24"))
    before = applied.cloud.revision()
    assert applied("apply", "-f", str(tmp_path), "--dry-run") == (0, (
        "instance/front: restart\n  /metadata: in_place\n  /spec/cpus: restart\n"
        "network/lan: replace\n  /spec/cidr: replace\n"), "")
    (tmp_path / "all.yaml").write_text(DOCUMENTS)
    assert applied("apply", "-f", str(tmp_path), "--dry-run")[1] == "instance/front: unchanged\nnetwork/lan: unchanged\n"
    assert applied.cloud.revision() == before


def test_a_dry_run_is_not_fooled_by_what_nobody_makes(wisp: Any, tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(DOCUMENTS.replace("{network: lan,", "{network: wan,"))
    code, out, err = wisp("apply", "-f", str(tmp_path), "--dry-run")
    assert (code, out) == (1, "network/lan: create\n")
    assert err.startswith("instance front: ") and "wan" in err


def test_a_dry_run_says_what_follows_from_a_namespace_not_made_yet(wisp: Any, served: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("WISP_TOKEN", served.cloud.tokens["root"])
    (tmp_path / "all.yaml").write_text("kind: namespace\nname: new\nspec: {}\n---\n"
                                       "kind: network\nnamespace: new\nname: lan\nspec: {cidr: 10.1.0.0/24}\n")
    assert wisp("apply", "-f", str(tmp_path), "--dry-run")[:2] == (
        0, "namespace/new: create\nnetwork/lan: create, after namespace/new\n")


def test_a_dry_run_can_be_read_by_a_program(applied: Any, tmp_path: Path) -> None:
    (tmp_path / "n.yaml").write_text("kind: network\nname: lan\nmetadata: {a: b}\nspec: {cidr: 10.1.0.0/24}\n")
    told, = json.loads(applied("apply", "-f", str(tmp_path / "n.yaml"), "--dry-run", "-o", "json")[1])["items"]
    assert {field for field, effect in told["changes"].items() if effect != "none"} == {"/metadata"}


def test_nodes_are_shown_with_what_they_have(wisp: Any, served: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("WISP_TOKEN", served.cloud.tokens["root"])
    titles, n1 = (line.split() for line in wisp("nodes")[1].splitlines())
    assert titles[:6] == ["NAME", "READY", "REASON", "CORDONED", "CPUS", "MEMORY_MIB"]
    assert n1[:6] == ["n1", "True", "Realized", "no", "8", "65536"]
    assert wisp("nodes", "-o", "name")[1] == "node/n1\n"


@pytest.fixture
def login(wisp: Any, served: Any, monkeypatch: Any) -> Any:
    """`login("admin")` -> exit code, from a shell in which nothing is set."""
    for name in ("WISP_ENDPOINT", "WISP_TOKEN", "WISP_NAMESPACE"):
        monkeypatch.delenv(name)

    def call(who: str, *words: str) -> int:
        monkeypatch.setattr("sys.stdin", io.StringIO(served.cloud.tokens[who] + "\n"))
        code: int = wisp("login", "--endpoint", served.url, *words)[0]
        return code
    return call


def test_who_has_logged_in_need_set_nothing(wisp: Any, login: Any) -> None:
    assert wisp("get", "networks")[0] == 2
    assert login("admin") == 0
    assert wisp("get", "networks")[0] == 0
    config = Path("~/.config/wisp/config").expanduser()
    assert config.stat().st_mode & 0o777 == 0o600 and config.parent.stat().st_mode & 0o777 == 0o700


def test_a_key_that_does_not_work_is_not_kept(login: Any) -> None:
    assert login("forger") == 1
    assert not Path("~/.config/wisp/config").expanduser().exists()


def test_who_logs_in_anew_is_in_the_new_namespace(wisp: Any, login: Any) -> None:
    assert (login("admin"), login("stranger")) == (0, 0)
    assert environment.read(Path("~/.config/wisp/config").expanduser())["WISP_NAMESPACE"] == "shop"
    assert login("root", "-n", "web") == 0
    assert environment.read(Path("~/.config/wisp/config").expanduser())["WISP_NAMESPACE"] == "web"


def test_the_environment_has_the_last_word(wisp: Any, login: Any, served: Any, monkeypatch: Any) -> None:
    login("viewer")
    monkeypatch.setenv("WISP_TOKEN", served.cloud.tokens["forger"])
    assert "unauthenticated" in wisp("get", "networks")[2]
    monkeypatch.setenv("WISP_TOKEN", "")
    assert wisp("get", "networks")[0] == 0


def completed(wisp: Any, tmp_path: Path, *words: str) -> list[str]:
    """What bash offers for the last of the words."""
    (tmp_path / "wisp.bash").write_text(wisp("completion", "bash")[1])
    line = " ".join(f"'{word}'" for word in ("wisp", *words))
    script = f"""wisp() {{ [ "$*" = "list networks -o name" ] && printf 'network/lan\nnetwork/wan\n'; }}
        . ./wisp.bash; COMP_WORDS=({line}); COMP_CWORD={len(words)}
        _wisp wisp '{words[-1]}' '{("wisp", *words)[-2]}'; printf '%s\n' "${{COMPREPLY[@]}}" """
    return subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True).stdout.split()


def test_bash_completes_commands_kinds_names_and_forms(wisp: Any, tmp_path: Path) -> None:
    assert sorted(completed(wisp, tmp_path, "de")) == ["delete", "describe", "dev"]
    assert completed(wisp, tmp_path, "get", "ne") == ["networks"]
    assert completed(wisp, tmp_path, "delete", "networks", "l") == ["lan"]
    assert completed(wisp, tmp_path, "apply", "ne") == []
    assert completed(wisp, tmp_path, "get", "networks", "-o", "y") == ["yaml"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_told_every_command_and_kind(wisp: Any, shell: str) -> None:
    text = wisp("completion", shell)[1]
    assert "%(" not in text
    for word in ("apply", "login", "nodes", *wisp.cloud.resources.catalogue.by_plural):
        assert f" {word}" in text or f'"{word}' in text, word


@pytest.mark.parametrize("words", [("get", "networks"), ("list", "networks"), ("get", "network", "lan"), ("nodes",), ("audit",),
                                   ("describe", "network", "lan"), ("events", "network", "lan"), ("version",),
                                   ("wait", "network", "lan", "--timeout", "0"), ("delete", "instance", "front")])
def test_every_answer_can_be_read_by_a_program(applied: Any, served: Any, monkeypatch: Any, words: tuple[str, ...]) -> None:
    monkeypatch.setenv("WISP_TOKEN", served.cloud.tokens["root"])
    assert isinstance(json.loads(applied(*words, "-o", "json")[1]), dict)
    assert isinstance(yaml.safe_load(applied(*words, "-o", "yaml")[1]), dict)
    assert "{" not in applied(*words, "-o", "name")[1]


@pytest.mark.parametrize("code", range(7))
def test_every_exit_code_is_explained(code: int) -> None:
    assert f"  {code}  " in EPILOG


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
