"""The settings of the coordinator as a service: their names, what they may be, and the file that holds them.

The file is LAVA's ``lava-coordinator.conf``: one JSON object, which LAVA's clients on the same machine read, too.
They and LAVA's coordinator ignore keys that they do not know, so ours stand among LAVA's.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from dispatcher.coordinator.hall import EXPIRY, MEMBERS_LIMIT
from dispatcher.coordinator.journal.sqlite import Sync
from dispatcher.coordinator.live import GRACE
from dispatcher.coordinator.logs import LogFormat
from dispatcher.coordinator.remote import DEFAULT_PORT
from dispatcher.coordinator.server import Limits
from dispatcher.coordinator.watch import ABSENCE
from dispatcher.errors import FileError
from dispatcher.wording import nearest, quoted

FILE_LIMIT: Final = 64 * 1024
"""Bytes of the file."""

CLIENTS_KEYS: Final = frozenset(
    [
        "blocksize",
        "poll_delay",
        *(f"coordinator_{name}" for name in ("hostname", "tls_ca", "tls_cert", "tls_key", "token_file")),
    ]
)
"""Keys that only LAVA's clients need, and multinode-lava's: where they connect to and how, how often they ask."""

_LIMITS = Limits()
_DURATION_LIMIT = 365 * 24 * 3600
_BLANK = re.compile(r"[ \t\r\n]*")
_WHOLE = re.compile(r"0|[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a service is told.

    :param host: the address to listen on; :param port: 0 for any that is free.
    :param local_port: listen there too, without TLS, on this machine alone; None: do not.
    :param insecure_listen: listen beyond this machine without TLS.
    :param journal: the journal's file; None: in memory.
    :param stuck_grace: seconds until the waits of stuck members fail; None: never.
    :param absence: seconds that the dispatcher of a member may be away; None: any time.
    :param expiry: seconds without a word until a group is forgotten; None: never.
    :param members: of all open groups, and again of those that form.
    :param metrics_port: None: no metrics.
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    local_port: int | None = None
    insecure_listen: bool = False
    journal: Path | None = None
    sync: Sync = Sync.NORMAL
    stuck_grace: float | None = GRACE
    absence: float | None = ABSENCE
    expiry: float | None = EXPIRY
    connections: int = _LIMITS.connections
    members: int = MEMBERS_LIMIT
    header_timeout: float = _LIMITS.header
    body_timeout: float = _LIMITS.body
    reply_timeout: float = _LIMITS.reply
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    tokens: Path | None = None
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = None
    log_format: LogFormat = LogFormat.TEXT

    @property
    def limits(self) -> Limits:
        """How much a client may ask of the server."""
        return Limits(self.connections, self.header_timeout, self.body_timeout, self.reply_timeout)


# --- what a value may be -----------------------------------------------------------------------------------------
# Each takes a JSON value or the text of a command line, and raises ValueError with what it wants.

Reader = Callable[[object], Any]


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError("a text")
    return value


def _path(value: object) -> Path:
    return Path(_text(value))


def _journal(value: object) -> Path | None:
    return None if value == "memory" else _path(value)


def _whole(minimum: int, maximum: int) -> Reader:
    def read(value: object) -> int:
        text = value if isinstance(value, str) else json.dumps(value)
        if not _WHOLE.fullmatch(text) or not minimum <= int(text) <= maximum:
            raise ValueError(f"a whole number from {minimum} to {maximum}")
        return int(text)

    return read


def _seconds(value: object) -> float:
    try:
        seconds = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        seconds = math.nan
    if not 0 < seconds <= _DURATION_LIMIT:
        raise ValueError("a number of seconds, more than 0 and at most a year")
    return seconds


def _seconds_or_never(value: object) -> float | None:
    try:
        return None if value in ("never", None) else _seconds(value)
    except ValueError as error:
        raise ValueError(f"{error}, or never") from None


def _grace(value: object) -> float | None:
    return 0.0 if value in (0, "0") and value is not False else _seconds_or_never(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _one_of(words: type[Sync] | type[LogFormat]) -> Reader:
    def read(value: object) -> Sync | LogFormat:
        known = [word.value for word in words]
        if value not in known:
            raise ValueError(" or ".join(known))
        return words(value)

    return read


READERS: Final[Mapping[str, Reader]] = {
    "host": _text,
    "port": _whole(0, 65535),
    "local_port": _whole(0, 65535),
    "insecure_listen": _flag,
    "journal": _journal,
    "sync": _one_of(Sync),
    "stuck_grace": _grace,
    "absence": _seconds_or_never,
    "expiry": _seconds_or_never,
    "connections": _whole(1, 1_000_000),
    "members": _whole(1, 100_000_000),
    "header_timeout": _seconds,
    "body_timeout": _seconds,
    "reply_timeout": _seconds,
    "tls_cert": _path,
    "tls_key": _path,
    "tls_client_ca": _path,
    "tokens": _path,
    "metrics_host": _text,
    "metrics_port": _whole(0, 65535),
    "log_format": _one_of(LogFormat),
}
"""The settings, by the keys of the file; each is a field of :class:`Settings`."""


def read_value(key: str, value: object) -> Any:
    """The value of one setting, from the file or from a command line.

    :raises ValueError: it cannot be that; one line says what it must be.
    """
    try:
        return READERS[key](value)
    except ValueError as error:
        shown = quoted(value) if isinstance(value, str) else quoted(json.dumps(value))[1:-1]
        raise ValueError(f"{key} must be {error}, not {shown}") from None


# --- the file ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class File:
    """What a settings file says: :param values: of our settings; :param clients: of the keys for LAVA's clients."""

    values: Mapping[str, Any] = field(default_factory=dict)
    clients: Mapping[str, object] = field(default_factory=dict)


