"""A journal in memory: the log lives as long as its process, which suits a run that embeds its coordinator."""

from __future__ import annotations

from collections.abc import Sequence

from dispatcher.coordinator.journal import GroupRecord
from dispatcher.group.events import Event


class MemoryJournal:
    """A :class:`~dispatcher.coordinator.journal.Journal` that keeps nothing beyond its process."""

    def __init__(self) -> None:
        self._groups: dict[str, GroupRecord] = {}
        self._logs: dict[str, list[Event]] = {}

    def open(self, group: GroupRecord) -> None:
        self._groups[group.name] = group

    def groups(self) -> Sequence[GroupRecord]:
        return tuple(self._groups.values())

    def append(self, group: str, event: Event) -> None:
        self._logs.setdefault(group, []).append(event)

    def read(self, group: str) -> Sequence[Event]:
        return tuple(self._logs.get(group, ()))

    def drop(self, group: str) -> None:
        self._groups.pop(group, None)
        self._logs.pop(group, None)
