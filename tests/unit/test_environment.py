"""The file that says where a service is: a shell reads it too, and nobody else."""
from __future__ import annotations

import subprocess
from pathlib import Path

from wisp import environment


def test_a_shell_reads_what_is_written(tmp_path: Path) -> None:
    environment.write(tmp_path / "env", {"WISP_TOKEN": "a b'c$d", "WISP_NAMESPACE": ""})
    said = subprocess.run(["sh", "-c", '. ./env; printf "%s" "$WISP_TOKEN"'], cwd=tmp_path, capture_output=True, text=True)
    assert said.stdout == "a b'c$d"
    assert environment.read(tmp_path / "env") == {"WISP_TOKEN": "a b'c$d", "WISP_NAMESPACE": ""}


def test_only_its_owner_may_read_it_whatever_it_was_before(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("old")
    (tmp_path / "env").chmod(0o644)
    environment.write(tmp_path / "env", {"WISP_TOKEN": "t"})
    assert (tmp_path / "env").stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["env"]


def test_what_else_stands_there_is_nobodys_business(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("# by hand\nexport PATH=/x\nWISP_TOKEN=t\nnonsense\n")
    assert environment.read(tmp_path / "env") == {"WISP_TOKEN": "t"}
    assert environment.read(tmp_path / "none") == {}
