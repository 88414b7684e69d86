"""Structured logs on stderr: an event's name and its fields; ids, counts, codes, durations.

Nothing here may carry a prompt or an answer. Of exceptions only the type and
the places are written, never the message, which may quote what was sent.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import datetime, timezone
from typing import Any

from segue_protocol.errors import InvalidRequest

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")
OURS = ("segue_cloud", "segue_protocol")

_FIELDS = "segue_fields"


def event(logger: logging.Logger, level: int, name: str, **fields: Any) -> None:
    """Log that `name` happened. Fields are JSON values."""
    logger.log(level, name, extra={_FIELDS: fields})


def configure(form: str, level: str) -> None:
    """Send this process's logs to stderr.

    Other people's libraries stay at warnings, whatever the level: their debug
    output quotes what passes through them. Raises InvalidRequest on an unknown
    form or level.
    """
    if form not in FORMATS:
        raise InvalidRequest(f"log_format is {form!r}, expected one of {', '.join(FORMATS)}")
    if level not in LEVELS:
        raise InvalidRequest(f"log_level is {level!r}, expected one of {', '.join(LEVELS)}")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    for name in OURS:
        logging.getLogger(name).setLevel(level.upper())


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, event, then the event's fields."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            "pid": record.process,
        }
        # An event's own field is more precise than ours of the same name.
        entry.update(_fields(record))
        return json.dumps(entry)


class TextFormatter(logging.Formatter):
    """For people: time, level, event, field=value."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={json.dumps(value)}" for name, value in _fields(record).items())
        message = " ".join(record.getMessage().splitlines())
        return f"{_time(record)} {record.levelname.lower()} {message}{fields}"


def _time(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, timezone.utc)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields = dict(getattr(record, _FIELDS, {}))
    if record.exc_info and record.exc_info[0] is not None:
        fields["exception"] = record.exc_info[0].__name__
        fields["stack"] = [
            f"{frame.filename}:{frame.lineno} {frame.name}"
            for frame in traceback.extract_tb(record.exc_info[2])
        ]
    return fields
