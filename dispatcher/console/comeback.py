"""When a lost console is opened again: after pauses that grow, until it has been away for too long."""

from __future__ import annotations

from typing import Final

FIRST_PAUSE: Final = 0.1
LAST_PAUSE: Final = 2.0
"""Seconds before the first attempt, and between two of them after doubling at the most."""

LASTING = 1.0
"""Seconds after which a console that was opened again is there. One that is lost sooner has not come back: a server
whose port is taken accepts, says so and hangs up."""


class Comeback:
    """The attempts of one console; all times are of one clock, in seconds."""

    def __init__(self) -> None:
        self._pause = FIRST_PAUSE
        self._opened = self._deadline = float("-inf")

    def opened(self, now: float) -> None:
        """It has been opened, for the first time or again."""
        self._opened = now

    def lost(self, now: float, patience: float) -> None:
        """It has been lost, and is to be there again within ``patience`` seconds."""
        if self._deadline == float("-inf") or now - self._opened >= LASTING:
            self._pause = FIRST_PAUSE
            self._deadline = now + patience

    def pause(self, now: float) -> float:
        """Seconds to wait before the next attempt; the last one is made when the patience ends."""
        pause, self._pause = self._pause, min(2 * self._pause, LAST_PAUSE)
        return min(pause, max(0.0, self._deadline - now))

    def hopeless(self, now: float) -> bool:
        """Whether it has been away for too long."""
        return now >= self._deadline
