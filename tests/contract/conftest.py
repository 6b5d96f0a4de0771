"""What contracts stand on: a place and an origin for a depot's files, a kernel's networks, a libvirt of one's own."""
from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from stores import another, directory, real, server, store, watching  # noqa: F401  fixtures

from wisp.host import Image


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Puts content on an origin: (format, bytes) -> the image of it."""
    monkeypatch.setenv("NO_PROXY", "*")
    served = tmp_path / "served"
    served.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    def put(format: str, content: bytes) -> Image:
        sha256 = hashlib.sha256(content).hexdigest()
        (served / sha256).write_bytes(content)
        return Image(sha256, format, f"http://127.0.0.1:{origin.server_port}/{sha256}")

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(served))) as origin:
        thread = threading.Thread(target=origin.serve_forever, args=(0.01,))
        thread.start()
        yield put
        origin.shutdown()
        thread.join()


@pytest.fixture
def image(shelf: Any) -> Image:
    return shelf("raw", b"\xeb\x63" + bytes((1 << 20) - 2))


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Any]:
    from fabricworld import kernel_world
    with kernel_world(tmp_path) as world:
        yield world


@pytest.fixture(scope="session")
def libvirt_world() -> Iterator[Any]:
    if os.geteuid():
        pytest.skip("only root can make a world of namespaces")
    from hypervisorworld import World
    with tempfile.TemporaryDirectory(prefix="wisp-", dir="/var/tmp", ignore_cleanup_errors=True) as place:
        world = World(Path(place))
        try:
            world.start_daemons()
            yield world
        finally:
            world.end()
