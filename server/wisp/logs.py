"""One line of JSON per event, for machines to read and people to grep.

Whoever logs says a sentence and, beside it, `extra={"fields": {…}}`; the fields become members of the
line, and so do those of `asking`: whose request this thread is at work for. What a line never holds:
an API key beyond its public id, user data, the body of a request.
"""
from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

asking: ContextVar[Mapping[str, Any]] = ContextVar("asking", default={})  # noqa: B039


class JsonLines(logging.Formatter):
    def __init__(self, **fields: str) -> None:
        """`fields`: members of every line."""
        super().__init__()
        self._fields = fields

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "source": record.name,
            "message": record.getMessage(),
            **self._fields,
            **asking.get(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def to_stderr(**fields: str) -> None:
    """Everything that is worth a word goes to stderr, and nowhere else; `fields` are members of every line."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines(**fields))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
