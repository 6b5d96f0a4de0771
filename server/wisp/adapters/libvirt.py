"""The hypervisor by libvirt: the one door for its library, its errors and its events.

Import this module where the real machine is put together and nowhere else; an API node needs no libvirt.

- The shape of a domain is read from its persistent definition, its power from what runs. They may
  differ: a definition counts from the next start on.
- "off" comes with a note why. A guest that stands still though nobody paused it (an I/O error, a KVM
  that gave up) is "crashed": from within it never comes back.
- Whether a running domain's taps hang on their bridges is the kernel's to say: it takes a tap off a
  bridge that is deleted, and nothing puts it back.
- Events come on one thread of the process that libvirt's loop keeps. They only ring; nobody calls
  libvirt from there. A lost connection is opened again with patience, then everything is rung for.
- After a restart of its daemon libvirt needs a second to find its guests again, and would call them off.
"""
from __future__ import annotations

import os
import random
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import libvirt

from wisp.adapters import domainxml, kvm, layout
from wisp.errors import StepFailed
from wisp.host import Domain, Nic
from wisp.ports import Ring

SETTLING_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 10.0
GLANCE_SECONDS = 0.2
DEFINITION_AT_FAULT = {
    libvirt.VIR_ERR_XML_ERROR, libvirt.VIR_ERR_XML_DETAIL, libvirt.VIR_ERR_XML_INVALID_SCHEMA,
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED, libvirt.VIR_ERR_INVALID_ARG}
UNDEFINE_ALL = (libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
                | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)
UNDEFINE_TEST = libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
"""All that the test driver knows of; it keeps neither checkpoints nor firmware."""

OFF = {
    libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN: "shut down by the guest",
    libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED: "destroyed",
    libvirt.VIR_DOMAIN_SHUTOFF_CRASHED: "crashed",
    libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED: "migrated",
    libvirt.VIR_DOMAIN_SHUTOFF_SAVED: "saved",
    libvirt.VIR_DOMAIN_SHUTOFF_FAILED: "failed to start",
    libvirt.VIR_DOMAIN_SHUTOFF_FROM_SNAPSHOT: "reverted to a snapshot"}
PAUSED_ON_PURPOSE = {libvirt.VIR_DOMAIN_PAUSED_USER, libvirt.VIR_DOMAIN_PAUSED_FROM_SNAPSHOT}
PAUSED_IN_PASSING = {
    libvirt.VIR_DOMAIN_PAUSED_STARTING_UP, libvirt.VIR_DOMAIN_PAUSED_SHUTTING_DOWN, libvirt.VIR_DOMAIN_PAUSED_SAVE,
    libvirt.VIR_DOMAIN_PAUSED_DUMP, libvirt.VIR_DOMAIN_PAUSED_SNAPSHOT, libvirt.VIR_DOMAIN_PAUSED_MIGRATION}
STANDING = {
    libvirt.VIR_DOMAIN_PAUSED_IOERROR: "stopped at an I/O error",
    libvirt.VIR_DOMAIN_PAUSED_WATCHDOG: "stopped by its watchdog",
    libvirt.VIR_DOMAIN_PAUSED_CRASHED: "the guest panicked"}


