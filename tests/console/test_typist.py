"""What is typed at a test: whole, in order, bounded, and at a pace that is found by trying."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from dispatcher.console import typist
from dispatcher.console.typist import BACKLOG_LIMIT, PAUSES, PIECE, Pace, Typist
from dispatcher.errors import ConsoleClosed


def pauses(arrives: Callable[[float], bool], count: int, pace: Pace | None = None) -> list[float]:
    """The pauses before so many frames, each of which arrives or not depending on its own."""
    pace = pace or Pace()
    taken = []
    for _ in range(count):
        taken.append(pace.pause)
        pace.judge(arrived=arrives(pace.pause))
    return taken


def test_a_good_line_has_no_pauses() -> None:
    assert set(pauses(lambda _pause: True, 1000)) == {0.0}


@pytest.mark.parametrize("needed", PAUSES[1:-1])
def test_a_device_that_loses_what_comes_too_fast_gets_its_pauses(needed: float) -> None:
    taken = pauses(lambda pause: pause >= needed, 1000)
    early, late = (sum(pause < needed for pause in half) for half in (taken[:500], taken[500:]))
    assert late < early < 60, "it fails less and less"


@pytest.mark.parametrize("needed", PAUSES)
def test_a_frame_is_not_lost_many_times_in_a_row(needed: float) -> None:
    taken = pauses(lambda pause: pause >= needed, 10)
    assert taken.index(needed) <= PAUSES.index(needed)


def test_a_device_that_takes_everything_again_is_typed_at_without_pauses_again() -> None:
    pace = Pace()
    pauses(lambda pause: pause >= 0.005, 100, pace)
    assert pace.pause >= 0.005
    assert set(pauses(lambda _pause: True, 2000, pace)[1000:]) == {0.0}


@pytest.mark.parametrize("loss", [0.1, 0.3, 0.5])
def test_a_line_that_loses_frames_whatever_the_pause_has_short_ones(loss: float) -> None:
    generator = random.Random(1)
    taken = pauses(lambda _pause: generator.random() >= loss, 2000)
    assert sum(taken) / len(taken) < 0.004


class Recorder:
    """A console that keeps what is typed, and waits before each until it is told to go on."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.open = asyncio.Event()
        self.closed = False

    async def send(self, data: bytes) -> None:
        await self.open.wait()
        if self.closed:
            raise ConsoleClosed("it ended")
        self.pieces.append(data)


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def typing(scenario: Callable[[Typist, Recorder], Any]) -> None:
    async def run() -> None:
        console = Recorder()
        await scenario(Typist(console), console)  # type: ignore[arg-type]

    asyncio.run(run())


def test_answers_are_typed_whole_and_in_order() -> None:
    async def scenario(typist: Typist, console: Recorder) -> None:
        typist.say([b"a" * 100, b"b"])
        typist.say([b"c"])
        console.open.set()
        await turns(20)
        typist.say([b"d"])
        await turns()
        assert console.pieces == [b"a" * 100, b"b", b"c", b"d"]

    typing(scenario)


def test_pauses_come_between_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(typist: Typist, console: Recorder) -> None:
        typist.pace.judge(arrived=False)
        assert typist.pace.pause > 0
        typist.say([bytes(2 * PIECE + 3), b"x"])
        console.open.set()
        await turns(50)
        assert [len(piece) for piece in console.pieces] == [PIECE, PIECE, 3, 1]

    monkeypatch.setattr(typist, "PAUSES", (0.0, 1e-9, 1, 1, 1, 1))
    typing(scenario)


def test_a_device_that_does_not_read_costs_bounded_memory() -> None:
    async def scenario(typist: Typist, console: Recorder) -> None:
        for _ in range(3 * BACKLOG_LIMIT // 1000):
            typist.say([bytes(1000)])
        assert typist.dropped > BACKLOG_LIMIT // 1000
        console.open.set()
        await turns(20_000)
        assert BACKLOG_LIMIT <= sum(map(len, console.pieces)) <= BACKLOG_LIMIT + 2000
        typist.say([b"again"])
        await turns()
        assert console.pieces[-1] == b"again"

    typing(scenario)


def test_a_console_that_ends_ends_the_typing() -> None:
    async def scenario(typist: Typist, console: Recorder) -> None:
        console.closed = True
        console.open.set()
        typist.say([b"a", b"b"])
        await turns()
        typist.cancel()
        assert console.pieces == []

    typing(scenario)


def test_cancelling_types_nothing_more() -> None:
    async def scenario(typist: Typist, console: Recorder) -> None:
        typist.say([b"a", b"b"])
        await turns()
        typist.cancel()
        console.open.set()
        await turns()
        assert console.pieces == []

    typing(scenario)
