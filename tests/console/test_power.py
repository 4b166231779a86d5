"""Power commands: how each of them can end."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from dispatcher.console.power import switch
from dispatcher.errors import ConsoleError


def test_what_a_command_leaves_in_the_background_goes_on(tmp_path: Path) -> None:
    written = tmp_path / "pid"
    asyncio.run(switch("d", "power_on", [f"sleep 1000 & echo $! >{written}"], limit=10))
    os.kill(int(written.read_text()), signal.SIGKILL)


@pytest.mark.parametrize(
    ("command", "end"),
    [
        ("kill -9 $$", "was ended by SIGKILL"),
        ("yes | head -c 1000000; echo no such outlet; exit 4", f"ended with status 4: {'y ' * 143}no such outlet"),
    ],
)
def test_how_a_command_has_failed_is_told(command: str, end: str) -> None:
    with pytest.raises(ConsoleError) as caught:
        asyncio.run(switch("d", "hard_reset", [command]))
    assert caught.value.what == f"hard_reset: {command!r} {end}"


def test_one_that_hangs_is_ended_with_all_that_it_has_started(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(ConsoleError, match=r"did not end in 0\.1 s"):
        asyncio.run(switch("d", "power_on", [f"exec 3>{fifo}; sleep 1000 & wait"], limit=0.1))
    os.set_blocking(reading, True)
    assert os.read(reading, 1) == b""
    os.close(reading)
