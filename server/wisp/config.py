"""What an installation says of itself: one TOML file, read once, with every mistake named by its key.

The file is the same on every machine of a cluster but for addresses and names; each command reads the
sections it needs and checks all that is written. What a value must be stands where its key is declared;
`docs/handbook/configuration.md` is the same list for operators.
"""
from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

DEFAULT = Path("/etc/wisp/wisp.toml")
NAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
CARRIES = ("instances", "gateways")
VIRT_TYPES = ("auto", "kvm", "qemu")
Section = TypeVar("Section")


class Wrong(Exception):
    """The file does not do; the message says which key, and what it must be."""


# --- what a value must be: it comes back as it will be used, or a ValueError says what would have done

def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("text that is not empty")
    return value


def node_name(value: Any) -> str:
    if not NAME.fullmatch(str(value)):
        raise ValueError("a name: lower-case letters, digits and hyphens, a letter first, at most 63")
    return str(value)


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def address(value: Any) -> str:
    host, _, port = str(value).rpartition(":")
    if not (host and port.isdecimal() and int(port) < 1 << 16):
        raise ValueError("HOST:PORT")
    return str(value)


def ipv4(value: Any) -> str:
    try:
        return str(IPv4Address(_text(value)))
    except ValueError as error:
        raise ValueError("an IPv4 address") from error


def _endpoints(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= 5 or not all(map(_is_endpoint, value)):
        raise ValueError("one to five of ADDRESS:PORT, each an IPv4 address and no name")
    return tuple(value)


def _is_endpoint(value: Any) -> bool:
    try:
        return bool(ipv4(address(value).rpartition(":")[0]))
    except ValueError:
        return False


def _path(value: Any) -> Path:
    if not _text(value).startswith("/"):
        raise ValueError("an absolute path")
    return Path(value)


def _file(value: Any) -> Path:
    try:
        _path(value).open("rb").close()
    except OSError as error:
        raise ValueError(f"a file that can be read: {error.strerror}") from error
    return Path(value)


def _link(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 15:
        raise ValueError('the name of a link, or "" for none')
    return value


def _virt_type(value: Any) -> str:
    if value not in VIRT_TYPES:
        raise ValueError(f"one of {', '.join(VIRT_TYPES)}")
    return str(value)


def carried(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(each in CARRIES for each in value) or len(set(value)) < len(value):
        raise ValueError(f"a list of {' and '.join(CARRIES)}, or of one of them")
    return tuple(value)


# --- the keys

def host_name() -> str:
    host = os.uname().nodename.partition(".")[0].lower()
    try:
        return node_name(host)
    except ValueError as error:
        raise Wrong(f"name is not written, and this host's own, {host!r}, will not do: it must be {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    endpoints: Annotated[tuple[str, ...], _endpoints]
    ca: Annotated[Path | None, _file] = None
    cert: Annotated[Path | None, _file] = None
    key: Annotated[Path | None, _file] = None
    insecure: Annotated[bool, _truth] = False

    def __post_init__(self) -> None:
        given = [self.ca, self.cert, self.key]
        if any(given) and (self.insecure or not all(given)):
            raise Wrong("store.ca, store.cert and store.key go together: all three for TLS, or none of them; "
                        "and then without store.insecure")
        away = [each for each in self.endpoints if not IPv4Address(each.partition(":")[0]).is_loopback]
        if away and not (self.insecure or all(given)):
            raise Wrong(f"store.endpoints: {away[0]} is not on this machine's loopback, so it takes TLS: "
                        "store.ca, store.cert, store.key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    listen: Annotated[str, address] = "127.0.0.1:7480"
    metrics: Annotated[str | None, address] = None
    public: Annotated[str | None, address] = None
    ca_key: Annotated[Path | None, _file] = None
    name: Annotated[str, node_name] = field(default_factory=host_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    name: Annotated[str, node_name] = field(default_factory=host_name)
    state: Annotated[Path, _path] = Path("/var/lib/wisp")
    underlay: Annotated[str, ipv4]
    egress: Annotated[str | None, _link] = None
    libvirt: Annotated[str, _text] = "qemu:///system"
    virt_type: Annotated[str, _virt_type] = "auto"
    carries: Annotated[tuple[str, ...], carried] = CARRIES
    metrics: Annotated[str | None, address] = None


@dataclass(frozen=True, slots=True)
class Config:
    store: Store
    api: Api | None = None
    node: Node | None = None


SECTIONS: dict[str, type[Any]] = {"store": Store, "api": Api, "node": Node}


# --- the file

def load(source: Path, *needed: str) -> Config:
    """Raises Wrong. `needed`: the sections that must be there, beside the store."""
    try:
        return parse(source.read_text(), *needed)
    except OSError as error:
        raise Wrong(f"{source}: {error.strerror}") from error
    except (Wrong, ValueError) as error:        # of the encoding, of TOML
        raise Wrong(f"{source}: {error}") from error


def parse(written: str, *needed: str) -> Config:
    given = tomllib.loads(written)
    if unknown := sorted(given.keys() - SECTIONS.keys()):
        raise Wrong(f"{unknown[0]} is not known here; there are {', '.join(f'[{each}]' for each in SECTIONS)}")
    if missing := [each for each in ("store", *needed) if each not in given]:
        raise Wrong(f"the section [{missing[0]}] is missing")
    found: dict[str, Any] = {title: _section(SECTIONS[title], title, keys) for title, keys in given.items()}
    return Config(**found)


def _section(kind: type[Section], title: str, given: Any) -> Section:
    if not isinstance(given, dict):
        raise Wrong(f"{title} must be a section: [{title}]")
    known = get_type_hints(kind, include_extras=True)
    if unknown := sorted(given.keys() - known.keys()):
        raise Wrong(f"{title}.{unknown[0]} is not known; [{title}] has {', '.join(known)}")
    values = {key: _checked(f"{title}.{key}", known[key].__metadata__[0], value) for key, value in given.items()}
    for each in fields(kind):  # type: ignore[arg-type]
        if each.name not in values and each.default is each.default_factory is MISSING:
            raise Wrong(f"{title}.{each.name} is missing")
    return kind(**values)


def _checked(title: str, check: Callable[[Any], Any], value: Any) -> Any:
    try:
        return check(value)
    except ValueError as error:
        raise Wrong(f"{title} must be {error}; it is {value!r}") from error
