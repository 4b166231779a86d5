"""What a blocked call waits for, as a value that can be asked about at any point of the log."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """The calls that wait; the value is the command that the device typed."""

    WAIT = "lava-wait"
    WAIT_ALL = "lava-wait-all"
    SYNC = "lava-sync"


class Outcome(Enum):
    """How a wait stands: ``SATISFIED`` and ``FAILED`` are final, whatever the log brings later."""

    OPEN = "open"
    SATISFIED = "satisfied"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Need:
    """One call that waits, and for what.

    :param member: the caller's id.
    :param role: of a ``WAIT_ALL``, the role whose members must have sent; it need not exist in the group.
    :param round: of a ``SYNC``, its round from 1 on, as :meth:`Rendezvous.sync_round` told it after the arrival.
    :param background: a background job made the call, so that the rest of its member's test goes on meanwhile.
    :raises ValueError: a role or a round on a call that has none, a sync without a round.
    """

    member: str
    kind: Kind
    message_id: str
    role: str | None = None
    round: int = 0
    background: bool = False

    def __post_init__(self) -> None:
        if self.role is not None and self.kind is not Kind.WAIT_ALL:
            raise ValueError(f"{self.kind.value} takes no role")
        if (self.round > 0) is not (self.kind is Kind.SYNC):
            raise ValueError(f"{self.kind.value} cannot have the round {self.round}")


def describe(need: Need) -> str:
    """The call as the test typed it: ``lava-wait-all ready server``."""
    words = (need.kind.value, need.message_id, need.role)
    return " ".join(word for word in words if word is not None)
