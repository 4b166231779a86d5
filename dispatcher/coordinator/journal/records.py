"""The bytes that stand for a group and for its events where a journal is stored.

JSON arrays in UTF-8, each with its kind first. Text that was no UTF-8 on a console holds lone surrogates; they are
kept (``surrogatepass``), so that what is read is equal to what was written.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final

from dispatcher.coordinator.journal import GroupRecord
from dispatcher.group.events import Event, Joined, Left, Member, Sent, Synced, WaitFailed

_WRITTEN: Final[dict[type[Event], tuple[str, Callable[[Any], tuple[Any, ...]]]]] = {
    Joined: ("joined", attrgetter("request", "member")),
    Sent: ("sent", attrgetter("request", "member", "message_id", "data")),
    Synced: ("synced", attrgetter("request", "member", "message_id")),
    WaitFailed: ("failed", attrgetter("request", "member", "reason")),
    Left: ("left", attrgetter("request", "member", "reason")),
}


def write_event(event: Event) -> bytes:
    """An event as bytes."""
    kind, fields = _WRITTEN[type(event)]
    return _write([kind, *fields(event)])


def read_event(record: bytes) -> Event:
    """The event that :func:`write_event` wrote. :raises ValueError: it wrote nothing like that."""
    match _read(record):
        case ["joined", str(request), str(member)]:
            return Joined(request, member)
        case ["sent", str(request), str(member), str(message_id), list(data)]:
            return Sent(request, member, message_id, _pairs(data))
        case ["synced", str(request), str(member), str(message_id)]:
            return Synced(request, member, message_id)
        case ["failed", str(request), str(member), str(reason)]:
            return WaitFailed(request, member, reason)
        case ["left", str(request), str(member), str(reason)]:
            return Left(request, member, reason)
    raise ValueError("no event")


def write_group(group: GroupRecord) -> bytes:
    """A group as bytes."""
    return _write(
        ["group", group.name, group.run, group.opened, [(member.id, member.role) for member in group.members]]
    )


def read_group(record: bytes) -> GroupRecord:
    """The group that :func:`write_group` wrote. :raises ValueError: it wrote nothing like that."""
    match _read(record):
        case ["group", str(name), str(run), int() | float() as opened, list(members)]:
            return GroupRecord(name, run, tuple(Member(*pair) for pair in _pairs(members)), opened)
    raise ValueError("no group")


def _write(value: list[Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _read(record: bytes) -> Any:
    try:
        return json.loads(record.decode("utf-8", "surrogatepass"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _pairs(values: list[Any]) -> tuple[tuple[str, str], ...]:
    pairs = []
    for value in values:
        match value:
            case [str(first), str(second)]:
                pairs.append((first, second))
            case _:
                raise ValueError("no pair of texts")
    return tuple(pairs)
