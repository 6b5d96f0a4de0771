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
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "source": record.name,
            "message": record.getMessage(),
            **asking.get(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def to_stderr(level: int = logging.INFO) -> None:
    """Everything of this level and above goes to stderr, and nowhere else."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