class Libvirt:
    """The domains of one cluster at one libvirt.

    uri        e.g. "qemu:///system"
    state      where disks, config drives and console logs lie
    mtu        of interfaces, bytes
    virt_type  "kvm", "qemu", "auto" (KVM is tried, once), or "test" with libvirt's test driver
    """

    grace = 60.0
    """Seconds a guest has to power off when asked."""
    links = Path("/sys/class/net")
    """Of the network that libvirt's taps are in."""

    def __init__(self, uri: str, cluster: str, state: Path, mtu: int, virt_type: str = "auto") -> None:
        _listen()
        self._uri = uri
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._conn: Any = None
        self._ring: Ring = lambda token: None
        self._virt = self._choose() if virt_type == "auto" else (virt_type, "The configuration says so.")
        self._site = domainxml.Site(cluster, state, mtu, self._virt[0])

    def observe(self, tokens: Collection[str] | None) -> list[Domain]:
        with self._door("ObserveFailed") as conn:
            found = conn.listAllDomains() if tokens is None else [
                it for token in tokens if layout.UID.fullmatch(token) and (it := _lookup(conn, token))]
            return [seen for it in found if (seen := self._seen(it))]

    def watch(self, ring: Ring) -> None:
        self._ring = ring
        try:
            self._connected()
        except libvirt.libvirtError:
            self._mend_soon()

    def define(self, domain: Domain) -> None:
        with self._door("DefineFailed", 3) as conn:
            there = _lookup(conn, domain.uid)
            if there is not None:
                seen = self._seen(there)
                if seen is None:
                    raise StepFailed("DefineFailed", f"The domain with the UUID {domain.uid} is not ours.", patience=3)
                if seen.name != domain.name:
                    there.rename(domain.name)
            conn.defineXML(domainxml.build(domain, self._site))

    def start(self, domain: Domain) -> None:
        with self._door("StartFailed", 5) as conn:
            there, seen = self._ours(conn, domain)
            if seen.power == "crashed":
                _power_off(there)
            if not _active(there):
                there.create()

    def stop(self, domain: Domain) -> None:
        with self._door("StopFailed", 5) as conn:
            if there := self._find(conn, domain):
                _power_off(there)

    def shutdown(self, domain: Domain) -> None:
        with self._door("ShutdownFailed", 5) as conn:
            there = self._find(conn, domain)
            if there is None or not _active(there):
                return
            if self._power(there)[0] == "on":
                there.shutdown()
                self._await_off(there, domain)
            _power_off(there)

    def suspend(self, domain: Domain) -> None:
        with self._door("SuspendFailed", 3) as conn:
            there, seen = self._ours(conn, domain)
            if seen.power != "paused":
                there.suspend()

    def resume(self, domain: Domain) -> None:
        with self._door("ResumeFailed", 3) as conn:
            there, seen = self._ours(conn, domain)
            if seen.power != "on":
                there.resume()

    def undefine(self, domain: Domain) -> None:
        with self._door("UndefineFailed", 5) as conn:
            there = self._find(conn, domain)
            if there is None:
                return
            if _active(there):
                raise StepFailed("UndefineFailed", f"{domain} is running; it has to be stopped first.", patience=5)
            there.undefineFlags(UNDEFINE_TEST if self._virt[0] == "test" else UNDEFINE_ALL)

    def reboot(self, uid: str, hard: bool) -> None:
        with self._door("RebootFailed", 1) as conn:
            there = _lookup(conn, uid)
            if there is None or self._seen(there) is None:
                raise StepFailed("NotDefined", "The machine is not there.")
            there.reset() if hard else there.reboot()

    def virt_type(self) -> tuple[str, str]:
        return self._virt

    def barred(self) -> Path | None:
        """A directory on the way to the disks that is closed to the user as whom libvirt runs QEMU."""
        with self._door("ObserveFailed") as conn:
            found = re.search(r"<model>dac</model>.*?<baselabel[^>]*>\+(\d+):\+(\d+)<", conn.getCapabilities(), re.S)
        uid, gid = map(int, found.groups()) if found else (0, 0)
        way = (self._site.state, *self._site.state.parents)
        return next((each for each in way if uid and not _passable(each.stat(), uid, gid)), None)

    def close(self) -> None:
        self._closing.set()
        with self._lock:
            if self._conn is not None:
                self._let_go(self._conn)
                self._conn = None

    def _choose(self) -> tuple[str, str]:
        choice = kvm.choose()
        if choice[0] == "kvm":
            with self._door("ObserveFailed") as conn:
                if not re.search(r"<domain type=['\"]kvm", conn.getCapabilities()):
                    return "qemu", "KVM runs guests, but libvirt does not offer it, so they are emulated in software."
        return choice

    # The connection.

    @contextmanager
    def _door(self, reason: str, patience: int | None = None) -> Iterator[Any]:
        """Inside, libvirt is spoken to; outside, nobody sees its errors."""
        try:
            yield self._connected()
        except libvirt.libvirtError as error:
            raise _failure(error, reason, patience) from error

    def _connected(self) -> Any:
        with self._lock:
            if self._closing.is_set():
                raise StepFailed("HypervisorUnreachable", "The connection to libvirt is closed.")
            if self._conn is None or not self._conn.isAlive():
                again = self._conn is not None
                self._conn = self._open()
                if again:
                    self._closing.wait(SETTLING_SECONDS)
            return self._conn

    def _open(self) -> Any:
        conn = libvirt.open(self._uri)
        conn.registerCloseCallback(self._lost, None)
        conn.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._moved, None)
        return conn

    def _let_go(self, conn: Any) -> None:
        try:
            conn.unregisterCloseCallback()
            conn.close()
        except libvirt.libvirtError:
            pass

    def _moved(self, conn: Any, domain: Any, event: int, detail: int, opaque: Any) -> None:
        self._ring(domain.UUIDString())

    def _lost(self, conn: Any, reason: int, opaque: Any) -> None:
        self._mend_soon()

    def _mend_soon(self) -> None:
        threading.Thread(target=self._mend, name="libvirt-mend", daemon=True).start()

    def _mend(self) -> None:
        pause = 0.1
        while not self._closing.wait(pause * random.uniform(0.5, 1.0)):
            try:
                self._connected()
            except (StepFailed, libvirt.libvirtError):
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            else:
                return self._ring(None)
        return None

    # Domains.

    def _find(self, conn: Any, domain: Domain) -> Any:
        """libvirt's handle of it; None when it is not there or not ours."""
        there = _lookup(conn, domain.uid)
        return there if there is not None and self._seen(there) else None

    def _ours(self, conn: Any, domain: Domain) -> tuple[Any, Domain]:
        there = _lookup(conn, domain.uid)
        seen = self._seen(there) if there is not None else None
        if seen is None:
            raise StepFailed("NotDefined", f"{domain} is not defined.")
        return there, seen

    def _seen(self, there: Any) -> Domain | None:
        try:
            shape = domainxml.parse(there.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE), self._site.cluster)
            power, note = self._power(there) if shape else ("", "")
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise
        if shape is None:
            return None
        nics = shape.nics if power == "off" else tuple(replace(nic, plugged=self._plugged(nic)) for nic in shape.nics)
        return replace(shape, nics=nics, power=power, note=note)

    def _plugged(self, nic: Nic) -> bool:
        if self._virt[0] == "test":
            return True
        try:
            return (self.links / nic.tap / "master").readlink().name == nic.bridge
        except OSError:
            return False

    def _power(self, there: Any) -> tuple[str, str]:
        state, reason = there.state()
        if state == libvirt.VIR_DOMAIN_SHUTOFF:
            return "off", OFF.get(reason, "")
        if state == libvirt.VIR_DOMAIN_CRASHED:
            return "crashed", "the guest panicked"
        if state != libvirt.VIR_DOMAIN_PAUSED or reason in PAUSED_IN_PASSING:
            return "on", ""
        if reason in PAUSED_ON_PURPOSE:
            return "paused", ""
        return "crashed", STANDING.get(reason, "stopped by the hypervisor")

    def _await_off(self, there: Any, domain: Domain) -> None:
        end = time.monotonic() + self.grace
        while _active(there) and time.monotonic() < end:
            if self._closing.wait(GLANCE_SECONDS):
                raise StepFailed("Interrupted", f"{domain} was asked to power off; nobody waits for it any more.")


