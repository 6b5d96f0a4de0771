"""Virtual machines that are only remembered, under libvirt's rules.

What libvirt refuses is refused here, with the same reasons: a name that another domain has, a start
without its bridge, disk or config drive, an undefinition of what runs. What it shrugs off is shrugged
off. Beside the port stand the hands of others, for tests and for simulated trouble.
"""
from __future__ import annotations

import re
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from uuid import UUID

from wisp.errors import StepFailed
from wisp.host import Domain
from wisp.ports import Ring

BUSES = {"virtio", "scsi", "sata"}
VIDEO = {"none", "vga", "virtio"}
MODEL = re.compile(r"[A-Za-z0-9_-]+")


@dataclass
class Entry:
    """A domain: its definition, what it is doing, and whose it is."""

    shape: Domain
    power: str = "off"
    note: str = ""
    ours: bool = True


class FakeHypervisor:
    """`has_bridge(name)`, `has_disk(uid, index)`, `has_seed(uid, digest)`: what a start finds on the node.
    `taps`: tap -> bridge it hangs on ("" for none), the kernel's, to be shared with a fabric.
    `failures`: what the next steps end with, in turn. `reboots`: (uid, hard) of each."""

    def __init__(self, has_bridge: Callable[[str], bool] = lambda name: True,
                 has_disk: Callable[[str, int], bool] = lambda uid, index: True,
                 has_seed: Callable[[str, str], bool] = lambda uid, digest: True,
                 taps: dict[str, str] | None = None) -> None:
        self._has_bridge, self._has_disk, self._has_seed = has_bridge, has_disk, has_seed
        self._taps: dict[str, str] = {} if taps is None else taps
        self.failures: list[StepFailed] = []
        self.reboots: list[tuple[str, bool]] = []
        self._entries: dict[str, Entry] = {}
        self._lock = threading.RLock()
        self._ring: Ring = lambda token: None

    def observe(self, tokens: Collection[str] | None) -> list[Domain]:
        with self._lock:
            found = map(self._entries.get, self._entries if tokens is None else sorted(tokens))
            return [self._seen(entry) for entry in found if entry and entry.ours]

    def watch(self, ring: Ring) -> None:
        self._ring = ring

    def define(self, domain: Domain) -> None:
        with self._lock:
            self._stumble()
            self._check(domain)
            entry = self._entries.setdefault(domain.uid, Entry(domain))
            if not entry.ours:
                raise StepFailed("DefineFailed", f"The domain with the UUID {domain.uid} is not ours.", patience=3)
            if entry.shape.name != domain.name and entry.power != "off":
                raise StepFailed("DefineFailed", f"{entry.shape} is running and keeps its name.", patience=3)
            entry.shape = domain
        self._ring(domain.uid)

    def start(self, domain: Domain) -> None:
        with self._lock:
            self._stumble()
            entry = self._ours(domain)
            if entry.power in ("on", "paused"):
                return
            missing = self._missing(entry.shape)
            if missing:
                entry.power, entry.note = "off", "failed to start"
                raise StepFailed("StartFailed", f"{missing} is not there.", patience=5)
        self._move(domain.uid, "on")

    def stop(self, domain: Domain) -> None:
        self._end(domain, "destroyed")

    def shutdown(self, domain: Domain) -> None:
        paused = any(seen.power != "on" for seen in self.observe((domain.uid,)))
        self._end(domain, "destroyed" if paused else "shut down by the guest")

    def suspend(self, domain: Domain) -> None:
        self._switch(domain, {"on": "paused"}, "SuspendFailed")

    def resume(self, domain: Domain) -> None:
        self._switch(domain, {"paused": "on", "crashed": "on"}, "ResumeFailed")

    def undefine(self, domain: Domain) -> None:
        with self._lock:
            self._stumble()
            entry = self._entries.get(domain.uid)
            if entry is None or not entry.ours:
                return
            if entry.power != "off":
                raise StepFailed("UndefineFailed", f"{domain} is running; it has to be stopped first.", patience=5)
            del self._entries[domain.uid]
        self._ring(domain.uid)

    def reboot(self, uid: str, hard: bool) -> None:
        with self._lock:
            self._stumble()
            entry = self._entries.get(uid)
            if entry is None or not entry.ours:
                raise StepFailed("NotDefined", "The machine is not there.")
            if entry.power == "off":
                raise StepFailed("RebootFailed", f"{entry.shape} is not running.", patience=1)
            self.reboots.append((uid, hard))

    def virt_type(self) -> tuple[str, str]:
        return "qemu", "Nothing runs here; machines are only remembered."

    def close(self) -> None:
        self._ring = lambda token: None

    # The hands of others.

    def destroy(self, uid: str) -> None:
        """`virsh destroy`."""
        self._move(uid, "off", "destroyed")

    def crash(self, uid: str) -> None:
        """Its process is killed."""
        self._move(uid, "off", "crashed")

    def stall(self, uid: str) -> None:
        """It stands still at an I/O error."""
        self._move(uid, "crashed", "stopped at an I/O error")

    def edit(self, domain: Domain) -> None:
        """`virsh edit`: the definition becomes this one."""
        self._entries[domain.uid].shape = domain
        self._ring(domain.uid)

    def intrude(self, domain: Domain) -> None:
        """Another cloud on this node defines a domain."""
        self._entries[domain.uid] = Entry(domain, ours=False)

    def _seen(self, entry: Entry) -> Domain:
        plugged = tuple(replace(nic, plugged=entry.power == "off" or self._taps.get(nic.tap) == nic.bridge)
                        for nic in entry.shape.nics)
        return replace(entry.shape, nics=plugged, power=entry.power, note=entry.note)

    def _check(self, domain: Domain) -> None:
        for wrong, complaint in (
                (str(UUID(domain.uid)) != domain.uid, "malformed UUID"),
                (not domain.name or "/" in domain.name or "\n" in domain.name, "malformed name"),
                (domain.cpus < 1 or domain.memory_mib < 1, "no processor or no memory"),
                (not BUSES.issuperset(domain.disks), "unknown disk bus"),
                (domain.video not in VIDEO, "unknown video model"),
                (not all(MODEL.fullmatch(nic.model) for nic in domain.nics), "malformed NIC model")):
            if wrong:
                raise StepFailed("DefineFailed", f"{domain}: {complaint}.", patience=1)
        for uid, other in self._entries.items():
            if other.shape.name == domain.name and uid != domain.uid:
                raise StepFailed("DefineFailed", f"{domain} already exists with uuid {uid}.", patience=3)

    def _missing(self, shape: Domain) -> str:
        for nic in shape.nics:
            if not self._has_bridge(nic.bridge):
                return f"Bridge {nic.bridge}"
        for index in range(len(shape.disks)):
            if not self._has_disk(shape.uid, index):
                return f"Disk {index}"
        return "" if self._has_seed(shape.uid, shape.seed) else "The config drive"

    def _ours(self, domain: Domain) -> Entry:
        entry = self._entries.get(domain.uid)
        if entry is None or not entry.ours:
            raise StepFailed("NotDefined", f"{domain} is not defined.")
        return entry

    def _end(self, domain: Domain, note: str) -> None:
        with self._lock:
            self._stumble()
            entry = self._entries.get(domain.uid)
        if entry is not None and entry.ours and entry.power != "off":
            self._move(domain.uid, "off", note)

    def _stumble(self) -> None:
        if self.failures:
            raise self.failures.pop(0)

    def _switch(self, domain: Domain, moves: dict[str, str], reason: str) -> None:
        with self._lock:
            self._stumble()
            power = self._ours(domain).power
        if power == "off":
            raise StepFailed(reason, f"{domain} is not running.", patience=3)
        if power in moves:
            self._move(domain.uid, moves[power])

    def _move(self, uid: str, power: str, note: str = "") -> None:
        with self._lock:
            entry = self._entries[uid]
            before, entry.power, entry.note = entry.power, power, note
            for nic in entry.shape.nics:
                if power == "off":
                    self._taps.pop(nic.tap, None)
                elif before == "off":
                    self._taps[nic.tap] = nic.bridge
        self._ring(uid)
