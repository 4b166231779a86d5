"""The table of what a member may do, and where each event takes it."""

from __future__ import annotations

from enum import Enum
from typing import Final

from dispatcher.group.events import Event, Joined, Left, Sent, Synced, WaitFailed


class Presence(Enum):
    """Where a member is. One that is ``EXPECTED`` may still come, and so counts as able to send."""

    EXPECTED = "has not joined yet"
    HERE = "has joined already"
    LEFT = "has left"


AFTER: Final[dict[tuple[Presence, type[Event]], Presence]] = {
    (Presence.EXPECTED, Joined): Presence.HERE,
    (Presence.EXPECTED, Left): Presence.LEFT,
    (Presence.HERE, Sent): Presence.HERE,
    (Presence.HERE, Synced): Presence.HERE,
    (Presence.HERE, WaitFailed): Presence.HERE,
    (Presence.HERE, Left): Presence.LEFT,
    (Presence.LEFT, Joined): Presence.HERE,
    (Presence.LEFT, WaitFailed): Presence.LEFT,
}
"""Where an event takes a member; a pair that is missing contradicts the log. A console may be lost before it ever
joined, and the waits of a member that left still have to be told as failed."""
