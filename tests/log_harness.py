"""The group that a log describes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dispatcher.group.events import Event, Member
from dispatcher.group.rendezvous import Rendezvous


def fold(members: Sequence[Member], events: Iterable[Event]) -> Rendezvous:
    """The group after all of its log. :raises GroupError: an event contradicts those before it."""
    group = Rendezvous(members)
    for event in events:
        group.apply(event)
    return group
