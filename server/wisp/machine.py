"""The real machine of a node, put together: libvirt, kernel and files, and what they say it is.

It is made for one cluster, the one that this node remembers: what is not of that cluster it does not even
see. So it can only be made once the cluster is known.
"""
from __future__ import annotations

import logging
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

from wisp.config import Node
from wisp.lifetime import Unfit
from wisp.ports import Facts, Machine
from wisp.service import NodeParts

log = logging.getLogger(__name__)
PROGRAMS = {"setpriv": "util-linux", "prlimit": "util-linux", "dnsmasq": "dnsmasq-base", "nft": "nftables",
            "libvirtd": "libvirt-daemon-system", "qemu-system-x86_64": "qemu-system-x86", "qemu-img": "qemu-utils",
            "ping": "iputils-ping"}
ROUTES = Path("/proc/net/route")
EVERYWHERE = "00000000"


def fit(programs: Mapping[str, str]) -> None:
    """Raises Unfit unless this machine has the programs (each with its Debian package) and we may use them."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = sorted({package for program, package in programs.items() if not shutil.which(program, path=path)})
    if missing:
        raise Unfit(f"some programs are missing: apt-get install --no-install-recommends {' '.join(missing)}")
    if lacking := [name for name in ("libvirt", "pycdlib", "pyroute2") if not find_spec(name)]:
        raise Unfit(f"Python's {', '.join(lacking)} is missing: pip install 'wisp[hypervisor]'")
    if os.geteuid() != 0:
        raise Unfit("it needs root for libvirt and network devices. Without it: wisp dev --simulate")


def real(node: Node, cluster: str, running: ExitStack) -> NodeParts:
    from wisp.adapters import libvirtd
    from wisp.adapters.depot import Depot
    from wisp.adapters.fabric import KernelFabric
    from wisp.adapters.libvirt import Libvirt
    state = node.state
    libvirtd.ensure(node.libvirt, state)
    egress = _default_link() if node.egress is None else node.egress
    fabric = KernelFabric(cluster, state, node.underlay, egress)
    running.callback(fabric.close)
    hypervisor = Libvirt(node.libvirt, cluster, state, fabric.mtu(), node.virt_type)
    running.callback(hypervisor.close)
    depot = Depot(state)
    running.callback(depot.close)
    state.chmod(state.stat().st_mode & 0o7777 | 0o011)     # a way through for QEMU's user, who lists nothing
    if barred := hypervisor.barred():
        log.warning("QEMU's user may not pass %s, so no machine can start: keep the state in /var/lib/wisp, "
                    "or chmod o+x it", barred)
    virt_type, reason = hypervisor.virt_type()
    facts = Facts(os.cpu_count() or 1, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
                  shutil.disk_usage(state).total >> 30, fabric.mtu(), node.underlay, virt_type, reason,
                  carries=node.carries, egress=egress)
    return NodeParts(Machine(hypervisor, fabric, depot), facts, remembering(state / "cluster"),
                     kept(state / "machine", str(uuid.uuid4())))


def remembering(path: Path) -> Callable[[str], bool]:
    """A node belongs to the first cluster it served, and waits rather than serve another."""
    def belongs(uid: str) -> bool:
        return bool(uid) and kept(path, uid) == uid
    return belongs


def kept(path: Path, fresh: str) -> str:
    """What the file holds; what it is to hold from now on, when it is not there."""
    if not (path.exists() and path.read_text()):
        written = path.with_name(f".{path.name}.tmp")
        written.write_text(fresh)
        written.rename(path)
    return path.read_text()


def _default_link() -> str:
    """The link of the default route, the preferred one of several; "" if there is none."""
    rows = [line.split() for line in ROUTES.read_text().splitlines()[1:]]
    ways = [(int(row[6]), row[0]) for row in rows if row[1] == row[7] == EVERYWHERE]
    return min(ways, default=(0, ""))[1]
