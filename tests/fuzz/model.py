"""The cloud as its documentation tells it: no transactions, no mirror, one thing after the other.

A `Model` says how each operation must end and, given how it did end, what the cloud is then. What the cloud
may choose (a uid, a node, an address) it takes from the answer, once it has seen that the choice was a good
one. Models are values, so several orders of the same operations can be tried: those that overlapped must be
explained by one of them.
"""
from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from wisp.catalogue import Catalogue
from wisp.resource import CLUSTER, Ref, namespace_ref, refers_key

Json = Mapping[str, Any]
SYSTEM = "system"
OVERCOMMIT = {"cpus": 3, "memory_mib": 1, "disk_gib": 1}
RESERVE = {"cpus": 0, "memory_mib": 0, "disk_gib": 5}
DONE = {"changed", "equal", "retired", "forgotten", "absent", "there", "held"}
LONG_AGO = "2020-01-01T00:00:00Z"


class Divergence(AssertionError):
    """The cloud and the model disagree."""


def agree(what: str, cloud: Any, model: Any) -> None:
    if cloud != model:
        raise Divergence(f"{what}: the cloud has {cloud!r}, the model {model!r}")


@dataclass(frozen=True)
class Put:
    token: str
    ref: Ref
    spec: Json
    metadata: Json
    if_match: str | None = None
    create_only: bool = False


@dataclass(frozen=True)
class Delete:
    token: str
    ref: Ref
    if_match: str | None = None


@dataclass(frozen=True)
class Get:
    token: str
    ref: Ref


@dataclass(frozen=True)
class Hold:
    """A node begins with it, unless it is going."""

    ref: Ref


Operation = Put | Delete | Get | Hold


@dataclass(frozen=True)
class Answer:
    """`word`: created, done, or the problem's code. `document`: of a PUT or GET."""

    word: str
    document: Json


@dataclass(frozen=True)
class Doc:
    """`hidden`: write-only fields as last given; `token`: what a key's bearer shows; `held`: a node has begun with it;
    `made`: its disks are there."""

    ref: Ref
    uid: str
    generation: int
    spec: Json
    metadata: Json
    hidden: Json
    binding: Json
    token: str = ""
    held: bool = False
    made: bool = False
    deleting: bool = False

    @property
    def etag(self) -> str:
        return f'"{self.uid}-{self.generation}"'

    @property
    def weight(self) -> Json:
        return weigh(self.ref.kind, self.spec)


