"""Where the log of a group lives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dispatcher.group.events import Event, Member


@dataclass(frozen=True, slots=True)
class GroupRecord:
    """What a group is, kept from its opening until it is dropped.

    :param run: an id of the run that opened it; another run under a live group's name is refused.
    :param members: everybody, in the order of the group, which never changes.
    :param opened: seconds since 1970, for people.
    """

    name: str
    run: str
    members: tuple[Member, ...]
    opened: float


class Journal(Protocol):
    """The append-only, totally ordered log of every group of a coordinator."""

    def open(self, group: GroupRecord) -> None:
        """Keep a group, before its first event. Its name must not be that of a group which is kept already."""

    def groups(self) -> Sequence[GroupRecord]:
        """All groups that are kept, in the order they were opened."""

    def append(self, group: str, event: Event) -> None:
        """Keep an event. What this returned for is never lost, as far as this journal promises."""

    def read(self, group: str) -> Sequence[Event]:
        """All events of a group, in the order they were appended."""

    def drop(self, group: str) -> None:
        """Forget a group that has ended, events and all; one that is not kept is no error."""
