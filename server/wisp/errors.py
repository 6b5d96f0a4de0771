"""What can go wrong, in the caller's words.

One closed family. Everything that reaches a user is a `Problem` whose `code` is in the registry
(`schemas/errors.json`); the registry says which HTTP status and title belong to a code and whether
asking again can help. Adapters translate at their door: nothing above floor 4 sees a foreign
exception. What a step of an agent runs into is a `StepFailed`, which becomes a condition.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a document: where (RFC 6901 pointer), which rule, and what to do."""

    pointer: str
    code: str
    detail: str


class Problem(Exception):
    """A refusal or failure that the caller is told of.

    code     stable, from `schemas/errors.json`
    detail   one sentence to act on; never a secret, never an interpreter's words
    faults   what is wrong where, when a document is to blame
    extra    further members of the problem document (`stage`, `requested`, …)
    """

    def __init__(self, code: str, detail: str, faults: Sequence[Fault] = (), *,
                 retry_after: int | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.faults = tuple(faults)
        self.retry_after = retry_after
        self.extra: Mapping[str, Any] = extra


def refuse(faults: Sequence[Fault], code: str) -> None:
    """Raises the problem that these faults are, if there are any."""
    if faults:
        raise Problem(code, f"{faults[0].pointer}: {faults[0].detail}", faults)


class StepFailed(Exception):
    """A step of an agent did not work out.

    reason    one CamelCase word for the condition: `DownloadFailed`, `DiskLost`
    message   one sentence for the person who reads the condition
    patience  how many attempts in a row make it a lasting failure: 1 at once, None never
    """

    def __init__(self, reason: str, message: str, *, patience: int | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.patience = patience