@dataclass(frozen=True)
class Model:
    catalogue: Catalogue
    nodes: Mapping[str, Json]
    docs: Mapping[Ref, Doc]

    # --- what is so

    def caller(self, token: str) -> tuple[str, str] | None:
        """Namespace and role."""
        found = next((doc for doc in self.docs.values() if doc.token == token), None)
        known = found and found.spec.get("expires_at") != LONG_AGO
        return (found.ref.namespace, found.spec["role"]) if found and known else None

    def trusts(self, namespace: str) -> Any:
        home = self.docs.get(namespace_ref(namespace))
        return home.spec["trusts"] if home else ()

    def sees(self, caller: tuple[str, str], ref: Ref) -> bool:
        shared = ref.kind in ("image", "network") and caller[0] in self.trusts(ref.namespace)
        return caller[0] in (SYSTEM, ref.namespace) or ref == namespace_ref(caller[0]) or shared

    def held_by(self, namespace: str) -> Counter[str]:
        return sum((Counter(doc.weight) for doc in self.docs.values() if doc.ref.namespace == namespace), Counter())

    def load(self, node: str) -> Counter[str]:
        return sum((Counter(doc.weight) for doc in self.docs.values() if doc.binding.get("node") == node), Counter())

    def room(self, node: str) -> dict[str, int]:
        facts, load = self.nodes[node], self.load(node)
        return {what: (facts[what] - RESERVE[what]) * factor - load[what] for what, factor in OVERCOMMIT.items()}

    def targets(self, doc: Doc) -> set[Ref]:
        """What it refers to, and therefore keeps."""
        named = named_by(doc.ref, doc.spec)
        return {target for target in named if not (doc.made and target.kind == "image")}

    def users(self, target: Ref) -> list[Ref]:
        inside = target.name if target.kind == "namespace" else None
        return [doc.ref for doc in self.docs.values() if target in self.targets(doc) or doc.ref.namespace == inside]

    def given(self, network: Ref) -> list[str]:
        """Addresses that interfaces on it have."""
        return [interface["address"] for doc in self.docs.values() if doc.ref.kind == "instance"
                for nic, interface in zip(doc.spec["networks"], doc.binding["interfaces"], strict=True)
                if target_of(doc.ref, "network", nic["network"]) == network]

    def macs(self) -> list[str]:
        return [interface["mac"] for doc in self.docs.values() for interface in doc.binding.get("interfaces", ())]

    def listed(self, token: str, kind: str, namespace: str, metadata: Json) -> list[str] | str:
        """The names on all pages, or how the list is refused."""
        if not (caller := self.caller(token)):
            return "unauthenticated"
        if namespace != CLUSTER and not self.sees(caller, Ref(kind, namespace, "any")):
            return "not_found"
        return sorted(ref.name for ref, doc in self.docs.items() if (ref.kind, ref.namespace) == (kind, namespace)
                      and self.sees(caller, ref) and metadata.items() <= doc.metadata.items())

    # --- how an operation must end

    def verdict(self, op: Operation, *, rehearsed: bool = False) -> str:
        """created, changed, equal, retired, forgotten, absent, there, held, or a problem's code."""
        if isinstance(op, Hold):
            return "held" if op.ref in self.docs and not self.docs[op.ref].deleting else "absent"
        if not (caller := self.caller(op.token)):
            return "unauthenticated"
        if not self.sees(caller, op.ref):
            return "not_found"
        if isinstance(op, Get):
            return "there" if op.ref in self.docs else "not_found"
        own = caller[0] in (SYSTEM, op.ref.namespace)
        privileged = op.ref.namespace == CLUSTER or op.ref.kind == "key"
        if not own or caller[1] == "viewer" or (privileged and caller[1] != "admin"):
            return "forbidden"
        return self._put(op, rehearsed) if isinstance(op, Put) else self._delete(op)

    def _delete(self, op: Delete) -> str:
        was = self.docs.get(op.ref)
        if was and op.if_match not in (None, "*", was.etag):
            return "precondition_failed"
        if was is None or was.deleting:
            return "absent"
        if self.users(op.ref):
            return "in_use"
        return "retired" if was.held else "forgotten"

    def _put(self, op: Put, rehearsed: bool) -> str:
        was = self.docs.get(op.ref)
        if was and was.deleting:
            return "deleting"
        if op.create_only and was:
            return "precondition_failed"
        if op.if_match and not (was and op.if_match in ("*", was.etag)):
            return "precondition_failed"
        wish = self._wished(op, was)
        if was and alike(was, wish):
            return "equal"
        if was and not rehearsed and self._replaces(was, wish):
            return "immutable"
        if op.ref.namespace != CLUSTER and namespace_ref(op.ref.namespace) not in self.docs:
            return "not_found"
        if any(not self._usable(target, op.ref) for target in named_by(op.ref, wish.spec) - named_by(op.ref, was.spec if was else {})):
            return "reference"
        return self._limits(was, wish) or ("changed" if was else "created")

    def _wished(self, op: Put, was: Doc | None) -> Doc:
        """What it would be; choices still as they were."""
        schema = self.catalogue.kinds[op.ref.kind]
        filled = schema.filled(op.spec)
        spec = {name: value for name, value in filled.items() if name not in schema.hidden}
        hidden = {name: value for name, value in filled.items() if name in schema.hidden}
        if was is None:
            return Doc(op.ref, "", 1, spec, op.metadata, hidden, {})
        kept = dict(was.hidden)
        if spec.get("rotation") != was.spec.get("rotation"):
            kept.pop("secret", None)
        return replace(was, generation=was.generation + 1, spec=spec, metadata=op.metadata, hidden=kept | hidden)

    def _replaces(self, was: Doc, wish: Doc) -> bool:
        fields = self.catalogue.kinds[was.ref.kind].document["properties"].items()
        fixed = [name for name, field in fields if field.get("x-immutable")]
        return any((was.spec.get(name), was.hidden.get(name)) != (wish.spec.get(name), wish.hidden.get(name)) for name in fixed)

    def _usable(self, target: Ref, by: Ref) -> bool:
        found = self.docs.get(target)
        ours = target.namespace == by.namespace or by.namespace in self.trusts(target.namespace)
        return bool(found and not found.deleting and ours)

    def _limits(self, was: Doc | None, wish: Doc) -> str | None:
        """Addresses that cannot be, the quota, room on nodes, addresses that are taken."""
        if not was and any("address" in nic and nic["address"] not in self._hosts(network) for nic, network in nics(wish)):
            return "invalid"
        more = Counter(wish.weight)
        more.subtract(was.weight if was else {})
        home = self.docs.get(namespace_ref(wish.ref.namespace))
        held = self.held_by(wish.ref.namespace)
        if any(more[what] > 0 and held[what] + more[what] > limit for what, limit in (home.spec["quotas"] if home else {}).items()):
            return "quota_exceeded"
        if wish.ref.kind != "instance":
            return None
        if was:
            room = self.room(was.binding["node"])
            return "no_capacity" if any(more[what] > 0 and more[what] > room[what] for what in OVERCOMMIT) else None
        return self._interfaces(wish) if self.open_to(wish) else "no_capacity"

    def _interfaces(self, wish: Doc) -> str | None:
        taken = {(network, address) for _, network in nics(wish) for address in self.given(network)}
        wishes = [(network, nic["address"]) for nic, network in nics(wish) if "address" in nic]
        macs = [nic["mac"] for nic, _ in nics(wish) if "mac" in nic]
        twice = len(set(wishes)) < len(wishes) or len(set(macs)) < len(macs)
        refused = twice or not taken.isdisjoint(wishes) or not set(self.macs()).isdisjoint(macs)
        asked = Counter(network for _, network in nics(wish))
        full = any(len(self._hosts(network)) - len(self.given(network)) < number for network, number in asked.items())
        if refused and full:
            return "address_taken or addresses_exhausted"
        return "address_taken" if refused else "addresses_exhausted" if full else None

    def _hosts(self, network: Ref) -> list[str]:
        return hosts(self.docs[network].spec["cidr"])

    def open_to(self, wish: Doc) -> list[str]:
        """Nodes that it may be placed on."""
        wished = wish.spec["placement"].get("node")
        return [node for node in self.nodes if wished in (None, node)
                and not self.docs[Ref("node", CLUSTER, node)].spec["cordoned"]
                and all(self.room(node)[what] >= wish.weight[what] for what in OVERCOMMIT)]

    # --- what is then

    def after(self, op: Operation, answer: Answer) -> Model:
        """Raises Divergence when it should not have ended so."""
        expected = self.verdict(op)
        if answer.word not in ("done" if expected in DONE else expected).split(" or "):
            raise Divergence(f"{op} ended as {answer.word!r}, the model says {expected!r}")
        if expected == "there":
            agree(f"GET of the {op.ref}", seen(answer.document), promised(self.docs[op.ref]))
        if isinstance(op, Put) and expected in ("created", "changed", "equal"):
            return self._with(self._recorded(op, expected, answer.document))
        if expected == "retired":
            was = self.docs[op.ref]
            return self._with(replace(was, deleting=True, generation=was.generation + 1))
        if expected == "held":
            return self._with(replace(self.docs[op.ref], held=True, made=op.ref.kind == "instance"))
        return self.without(op.ref) if expected == "forgotten" else self

    def _recorded(self, op: Put, how: str, shown: Json) -> Doc:
        was = self.docs.get(op.ref)
        wish = self._wished(op, was)
        if how == "equal":
            assert was
            wish = was
        if how == "created":
            agree(f"a fresh uid for the {op.ref}", shown["uid"] in {doc.uid for doc in self.docs.values()}, False)
            wish = replace(wish, uid=shown["uid"], binding=shown["binding"])
            self._chosen_well(wish)
        agree(f"the answer about the {op.ref}", seen(shown), promised(wish))
        return replace(wish, token=self._token(was, wish, how, shown)) if op.ref.kind == "key" else wish

    def _chosen_well(self, doc: Doc) -> None:
        if doc.ref.kind != "instance":
            return
        if doc.binding["node"] not in self.open_to(doc):
            raise Divergence(f"the {doc.ref} was placed on {doc.binding['node']}, open were {self.open_to(doc)}")
        for (nic, network), given in zip(nics(doc), doc.binding["interfaces"], strict=True):
            agree(f"what {doc.ref} wished for", {**given, **nic}, {**nic, **given})
            if given["address"] in self.given(network) or given["address"] not in self._hosts(network):
                raise Divergence(f"the {doc.ref} was given {given['address']} of the {network}, which gave {self.given(network)}")

    def _token(self, was: Doc | None, wish: Doc, how: str, shown: Json) -> str:
        """What a key's bearer shows from now on."""
        key_id, fresh = wish.binding["key_id"], shown.get("token", "")
        if how == "equal":
            agree(f"an equal PUT of the {wish.ref} shows no secret", fresh, "")
            return wish.token
        if "secret" in wish.hidden:
            return f"wisp_{key_id}_{wish.hidden['secret']}"
        rotated = not was or was.spec.get("rotation") != wish.spec.get("rotation")
        agree(f"the {wish.ref} shows a secret when it was drawn", bool(fresh), rotated)
        if fresh and (not fresh.startswith(f"wisp_{key_id}_") or fresh in {doc.token for doc in self.docs.values()}):
            raise Divergence(f"the {wish.ref} was given an odd secret")
        return fresh or wish.token

    def _with(self, doc: Doc) -> Model:
        return replace(self, docs={**self.docs, doc.ref: doc})

    def without(self, ref: Ref) -> Model:
        return replace(self, docs={each: doc for each, doc in self.docs.items() if each != ref})

    # --- the books

    def keys(self) -> Iterator[str]:
        """Every key of the store that follows from the documents; fences, events, nodes and statuses aside."""
        for ref, doc in self.docs.items():
            yield ref.key("intent")
            if doc.binding:
                yield ref.key("binding")
            if "user_data" in doc.hidden:
                yield ref.key("user_data")
            yield from (refers_key(target, ref) for target in self.targets(doc))
            yield from (f"/wisp/v1/claim/{claim}" for claim in self._claims(doc))
            if ref.kind == "key":
                yield f"/wisp/v1/key/{doc.binding['key_id']}"

    def _claims(self, doc: Doc) -> Iterator[str]:
        if doc.ref.kind == "network":
            yield f"vni/{doc.binding['vni']}"
            yield f"transit/{doc.binding['gateway']['transit']}"
        for (_, network), given in zip(nics(doc), doc.binding.get("interfaces", ()), strict=True):
            yield f"address/{self.docs[network].uid}/{given['address']}"
            yield f"mac/{given['mac']}"


