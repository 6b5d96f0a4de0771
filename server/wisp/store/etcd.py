"""The store in etcd, through one long-lived channel a process.

Nothing of etcd3's own watch, lock or retry code is used; each was seen to lose or to burn. A read may be
asked again within its patience. A write waits for a connection but is sent once: when the answer is
lost, so is the knowledge whether it happened.

The watch is a stream over the whole store (one over a prefix never learns how far the store has come),
opened anew after every outage from just after what was told last. A watch that starts in the
future, as happens when the cluster behind the address was replaced or restored, etcd accepts without
a word. So whenever one is opened, a read at the revision we hold proves that history goes on from
there; that read also refuses a revision that is just being compacted, where a deletion may be missing.
"""
from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # read when grpc is imported; its fork handlers break our children

import grpc

from wisp.errors import Problem
from wisp.store import (
    Absent,
    At,
    Batch,
    Born,
    Change,
    Clear,
    Compacted,
    Delete,
    Empty,
    Entry,
    Guard,
    LeaseGone,
    Lost,
    Op,
    Put,
    Span,
    View,
    etcdrpc,
    under,
)

rpc: Any = etcdrpc.install()

import etcd3  # noqa: E402  only after its messages are in place

PATIENCE = 6.0
ATTEMPT = 2.0
PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
WHOLE = b"\0"
LEADER = (("hasleader", "true"),)  # a member that lost its cluster ends the watch instead of falling silent
OPTIONS = {
    "grpc.max_receive_message_length": -1,
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.min_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 1000,
    "grpc.keepalive_time_ms": 10_000,
    "grpc.keepalive_timeout_ms": 3_000,
    "grpc.http2.max_pings_without_data": 0,
    "grpc.service_config": json.dumps({"loadBalancingConfig": [{"round_robin": {}}]}),
}

log = logging.getLogger(__name__)


class EtcdStore:
    """`target`: "host:port", several of them with commas (addresses, not names), or "unix:<path>:0".

    With TLS, `ca`, `cert` and `key` are paths of PEM files; of several, each one's certificate must
    name the first.
    """

    def __init__(self, target: str, *, ca: str | None = None, cert: str | None = None, key: str | None = None) -> None:
        options = dict(OPTIONS)
        if "," in target:
            options["grpc.default_authority"] = target.split(":")[0]
            target = f"ipv4:{target}"
        host, port = target.rsplit(":", 1)
        self._client = etcd3.client(host, port, ca_cert=ca, cert_cert=cert, cert_key=key,
                                    grpc_options=list(options.items()))
        self._kv = self._client.kvstub
        self._lease = self._client.leasestub
        self._watch = rpc.WatchStub(self._client.channel)
        self._cluster = 0
        self._streams: dict[threading.Event, Any] = {}
        self._lock = threading.Lock()
        self._closed = False

    def close(self) -> None:
        self._closed = True
        self._client.close()

    # asking

    def identity(self) -> str:
        self.revision()
        return f"{self._cluster:x}"

    def revision(self) -> int:
        return self._check(0)

    def read(self, *spans: Span, revision: int = 0) -> View:
        ranges = [rpc.RequestOp(request_range=_range(span, revision)) for span in spans]
        answer = self._ask(self._kv.Txn, rpc.TxnRequest(success=ranges))
        found = [part.response_range for part in answer.responses]
        return View(revision or answer.header.revision,
                    tuple(tuple(map(_entry, part.kvs)) for part in found),
                    tuple(part.more for part in found))

    def _check(self, revision: int) -> int:
        """The store's revision, if it still knows what happened after the one given."""
        request = rpc.RangeRequest(key=WHOLE, revision=revision)  # one key: what counts them costs what there is
        answer = self._ask(self._kv.Range, request)
        return int(answer.header.revision)

    # writing

    def commit(self, guards: Sequence[Guard], ops: Sequence[Op]) -> int:
        request = rpc.TxnRequest(compare=map(_compare, guards), success=map(_operation, ops))
        answer = self._tell(self._kv.Txn, request)
        if not answer.succeeded:
            raise Lost(answer.header.revision)
        return int(answer.header.revision)

    def grant(self, ttl: int) -> int:
        return int(self._tell(self._lease.LeaseGrant, rpc.LeaseGrantRequest(TTL=ttl)).ID)

    def keep(self, lease: int) -> int:
        def once(request: Any, **options: Any) -> Any:
            return list(self._lease.LeaseKeepAlive(iter([request]), **options))
        answers = self._ask(once, rpc.LeaseKeepAliveRequest(ID=lease))
        return int(answers[-1].TTL) if answers else 0

    def revoke(self, lease: int) -> None:
        try:
            self._tell(self._lease.LeaseRevoke, rpc.LeaseRevokeRequest(ID=lease))
        except LeaseGone:
            log.debug("lease %x was gone already", lease)

    # calling

    def _ask(self, method: Callable[..., Any], request: Any) -> Any:
        """Again and again while the store seems away, until patience ends."""
        ends, pauses = time.monotonic() + PATIENCE, _pauses()
        while True:
            try:
                return self._call(method, request, min(ATTEMPT, ends - time.monotonic()))
            except grpc.RpcError as error:
                pause = next(pauses)
                if error.code() not in PASSING or time.monotonic() + pause > ends:
                    raise _translated(error) from error
            time.sleep(pause)

    def _tell(self, method: Callable[..., Any], request: Any) -> Any:
        """Once: whether it happened is not known when no answer comes."""
        try:
            return self._call(method, request, PATIENCE)
        except grpc.RpcError as error:
            raise _translated(error) from error

    def _call(self, method: Callable[..., Any], request: Any, timeout: float | None) -> Any:
        try:
            answer = method(request, timeout=timeout, wait_for_ready=True)
        except ValueError as error:  # grpc's way to say that the channel was closed
            raise Problem("store_unavailable", "The connection to the store was closed.", retry_after=1) from error
        if header := getattr(answer, "header", None):
            self._cluster = header.cluster_id
        return answer

    # watching

    def watch(self, since: int, stop: threading.Event) -> Iterator[Batch]:
        cluster, pauses = self._cluster, _pauses()
        while not stop.is_set() and not self._closed:
            try:
                with contextlib.closing(self._stream(since, stop)) as answers:
                    for answer in answers:
                        self._check_goes_on(answer, since, cluster)
                        if answer.events and not stop.is_set():
                            batch = _batch(answer.events)
                            since, pauses = batch.revision, _pauses()
                            yield batch
            except (grpc.RpcError, Problem) as error:
                log.debug("the watch from revision %d was interrupted: %s", since, error)
            stop.wait(next(pauses))

    def _check_goes_on(self, answer: Any, since: int, cluster: int) -> None:
        if answer.created:
            self._check(since)
        if answer.compact_revision or cluster not in (0, answer.header.cluster_id):
            raise Compacted(answer.compact_revision)

    def _stream(self, since: int, stop: threading.Event) -> Generator[Any, None, None]:
        over = threading.Event()
        request = rpc.WatchCreateRequest(key=WHOLE, range_end=WHOLE, start_revision=since + 1)

        def requests() -> Iterator[Any]:
            yield rpc.WatchRequest(create_request=request)
            over.wait()  # the end of the requests would be the end of the stream

        call = self._call(functools.partial(self._watch.Watch, metadata=LEADER), requests(), None)
        self._cancel_at(stop, call)
        try:
            yield from call
        finally:
            over.set()
            call.cancel()

    def _cancel_at(self, stop: threading.Event, call: Any) -> None:
        """An event wakes nobody but who waits on it: one thread for each, however many streams it sees."""
        with self._lock:
            known = stop in self._streams
            self._streams[stop] = call
        if not known:
            threading.Thread(target=self._cancel, args=(stop,), name="store-stop", daemon=True).start()

    def _cancel(self, stop: threading.Event) -> None:
        stop.wait()
        with self._lock:
            self._streams.pop(stop).cancel()


