"""`wisp dev`: a whole cloud in one process, real or simulated.

The real one is etcd as a child on a unix socket, the API, the conductor and one agent on this machine's
libvirt and kernel; it needs root. The simulated one is the same over fakes, in memory. Both leave
`DIR/env` for a shell to read, say `ready` once on stdout, and go on SIGTERM. What outlives the service
is what it is for: machines and networks, and the libvirt daemon if none was there before.
"""
from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from wisp import config, environment, machine
from wisp.config import Node
from wisp.errors import Problem
from wisp.lifetime import NAMESPACE, Unfit, found, live, locked, open_front, show_metrics
from wisp.ports import Facts
from wisp.service import NodeParts, Service
from wisp.store import Store

STATE = "~/.local/state/wisp"
LISTEN = "127.0.0.1:7480"
SIZES = ("cpus", "memory_mib", "disk_gib")
PROGRAMS = {"etcd": "etcd-server", **machine.PROGRAMS}


def dev(argv: Sequence[str]) -> int:
    """Runs until SIGTERM or SIGINT. 0: it ended as asked, 1: it could not begin or go on, 2: wrong usage."""
    asked = _arguments(argv)
    state = Path(asked.state).expanduser().absolute()
    return live("wisp dev", lambda running, lost: _run(asked, state, running, lost),
                lost=f"etcd has ended though nobody stopped it; see {state}/etcd/etcd.log")


def _run(asked: argparse.Namespace, state: Path, running: ExitStack, lost: Callable[[], object]) -> None:
    if not asked.simulate:
        machine.fit(PROGRAMS)
    state.mkdir(mode=0o711, parents=True, exist_ok=True)
    running.enter_context(locked(state))
    store = running.enter_context(_memory() if asked.simulate else _etcd(state, lost))
    service = Service(store)
    running.callback(service.stop)
    found(service)
    for name, parts in _simulated(asked) if asked.simulate else _real(state, service.world.cluster, asked, running):
        if not parts.belongs(service.world.cluster):
            raise Unfit(f"this machine serves another cluster than the one in {state}/etcd, says {state}/cluster. "
                        "Bring that store back, or remove the file: the other's machines stay as they are")
        service.join(name, parts)
    show_metrics(service, asked.metrics, running)
    endpoint = open_front(service, asked.listen, running)
    _write_env(service, state / "env", endpoint)
    print(f"ready {endpoint}", flush=True)


# --- what it runs on

@contextmanager
def _memory() -> Iterator[Store]:
    from wisp.store.memory import MemoryStore
    store = MemoryStore()
    yield store
    store.close()


@contextmanager
def _etcd(state: Path, lost: Callable[[], object]) -> Iterator[Store]:
    from wisp.store.embedded import EmbeddedEtcd
    from wisp.store.etcd import EtcdStore
    server = EmbeddedEtcd(state / "etcd", lost)
    store = EtcdStore(server.start())
    try:
        yield store
    finally:
        store.close()
        server.stop()


def _simulated(asked: argparse.Namespace) -> Iterator[tuple[str, NodeParts]]:
    from wisp.fakes import fake_machine
    size = {"cpus": 16, "memory_mib": 65536, "disk_gib": 1000} | asked.node_size
    for number in range(1, asked.nodes + 1):
        facts = Facts(**size, mtu=1450, underlay=f"192.0.2.{number}",
                      virt_type="qemu", virt_reason="This node is simulated.")
        yield f"n{number}", NodeParts(fake_machine(), facts)


def _real(state: Path, cluster: str, asked: argparse.Namespace, running: ExitStack) -> Iterator[tuple[str, NodeParts]]:
    node = Node(name="local", state=state, underlay="127.0.0.1", libvirt=asked.libvirt, virt_type=asked.virt_type)
    yield node.name, machine.real(node, cluster, running)


# --- its surroundings

def _write_env(service: Service, path: Path, endpoint: str) -> None:
    """For a shell to read. A key that still works is kept, so that shells which read it go on working."""
    token = _known_token(service, path) or service.admin_token()
    environment.write(path, dict(zip(environment.NAMES, (endpoint, token, NAMESPACE), strict=True)))


def _known_token(service: Service, path: Path) -> str:
    token = environment.read(path).get(environment.TOKEN, "")
    try:
        service.resources.authenticate(f"Bearer {token}")
        return token
    except Problem:
        return ""


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("wisp dev", description="A whole cloud on this machine, until it is interrupted.")
    option = parser.add_argument
    option("--state", metavar="DIR", default=STATE, help=f"where everything is kept ({STATE})")
    option("--listen", metavar="HOST:PORT", default=LISTEN, type=_address, help=f"where the API is ({LISTEN})")
    option("--metrics", metavar="HOST:PORT", type=_address, help="where Prometheus may ask (nowhere)")
    option("--simulate", action="store_true", help="only pretend: no root, nothing is kept")
    option("--nodes", metavar="N", type=int, default=1, help="how many nodes to simulate (1)")
    option("--node-size", metavar="cpus=,memory_mib=,disk_gib=", type=_size, default={},
           help="what a simulated node has")
    option("--libvirt", metavar="URI", default="qemu:///system", help="which libvirt (qemu:///system)")
    option("--virt-type", choices=["auto", "kvm", "qemu"], default="auto",
           help="auto: KVM if it works, found by trying")
    asked = parser.parse_args(argv)
    if asked.nodes < 1 or (not asked.simulate and (asked.nodes != 1 or asked.node_size)):
        parser.error("--nodes is 1 or more; it and --node-size go with --simulate")
    return asked


def _address(text: str) -> str:
    try:
        return config.address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be {error}") from error


def _size(text: str) -> dict[str, int]:
    pairs = [each.partition("=") for each in text.split(",")]
    if not all(name in SIZES and value.isdigit() for name, _, value in pairs):
        raise argparse.ArgumentTypeError("must be like cpus=4,memory_mib=8192,disk_gib=100")
    return {name: int(value) for name, _, value in pairs}
