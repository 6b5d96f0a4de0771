"""A resource as one node is concerned with it: what it should have here, and what it stands on."""
from __future__ import annotations

from dataclasses import dataclass

from wisp.host import Floating, Host
from wisp.resource import Ref, Resource
from wisp.steps import Fate


@dataclass(frozen=True, slots=True)
class Subject:
    """`here`: it should have parts here; `said_at`: revision of what this node said of it last, 0 for nothing."""

    resource: Resource
    want: Host
    here: bool
    said_at: int

    @property
    def ref(self) -> Ref:
        return self.resource.ref

    @property
    def tokens(self) -> frozenset[str]:
        return self.want.tokens() | {self.resource.uid}

    @property
    def needs(self) -> frozenset[str]:
        """Tokens of other subjects that its parts stand on."""
        below = {f"sha256:{sha256}" for part in self.want if (sha256 := getattr(part, "sha256", ""))}
        below |= {part.network for part in self.want if isinstance(part, Floating)}
        return frozenset(below | {nic.uid for part in self.want for nic in getattr(part, "nics", ())})

    @property
    def fate(self) -> Fate:
        return Fate.RETIRED if self.resource.retired else Fate.ELSEWHERE
