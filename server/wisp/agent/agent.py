"""The agent: makes its node what the documents say, turn by turn.

A turn takes the subjects that the bell names, works out what each should have here, looks at what it
has, and hands the difference to a pool: steps of one subject run in order, subjects side by side, those
that may take long (a download, a guest asked to power off) in a pool of their own. A subject under way is
not planned again until it ends. One that cannot be looked at, or whose steps fail, says so and backs off,
and its neighbours go on.

Before its first step for a resource the agent records that it holds it, guarded by the intent and the
binding: so nothing is built for what has just been retired, and nothing is forgotten that is held.
"""
from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from wisp.agent.actions import Actions
from wisp.agent.memory import Memory
from wisp.agent.report import Blocked, Failure, status, unseen
from wisp.agent.subject import Subject
from wisp.bell import Bell
from wisp.catalogue import Catalogue
from wisp.errors import Problem, StepFailed
from wisp.host import Host
from wisp.journal import LAG, Journal
from wisp.kinds import KINDS
from wisp.ports import Machine
from wisp.resource import PREFIX, Json, Ref, Resource, dumps, now
from wisp.steps import Fate, Step, Todo, plan, reap, take_down
from wisp.store import Absent, At, Born, Delete, Entry, Guard, Lost, Op, Put, Span, Store
from wisp.store.mirror import Mirror
from wisp.world import World, target_of

log = logging.getLogger(__name__)
WORKERS = 8
SLOW_WORKERS = 16
ACTION_WORKERS = 4
SLOW = {"fetch", "shut down"}
SAFETY = 60.0
PAUSE = 1.0


