"""Those who guess are slowed; those beside them are not."""
from __future__ import annotations

import pytest

from wisp.admission import Caller
from wisp.api import bearers
from wisp.api.bearers import TOKENS, Bearers
from wisp.errors import Problem

OFFICE, HOME = "192.0.2.1", "192.0.2.2"
KEYS = {"good": Caller("web", "viewer", "web/good"), "other": Caller("web", "viewer", "web/other")}


class Door:
    """A door at which time passes only when it is told to. `looked`: keys that were really looked at."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.valid = dict(KEYS)
        self.looked: list[str | None] = []
        self.bearers = Bearers(self.authenticate, lambda: self.now)

    def authenticate(self, authorization: str | None) -> Caller:
        self.looked.append(authorization)
        if authorization not in self.valid:
            raise Problem("unauthenticated", "The request carries no valid API key.")
        return self.valid[authorization]

    def ask(self, key: str | None, address: str = OFFICE) -> str:
        try:
            return self.bearers.known(key, address).name
        except Problem as problem:
            return f"{problem.code} {problem.retry_after}" if problem.retry_after else problem.code

    def guess(self, times: int, address: str = OFFICE) -> list[str]:
        return [self.ask(f"guess-{number}", address) for number in range(times)]


@pytest.fixture
def door() -> Door:
    return Door()


def test_who_guesses_too_often_is_told_to_wait(door: Door) -> None:
    assert door.guess(TOKENS) == ["unauthenticated"] * TOKENS
    assert door.guess(1) == ["too_many_requests 1"]


def test_a_guess_too_many_is_not_even_looked_at(door: Door) -> None:
    door.guess(TOKENS)
    door.looked.clear()
    assert door.ask("good") == "too_many_requests 1" and door.looked == []


def test_a_second_buys_one_guess(door: Door) -> None:
    door.guess(TOKENS)
    door.now += 1
    assert door.guess(2) == ["unauthenticated", "too_many_requests 1"]


def test_who_rests_may_mistake_again(door: Door) -> None:
    door.guess(TOKENS)
    door.now += TOKENS
    assert door.guess(TOKENS + 1)[-2:] == ["unauthenticated", "too_many_requests 1"]


def test_other_addresses_are_not_concerned(door: Door) -> None:
    door.guess(TOKENS)
    assert door.ask("good", HOME) == "web/good"


def test_a_key_that_worked_from_there_works_beside_one_who_guesses(door: Door) -> None:
    door.ask("good")
    door.guess(TOKENS + 5)
    assert door.ask("good") == "web/good"
    assert door.ask("other").startswith("too_many_requests")


def test_a_key_that_worked_elsewhere_is_no_excuse_here(door: Door) -> None:
    door.ask("good", HOME)
    door.guess(TOKENS)
    assert door.ask("good") == "too_many_requests 1"


def test_a_revoked_key_that_had_worked_is_a_wrong_key_from_then_on(door: Door) -> None:
    door.ask("good")
    door.guess(TOKENS)
    del door.valid["good"]
    assert [door.ask("good"), door.ask("good")] == ["unauthenticated", "too_many_requests 2"]


def test_success_costs_nothing_and_forgives_nothing(door: Door) -> None:
    assert {door.ask("good") for _ in range(3 * TOKENS)} == {"web/good"}
    door.guess(TOKENS - 1)
    door.ask("good")
    assert door.guess(2) == ["unauthenticated", "too_many_requests 1"]


def test_without_a_key_nothing_is_guessed(door: Door) -> None:
    assert {door.ask(None) for _ in range(3 * TOKENS)} == {"unauthenticated"}
    assert door.guess(1) == ["unauthenticated"]


def test_all_addresses_of_a_host_are_one(door: Door) -> None:
    for number in range(TOKENS):
        door.ask("guess", f"2001:db8:0:1::{number:x}")
    assert door.guess(1, "2001:db8:0:1:ffff::1") == ["too_many_requests 1"]
    assert door.guess(1, "2001:db8:0:2::1") == ["unauthenticated"]
    assert door.guess(1, "fe80::1%eth0") == ["unauthenticated"]


def test_what_is_no_address_is_the_machine_that_forwarded_it(door: Door) -> None:
    assert [door.ask("guess", f"zz:{number}") for number in range(TOKENS)] == ["unauthenticated"] * TOKENS
    assert door.guess(1, "nonsense") == door.guess(1, "127.0.0.1") == ["too_many_requests 1"]
    assert door.guess(1) == ["unauthenticated"]


def test_what_is_remembered_is_bounded(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bearers, "REMEMBERED", 3)
    for number in range(9):
        door.ask("guess", f"198.51.100.{number}")
        door.ask("good", f"203.0.113.{number}")
    assert (len(door.bearers._whole), len(door.bearers._proven)) == (3, 3)
