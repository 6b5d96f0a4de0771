"""The REST client of the command line: one `call`, and what is built of it.

A wait is a chain of long polls, so it outlives a restart of the service; everything else is asked once,
and what went wrong is said as the API said it.
"""
from __future__ import annotations

import ssl
import time
from collections.abc import Iterator, Mapping
from typing import Any

import requests

from wisp.conditions import has_failed, is_ready

LONG_POLL = 30


class Refused(Exception):
    """The service said no; `problem` is its problem document."""

    def __init__(self, problem: Mapping[str, Any]) -> None:
        self.problem = problem
        self.code = str(problem.get("code", ""))
        self.retryable = bool(problem.get("retryable"))

    def __str__(self) -> str:
        lines = [f"{self.problem.get('title', 'Refused')}: {self.problem.get('detail', '')}"]
        lines += [f"  {fault['pointer'] or '(body)'}: {fault['detail']}" for fault in self.problem.get("errors", [])]
        return "\n".join([*lines, f"  ({self.code}, request {self.problem.get('request_id', '?')})"])


class Unanswered(Exception):
    """Nobody, or somebody else, answers at the endpoint."""

    code = ""
    retryable = True


class TimeIsUp(Exception):
    """What was waited for has not come; `document` is as it is."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document


class Client:
    def __init__(self, endpoint: str, token: str, minor: int) -> None:
        """`minor`: the version of v1 that it was built for; fields that came later keep what others gave them."""
        self._endpoint = endpoint.rstrip("/")
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {token}"
        self._session.headers["Wisp-Version"] = f"1.{minor}"
        self._session.trust_env = False     # a .netrc would replace the key, a proxy variable the endpoint
        trusted = ssl.get_default_verify_paths()    # the machine's, or SSL_CERT_FILE, as for other programs
        self._session.verify = trusted.cafile or trusted.capath or True

    def call(self, method: str, path: str, **request: Any) -> Any:
        """The answer's document, None where it has none."""
        return self._ask(method, path, **request)[0]

    def seen(self, path: str) -> dict[str, str]:
        """Headers that go with a change of it, so that only what was there just now is changed: a namespace may ask for
        that. None for what is not there yet."""
        try:
            return {"If-Match": self._ask("GET", path)[1]["ETag"]}
        except Refused as refused:
            if refused.code == "not_found":
                return {}
            raise

    def _ask(self, method: str, path: str, *, timeout: float = 30, **request: Any) -> tuple[Any, Mapping[str, str]]:
        try:
            answer = self._session.request(method, self._endpoint + path, timeout=(5, timeout), **request)
            shown = answer.json() if answer.content else None
        except requests.JSONDecodeError:
            raise Unanswered(f"{self._endpoint} answers, but not as wisp does (HTTP {answer.status_code})") from None
        except requests.RequestException as error:
            raise Unanswered(f"no answer from {self._endpoint} ({type(error).__name__})") from error
        if answer.ok:
            return shown, answer.headers
        raise Refused(shown if isinstance(shown, dict) else {"title": f"HTTP {answer.status_code}"})

    def pages(self, path: str, query: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        page = self.call("GET", path, params=query)
        yield from page["items"]
        while "next" in page:
            page = self.call("GET", path, params={**query, "after": page["next"]})
            yield from page["items"]

    def wait(self, path: str, until: str, seconds: float) -> dict[str, Any] | None:
        """The document once it is ready or has failed for good, None once it is absent. Raises TimeIsUp."""
        deadline = time.monotonic() + seconds
        while True:
            left = max(0.0, deadline - time.monotonic())
            held = round(min(left, LONG_POLL), 3)
            try:
                shown = self.call("GET", path, params={"wait": until, "timeout": held}, timeout=held + 15)
                if until == "ready" and (is_ready(shown) or has_failed(shown)):
                    return shown  # type: ignore[no-any-return]
                if not left:
                    raise TimeIsUp(shown)
            except (Unanswered, Refused) as error:
                if until == "absent" and error.code == "not_found":
                    return None
                if not (left and error.retryable):
                    raise
                time.sleep(min(1, left))
