"""Actions run at most once, whatever breaks when.

Before it acts an agent records that it has begun, with its incarnation, in a transaction that only one can
win: nobody has begun it yet, and what it is done to is still bound here. What came of that transaction it
reads back when it is not told, and goes on only if the record is its own. What an earlier incarnation began
may or may not have happened: it is called interrupted and never done again. And as long as a result is not
recorded, the action counts as under way here, so that this incarnation does not do it twice either.
"""
from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Executor

from wisp.bell import Bell
from wisp.conditions import condition, over
from wisp.errors import Problem, StepFailed
from wisp.journal import LAG, Journal
from wisp.kinds import KINDS, Act
from wisp.ports import Machine
from wisp.resource import Json, Resource, dumps, now
from wisp.store import At, Born, Empty, Guard, Lost, Put, Span, Store
from wisp.store.mirror import Mirror
from wisp.world import World

log = logging.getLogger(__name__)
PAUSE = 1.0


class Actions:
    def __init__(self, node: str, incarnation: str, machine: Machine, store: Store, mirror: Mirror, world: World,
                 journal: Journal, pool: Executor, bell: Bell) -> None:
        self._node, self._incarnation, self._machine = node, incarnation, machine
        self._store, self._mirror, self._world, self._journal = store, mirror, world, journal
        self._pool, self._bell = pool, bell
        self._under_way: set[str] = set()
        self._stop = threading.Event()

    def stop(self) -> None:
        """Nobody waits for the store any longer to take a result."""
        self._stop.set()

    def consider(self, resource: Resource) -> None:
        """Takes up what is this node's to do; an interrupted one it calls so. Hold the mirror."""
        said = resource.statuses.get(self._node, {})
        if resource.binding["node"] != self._node or resource.uid in self._under_way or "finished_at" in said:
            return
        act = KINDS[resource.ref.kind].act(resource, self._world)
        if said and said["incarnation"] != self._mark(resource):
            at = self._world.revision_of(self._key(resource))
            self._submit(resource, lambda: self._interrupt(resource, said, at))
        elif act and (said or now() < act.until):
            self._submit(resource, lambda: self._perform(resource, act))

    def _submit(self, resource: Resource, work: Callable[[], bool]) -> None:
        self._under_way.add(resource.uid)
        self._pool.submit(self._run, resource, work)

    def _run(self, resource: Resource, work: Callable[[], bool]) -> None:
        """`work` tells whether it came to an end; else it is looked at anew."""
        ended = False
        try:
            ended = work()
        except Problem as problem:
            log.warning("%s: %s: %s", self._node, resource.ref, problem)
        except Exception:
            return log.exception("%s: %s", self._node, resource.ref)
        if not self._stop.is_set():
            self._under_way.discard(resource.uid)
            if not ended:
                self._bell.ring_later(resource.ref, PAUSE)
        return None

    def _perform(self, resource: Resource, act: Act) -> bool:
        begun = {"observed_generation": resource.intent.generation, "incarnation": self._mark(resource),
                 "started_at": now(), "conditions": [condition("Ready", "False", "Started", "", now())]}
        guards: list[Guard] = [At(resource.ref.key("intent"), resource.at), At(act.binding, act.at),
                               Empty(resource.ref.key("status") + "/")]
        if not (self._put(resource, begun, f"begins: {act.what}", *guards) or self._is_ours(resource)):
            return False
        log.info("%s: %s: %s", self._node, resource.ref, act.what)
        self._record(resource, *self._outcome(act, begun))
        return True

    def _outcome(self, act: Act, begun: Json) -> tuple[Json, str]:
        try:
            result = act.do(self._machine)
            return over({**begun, **result}, True, "Done", "", now()), act.what
        except StepFailed as failed:
            reason, message = failed.reason, failed.message
        except Exception:
            log.exception("%s: %s", self._node, act.what)
            reason, message = "InternalError", "A fault of the service; see its log."
        return over(begun, False, reason, message, now()), f"{act.what} failed: {reason}: {message}"

    def _record(self, resource: Resource, status: Json, says: str) -> None:
        """Until it is recorded, or there is nothing to record it of: not before may the action be looked at again."""
        while True:
            try:
                if self._put(resource, status, says, Born(resource.ref.key("intent"), resource.born)):
                    return
                with self._mirror.held():
                    found = self._world.resource(resource.ref)
                if found is None or found.uid != resource.uid:
                    return
            except Problem as problem:
                log.warning("%s: %s: %s", self._node, resource.ref, problem)
            if self._stop.wait(PAUSE):
                return

    def _interrupt(self, resource: Resource, said: Json, at: int) -> bool:
        message = "Its agent ended after it had begun; whether it was done is not known."
        status = over(said, False, "Interrupted", message, now())
        return self._put(resource, status, "interrupted", Born(resource.ref.key("intent"), resource.born),
                         At(self._key(resource), at))

    def _put(self, resource: Resource, status: Json, says: str, *guards: Guard) -> bool:
        """False when it lost."""
        try:
            self._journal.commit(resource.ref, guards, [Put(self._key(resource), dumps(status))],
                                 [f"{self._node}: {says}"])
            return True
        except Lost as lost:
            self._mirror.wait(lost.revision, LAG)
            return False

    def _is_ours(self, resource: Resource) -> bool:
        """Whether the store says that this incarnation has begun it, and no more."""
        found = self._store.read(Span(self._key(resource))).spans[0]
        said = json.loads(found[0].value) if found else {}
        return said.get("incarnation") == self._mark(resource) and "finished_at" not in said

    def _key(self, resource: Resource) -> str:
        return f"{resource.ref.key('status')}/{self._node}"

    def _mark(self, resource: Resource) -> str:
        """An incarnation may do one action, and another of the same name later."""
        return f"{self._incarnation} {resource.uid}"
