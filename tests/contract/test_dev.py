"""`wisp dev` as a process, and what it keeps in its state directory. Simulated: no root."""
from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from wisp.machine import remembering

RUN = "import sys; from wisp.main import dev; sys.exit(dev(sys.argv[1:]))"


@pytest.mark.parametrize("listen, host", [("[::1]:0", "[::1]"), ("127.0.0.1:0", "127.0.0.1")])
def test_the_endpoint_it_prints_answers(tmp_path: Path, listen: str, host: str) -> None:
    words = [sys.executable, "-c", RUN, "--simulate", "--state", str(tmp_path), "--listen", listen]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as service:
        assert service.stdout is not None
        ready, endpoint = service.stdout.readline().split()
        with requests.Session() as session:
            session.trust_env = False
            assert session.get(f"{endpoint}/v1/namespaces").status_code == 401
        service.send_signal(signal.SIGTERM)
    assert (ready, endpoint.rpartition(":")[0], service.returncode) == ("ready", f"http://{host}", 0)


def test_a_node_remembers_the_first_cluster_it_served_and_no_half_written_one(tmp_path: Path) -> None:
    file = tmp_path / "cluster"
    file.touch()
    assert [remembering(file)(uid) for uid in ("", "one", "two", "one", "")] == [False, True, False, True, False]
    assert [path.name for path in tmp_path.iterdir()] == ["cluster"]
