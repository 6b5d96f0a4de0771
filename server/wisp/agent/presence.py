"""That a node is there, and what it is.

Its leased key lives as long as its agent renews the lease, on a thread of its own, so that a long turn
never looks like a death. Its facts are sizes that hardly ever move; they are its status, written when they
differ. A stopping agent leaves the lease to run out: a restart within that time is no loss of the node.

It enters by one transaction that rests on what the store itself says, not on a copy: the store may be another
one by now, or the node may have been declared gone for good while it was away. Then it stays out. Who is gone
is known by the machine that its facts name; another machine that comes under that name joins anew.

When the lease must have run out and the store cannot be asked, the node's addresses of the outside may be
another's by now. It asks around, and lets go of those that are; everything else stays as it is.
"""
from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

from wisp.conditions import condition, kept
from wisp.errors import Problem
from wisp.host import Floating
from wisp.journal import Journal
from wisp.ports import Fabric, Facts
from wisp.resource import CLUSTER_KEY, Intent, Json, Ref, dumps, node_key, node_ref, now
from wisp.store import Absent, At, Entry, Lost, Op, Put, Span, Store

log = logging.getLogger(__name__)
TTL = 15
RENEW = 4.0
ASKED_AT_ONCE = 16


class Presence:
    def __init__(self, node: str, machine: str, facts: Facts, fabric: Fabric, belongs: Callable[[str], bool],
                 store: Store, journal: Journal) -> None:
        """`machine`: its uid; `belongs`: whether the cluster of this uid is the one that it remembers."""
        self._ref: Ref = node_ref(node)
        self._machine, self._facts, self._fabric, self._belongs = machine, facts, fabric, belongs
        self._store, self._journal = store, journal
        self.incarnation = str(uuid.uuid4())
        self._lease, self._alive_until, self._kept_out = 0, 0.0, ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=f"{node}-lease", daemon=True)

    def start(self) -> None:
        """Joins, says what the node is, and is alive from then on; or, where it may not, as soon as it may."""
        self._enter()
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    # --- entering

    def _enter(self) -> None:
        key, status = self._ref.key("intent"), f"{self._ref.key('status')}/{self._ref.name}"
        view = self._store.read(Span(CLUSTER_KEY), Span(key), Span(status))
        cluster, known, said = (span[0] if span else None for span in view.spans)
        was, before = Intent.load(self._ref, known.value) if known else None, json.loads(said.value) if said else {}
        if (why := self._barred(cluster, was, before)) or not cluster:
            if why != self._kept_out:
                log.error("%s: %s", self._ref, why)
            self._kept_out = why
            return
        intent = was if was and not was.retired else Intent(self._ref, str(uuid.uuid4()), 1, now(), now(), {})
        self._kept_out, began, lease = "", time.monotonic(), self._store.grant(TTL)
        ops: list[Op] = [Put(node_key(self._ref.name), dumps({"incarnation": self.incarnation}), lease)]
        for at, entry, value in ((key, known, intent.dump()), (status, said, dumps(self._said(intent, before)))):
            ops += [Put(at, value)] if not entry or entry.value != value else []
        guards = [At(CLUSTER_KEY, cluster.revision), At(key, known.revision) if known else Absent(key)]
        try:
            self._journal.commit(self._ref, guards, ops)
            self._lease, self._alive_until = lease, began + TTL
        except Lost:
            self._enter()

    def _barred(self, cluster: Entry | None, was: Intent | None, before: Json) -> str:
        """Why it may not enter; "" when it may."""
        if not (cluster and self._belongs(json.loads(cluster.value)["uid"])):
            return "this store is of another cluster than this node; waiting"
        if was and was.retired and before.get("machine") == self._machine:
            return "it was declared gone for good; standing down until it joins anew"
        return ""

    def _said(self, intent: Intent, before: Json) -> Json:
        facts = {name: value for name, value in asdict(self._facts).items() if value != ""}
        ready = kept(before, [condition("Ready", "True", "Alive", "", now())])
        return {**facts, "machine": self._machine, "versions": dict(self._facts.versions),
                "carries": list(self._facts.carries), "observed_generation": intent.generation, "conditions": ready}

    # --- staying

    def _renew(self) -> None:
        while not self._stop.wait(RENEW):
            try:
                self._keep()
            except Problem as problem:
                log.warning("%s: %s", self._ref, problem)
                if time.monotonic() > self._alive_until:
                    self._give_way()
            except Exception:
                log.exception("%s: cannot renew the lease", self._ref)

    def _keep(self) -> None:
        asked = time.monotonic()
        if self._lease and self._store.keep(self._lease):
            self._alive_until = asked + TTL
        else:
            if self._lease:
                log.warning("%s: the lease ran out; taking a new one", self._ref)
            self._lease = 0
            self._enter()

    def _give_way(self) -> None:
        """Takes down the addresses of the outside that another machine answers for."""
        try:
            mine = [part for part in self._fabric.observe(None) if isinstance(part, Floating)]
            with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
                held = list(pool.map(lambda part: self._fabric.held_elsewhere(part.address), mine))
            for part in (part for part, elsewhere in zip(mine, held, strict=True) if elsewhere):
                log.warning("%s: another machine has the %s; letting go of it", self._ref, part)
                self._fabric.remove_floating(part)
        except Exception:
            log.exception("%s: cannot ask who has its addresses", self._ref)
