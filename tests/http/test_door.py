"""The API behind its real door: what only a socket, a log or an outage can show."""
from __future__ import annotations

import http.client
import json
import logging
import socket
import threading
from typing import Any

import pytest
import requests

from wisp.errors import Problem
from wisp.logs import JsonLines
from wisp.resource import Ref

LAN = "/v1/namespaces/web/networks/lan"


def get(served: Any, path: str, **request: Any) -> requests.Response:
    return requests.get(served.url + path, headers={"Authorization": f"Bearer {served.cloud.tokens['admin']}"},
                        timeout=30, **request)


def raw(served: Any, sent: bytes) -> tuple[int, dict[str, Any]]:
    """Status and body of the answer to these bytes."""
    with socket.create_connection(served.listener.address, timeout=10) as connection:
        connection.sendall(sent)
        with http.client.HTTPResponse(connection) as answer:
            answer.begin()
            assert answer.headers["Content-Type"] == "application/problem+json"
            return answer.status, json.loads(answer.read())


def test_the_door_serves_the_api(served: Any) -> None:
    answer = get(served, "/v1/namespaces/web/networks")
    assert (answer.status_code, answer.json()["items"]) == (200, [])
    assert "Server" not in answer.headers


@pytest.mark.parametrize("sent", [
    b"nonsense\r\n\r\n",
    b"GET / HTTP/1.1\r\nno colon here\r\n\r\n",
    b"GET / HTTP/1.1\r\nX-Long: " + b"a" * 300_000 + b"\r\n\r\n",
    b"PUT / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"PUT / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
])
def test_what_is_not_http_is_a_problem_too(served: Any, sent: bytes) -> None:
    status, problem = raw(served, sent)
    assert (status, problem["code"]) == (400, "malformed")


@pytest.mark.parametrize("size", [(1 << 20) + 1, 3 << 20])
def test_a_body_too_large_is_told_so_before_it_is_through(served: Any, size: int) -> None:
    headers = {"Authorization": f"Bearer {served.cloud.tokens['admin']}", "Content-Type": "application/json"}
    answer = requests.put(served.url + LAN, data=b" " * size, headers=headers, timeout=30)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_a_chunked_body_is_a_body(served: Any) -> None:
    headers = {"Authorization": f"Bearer {served.cloud.tokens['admin']}", "Content-Type": "application/json"}
    parts = iter([b'{"spec": {"cidr"', b': "10.1.0.0/24"}}'])
    assert requests.put(served.url + LAN, data=parts, headers=headers, timeout=30).status_code == 201
    refused = requests.delete(served.url + LAN, data=iter([b"x"]), headers=headers, timeout=30)
    assert (refused.status_code, refused.json()["code"]) == (400, "malformed")


def held(served: Any, answers: list[requests.Response], timeout: float) -> threading.Thread:
    """Somebody who waits for a network to go; returns once the server holds the request."""
    thread = threading.Thread(target=lambda: answers.append(get(served, f"{LAN}?wait=absent&timeout={timeout}")))
    thread.start()
    return thread


def when(condition: Any) -> None:
    """Returns once it is so; the test's own time limit ends it otherwise."""
    pause = threading.Event()
    while not condition():
        pause.wait(0.01)


def busy(served: Any) -> int:
    return sum(bool(channel.requests) for channel in list(served.listener._server.active_channels.values()))


def test_who_is_held_gets_an_answer_when_the_service_stops(served: Any) -> None:
    served.cloud.put(Ref("network", "web", "lan"), {"cidr": "10.1.0.0/24"})
    answers: list[requests.Response] = []
    waiting = held(served, answers, 2.5)
    when(lambda: busy(served))
    served.close()
    waiting.join()
    assert [answer.status_code for answer in answers] == [200]
    with pytest.raises(requests.ConnectionError):
        get(served, "/livez")


@pytest.mark.timeout(30)
def test_an_idle_connection_does_not_hold_up_the_end(served: Any) -> None:
    with requests.Session() as session:
        session.get(served.url + "/livez", timeout=30)
        served.close()
    assert not served.thread.is_alive()


