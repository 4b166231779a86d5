"""What can happen to a group: the records of its log, in the words that the log keeps.

A log is one totally ordered, append-only sequence of these events; :mod:`dispatcher.group.rendezvous` folds it.
All fields are text (decoded with ``surrogateescape`` where they came from a device). ``request`` is the id of the
request that caused the event, unique within the group's life: an event whose request was seen before is a repeat
and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Member:
    """One console of the group: its job id and the role that it plays."""

    id: str
    role: str

    def __str__(self) -> str:
        return f"{self.id} ({self.role})"


@dataclass(frozen=True, slots=True)
class Joined:
    """The member is here: for the first time, or again after it had left."""

    request: str
    member: str


@dataclass(frozen=True, slots=True)
class Sent:
    """The member sent a message. ``data`` holds its pairs in the order sent; of one key twice the last holds."""

    request: str
    member: str
    message_id: str
    data: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Synced:
    """The member arrived at a sync. ``request`` is also the id of its wait for the others."""

    request: str
    member: str
    message_id: str


@dataclass(frozen=True, slots=True)
class WaitFailed:
    """A wait ended without success. ``request`` is the id of the wait itself; ``reason`` is one line."""

    request: str
    member: str
    reason: str


REASON_LIMIT: Final = 1000
"""Characters of a reason that are kept. One can hold others', which would double them with each member."""


@dataclass(frozen=True, slots=True)
class Left:
    """The member is gone. ``reason`` is one line that completes "12347 (backend) has left: …"."""

    request: str
    member: str
    reason: str


Event = Joined | Sent | Synced | WaitFailed | Left
