"""Where the log of a group lives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from dispatcher.group.events import Event


class Journal(Protocol):
    """The append-only, totally ordered log of every group of a coordinator."""

    def append(self, group: str, event: Event) -> None:
        """Keep an event. What this returned for is never lost, as far as this journal promises."""

    def read(self, group: str) -> Sequence[Event]:
        """All events of a group, in the order they were appended."""

    def drop(self, group: str) -> None:
        """Forget a group that has ended."""
