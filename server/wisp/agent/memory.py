"""What an agent remembers between turns, all of which may be lost at any moment.

Which subjects have steps under way, which of them failed and when they may be tried again, and who waits
for whom. Nothing of it is a fact about the machine: after a restart the next turn finds out anew.
"""
from __future__ import annotations

import random
import threading
import time
from collections import defaultdict
from collections.abc import Iterable

from wisp.agent.report import Failure
from wisp.agent.subject import Subject
from wisp.errors import StepFailed
from wisp.resource import Ref

SLOWEST_RETRY = 60.0


class Memory:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[Ref, frozenset[str]] = {}
        self._failures: dict[Ref, tuple[Failure, float, frozenset[str]]] = {}
        self._waiting: dict[str, set[Ref]] = defaultdict(set)

    def busy(self) -> frozenset[str]:
        """Tokens with steps under way."""
        with self._lock:
            return frozenset().union(*self._under_way.values())

    def begin(self, subject: Subject) -> bool:
        """Takes the subject's tokens; False, and it waits for them, when another has some."""
        with self._lock:
            if any(subject.tokens & tokens for tokens in self._under_way.values()):
                self._wait(subject.ref, subject.tokens)
                return False
            self._under_way[subject.ref] = subject.tokens
            return True

    def end(self, subject: Subject) -> None:
        with self._lock:
            self._under_way.pop(subject.ref, None)

    def wait(self, ref: Ref, tokens: Iterable[str]) -> None:
        """It is to be rung when something moved at one of the tokens."""
        with self._lock:
            self._wait(ref, tokens)

    def _wait(self, ref: Ref, tokens: Iterable[str]) -> None:
        for token in tokens:
            self._waiting[token].add(ref)

    def waiters(self, subject: Subject) -> set[Ref]:
        """Who waits for it, to be rung now."""
        with self._lock:
            return set().union(*(self._waiting.pop(token, set()) for token in subject.tokens))

    def failure(self, subject: Subject) -> tuple[Failure | None, bool]:
        """How it failed last, if it did since its document moved; whether it may be tried now."""
        with self._lock:
            failure, until, _ = self._failures.get(subject.ref, (None, 0.0, frozenset()))
            if failure and failure.generation != subject.resource.intent.generation:
                del self._failures[subject.ref]
                return None, True
            return failure, time.monotonic() >= until

    def fail(self, subject: Subject, failed: StepFailed) -> tuple[Failure, float, bool]:
        """Keeps a failure: what it is now, seconds until the next attempt, and whether it is news."""
        with self._lock:
            before, _, _ = self._failures.get(subject.ref, (None, 0.0, frozenset()))
            same = before is not None and before.reason == failed.reason
            attempts = before.attempts + 1 if before and same else 1
            lasting = failed.patience is not None and attempts >= failed.patience
            failure = Failure(failed.reason, failed.message, attempts, lasting, subject.resource.intent.generation)
            delay = min(SLOWEST_RETRY, 2.0 ** (attempts - 1)) * random.uniform(0.8, 1.2)
            self._failures[subject.ref] = failure, time.monotonic() + delay, subject.tokens
            return failure, delay, not same or lasting != (before is not None and before.lasting)

    def forgive(self, ref: Ref) -> None:
        with self._lock:
            self._failures.pop(ref, None)

    def failure_of(self, token: str) -> Failure | None:
        """Of the subject that has this token, if it failed."""
        with self._lock:
            return next((failure for failure, _, tokens in self._failures.values() if token in tokens), None)
