"""Random operations on a cloud with two doors, each step compared with a small model; see `model`.

The doors are two services over one store, so what one writes the other must know at once. `overlap` lets one
operation come through the second door at the very moment when another, decided at the first, is about to be
committed: whoever wins, the answers must be those of one order or another. No wall clock and no chance decides
what happens, so a divergence is found again and shrunk.

FUZZ_STEPS=10000 (as `make fuzz` has it) walks so far; without it, only a little.
"""
from __future__ import annotations

import contextlib
import os
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from model import (
    LONG_AGO,
    OVERCOMMIT,
    SYSTEM,
    Answer,
    Delete,
    Divergence,
    Doc,
    Get,
    Model,
    Operation,
    Put,
    agree,
    hosts,
    named_by,
)

from wisp.admission import stray_claims
from wisp.errors import Problem
from wisp.resource import CLUSTER, PREFIX, Intent, Ref, dumps, namespace_ref, node_key, node_ref, now
from wisp.service import ITSELF, Service
from wisp.store import Clear, Guard, Op, Store, under
from wisp.store import Put as PutKey
from wisp.store.embedded import EmbeddedEtcd
from wisp.store.etcd import EtcdStore
from wisp.store.memory import MemoryStore

ASKED = int(os.environ.get("FUZZ_STEPS", "0"))
LENGTH = 100 if ASKED else 40
NODES = {"n1": {"cpus": 2, "memory_mib": 640, "disk_gib": 12}, "n2": {"cpus": 1, "memory_mib": 320, "disk_gib": 10}}
HOMES = ("web", "shop", "lab")
QUOTAS = ("instances", "cpus", "memory_mib", "disk_gib", "networks", "addresses")
ROOT = Ref("key", SYSTEM, "admin")
ASIDE = tuple(f"{PREFIX}{part}" for part in ("cluster", "node/", "fence/", "event/", "status/"))
"""Keys that do not follow from the documents alone."""
PATIENCE = 5.0
IMAGE = {"source": {"kind": "url", "url": "http://images.example/a"}, "sha256": "0" * 64}
FURNITURE = {
    **{Ref("namespace", CLUSTER, home): {"trusts": trusts} for home, trusts in (("web", []), ("shop", ["web"]), ("lab", []))},
    **{Ref("network", home, "a"): {"cidr": "10.0.0.0/29"} for home in ("web", "shop")},
    **{Ref("image", home, "a"): IMAGE for home in ("web", "shop")},
    **{Ref("key", home, name): {"role": role} for home in ("web", "shop") for name, role in (("a", "editor"), ("b", "viewer"))}}
"""What every cloud begins with."""
PLAIN: dict[str, Any] = {
    "instance": {"cpus": 1, "memory_mib": 64, "disks": [{"size_gib": 1}], "networks": [{"network": "a"}]},
    "network": {"cidr": "10.0.0.0/29"}, "image": IMAGE, "key": {}, "namespace": {}}
TURNS: dict[str, list[dict[str, Any]]] = {
    "instance": [{"power": "off"}, {"cpus": 3}, {"memory_mib": 256}], "network": [{"nat": False}], "image": [{}],
    "key": [{"role": "viewer"}, {"rotation": "again"}], "node": [{"cordoned": True}, {"cordoned": False}],
    "namespace": [{"quotas": {"instances": 0, "networks": 0}}, {"trusts": []}, {"quotas": {}}]}
"""Changes that another operation may stand or fall with."""

# --- what is asked for

names = st.sampled_from("abcd")
homes = st.sampled_from(["web", *HOMES])
tenants = st.sampled_from(HOMES)
reached = st.sampled_from(["a", "a", "a", "a", "a", "shop/a", "web/a", "b"])
secrets = st.sampled_from(["s" * 32, "t" * 32])
roles = st.sampled_from(["viewer", "editor", "admin"])
doors = st.integers(0, 1)
picks = st.sampled_from(range(50))
few = st.integers(0, 3)


