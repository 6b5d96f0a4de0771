"""The agent: makes its node what the documents say, turn by turn.

A turn takes the subjects that the bell names, works out what each should have here, looks at what it
has, and hands the difference to a pool: steps of one subject run in order, subjects side by side, and a
slow one (a download) holds up nobody, for a subject under way is not planned again until it ends. What a
turn needs to know it reads from the documents and the machine; what an agent itself remembers (failures
and their back-off, who waits for whom) may be lost at any moment.

Before its first step for a resource the agent records that it holds it, guarded by the intent and the
binding: so nothing is built for what has just been retired, and nothing is forgotten that is held.
"""
from __future__ import annotations

import logging
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from wisp.agent.bell import Bell
from wisp.agent.report import Blocked, Failure, status
from wisp.catalogue import Catalogue
from wisp.errors import Problem, StepFailed
from wisp.host import Host
from wisp.journal import LAG, Journal
from wisp.kinds import KINDS
from wisp.ports import Machine
from wisp.resource import PREFIX, Ref, Resource, dumps, now
from wisp.steps import Fate, Step, Todo, plan, reap, take_down
from wisp.store import Absent, At, Born, Delete, Entry, Guard, Lost, Op, Put, Span, Store
from wisp.store.mirror import Mirror
from wisp.world import World, target_of

log = logging.getLogger(__name__)
WORKERS = 8
SAFETY = 60.0
PAUSE = 1.0
SLOWEST_RETRY = 60.0


@dataclass(frozen=True, slots=True)
class Subject:
    """A resource as this node is concerned with it. `here`: it should have parts here."""

    resource: Resource
    want: Host
    here: bool

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
        return frozenset(below | {nic.uid for part in self.want for nic in getattr(part, "nics", ())})

    @property
    def fate(self) -> Fate:
        return Fate.RETIRED if self.resource.retired else Fate.ELSEWHERE


