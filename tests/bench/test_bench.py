"""How long from PUT to a running domain, beside libvirt alone; and what an idle cloud costs."""
from __future__ import annotations

import os
import re
import statistics
import subprocess
import time
import uuid
from pathlib import Path
from typing import Any

import libvirt

from machine.conftest import Cloud, small
from wisp.adapters import layout
from wisp.adapters.depot import Depot
from wisp.host import Disk, Seed

ROUNDS = 20
REST = 60.0
TICKS = os.sysconf("SC_CLK_TCK")


def test_from_put_to_running_beside_libvirt_alone(cloud: Cloud, lan: dict[str, Any], guest_image: dict[str, Any]) -> None:
    socket = f"/proc/{cloud.world.first}/root/run/libvirt/libvirt-sock"
    conn = libvirt.open(f"qemu+unix:///system?socket={socket}")
    template = cloud.put("instances", "template", **small(power="off"))
    cloud.ready("instances", "template")
    through, alone = [], []
    for number in range(ROUNDS):
        through.append(by_wisp(cloud, f"vm-{number}"))
        alone.append(by_libvirt(conn, cloud.state, template, guest_image["spec"]["sha256"]))
    conn.close()
    ours, theirs = statistics.median(through), statistics.median(alone)
    print(f"\nPUT to running: median of {ROUNDS} {ours:.3f} s; libvirt alone, same disk work: {theirs:.3f} s; "
          f"ratio {ours / theirs:.2f} (aim 1.25)")


def by_wisp(cloud: Cloud, name: str) -> float:
    begun = time.perf_counter()
    cloud.put("instances", name, **small())
    cloud.ready("instances", name)
    taken = time.perf_counter() - begun
    cloud.gone("instances", name)
    return taken


def by_libvirt(conn: Any, state: Path, template: dict[str, Any], sha256: str) -> float:
    """The same domain under another name, with a disk over the same image and a config drive of the same size."""
    xml = conn.lookupByUUIDString(template["uid"]).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    depot, uid, digest = Depot(state), str(uuid.uuid4()), "d" * 64
    files = (("openstack/latest/meta_data.json", "{}"), ("openstack/latest/network_data.json", "{}"))
    begun = time.perf_counter()
    depot.create_disk(Disk(uid, 0, 1, sha256))
    depot.write_seed(Seed(uid, digest, files), None)
    xml = xml.replace(template["uid"], uid).replace(f"default.template.{template['uid'][:8]}", f"alone-{uid[:8]}")
    xml = re.sub(r"seed-[0-9a-f]{16}\.iso", layout.seed(state, uid, digest).name, xml)
    domain = conn.defineXML(re.sub(r"<mac address=.*?/>|<target dev='t-.*?'/>", "", xml))
    domain.create()
    taken = time.perf_counter() - begun
    domain.destroy()
    domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)
    subprocess.run(["rm", "-r", str(layout.disk(state, uid, 0).parent)], check=True)
    return taken


def test_what_an_idle_cloud_costs(cloud: Cloud, lan: dict[str, Any], guest_image: dict[str, Any]) -> None:
    for number in range(3):
        cloud.put("instances", f"vm-{number}", **small(power="off"))
        cloud.ready("instances", f"vm-{number}")
    time.sleep(5)
    service = cloud.pid
    etcd = next(int(pid) for pid in os.listdir("/proc") if pid.isdigit() and comm(int(pid)) == "etcd" and parent(int(pid)) == service)
    revision, before = cloud.revision(), {pid: cpu(pid) for pid in (service, etcd)}
    time.sleep(REST)
    used = {pid: (cpu(pid) - before[pid]) / REST * 100 for pid in before}
    assert cloud.revision() == revision, "an idle cloud writes nothing"
    print(f"\nidle for {REST:.0f} s with 3 machines: store revision unchanged; service (API, conductor, agent) "
          f"{used[service]:.2f} % of a core, {memory(service)} MiB; etcd {used[etcd]:.2f} %, {memory(etcd)} MiB (aim 0.5 % each)")


def stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def parent(pid: int) -> int:
    return int(stat(pid)[1])


def cpu(pid: int) -> float:
    """Seconds of a core used so far."""
    fields = stat(pid)
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory(pid: int) -> int:
    """Resident, MiB."""
    return int(stat(pid)[21]) * os.sysconf("SC_PAGE_SIZE") >> 20