@cache
def _listen() -> None:
    """Once in a process, and before the first connection."""
    libvirt.registerErrorHandler(lambda context, error: None, None)
    libvirt.virEventRegisterDefaultImpl()
    threading.Thread(target=_loop, name="libvirt-events", daemon=True).start()


def _loop() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()


def _lookup(conn: Any, uid: str) -> Any:
    try:
        return conn.lookupByUUIDString(uid)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise


def _active(there: Any) -> bool:
    return _unless_gone(there.isActive)


def _power_off(there: Any) -> None:
    try:
        if _active(there):
            _unless_gone(there.destroy)
    except libvirt.libvirtError:
        if _active(there):
            raise


def _unless_gone(ask: Callable[[], Any]) -> bool:
    """A transient domain is forgotten the moment it stops."""
    try:
        return bool(ask())
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return False
        raise


def _passable(directory: os.stat_result, uid: int, gid: int) -> bool:
    bit = 0o100 if directory.st_uid == uid else 0o010 if directory.st_gid == gid else 0o001
    return bool(directory.st_mode & bit)


def _failure(error: Any, reason: str, patience: int | None) -> StepFailed:
    sentence = f"libvirt: {error.get_error_message()}"
    if error.get_error_domain() == libvirt.VIR_FROM_RPC or error.get_error_code() == libvirt.VIR_ERR_NO_CONNECT:
        return StepFailed("HypervisorUnreachable", sentence)
    if reason == "DefineFailed" and error.get_error_code() in DEFINITION_AT_FAULT:
        return StepFailed(reason, sentence, patience=1)
    return StepFailed(reason, sentence, patience=patience)
