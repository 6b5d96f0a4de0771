"""The door of waitress: a socket, threads, and an end that loses nothing.

Left to itself waitress drops what is under way when it is told to stop. Here stopping means: accept
nobody new, let every request under way have its answer, then go. The loop is woken by a pipe, so an
idle service wakes up twice a minute. What waitress refuses before the application sees it (a body
beyond the limit, a malformed header) is worded by the application's `refusal`. `X-Forwarded-For` is
believed from 127.0.0.1, and only when a TLS terminator is said to stand there: else whoever is on this
machine could guess keys under another address each time. With one, its machine is for those one trusts.
"""
from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from waitress import create_server, wasyncore
from waitress.channel import HTTPChannel
from waitress.task import ErrorTask

IDLE_TURN = 30.0
Refusal = Callable[[int, str], tuple[str, str, bytes]]
"""HTTP status and reason -> status line, media type and body."""


class Listener:
    """`run` serves until `close`, which may be called from any other thread and returns when all is answered."""

    def __init__(self, app: Any, host: str, port: int, refusal: Refusal, *,
                 threads: int = 64, grace: float = 5.0, terminated: bool = False) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=1024)
        self._sockets: dict[int, Any] = {}
        self._server = create_server(
            app, map=self._sockets, sockets=[self._socket], threads=threads, connection_limit=1000,
            max_request_body_size=(1 << 20) + 2, channel_request_lookahead=1, asyncore_use_poll=True, ident=None,
            expose_tracebacks=False, clear_untrusted_proxy_headers=True,
            **({"trusted_proxy": "127.0.0.1", "trusted_proxy_headers": {"x-forwarded-for"}} if terminated else {}))
        self._server.channel_class = _speaking(refusal)
        self._grace = grace
        self._stop = threading.Event()
        self._ended = threading.Event()
        self._waking = threading.Lock()

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._socket.getsockname()[:2]
        return host, port

    def run(self) -> None:
        try:
            while not self._stop.is_set():
                wasyncore.poll2(IDLE_TURN, self._sockets)
            self._drain()
        finally:
            self._server.task_dispatcher.shutdown(timeout=1)
            with self._waking:
                wasyncore.close_all(self._sockets)
                self._ended.set()

    def close(self) -> None:
        with self._waking:      # the pipe that wakes the loop must outlive the waking
            if not self._ended.is_set():
                self._server.trigger.pull_trigger(self._stop.set)
        self._ended.wait(self._grace + 5)

    def _drain(self) -> None:
        """First who has knocked by now is let in and heard: the kernel would hang up on them."""
        known = -1
        while known < len(self._server.active_channels):
            known = len(self._server.active_channels)
            self._server.handle_accept()
        wasyncore.poll2(0.0, self._sockets)
        self._server.del_channel()
        self._socket.close()
        deadline = time.monotonic() + self._grace
        while self._under_way() and time.monotonic() < deadline:
            wasyncore.poll2(0.1, self._sockets)

    def _under_way(self) -> bool:
        """Lets go of the connections that wait for nothing, and says whether any are left."""
        channels = list(self._server.active_channels.values())
        for channel in channels:
            if not (channel.requests or channel.request or channel.total_outbufs_len):
                channel.handle_close()
        return bool(self._server.active_channels)


def _speaking(refusal: Refusal) -> type[HTTPChannel]:
    class Refused(ErrorTask):  # type: ignore[misc]
        def execute(self) -> None:
            error = self.request.error
            self.status, media_type, body = refusal(error.code, error.reason)
            self.response_headers += [("Content-Type", media_type), ("Cache-Control", "no-store")]
            self.content_length = len(body)
            self.set_close_on_finish()
            self.write(body)

    class Channel(HTTPChannel):  # type: ignore[misc]
        error_task_class = Refused

    return Channel
