"""Types what a test's calls are answered: in order, at the pace that the device can take, and never without bound.

A UART's driver that is late finds sixteen bytes and has lost the rest. Whether that happens shows only in what the
device says again, so the pace is found by trying: see :class:`Pace`. The rest of the line's troubles look the same from
here and no pause helps against them, which is why pauses are weighed against what they save.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterable
from typing import Final

from dispatcher.console.connection import Console
from dispatcher.errors import ConsoleClosed
from dispatcher.framing import grammar

PIECE: Final = 16
"""Bytes typed at once where there are pauses: the receiver FIFO of a 16550."""

PAUSES: Final = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02)
"""Seconds between two pieces, to choose from."""

RESEND: Final = 0.5
"""Seconds that a frame costs which the device has to ask for again."""

BACKLOG_LIMIT: Final = 1024 * 1024
"""Bytes that may wait to be typed. What comes on top is dropped: the device does not read, or asks for too much."""

_FRAME_PIECES: Final = grammar.FRAME_LIMIT / PIECE
_WEIGHT: Final = 1 / 8
_FADING: Final = 0.995


class Pace:
    """Which pause costs least: its own time for a frame, and that of the frames that get lost with it.

    The loss is learned for each pause by itself. What was learned of the others fades, so that they are tried again
    now and then: less, the more often they have failed. A frame that is lost again and again gets longer ones each
    time, whatever was learned: the device waits twice as long before it asks again.
    """

    def __init__(self) -> None:
        self._loss = [0.0] * len(PAUSES)
        self._choice = 0
        self._lost_in_a_row = 0

    @property
    def pause(self) -> float:
        """Seconds to wait between two pieces now."""
        return PAUSES[self._choice]

    def judge(self, *, arrived: bool) -> None:
        """What was typed last has arrived, or the device had to repeat itself."""
        if arrived and not any(self._loss):
            return  # on most lines nothing is ever lost
        for choice, loss in enumerate(self._loss):
            if choice != self._choice:
                self._loss[choice] = loss * _FADING
            else:
                self._loss[choice] += _WEIGHT * ((not arrived) - loss)
        self._lost_in_a_row = 0 if arrived else self._lost_in_a_row + 1
        longest = len(PAUSES) - 1
        self._choice = max(min(range(len(PAUSES)), key=self._cost), min(self._lost_in_a_row, longest))

    def _cost(self, choice: int) -> float:
        return PAUSES[choice] * _FRAME_PIECES + self._loss[choice] * RESEND


class Typist:
    """Types on one console while a test runs there.

    :ivar pace: to be told how it went.
    :ivar dropped: how many answers were let go of, because too many waited.
    """

    def __init__(self, console: Console) -> None:
        self.pace = Pace()
        self.dropped = 0
        self._console = console
        self._backlog: deque[bytes] = deque()
        self._size = 0
        self._task: asyncio.Task[None] | None = None

    def say(self, answers: Iterable[bytes]) -> None:
        """Type these after all that was to be typed before, each whole. Never waits."""
        for answer in answers:
            if self._size > BACKLOG_LIMIT:
                self.dropped += 1
                continue
            self._backlog.append(answer)
            self._size += len(answer)
        if self._backlog and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._run())

    def cancel(self) -> None:
        """Type nothing more."""
        if self._task is not None:
            self._task.cancel()
        self._backlog.clear()
        self._size = 0

    async def _run(self) -> None:
        with contextlib.suppress(ConsoleClosed):  # whoever runs the test hears of it from the console itself
            while self._backlog:
                answer = self._backlog.popleft()
                self._size -= len(answer)
                await self._type(answer)

    async def _type(self, answer: bytes) -> None:
        start = 0
        while pause := self.pace.pause:
            await self._console.send(answer[start : start + PIECE])
            start += PIECE
            await asyncio.sleep(pause)  # before the next frame too
            if start >= len(answer):
                return
        await self._console.send(answer[start:])
