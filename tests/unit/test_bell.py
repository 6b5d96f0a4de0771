"""The bell: nothing rung is missed, ten rings are one, and nobody waits for ever because others are loud."""
from __future__ import annotations

import threading
import time

from wisp.bell import Bell
from wisp.resource import Ref

A, B, C = (Ref("instance", "web", name) for name in "abc")


def never() -> float:
    return time.monotonic() + 60


def test_rung_ten_times_it_is_heard_once() -> None:
    bell = Bell()
    for _ in range(10):
        bell.ring([A])
    bell.ring([B])
    assert bell.listen(never()) == {A, B}
    bell.ring([C])
    assert bell.listen(never()) == {C}


def test_rung_for_everything_it_names_nobody() -> None:
    bell = Bell()
    bell.ring([A])
    bell.ring_all()
    assert bell.listen(never()) is None
    bell.ring([B])
    assert bell.listen(never()) == {B}, "and what was rung before has been heard"


def test_what_is_rung_for_later_is_heard_then() -> None:
    bell = Bell()
    bell.ring_later(B, 0.05)
    bell.ring_later(A, 0.01)
    assert bell.listen(never()) == {A}
    assert bell.listen(never()) == {B}


def test_what_is_due_is_heard_though_others_keep_ringing() -> None:
    bell = Bell()
    bell.ring_later(A, 0)
    bell.ring([B])
    assert bell.listen(never()) == {A, B}


def test_the_safety_turn_comes_when_it_is_due_though_others_keep_ringing() -> None:
    bell = Bell()
    assert bell.listen(time.monotonic() + 0.01) is None
    bell.ring([A])
    assert bell.listen(time.monotonic()) is None


def test_a_stopped_bell_keeps_nobody_waiting() -> None:
    bell = Bell()
    listener = threading.Thread(target=bell.listen, args=(never(),))
    listener.start()
    bell.stop()
    listener.join(20)
    assert not listener.is_alive()


def test_of_many_who_ring_at_once_none_is_missed() -> None:
    bell, heard, rung = Bell(), set[Ref](), {Ref("instance", "web", f"vm-{n}") for n in range(400)}
    everything = threading.Event()

    def listen() -> None:
        while not everything.is_set():
            heard.update(bell.listen(never()) or ())
            if rung <= heard:
                everything.set()
    listener = threading.Thread(target=listen, daemon=True)
    listener.start()

    def ring(refs: list[Ref]) -> None:
        for n, ref in enumerate(refs):
            bell.ring_later(ref, 0.001) if n % 3 == 0 else bell.ring([ref])
    some = sorted(rung)
    ringers = [threading.Thread(target=ring, args=(some[n::8],)) for n in range(8)]
    for ringer in ringers:
        ringer.start()
    assert everything.wait(20), rung - heard