class Agent:
    def __init__(self, node: str, machine: Machine, store: Store, mirror: Mirror, world: World, catalogue: Catalogue,
                 journal: Journal, belongs: Callable[[str], bool]) -> None:
        """`belongs`: whether the cluster of this uid is the one that this node remembers."""
        self.node = node
        self._machine, self._store, self._mirror, self._world = machine, store, mirror, world
        self._catalogue, self._journal, self._belongs = catalogue, journal, belongs
        self.bell = Bell()
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix=f"{node}-step")
        self._thread = threading.Thread(target=self._run, name=f"{node}-agent", daemon=True)
        self._state = threading.Lock()
        self._under_way: dict[Ref, frozenset[str]] = {}
        self._failures: dict[Ref, tuple[Failure, float]] = {}
        self._waiting: dict[str, set[Ref]] = defaultdict(set)
        self._stopping = False

    def start(self) -> None:
        """The mirror must be loaded."""
        self._mirror.listen(self._heard)
        self.bell.ring_all()
        self._machine.hypervisor.watch(self._moved)
        self._machine.fabric.watch(self._moved)
        self._thread.start()

    def stop(self) -> None:
        """Ends after the steps under way; what they leave undone the next start finds."""
        self._stopping = True
        self.bell.stop()
        self._thread.join()
        self._pool.shutdown(wait=True, cancel_futures=True)

    # --- who rings

    def _heard(self, old: Entry | None, new: Entry | None) -> None:
        key = (new or old).key  # type: ignore[union-attr]
        if key.startswith((f"{PREFIX}intent/", f"{PREFIX}binding/")):
            self.bell.ring(self._touched(Ref.of_key(key)[1], old))
        elif key.startswith(f"{PREFIX}ref/"):
            self.bell.ring([Ref.of_key(key)[1]])
        elif key.startswith(f"{PREFIX}status/-/node/"):
            self.bell.ring_all()

    def _touched(self, ref: Ref, old: Entry | None) -> Iterator[Ref]:
        """A resource, what it refers to, and what refers to it."""
        yield ref
        yield from self._world.referrers(ref)
        if resource := self._world.resource(ref):
            for each in self._catalogue.kinds[ref.kind].references(resource.spec):
                yield target_of(each.kind, each.name, ref.namespace, self._catalogue.cluster_kinds)

    def _moved(self, token: str | None) -> None:
        ref = self._world.of_uid(token) if token else None
        if ref:
            self.bell.ring([ref])
        elif token is None:
            self.bell.ring_all()

    # --- a turn

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stopping:
            refs = self.bell.listen(due)
            if self._stopping:
                return
            began = time.thread_time()
            try:
                self._turn(refs)
            except StepFailed as failed:
                log.warning("%s: cannot look at the machine: %s", self.node, failed.message)
                self._again(refs)
            except Problem as problem:
                log.warning("%s: %s", self.node, problem)
                self._again(refs)
            except Exception:
                log.exception("%s: a turn failed", self.node)
                self._again(refs)
            if refs is None:
                due = time.monotonic() + max(SAFETY, 500 * (time.thread_time() - began)) * random.uniform(0.9, 1.1)

    def _again(self, refs: set[Ref] | None) -> None:
        timer = threading.Timer(PAUSE, lambda: self.bell.ring_all() if refs is None else self.bell.ring(refs))
        timer.daemon = True
        timer.start()

    def _turn(self, refs: set[Ref] | None) -> None:
        busy = self._busy()
        with self._mirror.held():
            if not self._belongs(self._world.cluster):
                log.error("%s: this store is of another cluster than this node; waiting", self.node)
                return self._again(refs)
            subjects = list(self._subjects(refs))
        tokens = None if refs is None else frozenset().union(*(each.tokens | each.needs for each in subjects))
        have = self._observe(tokens)
        for subject in subjects:
            self._attend(subject, have, busy)
        if refs is None:
            self._reap(have, frozenset().union(*(each.tokens | each.needs for each in subjects)))
        return None

    def _subjects(self, refs: set[Ref] | None) -> Iterator[Subject]:
        chosen = self._world.everything() if refs is None else filter(None, map(self._world.resource, refs))
        for resource in chosen:
            kind = KINDS[resource.ref.kind]
            here = not resource.retired and self.node in kind.places(resource, self._world)
            if here or self.node in resource.statuses:
                want = Host.of(kind.manifest(resource, self._world, self.node)) if here else Host()
                yield Subject(resource, want, here)

    def _observe(self, tokens: frozenset[str] | None) -> Host:
        uids = tokens if tokens is None else [token for token in tokens if ":" not in token]
        hypervisor, fabric, depot = self._machine.hypervisor, self._machine.fabric, self._machine.depot
        return Host.of([*hypervisor.observe(uids), *fabric.observe(uids), *depot.observe(tokens)])

    def _busy(self) -> frozenset[str]:
        """Tokens with steps under way."""
        with self._state:
            return frozenset().union(*self._under_way.values())

    def _attend(self, subject: Subject, have: Host, busy: frozenset[str]) -> None:
        """Plans for one subject; hands its steps to the pool, or says what is. `busy`: when looking began."""
        own = have.only(subject.tokens)
        with self._state:
            if any(subject.tokens & tokens for tokens in self._under_way.values()):
                for token in subject.tokens:
                    self._waiting[token].add(subject.ref)
                return
            if subject.tokens & busy:       # its steps ended while we looked: what we saw may be from before
                self.bell.ring([subject.ref])
                return
            todo = plan(subject.want, own, have) if subject.here else take_down(own, subject.fate)
            failure, until = self._failures.get(subject.ref, (None, 0.0))
            if failure and failure.generation != subject.resource.intent.generation:
                failure, until = None, 0.0
                del self._failures[subject.ref]
            for wait in todo.waits:
                self._waiting[wait.token].add(subject.ref)
            go = bool(todo.steps) and time.monotonic() >= until
            if go:
                self._under_way[subject.ref] = subject.tokens
            waiting = set() if go else self._waiters(subject)
        if go:
            self._pool.submit(self._work, subject, todo, own)
        else:
            said = self._say(subject, todo, own, failure if todo.steps else None)
            self.bell.ring(waiting if said else {subject.ref, *waiting})

    def _waiters(self, subject: Subject) -> set[Ref]:
        """Who waits for it, to be rung now."""
        return set().union(*(self._waiting.pop(token, set()) for token in subject.tokens))

    def _work(self, subject: Subject, todo: Todo, own: Host) -> None:
        """Runs the steps of a subject, in order, and rings for it and for those that wait for it."""
        ref, failure, done, pause = subject.ref, None, [], 0.0
        try:
            with self._state:
                last = self._failures.get(ref, (None, 0.0))[0]
            if self._say(subject, todo, own, last):
                for step in todo.steps:
                    log.info("%s: %s: %s", self.node, ref, step)
                    step.do(self._machine, self._user_data)
                    done.append(f"{self.node}: {step}")
        except StepFailed as failed:
            failure = self._failed(subject, failed)
            done.append(f"{self.node}: {step} failed: {failed.reason}: {failed.message}")
        except Problem as problem:
            log.warning("%s: %s: %s", self.node, ref, problem)
            pause = PAUSE
        except Exception:
            log.exception("%s: %s: a step failed", self.node, ref)
            failure = self._failed(subject, StepFailed("InternalError", "A fault of the service; see its log."))
        finally:
            self._ended(subject, failure, done, pause)

    def _ended(self, subject: Subject, failure: Failure | None, done: list[str], pause: float) -> None:
        """Rings for it, for those that wait for it, and for those that stand on it: a rebuilt bridge has no ports."""
        with self._state:
            if failure is None:
                self._failures.pop(subject.ref, None)
            self._under_way.pop(subject.ref, None)
            waiting = self._waiters(subject)
        try:
            self._put(subject, [], says=done)
        finally:
            self.bell.ring([*waiting, *(self._world.referrers(subject.ref) if done else ())])
            self.bell.ring_later(subject.ref, pause)

    def _failed(self, subject: Subject, failed: StepFailed) -> Failure:
        with self._state:
            before = self._failures.get(subject.ref, (None, 0.0))[0]
            attempts = before.attempts + 1 if before and before.reason == failed.reason else 1
            lasting = failed.patience is not None and attempts >= failed.patience
            failure = Failure(failed.reason, failed.message, attempts, lasting, subject.resource.intent.generation)
            delay = min(SLOWEST_RETRY, 2.0 ** (attempts - 1)) * random.uniform(0.8, 1.2)
            self._failures[subject.ref] = failure, time.monotonic() + delay
        log.warning("%s: %s: %s: %s", self.node, subject.ref, failed.reason, failed.message)
        self.bell.ring_later(subject.ref, delay)
        return failure

    # --- what is said

    def _say(self, subject: Subject, todo: Todo, own: Host, failure: Failure | None) -> bool:
        """Records the status if it moved, or that nothing is held any more. False: the documents moved."""
        resource, before = subject.resource, subject.resource.statuses.get(self.node)
        key = f"{resource.ref.key('status')}/{self.node}"
        if not subject.here:
            gone = before is not None and not own.parts
            return self._put(subject, [Delete(key)] if gone else [])
        done, effective = KINDS[resource.ref.kind].told(resource, own)
        fresh = status(resource, before or {}, todo, done, effective, failure, self._blocked(todo), now())
        if fresh == before:
            return True
        return self._put(subject, [Put(key, dumps(fresh))], *(self._hold(resource, key) if before is None else ()))

    def _hold(self, resource: Resource, key: str) -> list[Guard]:
        """The first word is a hold: of this very intent and binding."""
        bound = resource.ref.key("binding")
        binding = At(bound, resource.bound_at) if resource.bound_at else Absent(bound)
        return [At(resource.ref.key("intent"), resource.at), binding, Absent(key)]

    def _blocked(self, todo: Todo) -> Iterator[Blocked]:
        for wait in todo.waits:
            yield Blocked(wait.what, self._failure_of(wait.token))

    def _failure_of(self, token: str) -> Failure | None:
        with self._state:
            for ref, (failure, _) in self._failures.items():
                resource = self._world.resource(ref)
                if resource and token in (resource.uid, f"sha256:{resource.spec.get('sha256')}"):
                    return failure
        return None

    def _put(self, subject: Subject, ops: Sequence[Op], *guards: Guard, says: Sequence[str] = ()) -> bool:
        """A write about a resource as long as it lives; False when it lost."""
        if not (ops or says):
            return True
        alive = Born(subject.ref.key("intent"), subject.resource.born)
        try:
            self._journal.commit(subject.ref, [alive, *guards], ops, says)
            return True
        except Lost as lost:
            self._mirror.wait(lost.revision, LAG)
            return False

    # --- what nobody wishes for

    def _reap(self, have: Host, wanted: frozenset[str]) -> None:
        known = frozenset(part.token for part in have if self._world.of_uid(part.token)) | wanted
        steps = reap(have, known)
        for step in steps:
            self._reaped(step)
        for token in sorted({part.token for part in have} - known - {step.part.token for step in steps}):
            log.warning("%s: orphan: %s is in no document", self.node, token)

    def _reaped(self, step: Step) -> None:
        try:
            log.info("%s: reaping: %s", self.node, step)
            step.do(self._machine, lambda _: None)
        except StepFailed as failed:
            log.warning("%s: %s: %s", self.node, step, failed.message)

    def _user_data(self, key: str) -> str | None:
        view = self._store.read(Span(key))
        return view.spans[0][0].value.decode() if view.spans[0] else None

    @property
    def idle(self) -> bool:
        with self._state:
            return not self._under_way