def test_those_who_wait_leave_room_for_the_others(served: Any) -> None:
    served.cloud.put(Ref("network", "web", "lan"), {"cidr": "10.1.0.0/24"})
    answers: list[requests.Response] = []
    waiting = [held(served, answers, 20) for _ in range(2)]
    when(lambda: busy(served) == 2)
    third = get(served, f"{LAN}?wait=absent&timeout=0")
    assert (third.status_code, third.json()["code"], third.headers["Retry-After"]) == (503, "busy", "1")
    assert get(served, LAN).status_code == 200
    served.cloud.ask("admin", "DELETE", LAN)
    for each in waiting:
        each.join()
    assert [answer.status_code for answer in answers] == [404, 404]
    assert get(served, f"{LAN}?wait=absent&timeout=0").status_code == 404


def test_a_wait_ends_when_it_is_ready(served: Any) -> None:
    served.cloud.put(lan := Ref("network", "web", "lan"), {"cidr": "10.1.0.0/24"})
    answers: list[requests.Response] = []
    waiting = threading.Thread(target=lambda: answers.append(get(served, f"{LAN}?wait=ready&timeout=60")))
    waiting.start()
    when(lambda: busy(served))
    served.cloud.hold(lan)
    waiting.join()
    assert answers[0].json()["status"]["conditions"][0]["status"] == "True"


def test_a_fault_inside_shows_its_request_id_and_nothing_else(cloud: Any, monkeypatch: Any, caplog: Any) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("the password is hunter2")
    monkeypatch.setattr(cloud.resources, "get", broken)
    answer = cloud.ask("admin", "GET", LAN)
    assert (answer.status_code, answer.json["code"], answer.json["retryable"]) == (500, "internal", False)
    assert "hunter2" not in answer.text and "RuntimeError" not in answer.text
    logged = next(json.loads(JsonLines().format(record)) for record in caplog.records if record.levelname == "ERROR")
    assert logged["request_id"] == answer.json["request_id"] and "RuntimeError" in logged["trace"]


def test_who_is_told_to_ask_again_is_told_when(cloud: Any, monkeypatch: Any) -> None:
    def lost(*_: Any) -> None:
        raise Problem("conflict", "Others changed the same things.", retry_after=7)
    monkeypatch.setattr(cloud.resources, "get", lost)
    answer = cloud.ask("admin", "GET", LAN)
    assert (answer.status_code, answer.headers["retry-after"]) == (409, "7")


def test_an_outage_of_the_store_says_when_to_ask_again(cloud: Any, monkeypatch: Any) -> None:
    def gone() -> None:
        raise Problem("store_unavailable", "The store does not answer.")
    monkeypatch.setattr(cloud.store, "revision", gone)
    answer = cloud.ask("admin", "GET", f"{LAN}?wait=ready")
    assert (answer.status_code, answer.headers["retry-after"], answer.json["retryable"]) == (503, "1", True)
    ready = cloud.ask("nobody", "GET", "/readyz")
    assert (ready.status_code, ready.json["store"]) == (503, False)
    assert cloud.ask("nobody", "GET", "/livez").status_code == 200


def test_the_log_says_who_asked_what_and_keeps_secrets(cloud: Any, caplog: Any) -> None:
    caplog.set_level(logging.INFO, "wisp.access")
    cloud.ask("admin", "PUT", "/v1/namespaces/web/instances/front", json.dumps({"spec": {
        "cpus": 1, "memory_mib": 64, "disks": [{"size_gib": 1}], "user_data": "#!hunter2"}}),
        {"Content-Type": "application/json", "X-Request-Id": "r-1"})
    lines = [JsonLines().format(record) for record in caplog.records]
    line = json.loads(lines[-1])
    assert {name: line[name] for name in ("request_id", "method", "route", "status", "actor")} == {
        "request_id": "r-1", "method": "PUT", "route": "/v1/namespaces/{namespace}/instances/{name}", "status": 201,
        "actor": "web/admin"}
    assert "hunter2" not in "".join(lines) and cloud.tokens["admin"].rsplit("_")[-1] not in "".join(lines)