def _pauses() -> Iterator[float]:
    """Seconds between attempts: doubling up to one, each with jitter."""
    pause = 0.05
    while True:
        yield pause * random.uniform(0.5, 1.5)
        pause = min(2 * pause, 1.0)


def _translated(error: Any) -> Exception:
    code, words = error.code(), error.details() or ""
    log.debug("etcd: %s %s", code, words)
    if code == grpc.StatusCode.INVALID_ARGUMENT or "larger than max" in words:
        return ValueError(words)
    if code == grpc.StatusCode.OUT_OF_RANGE:
        return Compacted(0)
    if code == grpc.StatusCode.NOT_FOUND:
        return LeaseGone()
    full = "The store is full; an operator must make room in it."
    away = "The store does not answer; try again."
    return Problem("store_unavailable", full if "space exceeded" in words else away, retry_after=1)


# between our words and etcd's

def _bytes(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")


def _text(key: bytes) -> str:
    return key.decode("utf-8", "surrogateescape")


def _range(span: Span, revision: int) -> Any:
    return rpc.RangeRequest(key=_bytes(span.start), range_end=_bytes(span.end), limit=span.limit, revision=revision)


def _entry(kv: Any) -> Entry:
    return Entry(_text(kv.key), kv.value, kv.mod_revision, kv.create_revision, kv.lease)


def _batch(events: Sequence[Any]) -> Batch:
    """One answer holds whole transactions; its header's revision may be later than its events'."""
    changes = (Change(_text(event.kv.key), None if event.type else _entry(event.kv)) for event in events)
    return Batch(max(event.kv.mod_revision for event in events), tuple(changes))


def _compare(guard: Guard) -> Any:
    match guard:
        case At(key, revision):
            return rpc.Compare(key=_bytes(key), target=rpc.Compare.MOD, mod_revision=revision)
        case Absent(key):
            return rpc.Compare(key=_bytes(key), target=rpc.Compare.CREATE, create_revision=0)
        case Born(key, created):
            return rpc.Compare(key=_bytes(key), target=rpc.Compare.CREATE, create_revision=created)
        case Empty(prefix):
            span = under(prefix)
            return rpc.Compare(key=_bytes(span.start), range_end=_bytes(span.end), target=rpc.Compare.CREATE,
                               create_revision=0)


def _operation(op: Op) -> Any:
    match op:
        case Put(key, value, lease):
            return rpc.RequestOp(request_put=rpc.PutRequest(key=_bytes(key), value=value, lease=lease))
        case Delete(key):
            return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=_bytes(key)))
        case Clear(prefix):
            span = under(prefix)
            return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(
                key=_bytes(span.start), range_end=_bytes(span.end)))
