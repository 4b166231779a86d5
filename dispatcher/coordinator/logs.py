"""The log lines of the coordinator as a service: for people, or as JSON; each names group and member where it can.

What a record says besides its text stands in ``extra``: ``group``, ``members`` (ids), ``peer``, ``kind``. A client
chooses names and reasons, so nothing that is not printable leaves here as it came.
"""

from __future__ import annotations

import json
import logging
import time
from enum import Enum
from typing import Any, Final, TextIO

from dispatcher.coordinator.live import Notice

LOGGER: Final = "multinode.coordinator"
"""The logger that the coordinator's parts write to."""

_LEVELS: Final = {
    "stuck": logging.WARNING,
    "absent": logging.WARNING,
    "expired": logging.WARNING,
    "damaged": logging.ERROR,
}


class LogFormat(Enum):
    """What a line looks like."""

    TEXT = "text"
    JSON = "json"


def configure(form: LogFormat, stream: TextIO) -> None:
    """Send what the coordinator and asyncio log to a stream, from INFO and WARNING upwards."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TextFormatter() if form is LogFormat.TEXT else JsonFormatter())
    for name, level in ((LOGGER, logging.INFO), ("asyncio", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level)
        logger.propagate = False


def tell(group: str, notice: Notice) -> None:
    """Log what happened to a group; an observer of a :class:`~dispatcher.coordinator.hall.Hall`."""
    extra = {"group": group, "members": notice.members, "kind": notice.kind}
    logging.getLogger(LOGGER).log(_LEVELS.get(notice.kind, logging.INFO), "%s", notice.text, extra=extra)


class TextFormatter(logging.Formatter):
    """``2026-01-31T12:00:00Z WARNING group=nightly members=1,2 stuck: …``, one line a record."""

    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        kind = fields.pop("kind", None)
        traceback = fields.pop("traceback", "")
        head = [_stamp(record), record.levelname, *(f"{name}={_word(value)}" for name, value in fields.items())]
        message = _printable(record.getMessage())
        return " ".join([*head, f"{kind}: {message}" if kind else message]) + (f"\n{traceback}" if traceback else "")


class JsonFormatter(logging.Formatter):
    """One JSON object a line, in ASCII: ``time``, ``level``, ``message``, and what else the record says."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"time": _stamp(record), "level": record.levelname.lower(), "message": record.getMessage()}
        return json.dumps({**line, **_fields(record)})


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields = {name: getattr(record, name, None) for name in ("group", "members", "peer", "kind")}
    if isinstance(fields["peer"], tuple):
        fields["peer"] = f"{fields['peer'][0]}:{fields['peer'][1]}"
    if record.exc_info:
        fields["traceback"] = logging.Formatter().formatException(record.exc_info)
    return {name: value for name, value in fields.items() if value}


def _stamp(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"


def _word(value: object) -> str:
    text = ",".join(value) if isinstance(value, tuple) else str(value)
    return _printable(text if " " not in text else json.dumps(text, ensure_ascii=False))


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
