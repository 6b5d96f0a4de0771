"""A cloud with two doors, walked at random beside its model.

The doors are two services over one store, so what one writes the other must know at once. `overlap` lets other
operations come through the second door at the very moment when one, decided at the first, is about to be
committed: the answers, and the books afterwards, must be those of one order or another. There is no agent: its
part is played step by step (`hold`, `let_go`). So neither the clock nor chance decides what happens, and a
divergence is found again and made small.
"""
from __future__ import annotations

import json
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from model import (
    OVERCOMMIT,
    SYSTEM,
    Answer,
    Delete,
    Divergence,
    Doc,
    Get,
    Hold,
    Model,
    Operation,
    Put,
    agree,
    hosts,
    named_by,
)
from wishes import (
    FURNITURE,
    HELD,
    HOMES,
    PLAIN,
    QUOTAS,
    ROOTS,
    SPECS,
    Draft,
    doors,
    metadata,
    of,
    operations,
    picks,
    rivals,
    whos,
)

from wisp.admission import stray_claims
from wisp.errors import Problem
from wisp.kinds import KINDS
from wisp.resource import CLUSTER, PREFIX, Intent, Ref, dumps, namespace_ref, node_key, node_ref, now
from wisp.service import ITSELF, Service
from wisp.store import At, Clear, Guard, Op, Span, Store, under
from wisp.store import Put as PutKey
from wisp.upkeep import Upkeep

ROOT = Ref("key", SYSTEM, "admin")
ASIDE = tuple(f"{PREFIX}{part}" for part in ("cluster", "node/", "fence/", "event/", "status/"))
"""Keys that do not follow from the documents alone."""
PATIENCE = 5.0


class Line:
    """A door's line to the store. `meanwhile` happens when the thread that said so is about to commit."""

    def __init__(self, store: Store, blind: Callable[[Guard], bool]) -> None:
        self._store, self._blind = store, blind
        self._says = threading.local()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def meanwhile(self, happens: Callable[[], None]) -> None:
        self._says.happens = happens

    def commit(self, guards: Sequence[Guard], ops: Sequence[Op]) -> int:
        happens = self._says.__dict__.pop("happens", None)
        if happens:
            happens()
        return self._store.commit([guard for guard in guards if not self._blind(guard)], ops)


def sighted(guard: Guard) -> bool:
    return False


