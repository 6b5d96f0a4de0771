"""The life of a process of ours: it begins, says `ready`, lives until it is told to go, and ends in order.

What it has begun stands on a stack and ends the other way round; its exit code says whether it ended as
asked (0), or could not begin or go on (1). Logs go to stderr; stdout is for the one line `ready …`.
"""
from __future__ import annotations

import fcntl
import logging
import os
import signal
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from wisp import logs
from wisp.admission import SYSTEM
from wisp.api import build
from wisp.api.problems import refusal
from wisp.enrolment import Enrolment
from wisp.errors import Problem, StepFailed
from wisp.listener import Listener
from wisp.service import Agents, Service

log = logging.getLogger(__name__)
NAMESPACE = "default"
LOST = b"\0"


class Unfit(Exception):
    """This machine, or what was asked for, does not do; the message says what would."""


def live(name: str, begin: Callable[[ExitStack, Callable[[], object]], None], *, lost: str = "",
         **fields: str) -> int:
    """Runs what begins until SIGTERM or SIGINT; the exit code.

    begin   is given the stack, and what to call when something that all stands on has ended
    lost    what to say then
    fields  are members of every line of the log
    """
    logs.to_stderr(**fields)
    try:
        with _woken() as (wait, wake), ExitStack() as running:
            begin(running, wake)
            if wait() == LOST:
                raise RuntimeError(lost)
    except KeyboardInterrupt:
        pass
    except (Unfit, Problem, StepFailed, OSError, RuntimeError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    return 0


def found(service: Service) -> None:
    """Begins the service; an empty store becomes a cluster with its first namespaces."""
    service.start(str(uuid.uuid4()))
    for namespace in (SYSTEM, NAMESPACE):
        service.ensure_namespace(namespace)


def open_front(service: Service, listen: str, running: ExitStack, enrolment: Enrolment | None = None,
               terminated: bool = False) -> str:
    """The URL at which the API answers from now on; when it ends, those who wait are answered first.

    `terminated`: a TLS terminator stands before it.
    """
    app = build(service.resources, service.catalogue, measure=service.metrics.request, enrolment=enrolment)
    endpoint = _serve(app, listen, service, running, terminated=terminated)
    running.callback(service.resources.close)
    return endpoint


def show_metrics(agents: Agents, listen: str | None, running: ExitStack) -> None:
    if listen:
        log.info("metrics: %s", _serve(agents.metrics.app, listen, agents, running, threads=2))


def _serve(app: Any, address: str, agents: Agents, running: ExitStack, threads: int = 64,
           terminated: bool = False) -> str:
    host, _, port = address.rpartition(":")
    listener = Listener(app, host.strip("[]"), int(port), refusal(agents.catalogue.errors), threads=threads,
                        terminated=terminated)
    running.callback(listener.close)
    threading.Thread(target=listener.run, name="listener", daemon=True).start()
    host, number = listener.address
    return f"http://[{host}]:{number}" if ":" in host else f"http://{host}:{number}"


@contextmanager
def locked(state: Path) -> Iterator[None]:
    with (state / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Unfit(f"another service is running on {state}") from error
        yield


@contextmanager
def _woken() -> Iterator[tuple[Callable[[], bytes], Callable[[], object]]]:
    """To wait for a signal, and to end the waiting without one: it then answers LOST.

    By a pipe into which the signal itself writes: one that comes just before the waiting begins would not
    interrupt a lock.
    """
    heard, spoken = os.pipe()
    os.set_blocking(spoken, False)
    signal.set_wakeup_fd(spoken)
    signal.signal(signal.SIGTERM, _interrupted)
    try:
        yield lambda: os.read(heard, 1), lambda: os.write(spoken, LOST)
    finally:
        signal.set_wakeup_fd(-1)
        os.close(heard)
        os.close(spoken)


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt
