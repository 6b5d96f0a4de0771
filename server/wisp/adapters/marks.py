"""Whose device is whose: the ifalias `wisp:<cluster>:<uid>`, and no record beside it.

A device is made down and marked before it is used. So an unmarked one that is down is our own unfinished
work, or nobody's, and may be taken on; any other of that name is another's.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from wisp.adapters.links import Link, Net
from wisp.errors import StepFailed

T = TypeVar("T")


class Broken(Exception):
    """What stands of a part is not whole; says why."""


def need(fact: T | None, otherwise: str) -> T:
    if not fact:
        raise Broken(otherwise)
    return fact


@dataclass(frozen=True, slots=True)
class Marks:
    """The marks of one cluster."""

    cluster: str

    def of(self, uid: str) -> str:
        return f"wisp:{self.cluster}:{uid}"

    def uid(self, alias: str) -> str:
        """"" when it is not a mark of ours."""
        prefix = self.of("")
        return alias.removeprefix(prefix) if alias.startswith(prefix) else ""

    def find(self, net: Net, name: str, uid: str) -> Link | None:
        link = net.link(name)
        return link if link and link.alias == self.of(uid) else None

    def claim(self, net: Net, name: str, uid: str, kind: str, **facts: Any) -> Link:
        """The device of that name, made if need be, and marked."""
        link = net.link(name)
        try:
            link = link or net.add(name, kind, **facts)
        except FileExistsError as error:
            raise StepFailed("VniTaken", f"another device has the VNI of {name}") from error
        if link.kind != kind:
            raise StepFailed("VniTaken", f"{name} is no {kind}")
        self.adopt(net, link, uid, name)
        return link

    def adopt(self, net: Net, link: Link, uid: str, name: str) -> None:
        if link.alias != self.of(uid):
            if link.alias or link.up:
                raise StepFailed("VniTaken", f"{name} belongs to another")
            net.change(link, ifalias=self.of(uid))

    def delete(self, net: Net, name: str, uid: str) -> None:
        if link := self.find(net, name, uid):
            net.delete(link)
