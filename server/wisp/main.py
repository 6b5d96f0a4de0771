"""`wisp dev`: a whole cloud in one process, real or simulated. The only place that names concrete things.

The real one is etcd as a child on a unix socket, the API, the conductor and one agent on this machine's
libvirt and kernel; it needs root. The simulated one is the same over fakes, in memory. Both leave
`DIR/env` for a shell to read, say `ready` once on stdout, and go on SIGTERM. What outlives the service
is what it is for: machines and networks, and the libvirt daemon if none was there before.
"""
from __future__ import annotations

import argparse
import fcntl
import logging
import os
import shutil
import signal
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from wisp import environment, logs
from wisp.admission import SYSTEM
from wisp.api import build
from wisp.api.problems import refusal
from wisp.errors import Problem, StepFailed
from wisp.listener import Listener
from wisp.ports import Facts, Machine
from wisp.service import NodeParts, Service
from wisp.store import Store

log = logging.getLogger(__name__)
STATE = "~/.local/state/wisp"
LISTEN = "127.0.0.1:7480"
LOST = b"\0"
NAMESPACE = "default"
SIZES = ("cpus", "memory_mib", "disk_gib")
PROGRAMS = {"etcd": "etcd-server", "setpriv": "util-linux", "prlimit": "util-linux", "dnsmasq": "dnsmasq-base",
            "nft": "nftables", "libvirtd": "libvirt-daemon-system", "qemu-system-x86_64": "qemu-system-x86",
            "qemu-img": "qemu-utils", "ping": "iputils-ping"}


class Unfit(Exception):
    """This machine, or what was asked for, does not do; the message says what would."""


def dev(argv: Sequence[str]) -> int:
    """Runs until SIGTERM or SIGINT. 0: it ended as asked, 1: it could not begin or go on, 2: wrong usage."""
    asked = _arguments(argv)
    logs.to_stderr()
    state = Path(asked.state).expanduser().absolute()
    try:
        with _woken() as (wait, wake), ExitStack() as running:
            _run(asked, state, running, wake)
            if wait() == LOST:
                raise RuntimeError(f"etcd has ended though nobody stopped it; see {state}/etcd/etcd.log")
    except KeyboardInterrupt:
        pass
    except (Unfit, Problem, StepFailed, OSError, RuntimeError) as error:
        print(f"wisp dev: {error}", file=sys.stderr)
        return 1
    return 0


def _run(asked: argparse.Namespace, state: Path, running: ExitStack, lost: Callable[[], object]) -> None:
    if not asked.simulate:
        _fit()
    state.mkdir(mode=0o711, parents=True, exist_ok=True)
    running.enter_context(_locked(state))
    store = running.enter_context(_memory() if asked.simulate else _etcd(state, lost))
    service = Service(store)
    running.callback(service.stop)
    service.start(str(uuid.uuid4()))
    for namespace in (SYSTEM, NAMESPACE):
        service.ensure_namespace(namespace)
    for name, parts in _simulated(asked) if asked.simulate else _real(state, service.world.cluster, asked, running):
        if not parts.belongs(service.world.cluster):
            raise Unfit(f"this machine serves another cluster than the one in {state}/etcd, says {state}/cluster. "
                        "Bring that store back, or remove the file: the other's machines stay as they are")
        service.join(name, parts)
    if asked.metrics:
        log.info("metrics: %s", _serve(service.metrics.app, asked.metrics, service, running, threads=2))
    app = build(service.resources, service.catalogue, measure=service.metrics.request)
    endpoint = _serve(app, asked.listen, service, running)
    running.callback(service.resources.close)
    _write_env(service, state / "env", endpoint)
    print(f"ready {endpoint}", flush=True)


def _serve(app: Any, address: str, service: Service, running: ExitStack, threads: int = 64) -> str:
    """The URL at which the application answers from now on."""
    host, _, port = address.rpartition(":")
    listener = Listener(app, host.strip("[]"), int(port), refusal(service.catalogue.errors), threads=threads)
    running.callback(listener.close)
    threading.Thread(target=listener.run, name="listener", daemon=True).start()
    host, number = listener.address
    return f"http://[{host}]:{number}" if ":" in host else f"http://{host}:{number}"


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
    from wisp.adapters import libvirtd
    from wisp.adapters.depot import Depot
    from wisp.adapters.fabric import KernelFabric
    from wisp.adapters.libvirt import Libvirt
    libvirtd.ensure(asked.libvirt, state)
    fabric = KernelFabric(cluster, state, "127.0.0.1")
    running.callback(fabric.close)
    hypervisor = Libvirt(asked.libvirt, cluster, state, fabric.mtu(), asked.virt_type)
    running.callback(hypervisor.close)
    depot = Depot(state)
    running.callback(depot.close)
    state.chmod(state.stat().st_mode & 0o7777 | 0o011)     # a way through for QEMU's user, who lists nothing
    if barred := hypervisor.barred():
        log.warning("QEMU's user may not pass %s, so no machine can start: use --state /var/lib/wisp, or chmod o+x it",
                    barred)
    virt_type, reason = hypervisor.virt_type()
    facts = Facts(os.cpu_count() or 1, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
                  shutil.disk_usage(state).total >> 30, fabric.mtu(), "127.0.0.1", virt_type, reason)
    yield "local", NodeParts(Machine(hypervisor, fabric, depot), facts, _remembering(state / "cluster"))


def _remembering(path: Path) -> Callable[[str], bool]:
    """A node belongs to the first cluster it served, and waits rather than serve another."""
    def belongs(uid: str) -> bool:
        known = path.read_text() if path.exists() else ""
        if uid and not known:
            fresh = path.with_name(f".{path.name}.tmp")
            fresh.write_text(known := uid)
            fresh.rename(path)
        return bool(uid) and known == uid
    return belongs


def _fit() -> None:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = sorted({package for program, package in PROGRAMS.items() if not shutil.which(program, path=path)})
    if missing:
        raise Unfit(f"some programs are missing: apt-get install --no-install-recommends {' '.join(missing)}")
    if lacking := [name for name in ("libvirt", "pycdlib", "pyroute2") if not find_spec(name)]:
        raise Unfit(f"Python's {', '.join(lacking)} is missing: pip install 'wisp[hypervisor]'")
    if os.geteuid() != 0:
        raise Unfit("it needs root for libvirt and network devices. Without it: wisp dev --simulate")


# --- its surroundings

@contextmanager
def _locked(state: Path) -> Iterator[None]:
    with (state / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Unfit(f"another service is running on {state}") from error
        yield


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
    host, colon, port = text.rpartition(":")
    if not (host and colon and port.isdigit() and int(port) < 1 << 16):
        raise argparse.ArgumentTypeError("must be HOST:PORT")
    return text


def _size(text: str) -> dict[str, int]:
    pairs = [each.partition("=") for each in text.split(",")]
    if not all(name in SIZES and value.isdigit() for name, _, value in pairs):
        raise argparse.ArgumentTypeError("must be like cpus=4,memory_mib=8192,disk_gib=100")
    return {name: int(value) for name, _, value in pairs}


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