class Agent:
    def __init__(self, node: str, machine: Machine, store: Store, mirror: Mirror, world: World, catalogue: Catalogue,
                 journal: Journal, belongs: Callable[[str], bool], turned: Callable[[str, str], None],
                 stepped: Callable[[str, str, str], None], incarnation: str) -> None:
        """`belongs`: whether the cluster of this uid is the one that this node remembers.

        `turned` is told of each turn (node, outcome), `stepped` of each step (node, step, outcome).
        """
        self.node = node
        self._machine, self._store, self._mirror, self._world = machine, store, mirror, world
        self._catalogue, self._journal, self._belongs = catalogue, journal, belongs
        self._turned, self._stepped = turned, stepped
        self.bell = Bell()
        self._memory = Memory()
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix=f"{node}-step")
        self._slow = ThreadPoolExecutor(SLOW_WORKERS, thread_name_prefix=f"{node}-slow")
        self._acting = ThreadPoolExecutor(ACTION_WORKERS, thread_name_prefix=f"{node}-action")
        self._actions = Actions(node, incarnation, machine, store, mirror, world, journal, self._acting, self.bell)
        self._thread = threading.Thread(target=self._run, name=f"{node}-agent", daemon=True)
        self._stopping = False
        self._strange = False

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
        self._actions.stop()
        self.bell.stop()
        self._thread.join()
        for pool in (self._slow, self._pool, self._acting):
            pool.shutdown(wait=True, cancel_futures=True)

    # --- who rings

    def _heard(self, old: Entry | None, new: Entry | None) -> None:
        key = (new or old).key  # type: ignore[union-attr]
        if key.startswith((f"{PREFIX}intent/", f"{PREFIX}binding/")):
            self.bell.ring(self._touched(Ref.of_key(key)[1]))
        elif key.startswith(f"{PREFIX}ref/"):
            self.bell.ring([Ref.of_key(key)[1]])
        elif key.startswith(f"{PREFIX}status/-/node/"):
            self.bell.ring_all()

    def _touched(self, ref: Ref) -> Iterator[Ref]:
        """A resource, what it refers to, and what leans on it."""
        yield ref
        yield from self._world.leaning(ref)
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
            began, outcome = time.thread_time(), "failed"
            try:
                outcome = "done" if self._turn(refs) else "failed"
            except Problem as problem:
                log.warning("%s: %s", self.node, problem)
                self._again(refs)
            except Exception:
                log.exception("%s: a turn failed", self.node)
                self._again(refs)
            self._turned(self.node, outcome)
            if refs is None:
                due = time.monotonic() + max(SAFETY, 500 * (time.thread_time() - began)) * random.uniform(0.9, 1.1)

    def _again(self, refs: set[Ref] | None) -> None:
        for ref in [None] if refs is None else refs:
            self.bell.ring_later(ref, PAUSE)

    def _turn(self, refs: set[Ref] | None) -> bool:
        """Whether all that was asked for could be looked at."""
        busy = self._memory.busy()
        with self._mirror.held():
            if not self._belongs(self._world.cluster):
                if not self._strange:
                    log.error("%s: this store is of another cluster than this node; waiting", self.node)
                self._strange = True
                self._again(refs)
                return False
            self._strange = False
            gone = self._world.gone(self.node)
            subjects = [] if gone else list(self._subjects(refs))
        if gone:
            self._stand_down()
            return True
        try:
            have = self._observe(None if refs is None else subjects)
        except Exception as error:
            log.warning("%s: looking at one after the other: %s", self.node, error)
            self._one_by_one(subjects, busy)
            return False
        for subject in subjects:
            self._attend(subject, have, busy)
        if refs is None:
            self._reap(have, frozenset().union(*(each.tokens | each.needs for each in subjects)))
        return True

    def _subjects(self, refs: set[Ref] | None) -> Iterator[Subject]:
        chosen = self._world.everything() if refs is None else filter(None, map(self._world.resource, refs))
        for resource in chosen:
            try:
                if self._catalogue.kinds[resource.ref.kind].imperative:
                    self._actions.consider(resource)
                elif subject := self._subject(resource):
                    yield subject
            except Exception:
                log.exception("%s: %s: cannot be understood", self.node, resource.ref)

    def _subject(self, resource: Resource) -> Subject | None:
        kind = KINDS[resource.ref.kind]
        here = not resource.retired and self.node in kind.places(resource, self._world)
        if not (here or self.node in resource.statuses):
            return None
        want = Host.of(kind.manifest(resource, self._world, self.node)) if here else Host()
        return Subject(resource, want, here, self._world.revision_of(self._key(resource.ref)))

    def _observe(self, subjects: Sequence[Subject] | None) -> Host:
        """What there is of these subjects and of what they stand on; None: everything."""
        tokens = None if subjects is None else frozenset().union(*(each.tokens | each.needs for each in subjects))
        uids = tokens if tokens is None else [token for token in tokens if ":" not in token]
        hypervisor, fabric, depot = self._machine.hypervisor, self._machine.fabric, self._machine.depot
        return Host.of([*hypervisor.observe(uids), *fabric.observe(uids), *depot.observe(tokens)])

    def _one_by_one(self, subjects: Sequence[Subject], busy: frozenset[str]) -> None:
        """When a look at many fails: whatever spoils it spoils it for its own subject only."""
        for subject in subjects:
            try:
                have = self._observe([subject])
            except StepFailed as failed:
                self._unseen(subject, failed)
            except Exception:
                log.exception("%s: %s: cannot be looked at", self.node, subject.ref)
                self._unseen(subject, StepFailed("ObserveFailed", "A fault of the service; see its log."))
            else:
                self._attend(subject, have, busy)

    def _unseen(self, subject: Subject, failed: StepFailed) -> None:
        failure, _ = self._failed(subject, failed)
        if before := subject.resource.statuses.get(self.node):
            self._write(subject, before, unseen(subject.resource, before, failure, now()))

    def _attend(self, subject: Subject, have: Host, busy: frozenset[str]) -> None:
        """Plans for one subject; hands its steps to a pool, or says what is. `busy`: when looking began."""
        if not self._memory.begin(subject):
            return
        if subject.tokens & busy:       # its steps ended while we looked: what we saw may be from before
            self._memory.end(subject)
            self.bell.ring([subject.ref])
            return
        own = have.only(subject.tokens)
        todo = plan(subject.want, own, have) if subject.here else take_down(own, subject.fate)
        self._memory.wait(subject.ref, (wait.token for wait in todo.waits))
        failure, due = self._memory.failure(subject)
        if todo.steps and due:
            slow = any(step.verb in SLOW for step in todo.steps)
            (self._slow if slow else self._pool).submit(self._work, subject, todo, own, failure)
            return
        self._memory.end(subject)
        said = self._say(subject, todo, own, failure if todo.steps else None)
        self.bell.ring([*self._memory.waiters(subject), *(() if said else (subject.ref,))])

    def _work(self, subject: Subject, todo: Todo, own: Host, last: Failure | None) -> None:
        """Runs the steps of a subject, in order, and rings for it and for those that wait for it."""
        told, pause = list[str](), 0.0
        try:
            if self._say(subject, todo, own, last, proved=True):
                for step in todo.steps:
                    log.info("%s: %s: %s", self.node, subject.ref, step)
                    self._do(step)
                    told.append(f"{self.node}: {step}")
                self._memory.forgive(subject.ref)
        except StepFailed as failed:
            failure, news = self._failed(subject, failed)
            told += [f"{self.node}: {step} failed: {failure.reason}: {failure.message}"] if news else []
        except Problem as problem:
            log.warning("%s: %s: %s", self.node, subject.ref, problem)
            pause = PAUSE
        except Exception:
            log.exception("%s: %s: a step failed", self.node, subject.ref)
            self._failed(subject, StepFailed("InternalError", "A fault of the service; see its log."))
        finally:
            self._ended(subject, told, pause)

    def _ended(self, subject: Subject, told: list[str], pause: float) -> None:
        """Rings for it, for those that wait for it, and for those that stand on it: a rebuilt bridge has no ports."""
        self._memory.end(subject)
        try:
            self._put(subject, [], says=told)
        finally:
            waiting = self._memory.waiters(subject)
            self.bell.ring([*waiting, *(self._world.leaning(subject.ref) if told else ())])
            self.bell.ring_later(subject.ref, pause)

    def _failed(self, subject: Subject, failed: StepFailed) -> tuple[Failure, bool]:
        """Keeps the failure and rings when it may be tried again; whether it is news."""
        failure, delay, news = self._memory.fail(subject, failed)
        log.warning("%s: %s: %s: %s", self.node, subject.ref, failed.reason, failed.message)
        self.bell.ring_later(subject.ref, delay)
        return failure, news

    # --- what is said

    def _key(self, ref: Ref) -> str:
        return f"{ref.key('status')}/{self.node}"

    def _say(self, subject: Subject, todo: Todo, own: Host, failure: Failure | None, proved: bool = False) -> bool:
        """Records the status if it moved, or that nothing is held any more. False: the documents moved.

        `proved`: steps will follow, so the store must say that the documents are still what they were.
        """
        resource, before = subject.resource, subject.resource.statuses.get(self.node)
        if not subject.here:
            gone = before is not None and not own.parts
            return self._put(subject, [Delete(self._key(subject.ref))] if gone else [], proved=proved)
        done, effective = KINDS[resource.ref.kind].told(resource, own)
        blocked = [Blocked(wait.what, self._memory.failure_of(wait.token)) for wait in todo.waits]
        return self._write(subject, before, status(resource, before or {}, todo, done, effective, failure, blocked,
                                                   now()), proved)

    def _write(self, subject: Subject, before: Json | None, fresh: Json, proved: bool = False) -> bool:
        ops = [Put(self._key(subject.ref), dumps(fresh))] if fresh != before else []
        return self._put(subject, ops, proved=proved or bool(ops))

    def _put(self, subject: Subject, ops: Sequence[Op], says: Sequence[str] = (), proved: bool = False) -> bool:
        """A write about a resource as long as it lives; False when it lost.

        The first word on it is a hold: guarded by the very intent and binding that were planned from.
        """
        if not (ops or says or proved):
            return True
        alive = Born(subject.ref.key("intent"), subject.resource.born)
        guards = [alive, *(self._hold(subject) if proved or ops else ())]
        try:
            self._journal.commit(subject.ref, guards, ops, says)
            return True
        except Lost as lost:
            self._mirror.wait(lost.revision, LAG)
            return False

    def _hold(self, subject: Subject) -> list[Guard]:
        resource, bound = subject.resource, subject.ref.key("binding")
        if subject.said_at:
            return [At(self._key(subject.ref), subject.said_at)]
        binding = At(bound, resource.bound_at) if resource.bound_at else Absent(bound)
        return [At(subject.ref.key("intent"), resource.at), binding, Absent(self._key(subject.ref))]

    # --- what nobody wishes for

    def _reap(self, have: Host, wanted: frozenset[str]) -> None:
        known = frozenset(part.token for part in have if self._world.of_uid(part.token)) | wanted
        steps = reap(have, known)
        for step in steps:
            self._reaped(step)
        for token in sorted({part.token for part in have} - known - {step.part.token for step in steps}):
            log.warning("%s: orphan: %s is in no document", self.node, token)

    def _stand_down(self) -> None:
        """This node is gone for good: all that it had here may be another's by now. What holds data stays."""
        for step in take_down(self._observe(None), Fate.ELSEWHERE).steps:
            self._reaped(step)

    def _reaped(self, step: Step) -> None:
        try:
            log.info("%s: reaping: %s", self.node, step)
            self._do(step)
        except StepFailed as failed:
            log.warning("%s: %s: %s", self.node, step, failed.message)

    def _do(self, step: Step) -> None:
        outcome = "Interrupted"
        try:
            step.do(self._machine, self._user_data)
            outcome = "done"
        except StepFailed as failed:
            outcome = failed.reason
            raise
        finally:
            self._stepped(self.node, f"{step.verb} {type(step.part).__name__.lower()}", outcome)

    def _user_data(self, key: str) -> str | None:
        view = self._store.read(Span(key))
        if not view.spans[0]:
            raise StepFailed("UserDataMissing", "The user data that was given is not in the store any more.")
        return view.spans[0][0].value.decode()
