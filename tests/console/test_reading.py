"""What one turn takes of a console: all that is there and no more than its share, in order, up to the last byte."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from console_harness import Output, PairTransport, opened, run

from dispatcher.console.connection import DRAIN_LIMIT, DRAIN_READS, Console
from dispatcher.framing import grammar

PLENTY = DRAIN_LIMIT + DRAIN_LIMIT // 2


@contextlib.asynccontextmanager
async def board(log: Path = Path(os.devnull)) -> AsyncIterator[tuple[socket.socket, Console]]:
    """The far end of a console, which can be told more than a turn takes, and the console."""
    transport = PairTransport()
    transport.far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * PLENTY)
    async with opened(transport, log) as console:
        yield transport.far, console
    transport.far.close()


def numbered(size: int) -> bytes:
    return b"".join(b"%07d\n" % number for number in range(size // 8 + 1))[:size]


def test_small_reads_are_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar, "READ_SIZE", 16)

    async def test() -> None:
        async with board() as (far, console):
            heard: list[bytes] = []
            console.listen(heard.append)
            far.sendall(numbered(100))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert heard == [numbered(100)]

    run(test(), jumping=True)


@pytest.mark.parametrize(
    ("read_size", "share"), [(grammar.READ_SIZE, DRAIN_LIMIT), (40_000, 80_000), (16, 16 * DRAIN_READS)]
)
def test_a_console_that_never_stops_gets_its_share_and_the_others_theirs(
    monkeypatch: pytest.MonkeyPatch, read_size: int, share: int
) -> None:
    monkeypatch.setattr(grammar, "READ_SIZE", read_size)

    async def test() -> None:
        async with board() as (busy, first), board() as (quiet, second):
            blocks: list[tuple[str, bytes]] = []
            both = Output()

            def listener(name: str, data: bytes) -> None:
                blocks.append((name, data))
                both(data)

            first.listen(lambda data: listener("busy", data))
            second.listen(lambda data: listener("quiet", data))
            said = numbered(share + share // 2)
            busy.sendall(said)
            quiet.sendall(b"a word")
            await both.has(b"a word")
            await both.has(said[-8:])
            theirs = [data for name, data in blocks if name == "busy"]
            assert [len(data) for data in theirs] == [share, share // 2]
            assert b"".join(theirs) == said
            assert ("quiet", b"a word") in blocks[:2]

    run(test(), jumping=True)


@pytest.mark.parametrize(
    ("unread", "reason"),
    [(b"", "board: the far end was closed"), (b"typed", "board: reading failed: Connection reset by peer")],
)
@pytest.mark.parametrize("size", [20, 5000, PLENTY])
def test_what_was_said_before_the_end_is_kept_and_heard(tmp_path: Path, unread: bytes, reason: str, size: int) -> None:
    async def test() -> None:
        async with board(tmp_path / "log") as (far, console):
            heard = Output()
            console.listen(heard)
            await console.send(unread)
            far.sendall(numbered(size))
            far.close()
            assert str(await console.ended()) == reason
            assert heard.data == numbered(size)
            assert (tmp_path / "log").read_bytes() == numbered(size)

    run(test(), jumping=True)


def test_all_that_a_program_printed_on_its_terminal_is_kept_and_heard(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened("seq 100000", tmp_path / "log") as console:
            heard = Output()
            console.listen(heard)
            assert str(await console.ended()) == "board: 'seq' ended with status 0"
            assert heard.data == b"".join(b"%d\r\n" % number for number in range(1, 100001))
            assert (tmp_path / "log").read_bytes() == heard.data

    run(test())