def alike(was: Doc, wish: Doc) -> bool:
    """Whether they ask for the same; `trusts` is a set."""
    def asked(doc: Doc) -> tuple[Json, ...]:
        return {**doc.spec, "trusts": set(doc.spec.get("trusts", ()))}, doc.metadata, doc.hidden
    return asked(was) == asked(wish)


def seen(shown: Json) -> Json:
    return {name: shown[name] for name in ("uid", "generation", "spec", "metadata", "binding")}


def promised(doc: Doc) -> Json:
    return {name: getattr(doc, name) for name in ("uid", "generation", "spec", "metadata", "binding")}


def weigh(kind: str, spec: Json) -> Json:
    if kind == "network":
        return {"networks": 1}
    if kind != "instance":
        return {}
    return {"instances": 1, "cpus": spec["cpus"], "memory_mib": spec["memory_mib"],
            "disk_gib": sum(disk["size_gib"] for disk in spec["disks"]), "addresses": len(spec["networks"])}


def target_of(by: Ref, kind: str, name: str) -> Ref:
    namespace, _, own = name.rpartition("/")
    return Ref(kind, namespace or by.namespace, own)


def named_by(ref: Ref, spec: Json) -> set[Ref]:
    images = {target_of(ref, "image", disk["image"]) for disk in spec.get("disks", ()) if "image" in disk}
    return images | {target_of(ref, "network", nic["network"]) for nic in spec.get("networks", ())}


def nics(doc: Doc) -> list[tuple[Json, Ref]]:
    """Each interface with the network it is on."""
    return [({name: nic[name] for name in ("address", "mac") if name in nic}, target_of(doc.ref, "network", nic["network"]))
            for nic in doc.spec.get("networks", ())]


def hosts(cidr: str) -> list[str]:
    """What interfaces may have: the first host address is the gateway's."""
    return [str(address) for address in ipaddress.IPv4Network(cidr).hosts()][1:]
