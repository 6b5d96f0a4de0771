"""The end under load: who was heard is answered, and what was not answered was not done."""
from __future__ import annotations

import http.client
import json
import socket
import threading
from collections import Counter
from typing import Any

import requests

from wisp.resource import PREFIX
from wisp.store import under

NETWORKS = "/v1/namespaces/web/networks"
CALLERS = 12
LONGER_THAN_A_SHRUG = 1.5
"""Seconds: the listener's threads are given one to end in, whoever they are at work for."""


def put(served: Any, session: requests.Session, name: str) -> int:
    headers = {"Authorization": f"Bearer {served.cloud.tokens['admin']}"}
    return session.put(f"{served.url}{NETWORKS}/{name}", json={"spec": {"cidr": "10.1.0.0/24"}},
                       headers=headers, timeout=60).status_code


def test_under_load_what_was_answered_is_recorded_and_nothing_else(served: Any, monkeypatch: Any) -> None:
    commit = served.cloud.store.commit
    ending, caught, go_on = threading.Event(), threading.Event(), threading.Event()

    def slowly(*asked: Any) -> int:         # when the end comes, some are recorded and not answered yet
        revision: int = commit(*asked)
        if ending.is_set():
            caught.set()
            go_on.wait()
        return revision
    monkeypatch.setattr(served.cloud.store, "commit", slowly)
    answers: Counter[int] = Counter()
    told: set[str] = set()
    busy = threading.Barrier(CALLERS + 1)

    def call(number: int) -> None:
        with requests.Session() as kept:
            for turn in range(100_000):
                if turn == 5:
                    busy.wait()
                try:        # some keep their connection, some come anew each time
                    code = put(served, kept if number % 2 else requests.Session(), f"n{number}-{turn}")
                except requests.ConnectionError:
                    return
                answers[code] += 1
                told.add(f"n{number}-{turn}")

    callers = [threading.Thread(target=call, args=[number]) for number in range(CALLERS)]
    for each in callers:
        each.start()
    busy.wait()
    ending.set()
    caught.wait()
    threading.Timer(LONGER_THAN_A_SHRUG, go_on.set).start()
    served.close()
    for each in callers:
        each.join()
    recorded = served.cloud.store.read(under(f"{PREFIX}intent/web/network/")).spans[0]
    assert {entry.key.rsplit("/", 1)[1] for entry in recorded} == told
    assert set(answers) == {201} and answers[201] >= 5 * CALLERS


def test_who_had_asked_before_the_end_is_answered(served: Any) -> None:
    request = f"GET {NETWORKS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {served.cloud.tokens['admin']}\r\n\r\n"
    callers = [socket.create_connection(served.listener.address, timeout=60) for _ in range(100)]
    for each in callers:
        each.sendall(request.encode())
    served.close()
    codes: Counter[int | str] = Counter()
    for each in callers:
        with each, http.client.HTTPResponse(each) as answer:
            try:
                answer.begin()
                json.loads(answer.read())
                codes[answer.status] += 1
            except (ConnectionError, http.client.HTTPException) as error:
                codes[type(error).__name__] += 1
    assert codes == {200: 100}
