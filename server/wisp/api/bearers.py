"""Who asks; and those who guess are slowed.

A wrong key costs its client's address a token of twenty, and one comes back each second; without a token
a key is not even looked at, but answered 429. Only failures count. So that a neighbour behind the same
address is not shut out with the one who guesses, a key that has worked from there before is let through
to be looked at: a guess is no such key. Whoever shows no key has guessed nothing. An IPv6 address
counts as its /64, which one host may have to itself; what is no address, as if nothing
had been forwarded. Both memories are bounded: the oldest go first.
"""
from __future__ import annotations

import hashlib
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import Any

import falcon

from wisp import logs
from wisp.admission import Caller
from wisp.errors import Problem

TOKENS = 20
REFILL = 1.0
REMEMBERED = 10_000


class Bearers:
    def __init__(self, authenticate: Callable[[str | None], Caller],
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._authenticate, self._clock = authenticate, clock
        self._lock = threading.Lock()
        self._whole: OrderedDict[str, float] = OrderedDict()     # client -> when it has all its tokens again
        self._proven: OrderedDict[tuple[str, bytes], None] = OrderedDict()

    def caller(self, req: falcon.Request) -> Caller:
        """Raises `unauthenticated`, `too_many_requests`."""
        caller = self.known(req.auth, req.remote_addr)
        logs.asking.set({**logs.asking.get(), "actor": caller.name})
        return caller

    def known(self, authorization: str | None, address: str) -> Caller:
        if not authorization:
            return self._authenticate(None)
        client = _client(address)
        proof = client, hashlib.sha256(authorization.encode()).digest()
        with self._lock:
            missing = self._whole.get(client, 0.0) - self._clock() - (TOKENS - 1) * REFILL
            if missing > 0 and proof not in self._proven:
                raise Problem("too_many_requests", "Too many wrong keys came from this address; ask again later.",
                              retry_after=math.ceil(missing))
        try:
            caller = self._authenticate(authorization)
        except Problem:
            with self._lock:
                self._proven.pop(proof, None)
                _remember(self._whole, client, max(self._whole.get(client, 0.0), self._clock()) + REFILL)
            raise
        with self._lock:
            _remember(self._proven, proof, None)
        return caller


def _client(address: str) -> str:
    try:
        read = ip_address(address.partition("%")[0])
    except ValueError:
        return "127.0.0.1"      # who forwards stands there
    return read.packed[:8].hex() if isinstance(read, IPv6Address) else str(read)


def _remember(memory: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) > REMEMBERED:
        memory.popitem(last=False)