class Operations(RuleBasedStateMachine):
    """`blind`: guards that the store is not told of, to see that this is found."""

    nodes: ClassVar[dict[str, Any]] = {"n1": {"cpus": 2, "memory_mib": 640, "disk_gib": 12},
                                       "n2": {"cpus": 1, "memory_mib": 320, "disk_gib": 10}}
    steps = 0
    ends: ClassVar[Counter[str]] = Counter()

    def __init__(self, stores: Sequence[Store], blind: Callable[[Guard], bool] = sighted) -> None:
        super().__init__()
        self.store = stores[0]
        self.store.commit([], [Clear(PREFIX)])
        self.lines = [Line(store, blind) for store in stores]
        self.doors = self.opened()
        self.begin()

    def opened(self) -> list[Service]:
        doors = [self.open(line) for line in self.lines]
        doors[0].ensure_namespace(SYSTEM)
        for name, facts in self.nodes.items():
            ref, status = node_ref(name), {"observed_generation": 1, "conditions": [_ready()], **facts}
            joined = Intent(ref, str(uuid.uuid4()), 1, now(), now(), doors[0].catalogue.kinds["node"].filled({}))
            self.store.commit([], [PutKey(ref.key("intent"), joined.dump()), PutKey(node_key(name), dumps({"incarnation": "1"})),
                                   PutKey(f"{ref.key('status')}/{name}", dumps(status))])
        return doors

    def open(self, line: Any) -> Service:
        service = Service(line)
        service.start("fuzz")
        return service

    def begin(self) -> None:
        first = self.doors[0]
        self.root = first.admin_token()
        self.tokens, self.catalogue = [self.root], first.catalogue
        shown = [first.resources.get(ITSELF, ref) for ref in self.recorded()]
        docs = [Doc(Ref(each["kind"], each.get("namespace", CLUSTER), each["name"]), each["uid"], each["generation"],
                    each["spec"], each["metadata"], {}, each["binding"], held=each["kind"] == "node",
                    token=self.root if each["kind"] == "key" else "") for each in shown]
        self.model = Model(self.catalogue, self.nodes, {doc.ref: doc for doc in docs})
        for ref, spec in FURNITURE.items():
            op = Put(self.root, ref, spec, {})
            self.model = self.model.after(op, self.ask(0, op))

    def teardown(self) -> None:
        for door in self.doors:
            door.stop()

    def recorded(self) -> list[Ref]:
        return [Ref.of_key(entry.key)[1] for entry in self.store.read(under(f"{PREFIX}intent/")).spans[0]]

    def token(self, who: int, home: str) -> str:
        """Of those who are not the administrator, every other one is of that namespace, if anyone is."""
        known = [*reversed(self.tokens)]
        if who % 2:
            known = [token for token in known if (self.model.caller(token) or ("",))[0] == home] or known
        return self.root if who < ROOTS else known[(who - ROOTS) // 2 % len(known)]

    def again(self, who: int, ref: Ref, changed: dict[str, Any]) -> Put:
        known, was = self.catalogue.kinds[ref.kind].document["properties"], self.model.docs.get(ref)
        spec = {**(was.spec if was else PLAIN[ref.kind]), **{name: value for name, value in changed.items() if name in known}}
        return Put(self.token(who, ref.namespace), ref, spec, was.metadata if was else {})

    def ground_of(self, op: Operation) -> set[Ref]:
        token = "" if isinstance(op, Hold) else op.token
        bearer = {ref for ref, doc in self.model.docs.items() if token and doc.token == token and ref != ROOT}
        home = {namespace_ref(op.ref.namespace)} if op.ref.namespace != CLUSTER else set()
        nodes = {node_ref(name) for name in self.nodes} if op.ref.kind == "instance" else set()
        named = named_by(op.ref, op.spec) if isinstance(op, Put) else set()
        return {op.ref} | bearer | home | nodes | named

    def something(self, pick: int, otherwise: Ref) -> Ref:
        """What is there, most often an instance."""
        there = sorted(ref for ref in self.model.docs if ref.kind in SPECS and ref != ROOT)
        there += [ref for ref in there if ref.kind == "instance"] * 4
        return there[pick % len(there)] if there else otherwise

    def tag(self, ref: Ref, condition: str) -> str | None:
        now = self.model.docs[ref].etag if ref in self.model.docs else '"nothing-1"'
        return {"now": now, "stale": '"something-else"', "any": "*"}.get(condition)

    # --- asking

    def ask(self, door: int, op: Operation, **said: Any) -> Answer:
        if isinstance(op, Hold):
            return self.begun(op.ref)
        resources = self.doors[door].resources
        try:
            caller = resources.authenticate(f"Bearer {op.token}")
            if isinstance(op, Delete):
                resources.delete(caller, op.ref, if_match=op.if_match)
                return Answer("done", {})
            if isinstance(op, Get):
                return Answer("done", resources.get(caller, op.ref))
            body = {"spec": op.spec, "metadata": op.metadata}
            outcome = resources.put(caller, op.ref, body, if_match=op.if_match, create_only=op.create_only, **said)
        except Problem as problem:
            return Answer(problem.code, {})
        if token := outcome.document.get("token"):
            self.tokens.append(token)
        elif "secret" in op.spec and op.ref.kind == "key" and not said:
            self.tokens.append(f"wisp_{outcome.document['binding']['key_id']}_{op.spec['secret']}")
        self.tokens = [*dict.fromkeys(self.tokens)][-12:]
        return Answer("created" if outcome.created else "done", outcome.document)

    def begun(self, ref: Ref) -> Answer:
        """As an agent does it: at the intent, which must not be retired."""
        intent, binding = self.store.read(Span(ref.key("intent")), Span(ref.key("binding"))).spans
        if not intent or Intent.load(ref, intent[0].value).retired:
            return Answer("done", {})
        node = json.loads(binding[0].value).get("node", "n1") if binding else "n1"
        made = [*range(len(Intent.load(ref, intent[0].value).spec["disks"]))] if ref.kind == "instance" else []
        status = {"observed_generation": 1, "conditions": [_ready()], **({"disks_made": made} if made else {})}
        self.store.commit([At(ref.key("intent"), intent[0].revision)], [PutKey(f"{ref.key('status')}/{node}", dumps(status))])
        return Answer("done", {})

    @rule(door=doors, draft=operations, foretold=st.booleans(), who=whos, tags=metadata)
    def act(self, door: int, draft: Draft, foretold: bool, who: int, tags: dict[str, str]) -> None:
        """One operation, perhaps rehearsed at the other door before; then somebody looks, also at the other one."""
        op = draft(self)
        told = self.rehearsed(1 - door, op) if foretold and isinstance(op, Put) else {}
        self.done(door, op)
        if told and op.ref.kind == "instance":
            agree(f"what was foretold of the {op.ref}", told["binding"], self.model.docs[op.ref].binding)
        self.done(1 - door, Get(self.token(who, op.ref.namespace), op.ref))
        self.walk(1 - door, who, op.ref.kind, op.ref.namespace, tags)

    def done(self, door: int, op: Operation) -> None:
        before, expected = self.store.revision(), self.model.verdict(op)
        Operations.ends[f"{op.ref.kind} {expected}"] += 1
        self.model = self.model.after(op, self.ask(door, op))
        self.wrote(f"{op}, {expected}", before, 1 if expected in ("created", "changed", "retired", "forgotten") else 0)

    def wrote(self, what: str, before: int, transactions: int) -> None:
        agree(f"transactions written by {what}", self.store.revision() - before, transactions)

    def rehearsed(self, door: int, op: Put) -> Any:
        """The document foretold, when it would be made or changed as it stands."""
        before = self.store.revision()
        told, expected = self.ask(door, op, rehearsed=True), self.model.verdict(op, rehearsed=True)
        self.wrote(f"the rehearsal of {op}", before, 0)
        agree("a rehearsal shows no key", "token" in told.document, False)
        if self.model.verdict(op) == "immutable":
            return {}
        if told.word not in {"created": "done", "changed": "done", "equal": "done"}.get(expected, expected).split(" or "):
            raise Divergence(f"rehearsing {op} ended as {told.word!r}, the model says {expected!r}")
        return told.document

    @rule(first=operations, others=st.lists(of((rivals, 3), (operations, 1)), min_size=1, max_size=2))
    def overlap(self, first: Draft, others: list[Draft]) -> None:
        """The others come through the second door just before the first, decided at the first one, is committed; then
        somebody looks there at what the first is about, so that its place in the order shows."""
        op = self.first = first(self)
        rest = [*(other(self) for other in others), Get(self.root, op.ref)]
        heard: list[tuple[Operation, Answer]] = []
        self.lines[0].meanwhile(lambda: heard.extend((each, self.ask(1, each)) for each in rest))
        answer = self.ask(0, op)
        self.lines[0].meanwhile(lambda: None)
        heard = heard or [(each, self.ask(1, each)) for each in rest]
        orders = [[*heard[:n], (op, answer), *heard[n:]] for n in range(len(heard), -1, -1)]
        self.model = self.explained(orders)

    def explained(self, orders: Sequence[Sequence[tuple[Operation, Answer]]]) -> Model:
        """What is then, by an order that explains both the answers and the books."""
        found, moving = [], any(isinstance(op, Hold) for op, _ in orders[0])
        for order in orders:
            model = self.model
            try:
                for op, answer in order:
                    model = model.after(op, answer)
                self.settled(model) if moving else self.balanced(model)
                return model
            except Divergence as divergence:
                found.append(str(divergence))
        raise Divergence("no order explains these answers:\n" + "\n".join(found))

    def walk(self, door: int, who: int, kind: str, namespace: str, tags: dict[str, str]) -> None:
        """A list, page by page, the doors taking turns."""
        token, found = self.token(who, namespace), list[str]()
        told: Any = found
        try:
            after = None
            while True:
                resources = self.doors[door].resources
                caller = resources.authenticate(f"Bearer {token}")
                page = resources.list(caller, kind, namespace, limit=2, after=after, metadata=tags)
                found += [item["name"] for item in page["items"]]
                if not (after := page.get("next")):
                    break
                door = 1 - door
        except Problem as problem:
            told = problem.code
        agree(f"the list of {kind} in {namespace}", told, self.model.listed(token, kind, namespace, tags))

    # --- what agents do

    @rule(what=st.sampled_from(["hold", "hold", "let_go", "let_go", "restart"]), pick=picks)
    def behind_the_doors(self, what: str, pick: int) -> None:
        getattr(self, what)(pick)

    def hold(self, pick: int) -> None:
        """A node begins with something: from now on it must be taken down before it is forgotten."""
        loose = sorted(ref for ref, doc in self.model.docs.items() if ref.kind in HELD and not doc.held)
        if loose:
            op = Hold(loose[pick % len(loose)])
            self.model = self.model.after(op, self.ask(0, op))
            self.settled(self.model)

    def let_go(self, pick: int) -> None:
        """A node has taken something down: the conductor forgets it."""
        going = [ref for ref, doc in self.model.docs.items() if doc.deleting]
        if not going:
            return
        ref = sorted(going)[pick % len(going)]
        self.model = self.model.without(ref)
        self.store.commit([], [Clear(f"{ref.key('status')}/")])
        self.settled(self.model)

    def settled(self, model: Model) -> None:
        """The books are the model's, once the conductors have done what is to be done."""
        service = self.doors[0]
        for _ in range(1000):
            service.mirror.wait(self.store.revision(), PATIENCE)
            upkeep = Upkeep(service.catalogue, KINDS)
            with service.mirror.held():
                if not any(upkeep.tidy(service.world, each) for each in service.world.everything()):
                    break
            service.mirror.wait(service.mirror.revision + 1, 0.01)
        self.balanced(model)

    def restart(self, pick: int) -> None:
        door = pick % 2
        self.doors[door].stop()
        self.doors[door] = self.open(self.lines[door])

    # --- what always holds

    @invariant()
    def all_is_well(self) -> None:
        Operations.steps += 1
        self.balanced(self.model)
        self.nothing_leaked_and_every_sum_is_right()
        self.addresses_are_unique_and_in_range_and_never_the_gateways()

    def balanced(self, model: Model) -> None:
        """The books are the model's."""
        entries = {entry.key: entry for entry in self.store.read(under(PREFIX)).spans[0]}
        intents = [Intent.load(Ref.of_key(key)[1], entry.value) for key, entry in entries.items() if "/intent/" in key]
        same("documents", {(each.ref, each.uid, each.generation, bool(each.retired)) for each in intents},
             {(ref, doc.uid, doc.generation, doc.deleting) for ref, doc in model.docs.items()})
        same("keys", {key for key in entries if not key.startswith(ASIDE)}, set(model.keys()))
        attached = [Ref.of_key(key)[1] for key in entries if key.startswith((f"{PREFIX}event/", f"{PREFIX}status/"))]
        fenced = [namespace_ref(key.rpartition("/")[2]) for key in entries if key.startswith(f"{PREFIX}fence/namespace/")]
        same("what outlived its resource", {*attached, *fenced} - model.docs.keys(), set())

    def nothing_leaked_and_every_sum_is_right(self) -> None:
        """Nobody waits for a mirror here: the next step must be right at a door that lags, too."""
        revision = self.store.revision()
        for door in self.doors:
            with door.mirror.held():
                if door.mirror.revision < revision:
                    continue
                agree("claims without an owner", stray_claims(door.world), [])
                for node in self.nodes:
                    agree(f"what {node} carries", *_sums(door.world.load(node), self.model.load(node), OVERCOMMIT))
                for home in HOMES:
                    agree(f"what {home} holds", *_sums(door.world.held_by(home), self.model.held_by(home), QUOTAS))

    def addresses_are_unique_and_in_range_and_never_the_gateways(self) -> None:
        for ref, doc in self.model.docs.items():
            if ref.kind == "network":
                given = self.model.given(ref)
                if len(set(given)) < len(given) or not set(given) <= set(hosts(doc.spec["cidr"])):
                    raise Divergence(f"the {ref} gave {given}")


def same(what: str, cloud: set[Any], model: set[Any]) -> None:
    agree(what, sorted(cloud - model), sorted(model - cloud))


def _ready() -> dict[str, str]:
    return {"type": "Ready", "status": "True", "reason": "Realized", "message": "", "since": now()}


def _sums(cloud: Any, model: Any, which: Iterable[str]) -> tuple[dict[str, int], dict[str, int]]:
    return {what: cloud.get(what, 0) for what in which}, {what: model[what] for what in which}
