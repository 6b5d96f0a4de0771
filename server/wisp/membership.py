"""`wisp token`, `wisp join` and `wisp leave`: how further machines become nodes of a cluster, and cease to be.

Joining asks twice: first, believing nobody, for the certificate of the authority, which the token's
fingerprint proves or not; then, believing only what that authority has signed, with the token's secret. The
machine's key never leaves it.
"""
from __future__ import annotations

import argparse
import re
import shutil
import ssl
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from http.client import HTTPException, HTTPSConnection
from json import dumps, loads
from pathlib import Path
from typing import Any

from wisp import config, pki
from wisp.conditions import find
from wisp.enrolment import Token, invite
from wisp.installation import FILE, begin, drafted, node_options, run, systemctl, usage, write, write_config
from wisp.lifetime import Unfit
from wisp.machine import kept
from wisp.processes import opened
from wisp.resource import Json, Resource, node_key, node_ref
from wisp.service import ITSELF, Service
from wisp.store import Absent, Delete

UNITS = {"s": 1, "m": 60, "h": 3600}
DAY = 24 * 3600
MOVING = 10.0
"""Seconds for gateways to move."""
LAPSING = 30.0
"""Seconds for the lease of an agent that has ended to run out, and more."""


def token(argv: Sequence[str]) -> int:
    parser = usage("token", "A token by which one machine may join, on stdout.")
    parser.add_argument("--ttl", metavar="TIME", type=_seconds, default="15m",
                        help="how long it is good, as 90s, 15m or 2h (15m)")

    def do(asked: argparse.Namespace) -> None:
        said = config.load(asked.dir / FILE, "api")
        if not (said.api and said.api.ca_key and said.api.public and said.store.ca):
            raise Unfit("this machine has no authority's key: one of api.ca_key, api.public, store.ca is missing")
        with ExitStack() as running:
            secret = invite(opened(said.store, running), asked.ttl)
        print(Token(said.api.public, pki.fingerprint(said.store.ca.read_bytes()), secret))
    return run(parser, argv, do)


def join(argv: Sequence[str]) -> int:
    parser = usage("join", "Makes this machine a node of a cluster, by a token from `wisp token` on the first.")
    parser.add_argument("token", metavar="TOKEN|-", help="- reads it from stdin")
    node_options(parser)

    def do(asked: argparse.Namespace) -> None:
        with drafted(asked.dir) as draft:
            given = Token.read(sys.stdin.readline().strip() if asked.token == "-" else asked.token)
            _join(asked, given, draft)
        begin(asked.dir, "wisp-agent")
        print(f"This machine is the node {asked.name} from when its agent begins.")
    return run(parser, argv, do)


def _join(asked: argparse.Namespace, given: Token, draft: Path) -> None:
    asked.state.mkdir(mode=0o711, parents=True, exist_ok=True)
    machine = kept(asked.state / "machine", str(uuid.uuid4()))
    blind = ssl.create_default_context()
    blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
    ca = str(_ask(given.address, blind, "GET").get("ca"))
    if pki.fingerprint(ca.encode()) != given.fingerprint:
        raise Unfit(f"whoever answers at {given.address} is not whom the token means; nothing was said to them")
    key, csr = pki.request()
    answer = _ask(given.address, ssl.create_default_context(cadata=ca), "POST", given.secret,
                  {"name": asked.name, "machine": machine, "csr": csr.decode()})
    write(draft / "ca.pem", ca.encode(), mode=0o644)
    write(draft / "client.pem", answer["certificate"].encode(), mode=0o644)
    write(draft / "client.key", key)
    write_config(asked, draft, answer["endpoints"], {})


def _ask(address: str, trust: ssl.SSLContext, method: str, secret: str = "", body: Any = None) -> Any:
    """The answer's document. Raises Unfit."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {secret}"} if body else {}
    try:
        with closing(HTTPSConnection(address, timeout=60, context=trust)) as connection:
            connection.request(method, "/join", dumps(body) if body else None, headers)
            answer = connection.getresponse()
            shown = loads(answer.read())
    except (OSError, HTTPException, ValueError) as error:
        raise Unfit(f"no answer from {address} that makes sense: {error}") from error
    if answer.status != 200:
        raise Unfit(f"{address} says: {shown.get('detail', answer.status)}")
    return shown


# --- going

def leave(argv: Sequence[str]) -> int:
    parser = usage("leave", "Takes this node out of its cluster, once nothing is bound to it any more.")
    parser.add_argument("--purge", action="store_true",
                        help="then also forget who it was: a later `wisp join` makes it a new node")

    def do(asked: argparse.Namespace) -> None:
        said = config.load(asked.dir / FILE, "node")
        assert said.node
        if asked.purge and said.api:
            raise Unfit(f"the API and the authority of the cluster are here; {asked.dir} is not purged")
        with ExitStack() as running:
            service = Service(opened(said.store, running), said.node.name)
            running.callback(service.stop)
            service.follow()
            if (node := service.world.resource(node_ref(said.node.name))) and not node.retired:
                _leave(service, node)
        if asked.purge:
            _purge(asked.dir, said.node)
    return run(parser, argv, do)


def _leave(service: Service, node: Resource) -> None:
    ref, alive = node.ref, node_key(node.ref.name)

    def draining() -> Json:
        return find(service.resources.get(ITSELF, ref)["status"], "Draining")

    service.resources.put(ITSELF, ref, {"metadata": dict(node.intent.metadata), "spec": {**node.spec, "drained": True}})
    if not _settled(service, lambda: draining()["status"] == "False", MOVING):
        raise Unfit(f"{ref} is drained now, and takes nothing new. {draining()['message']} Ask again when that is gone")
    systemctl("disable", "wisp-agent")
    if not _settled(service, lambda: not service.world.taken(alive), LAPSING):
        raise Unfit(f"{ref} has nothing any more; end its agent, then ask again")
    said = Delete(f"{ref.key('status')}/{ref.name}")     # what a node said of itself would outlive it, as a warning
    service.mirror.wait(service.store.commit([Absent(alive)], [said]), LAPSING)
    service.resources.delete(ITSELF, ref)


def _settled(service: Service, true: Callable[[], bool], seconds: float) -> bool:
    """Whether it is so in time, by what the store says."""
    ends = time.monotonic() + seconds
    while not true() and time.monotonic() < ends:
        service.mirror.wait(service.mirror.revision + 1, 1)
    return true()


def _purge(place: Path, node: config.Node) -> None:
    for name in ("machine", "cluster"):
        (node.state / name).unlink(missing_ok=True)
    shutil.rmtree(place)


def _seconds(text: str) -> int:
    if not (read := re.fullmatch("([1-9][0-9]{0,4})([smh])", text)) or (ttl := int(read[1]) * UNITS[read[2]]) > DAY:
        raise argparse.ArgumentTypeError("must be like 90s, 15m or 2h, and at most 24h")
    return ttl
