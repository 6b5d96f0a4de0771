"""`wisp api`, `wisp agent` and `wisp admin-key`: a real installation, on an etcd that others look after.

Any number of APIs and one agent for each node, each a process of its own; the store is all that they
share. What must be there first is waited for, however long: an API waits for the store, an agent also for
a cluster in it that is its own. Once begun, neither ends because the store is gone; the API then says so
to its callers, and an agent leaves everything on its node as it is.
"""
from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from wisp import config, environment, machine, pki
from wisp.config import Config
from wisp.enrolment import Enrolment
from wisp.errors import Problem
from wisp.lifetime import NAMESPACE, found, live, locked, open_front, show_metrics
from wisp.service import Agents, Service
from wisp.store import Store
from wisp.store.etcd import EtcdStore

log = logging.getLogger(__name__)
DONE, FAILED, USAGE = 0, 1, 2
PAUSE = 1.0
GLANCE = 5.0
"""Seconds after which one who waits for the store's next word has another look, though nothing came."""


def api(argv: Sequence[str]) -> int:
    def begin(said: config.Api, at: config.Store, store: Store, running: ExitStack) -> None:
        service = Service(store, said.name)
        running.callback(service.stop)
        found(service)
        show_metrics(service, said.metrics, running)
        enrolment = _enrolment(service, said, at)
        endpoint = open_front(service, said.listen, running, enrolment, terminated=bool(said.public))
        print(f"ready {endpoint}", flush=True)

    return _process("api", "api", "The API and the conductor, as a process of their own.", argv, begin)


def agent(argv: Sequence[str]) -> int:
    def begin(node: config.Node, _: config.Store, store: Store, running: ExitStack) -> None:
        machine.fit(machine.PROGRAMS)
        node.state.mkdir(mode=0o711, parents=True, exist_ok=True)
        running.enter_context(locked(node.state))
        agents = Agents(store, node.name)
        running.callback(agents.stop)
        agents.follow()
        cluster = awaited(agents, machine.remembering(node.state / "cluster"))
        agents.join(node.name, machine.real(node, cluster, running))
        show_metrics(agents, node.metrics, running)
        print(f"ready {node.name}", flush=True)

    return _process("agent", "node", "The agent of this node, as a process of its own.", argv, begin)


def admin_key(argv: Sequence[str]) -> int:
    """Lines for a shell on stdout: `eval "$(wisp admin-key)"`."""
    settings = _settings("admin-key", "A fresh key for system/admin; the one before is refused from now on.", argv)
    if settings is None:
        return USAGE
    try:
        with ExitStack() as running:
            service = Service(opened(settings.store, running))
            running.callback(service.stop)
            found(service)
            endpoint = {environment.ENDPOINT: f"http://{settings.api.listen}"} if settings.api else {}
            said = {**endpoint, environment.TOKEN: service.admin_token(), environment.NAMESPACE: NAMESPACE}
    except Problem as problem:
        print(f"wisp admin-key: {problem}", file=sys.stderr)
        return FAILED
    print(environment.exports(said), end="")
    return DONE


def _enrolment(service: Service, said: config.Api, at: config.Store) -> Enrolment | None:
    """Only who has the authority's key can let machines in."""
    if not (said.ca_key and at.ca):
        return None
    ca = pki.Identity(said.ca_key.read_bytes(), at.ca.read_bytes())
    return Enrolment(service.store, service.journal, ca, at.endpoints)


# --- what they have in common

def _process(verb: str, section: str, what: str, argv: Sequence[str],
             begin: Callable[[Any, config.Store, Store, ExitStack], None]) -> int:
    """Runs a process by a section of the configuration; the exit code."""
    settings = _settings(verb, what, argv, section)
    if settings is None:
        return USAGE
    said = getattr(settings, section)

    def once(running: ExitStack) -> None:
        log.info("the store is at %s", ", ".join(settings.store.endpoints))
        begin(said, settings.store, opened(settings.store, running), running)

    return live(f"wisp {verb}", lambda running, _: patiently(once, running), **{section: said.name})


def patiently(begin: Callable[[ExitStack], None], running: ExitStack) -> None:
    """Begins, from the start each time that the store does not answer in the midst of it."""
    while True:
        with ExitStack() as attempt:
            try:
                begin(attempt)
                running.push(attempt.pop_all())
                return
            except Problem as problem:
                if problem.code != "store_unavailable":
                    raise
                log.warning("cannot begin yet: %s", problem)
        time.sleep(PAUSE)


def _settings(verb: str, what: str, argv: Sequence[str], *needed: str) -> Config | None:
    """None, and it was said why, when the configuration does not do."""
    parser = argparse.ArgumentParser(f"wisp {verb}", description=what)
    parser.add_argument("--config", metavar="FILE", type=Path, default=config.DEFAULT, help=f"({config.DEFAULT})")
    try:
        return config.load(parser.parse_args(argv).config, *needed)
    except config.Wrong as wrong:
        print(f"wisp {verb}: {wrong}", file=sys.stderr)
        return None


def opened(at: config.Store, running: ExitStack) -> Store:
    ca, cert, key = (str(each) if each else None for each in (at.ca, at.cert, at.key))
    return running.enter_context(closing(EtcdStore(",".join(at.endpoints), ca=ca, cert=cert, key=key)))


def awaited(agents: Agents, belongs: Callable[[str], bool]) -> str:
    """The uid of the cluster in the store, once there is one and it is this node's."""
    said = ""
    while True:
        seen, cluster = agents.mirror.revision, agents.world.cluster
        if belongs(cluster):
            return cluster
        why = f"this store is of the cluster {cluster}, and this node serves another" if cluster else \
            "there is no cluster in this store yet; an API founds it"
        if why != said:
            log.warning("waiting: %s", said := why)
        agents.mirror.wait(seen + 1, GLANCE)
