"""All that a group knows under one message ID: who gave what, and which rounds of a sync have closed.

Counters stand beside the sets so that an event costs the same in a group of 2 and of 256. Every "when" is a
position in the group's log.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dispatcher.group.events import Member
from dispatcher.group.needs import Kind, Need

Sizes = Mapping[str | None, int]
"""How many members a role has; under None, how many the group has."""


class Topic:
    """What was sent and synced under one ID.

    Two facts are kept apart that LAVA's coordinator mixes (where a sync after a send of one ID kills it): what was
    *given*, which a send or a sync does and which satisfies the waits, and who *arrived*, which only a sync does.
    """

    __slots__ = ("_counts", "_sizes", "arrived", "closed_at", "data", "first_at", "full_at", "given")

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes
        self._counts: dict[str | None, int] = {}
        self.given: set[str] = set()
        self.first_at: int | None = None
        self.full_at: dict[str | None, int] = {}
        self.data: dict[str, dict[str, str]] = {}
        self.arrived: set[str] = set()
        self.closed_at: list[int] = []

    def send(self, member: Member, pairs: Iterable[tuple[str, str]], at: int) -> None:
        """Store a message. It replaces what this member sent before, be it with nothing; the others' stays."""
        self._give(member, at)
        if data := dict(pairs):
            self.data[member.id] = data
        else:
            self.data.pop(member.id, None)

    def arrive(self, member: Member, at: int) -> None:
        """Count a sync. The last to arrive closes the round, and only then can anybody arrive in the next.

        So a member is never more than one round ahead of another, and a member that repeats a sync while its
        round is open is found in the set already.
        """
        self._give(member, at)
        self.arrived.add(member.id)
        if len(self.arrived) == self._sizes[None]:
            self.closed_at.append(at)
            self.arrived.clear()

    def round_of(self, member: str) -> int:
        """The round that the member's newest sync belongs to, from 1 on; 0 if it made none."""
        return len(self.closed_at) + (member in self.arrived)

    def satisfied_at(self, need: Need) -> int | None:
        """The position of the event that satisfied the need, None while there is none."""
        if need.kind is Kind.WAIT:
            return self.first_at
        if need.kind is Kind.WAIT_ALL:
            return self.full_at.get(need.role)
        return self.closed_at[need.round - 1] if need.round <= len(self.closed_at) else None

    def acted(self, need: Need) -> set[str]:
        """Who has done its part for a need that is still open."""
        if need.kind is not Kind.SYNC:
            return self.given
        return self.arrived if need.round == len(self.closed_at) + 1 else set()

    def _give(self, member: Member, at: int) -> None:
        if member.id in self.given:
            return
        self.given.add(member.id)
        if self.first_at is None:
            self.first_at = at
        for part in (None, member.role):
            self._counts[part] = self._counts.get(part, 0) + 1
            if self._counts[part] == self._sizes[part]:
                self.full_at[part] = at