@st.composite
def of(draw: st.DrawFn, *weighed: tuple[st.SearchStrategy[Any], int]) -> Any:
    """One of several; `st.one_of` would not count one that is named twice."""
    return draw(draw(st.sampled_from([each for each, weight in weighed for _ in range(weight)])))


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with any of these fields."""
    return st.fixed_dictionaries({}, optional=fields)


interfaces = st.fixed_dictionaries({"network": reached}, optional={
    "address": st.sampled_from(["10.0.0.2", "10.0.0.3", "10.0.0.6", "10.0.0.1", "10.0.1.2"]),
    "mac": st.sampled_from(["02:00:00:00:00:01", "02:00:00:00:00:02"])})
instances = st.fixed_dictionaries({
    "cpus": st.sampled_from([1, 2, 4]), "memory_mib": st.sampled_from([64, 128, 256]),
    "disks": st.lists(st.fixed_dictionaries({"size_gib": st.integers(1, 3)}, optional={"image": reached}), min_size=1, max_size=2),
}, optional={"networks": st.lists(interfaces, max_size=2), "power": st.sampled_from(["on", "off"]),
             "placement": some(node=st.sampled_from(["n1", "n2"])), "user_data": st.sampled_from(["#!a", "#!b"])})
networks = st.fixed_dictionaries({"cidr": st.sampled_from(["10.0.0.0/29", "10.0.0.0/29", "10.0.1.0/29"])},
                                 optional={"nat": st.booleans()})
images = st.builds(lambda url, sha: {"source": {"kind": "url", "url": f"http://images.example/{url}"}, "sha256": sha * 64},
                   names, st.sampled_from("01"))
keys = some(role=roles, rotation=names, secret=secrets, expires_at=st.just(LONG_AGO))
quotas = some(instances=few, cpus=st.integers(0, 6), memory_mib=st.integers(0, 512), disk_gib=st.integers(0, 8),
              networks=few, addresses=few)
namespaces = some(trusts=st.lists(tenants, unique=True, max_size=2), quotas=quotas)
SPECS = {"instance": (homes, instances), "network": (homes, networks), "image": (homes, images), "key": (homes, keys)}


def within(kind: str) -> st.SearchStrategy[tuple[Ref, Any]]:
    space, specs = SPECS[kind]
    return st.tuples(st.builds(Ref, st.just(kind), space, names), specs)


wished = of((within("instance"), 5), (within("network"), 1), (within("image"), 1), (within("key"), 1),
            (st.tuples(st.builds(Ref, st.just("namespace"), st.just(CLUSTER), tenants), namespaces), 1),
            (st.tuples(st.builds(node_ref, st.sampled_from(["n1", "n2"])), some(cordoned=st.booleans())), 1))
kinds = st.sampled_from([*["instance"] * 5, "network", "image", "key", "key", "namespace"])
aims = st.builds(lambda kind, home, name: Ref("namespace", CLUSTER, home) if kind == "namespace" else Ref(kind, home, name),
                 kinds, homes, names)
changes = some(cpus=st.sampled_from([1, 3, 5]), memory_mib=st.sampled_from([64, 256, 384]), power=st.sampled_from(["on", "off"]),
               nat=st.booleans(), role=roles, rotation=names, secret=secrets, quotas=quotas, dns_servers=st.just(["192.0.2.1"]),
               trusts=st.lists(tenants, unique=True, max_size=2), cordoned=st.booleans())
metadata = st.sampled_from([{}, {}, {"tier": "x"}, {"tier": "y"}])
ROOTS = 14
whos = st.sampled_from(range(ROOTS + 12))
"""Below ROOTS it is the administrator; the others bear some key that was ever shown, revoked ones too."""
conditions = st.sampled_from(["", "", "", "", "now", "stale", "any", "absent"])
Draft = Callable[["Operations"], Operation]


def _put(who: int, wish: tuple[Ref, Any], tags: dict[str, str], condition: str) -> Draft:
    def op(cloud: Operations) -> Put:
        return Put(cloud.token(who, wish[0].namespace), wish[0], wish[1], tags, cloud.tag(wish[0], condition), condition == "absent")
    return op


def _again(who: int, ref: Ref, pick: int, changed: dict[str, Any]) -> Draft:
    """What is there already, but for this or that field; or something plain."""
    return lambda cloud: cloud.again(who, ref if pick % 3 == 0 else cloud.something(pick, ref), changed)


def _rival(pick: int, ends: bool) -> Draft:
    """Ends or changes what the other operation rests on (its target, its namespace, what it refers to, the node, the
    key it came with), or wants the same."""
    def op(cloud: Operations) -> Operation:
        ground = sorted(cloud.ground_of(cloud.first))
        ref = ground[pick % len(ground)]
        if ref not in cloud.model.docs and isinstance(cloud.first, Put) and ref.kind == cloud.first.ref.kind:
            return cloud.twin(cloud.first, ref)
        turns = TURNS[ref.kind]
        return Delete(cloud.root, ref) if ends and ref.kind != "node" else cloud.again(0, ref, turns[pick % len(turns)])
    return op


def _delete(who: int, ref: Ref, condition: str) -> Draft:
    return lambda cloud: Delete(cloud.token(who, ref.namespace), ref, cloud.tag(ref, condition))


def _clear(who: int, ref: Ref, pick: int) -> Draft:
    """Deletes something that is there."""
    return lambda cloud: Delete(cloud.token(who, ref.namespace), cloud.something(pick, ref))


puts = st.builds(_put, whos, wished, metadata, conditions)
agains = st.builds(_again, whos, aims, picks, changes)
clears = st.builds(_clear, whos, aims, picks)
deletes = st.builds(_delete, whos, aims, conditions)
dissolutions = st.builds(_delete, st.just(0), st.just(namespace_ref("lab")), st.just(""))
operations = of((puts, 4), (agains, 4), (clears, 1), (deletes, 1), (dissolutions, 1))


rivals = st.builds(_rival, picks, st.booleans())


# --- the cloud

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

    steps = 0
    ends: Counter[str] = Counter()

    def __init__(self, stores: Sequence[Store], blind: Callable[[Guard], bool] = sighted) -> None:
        super().__init__()
        self.store = stores[0]
        self.store.commit([], [Clear(PREFIX)])
        self.lines = [Line(store, blind) for store in stores]
        self.doors = [self.open(line) for line in self.lines]
        self.begin()

    def open(self, line: Any) -> Service:
        service = Service(line)
        service.start("fuzz")
        return service

    def begin(self) -> None:
        first = self.doors[0]
        for name in (SYSTEM, "web", "shop"):
            first.ensure_namespace(name)
        self.tokens = [first.admin_token()]
        for name, facts in NODES.items():
            ref, status = node_ref(name), {"observed_generation": 1, "conditions": [_ready()], **facts}
            joined = Intent(ref, str(uuid.uuid4()), 1, now(), now(), first.catalogue.kinds["node"].filled({}))
            self.write(PutKey(ref.key("intent"), joined.dump()), PutKey(node_key(name), dumps({"incarnation": "1"})),
                       PutKey(f"{ref.key('status')}/{name}", dumps(status)))
        self.catalogue = first.catalogue
        shown = [first.resources.get(ITSELF, ref) for ref in self.recorded()]
        docs = [Doc(Ref(each["kind"], each.get("namespace", CLUSTER), each["name"]), each["uid"], each["generation"],
                    each["spec"], each["metadata"], {}, each["binding"], held=each["kind"] == "node") for each in shown]
        self.model = Model(first.catalogue, NODES, {doc.ref: doc for doc in docs})
        root = Doc(**{**_fields(self.model.docs[ROOT]), "token": self.tokens[0]})
        self.model = Model(first.catalogue, NODES, {**self.model.docs, ROOT: root})
        self.root = self.tokens[0]
        for ref, spec in FURNITURE.items():
            op = Put(self.root, ref, spec, {})
            self.model = self.model.after(op, self.ask(0, op))

    def teardown(self) -> None:
        for door in self.doors:
            door.stop()

    def write(self, *ops: Op) -> int:
        revision = self.store.commit([], ops)
        for door in self.doors:
            assert door.mirror.wait(revision, PATIENCE)
        return revision

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

    def twin(self, op: Put, ref: Ref) -> Put:
        """The same under another name, an instance on another node."""
        other = "n1" if op.spec.get("placement", {}).get("node") == "n2" else "n2"
        return Put(self.root, ref, {**op.spec, "placement": {"node": other}} if ref.kind == "instance" else op.spec, {})

    def ground_of(self, op: Operation) -> set[Ref]:
        bearer = {ref for ref, doc in self.model.docs.items() if doc.token == op.token and ref != ROOT}
        home = {namespace_ref(op.ref.namespace)} if op.ref.namespace != CLUSTER else set()
        inside = {Ref("image", op.ref.name, "d")} if op.ref.kind == "namespace" else set()
        nodes = {node_ref(name) for name in NODES} if op.ref.kind == "instance" else set()
        named = named_by(op.ref, op.spec) if isinstance(op, Put) else set()
        users = {Ref("instance", op.ref.namespace, "d")} if op.ref.kind in ("instance", "network", "image") else set()
        return {op.ref} | bearer | home | inside | nodes | named | users

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
        found = []
        for order in orders:
            model = self.model
            try:
                for op, answer in order:
                    model = model.after(op, answer)
                self.balanced(model)
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
        loose = [ref for ref, doc in self.model.docs.items() if ref.kind in ("instance", "network", "image") and not doc.held]
        if not loose:
            return
        ref = sorted(loose)[pick % len(loose)]
        self.model = self.model.held(ref)
        doc = self.model.docs[ref]
        said = {"disks_made": [*range(len(doc.spec["disks"]))]} if doc.made else {}
        node = doc.binding.get("node", "n1")
        self.write(PutKey(f"{ref.key('status')}/{node}", dumps({"observed_generation": 1, "conditions": [_ready()], **said})))
        self.settled()

    def let_go(self, pick: int) -> None:
        """A node has taken something down: the conductor forgets it."""
        going = [ref for ref, doc in self.model.docs.items() if doc.deleting]
        if not going:
            return
        ref = sorted(going)[pick % len(going)]
        self.model = self.model.without(ref)
        self.write(Clear(f"{ref.key('status')}/"))
        self.settled()

    def settled(self) -> None:
        """Until a conductor has done what is to be done."""
        for _ in range(500):
            with contextlib.suppress(Divergence):
                return self.balanced(self.model)
            mirror = self.doors[0].mirror
            mirror.wait(mirror.revision + 1, 0.01)
        self.balanced(self.model)

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
                for node in NODES:
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


def _fields(doc: Doc) -> dict[str, Any]:
    return {name: getattr(doc, name) for name in doc.__dataclass_fields__}


def _sums(cloud: Any, model: Any, which: Iterable[str]) -> tuple[dict[str, int], dict[str, int]]:
    return {what: cloud.get(what, 0) for what in which}, {what: model[what] for what in which}


# --- walking

Stores = Callable[[], Sequence[Store]]


@pytest.fixture(params=["memory", "etcd"])
def stores(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sequence[Store]]:
    """Two lines to one store."""
    with contextlib.ExitStack() as until:
        if request.param == "memory":
            store = until.enter_context(contextlib.closing(MemoryStore()))
            yield [store, store]
        else:
            etcd = EmbeddedEtcd(tmp_path_factory.mktemp("etcd") / "etcd")
            until.callback(etcd.stop)
            target = etcd.start()
            yield [until.enter_context(contextlib.closing(EtcdStore(target))) for _ in range(2)]


def walk(machine: Callable[[], Operations], steps: int, **said: Any) -> int:
    """How many steps were taken; ends with the first divergence."""
    Operations.steps, Operations.ends = 0, Counter()
    while Operations.steps < steps:
        run_state_machine_as_test(machine, settings=settings(
            max_examples=max(1, (steps - Operations.steps) // LENGTH), stateful_step_count=LENGTH, deadline=None,
            suppress_health_check=list(HealthCheck), **said))
    return Operations.steps


@pytest.mark.timeout(3600 if ASKED else 300)
def test_no_operation_ends_otherwise_than_the_model_says(stores: Sequence[Store], capsys: pytest.CaptureFixture[str]) -> None:
    taken = walk(lambda: Operations(stores), ASKED or (800 if isinstance(stores[0], MemoryStore) else 400))
    with capsys.disabled():
        print(f"\n{taken} steps over {type(stores[0]).__name__}, no divergence; {dict(Operations.ends.most_common())}")
