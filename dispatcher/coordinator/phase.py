"""Deadlines for many things at once, all of one length: one timer, however many there are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

_T = TypeVar("_T", bound=Hashable)


class Phase(Generic[_T]):
    """Those who are in a phase that may take so many seconds, in the order in which they must have left it.

    :param late: called with each that has not; it is no longer in the phase then.
    """

    def __init__(self, seconds: float, late: Callable[[_T], None]) -> None:
        self._seconds = seconds
        self._late = late
        self._until: dict[_T, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def enter(self, one: _T) -> None:
        loop = asyncio.get_running_loop()
        deadline = self._until[one] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_at(deadline, self._look)

    def leave(self, one: _T) -> None:
        """No error where it is not there."""
        self._until.pop(one, None)

    def oldest(self) -> _T | None:
        """Who has been in the phase for longest."""
        return next(iter(self._until), None)

    def close(self) -> None:
        """Nobody is late any more."""
        self._until.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        late = [one for one, deadline in self._until.items() if deadline <= now]
        for one in late:
            del self._until[one]
        rest = self.oldest()
        self._timer = None if rest is None else loop.call_at(self._until[rest], self._look)
        for one in late:
            self._late(one)