def read_file(path: Path) -> File:
    """Read a ``lava-coordinator.conf``. Paths in it that are not absolute begin at its directory.

    :raises FileError: it cannot be read, or something in it is wrong; names the line.
    """
    text = _content(path)
    values: dict[str, Any] = {}
    clients: dict[str, object] = {}
    lines: dict[str, int] = {}
    for line, key, value in _entries(path, text):
        where = f"{path}:{line}"
        if key in lines:
            raise FileError(f"key {quoted(key)} stands twice: in line {lines[key]} and in line {line}", where=where)
        lines[key] = line
        if key in CLIENTS_KEYS:
            clients[key] = value
            continue
        if key not in READERS:
            raise FileError(f"unknown key {quoted(key)}{nearest(key, [*READERS, *CLIENTS_KEYS])}", where=where)
        try:
            setting = read_value(key, value)
        except ValueError as error:
            raise FileError(str(error), where=where) from None
        values[key] = path.parent / setting if isinstance(setting, Path) else setting
    return File(values, clients)


def _content(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            data = stream.read(FILE_LIMIT + 1)
    except OSError as error:
        raise FileError(f"{quoted(str(path), 200)} cannot be read: {error.strerror or error}") from error
    if len(data) > FILE_LIMIT:
        raise FileError(f"is larger than {FILE_LIMIT // 1024} KiB", where=str(path))
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        where = f"{path}:{data.count(10, 0, error.start) + 1}"
        raise FileError(f"byte 0x{data[error.start]:02x} is not UTF-8", where=where) from error


def _entries(path: Path, text: str) -> Iterator[tuple[int, str, object]]:
    """Line, key and value of each entry of the object that is the file."""
    try:
        whole = json.loads(text)
    except json.JSONDecodeError as error:
        hint = "JSON has double quotes, a comma between two entries and none after the last, and no comments"
        raise FileError(f"not valid JSON: {error.msg}", where=f"{path}:{error.lineno}", hint=hint) from error
    except (ValueError, RecursionError) as error:
        raise FileError("not valid JSON: too long a number, or nested too deeply", where=str(path)) from error
    if not isinstance(whole, dict):
        raise FileError("must be one JSON object: {...}", where=f"{path}:1")
    # The text is good, so this need not look for errors again.
    decoder = json.JSONDecoder()
    at = _past_blanks(text, text.index("{") + 1)
    while text[at] != "}":
        line = text.count("\n", 0, at) + 1
        key, at = decoder.raw_decode(text, at)
        value, at = decoder.raw_decode(text, _past_blanks(text, _past_blanks(text, at) + 1))
        yield line, key, value
        at = _past_blanks(text, at)
        if text[at] == ",":
            at = _past_blanks(text, at + 1)


def _past_blanks(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    return found.end() if found else at


def default_journal(environment: Mapping[str, str] | None = None) -> Path:
    """Where the journal is if nobody says so: systemd's ``StateDirectory``, or the user's state directory."""
    environment = os.environ if environment is None else environment
    if state := environment.get("STATE_DIRECTORY"):
        return Path(state.partition(":")[0]) / "journal.sqlite3"
    home = environment.get("XDG_STATE_HOME") or Path(environment.get("HOME", "/")) / ".local" / "state"
    return Path(home) / "multinode" / "journal.sqlite3"
