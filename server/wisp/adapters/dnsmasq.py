"""A gateway's DHCP and DNS: one dnsmasq, in the gateway's namespace, with a directory of files of its own.

Guests are told of it as their only name server: resolvers ask whichever of several they like, and another would not
know the names of instances. For all other names it asks the wished servers, in their order, or else the node's;
it answers inside alone, and sends no name of ours elsewhere.

It must outlive the agent, so it daemonizes and is found again by its pid file and its command line. It belongs to the
namespace it was started in: who makes the gateway's links anew must `end` it first. It reads its files when started
and on SIGHUP only, so a file says nothing of what it knows: the file `served`, written after it was told, does.
It refuses to give an address to a new MAC while it remembers another's lease on it, so it is told by SIGHUP only of
leases that came; for one that went it starts anew, without memory (a client's renewal is accepted all the same: it
is authoritative). It stays root, as its files are nobody else's, with the few capabilities it needs.
"""
from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import select
import shutil
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from wisp.adapters.marks import need
from wisp.adapters.nft import INSIDE
from wisp.adapters.program import must
from wisp.host import Gateway, Lease

LEASE_SECONDS = 86_400
RESOLVERS = [Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf")]
"""Where it stands whom the node asks: behind the stub on its loopback, if it has one."""
CAPABILITIES = "-all,+net_admin,+net_raw,+net_bind_service,+dac_read_search,+setgid"


@dataclass(frozen=True, slots=True)
class Dhcp:
    """A gateway's dnsmasq and its files, in a directory of their own."""

    directory: Path

    @property
    def _conf(self) -> Path:
        return self.directory / "dnsmasq.conf"

    def render(self, gateway: Gateway, mtu: int) -> dict[str, str]:
        """File name -> text. Without NAT no router is announced, lest a guest with two networks send
        everything into the one without a way out; an empty option keeps dnsmasq from naming itself."""
        inside = ipaddress.ip_interface(gateway.address)
        settings = {
            "interface": INSIDE, "except-interface": "lo", "bind-interfaces": "", "no-hosts": "",
            "domain-needed": "", "strict-order": "", "local": f"/{gateway.domain.partition('.')[2]}/",
            "addn-hosts": str(self.directory / "names"), "dhcp-authoritative": "", "dhcp-lease-max": "65536",
            "user": "root", "group": "root",
            "dhcp-range": f"{inside.network.network_address},static,{inside.netmask},{LEASE_SECONDS}",
            "dhcp-hostsfile": str(self.directory / "hosts"), "dhcp-leasefile": str(self.directory / "leases"),
            "pid-file": str(self.directory / "pid")}
        resolvers = [str(path) for path in RESOLVERS if path.exists() and gateway.nat and not gateway.dns]
        settings |= {"resolv-file": resolvers[0]} if resolvers else {"no-resolv": ""}
        options = {"router": (str(inside.ip),) if gateway.nat else (), "mtu": (str(mtu),),
                   "dns-server": (str(inside.ip),), "domain-name": (gateway.domain,)}
        lines = [f"{key}={value}" if value else key for key, value in settings.items()]
        lines += [f"server={address}" for address in gateway.dns]
        lines += [f"dhcp-option=option:{','.join((name, *values))}" for name, values in options.items()]
        hosts = [f"{lease.mac},{lease.address},{lease.name}" for lease in sorted(gateway.leases)]
        names = [f"{lease.address} {_names(lease, gateway)}" for lease in sorted(gateway.leases)]
        texts = {"dnsmasq.conf": lines, "hosts": hosts, "names": names}
        return {name: "".join(f"{line}\n" for line in some) for name, some in texts.items()}

    def serve(self, gateway: Gateway, mtu: int) -> None:
        """In the gateway's namespace: tell dnsmasq what is new, start it, or end it, as need be."""
        if not gateway.dhcp:
            self.remove()
            return
        before, after, pid = self._read(), self.render(gateway, mtu), self.pid()
        if pid and self._is_served() and before == after:
            return
        grown = (before["dnsmasq.conf"] == after["dnsmasq.conf"]
                 and all(_lines(before[name]) <= _lines(after[name]) for name in ("hosts", "names")))
        if not (pid and grown and self._is_served()):
            self.end()
            pid = None
        (self.directory / "served").unlink(missing_ok=True)
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, text in after.items():
            (self.directory / name).write_text(text)
        if pid:
            os.kill(pid, signal.SIGHUP)
        else:
            must(["setpriv", "--no-new-privs", f"--bounding-set={CAPABILITIES}",
                  "dnsmasq", f"--conf-file={self._conf}"], "GatewayFailed")
        (self.directory / "served").write_text(_sum(after))

    def look(self, gateway: Gateway, mtu: int) -> Gateway:
        """The gateway, as its links and rules show it to be, with what is served."""
        if not self.directory.exists():
            return replace(gateway, dhcp=False)
        need(self.pid(), "dnsmasq is not running")
        need(self._is_served(), "dnsmasq has not read its files")
        texts = self._read()
        said = [line.partition("=") for line in texts["dnsmasq.conf"].splitlines()]
        servers = tuple(value for key, _, value in said if key == "server")
        domain = next((value.partition(",")[2] for _, _, value in said if ":domain-name" in value), "")
        names = {line.split()[0]: line.split()[1] for line in _lines(texts["names"])}
        leases = frozenset(_lease(line, names) for line in _lines(texts["hosts"]))
        gateway = replace(gateway, dhcp=True, dns=servers, domain=domain, leases=leases)
        need(texts == self.render(gateway, mtu), "dnsmasq is set up for something else")
        return gateway

    def end(self) -> None:
        """Ends the dnsmasq that has our configuration, even if its pid file is gone."""
        pid = self.pid()
        for each in [pid] if pid else [int(name) for name in os.listdir("/proc") if name.isdigit()]:
            if self._is_ours(each):
                _end(each)
        for name in ("pid", "leases", "served"):
            (self.directory / name).unlink(missing_ok=True)

    def remove(self) -> None:
        self.end()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _read(self) -> dict[str, str]:
        return {name: _text(self.directory / name) for name in ("dnsmasq.conf", "hosts", "names")}

    def _is_served(self) -> bool:
        return _text(self.directory / "served") == _sum(self._read())

    def pid(self) -> int | None:
        """Of the one that runs."""
        with suppress(FileNotFoundError, ValueError):
            pid = int((self.directory / "pid").read_text())
            return pid if self._is_ours(pid) else None
        return None

    def _is_ours(self, pid: int) -> bool:
        with suppress(OSError):
            return f"--conf-file={self._conf}".encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return False


def _names(lease: Lease, gateway: Gateway) -> str:
    """The bare one is the network's own instances': another namespace may have one of the same name."""
    full = f"{lease.name}.{lease.domain}" if lease.domain else lease.name
    return f"{full} {lease.name}" if lease.domain == gateway.domain else full


def _lease(line: str, names: Mapping[str, str]) -> Lease:
    mac, address, name = line.split(",")
    return Lease(mac, address, name, names.get(address, "").partition(".")[2])


def _text(path: Path) -> str:
    with suppress(FileNotFoundError):
        return path.read_text()
    return ""


def _lines(text: str) -> frozenset[str]:
    return frozenset(text.splitlines())


def _sum(texts: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()


def _end(pid: int) -> None:
    """It is no child of ours: its end is waited for at a pidfd."""
    with suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            for how in (signal.SIGTERM, signal.SIGKILL):
                signal.pidfd_send_signal(descriptor, how)
                if select.select([descriptor], [], [], 2)[0]:
                    break
        finally:
            os.close(descriptor)
