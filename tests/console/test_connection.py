"""The console: reading all the time, recording, searching, writing whole and in turn, and ending with a reason."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from console_harness import PairTransport, now, opened, run, soon

from dispatcher.console import connection
from dispatcher.console.connection import SEARCH_WINDOW, Console
from dispatcher.console.transcript import Transcript
from dispatcher.errors import ConsoleClosed, ConsoleError, ConsoleTimeout, OutputError


def pattern(text: bytes) -> list[re.Pattern[bytes]]:
    return [re.compile(text)]


class Board:
    """A console on a socket pair; what it heard since it was opened."""

    def __init__(self, log: Path = Path(os.devnull), **options: float) -> None:
        self.transport = PairTransport()
        self.console = Console("board", self.transport, Transcript(log), **options)

    async def __aenter__(self) -> Board:
        self.console.open()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.console.close()
        self.transport.far.close()

    async def say(self, *chunks: bytes) -> None:
        """Say something in chunks that are read one by one."""
        for chunk in chunks:
            await self.transport.say(chunk)
            await settle(lambda: not readable(self.transport))


def readable(transport: PairTransport) -> bool:
    try:
        return bool(transport.near.recv(1, 2 | 0x40))  # MSG_PEEK, MSG_DONTWAIT
    except BlockingIOError:
        return False


async def settle(done: Callable[[], bool]) -> None:
    """Let the loop turn until something is so."""
    while not done():  # noqa: ASYNC110 - a turn of the loop, not a poll
        await asyncio.sleep(0)


# --- reading and recording -------------------------------------------------------------------------------------


def test_bytes_are_recorded_while_nobody_listens(tmp_path: Path) -> None:
    async def test() -> None:
        async with Board(tmp_path / "log") as board:
            await board.say(b"\x00 while nobody listens", b"\xff")
            assert (tmp_path / "log").read_bytes() == b"\x00 while nobody listens\xff"

    run(test(), jumping=True)


def test_bytes_are_read_and_recorded_while_whoever_asked_is_busy(tmp_path: Path) -> None:
    async def test() -> None:
        async with Board(tmp_path / "log") as board:
            await board.say(b"first ")
            await board.console.expect(pattern(b"first"), soon())
            # More than all the buffers on the way hold: it is only taken if it is read.
            for _ in range(200):
                await board.say(b"x" * 65536)
            assert (tmp_path / "log").stat().st_size == 6 + 200 * 65536

    run(test(), jumping=True)


def test_a_listener_gets_what_came_before_it_and_then_everything() -> None:
    async def test() -> None:
        async with Board() as board:
            heard: list[bytes] = []
            await board.say(b"early")
            board.console.listen(heard.append)
            await board.say(b"a", b"b")
            board.console.listen(None)
            await board.say(b"later")
            assert heard == [b"early", b"a", b"b"]
            board.console.listen(heard.append)
            assert heard[3:] == [b"later"]

    run(test(), jumping=True)


def test_what_is_forgotten_is_not_heard() -> None:
    async def test() -> None:
        async with Board() as board:
            heard: list[bytes] = []
            await board.say(b"early")
            board.console.forget()
            board.console.listen(heard.append)
            assert heard == []

    run(test(), jumping=True)


def test_unheard_bytes_are_bounded_and_the_newest_are_kept() -> None:
    async def test() -> None:
        async with Board() as board:
            await board.say(b"old" * 10_000, b"new")
            assert len(board.console._unheard) == SEARCH_WINDOW
            assert board.console._unheard.endswith(b"oldnew")

    run(test(), jumping=True)


def test_a_listener_that_fails_ends_the_console_with_its_reason() -> None:
    def listener(_data: bytes) -> None:
        raise OutputError("cannot write events.jsonl: No space left on device")

    async def test() -> None:
        async with Board() as board:
            board.console.listen(listener)
            await board.say(b"x")
            assert "events.jsonl" in str(await board.console.ended())

    run(test(), jumping=True)


def test_a_transcript_that_cannot_be_written_ends_the_console() -> None:
    async def test() -> None:
        async with Board(Path("/dev/full")) as board:
            await board.say(b"x")
            with pytest.raises(OutputError, match="/dev/full: No space left"):
                await board.console.expect(pattern(b"x"), soon())
            with pytest.raises(OutputError):
                await board.console.send(b"y")

    run(test(), jumping=True)


# --- expect ----------------------------------------------------------------------------------------------------


def test_a_pattern_is_found_across_chunks() -> None:
    async def test() -> None:
        async with Board() as board:
            waiting = asyncio.ensure_future(board.console.expect(pattern(b"lo+gin: "), soon()))
            await board.say(b"lo", b"o", b"gin", b": ")
            index, found = await waiting
            assert (index, found.group()) == (0, b"loogin: ")

    run(test(), jumping=True)


def test_the_earliest_of_some_patterns_wins() -> None:
    async def test() -> None:
        async with Board() as board:
            await board.say(b"one two")
            index, _found = await board.console.expect([*pattern(b"two"), *pattern(b"one")], soon())
            assert index == 1

    run(test(), jumping=True)


def test_what_is_left_goes_to_the_next_expect_and_what_came_before_is_let_go_of() -> None:
    async def test() -> None:
        async with Board() as board:
            await board.say(b"a1 a2 a3")
            for expected in (b"a1", b"a2", b"a3"):
                _index, found = await board.console.expect(pattern(rb"a\d"), soon())
                assert found.group() == expected
            with pytest.raises(ConsoleTimeout):
                await board.console.expect(pattern(b"a1"), now() + 1)

    run(test(), jumping=True)


def test_bytes_between_a_match_and_its_being_told_are_kept() -> None:
    async def test() -> None:
        async with Board() as board:
            waiting = asyncio.ensure_future(board.console.expect(pattern(b"match"), soon()))
            await board.say(b"match")
            board.console._give(b"late")
            await waiting
            assert (await board.console.expect(pattern(b"late"), soon()))[0] == 0

    run(test(), jumping=True)


def test_an_expect_that_was_late_leaves_what_it_saw() -> None:
    async def test() -> None:
        async with Board() as board:
            await board.say(b"half of ")
            with pytest.raises(ConsoleTimeout):
                await board.console.expect(pattern(b"half of it"), now() + 5)
            await board.say(b"it")
            await board.console.expect(pattern(b"half of it"), soon())

    run(test(), jumping=True)


def test_silence_ends_at_the_deadline() -> None:
    async def test() -> None:
        async with Board() as board:
            began = now()
            with pytest.raises(ConsoleTimeout, match=r"^board: "):
                await board.console.expect(pattern(b"x"), began + 90)
            assert now() - began == pytest.approx(90)

    run(test(), jumping=True)


def test_rubbish_for_ever_is_bounded_and_ends_at_the_deadline() -> None:
    async def test() -> None:
        async with Board() as board:

            async def rubbish() -> None:
                while True:
                    await board.say(b"\x00\xff garbage" * 500)
                    assert len(board.console._listener.__self__.window) <= SEARCH_WINDOW
                    await asyncio.sleep(0.1)

            printing = asyncio.ensure_future(rubbish())
            with pytest.raises(ConsoleTimeout):
                await board.console.expect(pattern(b"prompt"), now() + 10)
            assert len(board.console._unheard) <= SEARCH_WINDOW
            assert not printing.done()
            printing.cancel()

    run(test(), jumping=True)


def test_a_pattern_longer_than_the_window_is_none() -> None:
    async def test() -> None:
        async with Board() as board:
            waiting = asyncio.ensure_future(board.console.expect(pattern(b"a.{5000}b"), now() + 1))
            await board.say(b"a", b"." * 2500, b"." * 2500, b"b")
            with pytest.raises(ConsoleTimeout):
                await waiting

    run(test(), jumping=True)


@pytest.mark.parametrize(
    "said",
    [
        b"guest$ \x1b[6n",  # busybox ash asks where the cursor is
        b"\x1b]0;root@guest: /\x07\x1b[?2004h\x1b[01;32mguest\x1b[00m$ ",
        b"\x1b]3008;start=1\x1b\\guest$ \x1b(B\x1b[m",
        b"guest$ \x1b[",  # the rest is under way
        b"guest$ \x1b]0;title",
        b"guest\x1b7\x1b8$ \x1b",
    ],
)
def test_a_prompt_is_found_between_escape_sequences(said: bytes) -> None:
    async def test() -> None:
        async with Board() as board:
            await board.say(said)
            await board.console.expect(pattern(rb"guest\$ $"), soon(), plain=True)
            with pytest.raises(ConsoleTimeout):
                await board.console.expect(pattern(rb"guest"), now() + 1)

    run(test(), jumping=True)


def test_a_pattern_that_spells_an_escape_sequence_still_matches() -> None:
    async def test() -> None:
        async with Board() as board:
            await board.say(b"\x1b[1mguest$ ")
            await board.console.expect(pattern(rb"\x1b\[1mguest"), soon(), plain=True)

    run(test(), jumping=True)


def test_a_stray_escape_does_not_hide_the_lines_after_it() -> None:
    async def test() -> None:
        async with Board() as board:
            await board.say(b"noise \x1b] more\r\nguest$ \x1b[6n")
            await board.console.expect(pattern(rb"guest\$ $"), soon(), plain=True)

    run(test(), jumping=True)


def test_the_last_line_is_kept_for_messages() -> None:
    async def test() -> None:
        async with Board() as board:
            assert board.console.last_line() == ""
            await board.say(b"x" * 9000, b"\r\n\x1b[1mpanda\x07 login:\x1b[0m \r\n \r\n")
            assert board.console.last_line() == "panda. login:"

    run(test(), jumping=True)


# --- the end ---------------------------------------------------------------------------------------------------


def test_the_end_of_file_has_the_transports_reason() -> None:
    async def test() -> None:
        async with Board() as board:
            await board.say(b"last words")
            board.transport.far.close()
            assert str(await board.console.ended()) == "board: the far end was closed"
            # What was said before is still found.
            await board.console.expect(pattern(b"last words"), soon())
            with pytest.raises(ConsoleClosed, match="the far end was closed"):
                await board.console.expect(pattern(b"x"), soon())
            with pytest.raises(ConsoleClosed, match="the far end was closed"):
                await board.console.send(b"x")

    run(test(), jumping=True)


def test_an_expect_ends_with_the_console() -> None:
    async def test() -> None:
        async with Board() as board:
            waiting = asyncio.ensure_future(board.console.expect(pattern(b"x"), soon()))
            await settle(lambda: board.console._listener is not None)
            board.transport.far.close()
            with pytest.raises(ConsoleClosed, match="the far end was closed"):
                await waiting

    run(test(), jumping=True)


def test_a_write_that_fails_tells_why_the_console_ended_not_that_writing_failed() -> None:
    async def test() -> None:
        async with Board() as board:
            board.transport.far.close()
            with pytest.raises(ConsoleClosed, match="the far end was closed"):
                await board.console.send(b"x")

    run(test(), jumping=True)


def test_a_write_that_fails_on_a_console_that_still_reads_is_told_after_a_moment() -> None:
    def broken(_spawn: object, _data: bytes) -> int:
        raise OSError(5, "Input/output error")

    async def test() -> None:
        async with Board() as board:
            board.transport.write = broken  # type: ignore[method-assign,assignment]
            began = now()
            with pytest.raises(ConsoleClosed, match=r"^board: writing failed: Input/output error"):
                await board.console.send(b"x")
            assert now() - began == pytest.approx(connection.LAST_WORDS)

    run(test(), jumping=True)


def test_closing_twice_does_no_harm() -> None:
    async def test() -> None:
        async with Board() as board:
            await board.console.close()
            assert isinstance(await board.console.ended(), ConsoleClosed)

    run(test(), jumping=True)


def test_closing_closes_the_transcript_of_a_console_that_never_opened(tmp_path: Path) -> None:
    class Unreachable(PairTransport):
        def open(self) -> None:  # type: ignore[override]
            raise ConsoleError("no", where="board")

    async def test() -> None:
        transport = Unreachable()
        console = Console("board", transport, Transcript(tmp_path / "log"))
        with pytest.raises(ConsoleError, match="board: no"):
            console.open()
        await console.close()
        transport.near.close()
        transport.far.close()

    run(test(), jumping=True)


def test_a_descriptor_that_cannot_be_polled_is_an_error_and_is_closed(tmp_path: Path) -> None:
    closed = []

    class OfAFile(PairTransport):
        def open(self):  # type: ignore[no-untyped-def]
            spawn = super().open()
            self.file = (tmp_path / "file").open("wb")
            spawn.child_fd = self.file.fileno()
            return spawn

        async def close(self) -> None:
            await super().close()
            self.file.close()
            self.far.close()
            closed.append(True)

    async def test() -> None:
        with pytest.raises(ConsoleError, match="board: this cannot be a console: Operation not permitted"):
            async with opened(OfAFile()):
                pass
        assert closed

    run(test(), jumping=True)


# --- writing ---------------------------------------------------------------------------------------------------


def test_a_megabyte_reaches_a_slow_reader_whole_and_in_order() -> None:
    async def test() -> None:
        data = os.urandom(1 << 20)
        async with Board() as board:
            sending = asyncio.ensure_future(board.console.send(data))
            heard = b""
            while len(heard) < len(data):
                heard += await board.transport.hear(3000)
                await asyncio.sleep(0.001)
            await sending
            assert heard == data

    run(test(), jumping=True)


def test_sends_at_the_same_time_do_not_mix() -> None:
    async def test() -> None:
        async with Board() as board:
            texts = [bytes([65 + number]) * 200_000 for number in range(4)]
            sending = asyncio.gather(*(board.console.send(text) for text in texts))
            heard = b""
            while len(heard) < 800_000:
                heard += await board.transport.hear()
            await sending
            assert heard == b"".join(texts)

    run(test(), jumping=True)


def test_a_character_delay_paces_every_byte() -> None:
    async def test() -> None:
        async with Board(character_delay=0.25) as board:
            began = now()
            sending = asyncio.gather(board.console.send(b"abc"), board.console.send(b"de"))
            arrived = [(await board.transport.hear(), now() - began) for _byte in range(5)]
            await sending
            assert arrived == [
                (b"a", pytest.approx(0.0)),
                (b"b", pytest.approx(0.25)),
                (b"c", pytest.approx(0.5)),
                (b"d", pytest.approx(0.75)),
                (b"e", pytest.approx(1.0)),
            ]

    run(test(), jumping=True)


def test_closing_frees_a_send_that_is_blocked() -> None:
    async def test() -> None:
        async with Board() as board:
            sending = asyncio.ensure_future(board.console.send(bytes(10_000_000)))
            second = asyncio.ensure_future(board.console.send(b"never sent"))
            await settle(board.console._writing.locked)
            await asyncio.sleep(1)
            assert not sending.done()
            await board.console.close()
            for each in (sending, second):
                with pytest.raises(ConsoleClosed, match="the console was closed"):
                    await each

    run(test(), jumping=True)


def test_a_send_that_closing_frees_leaves_the_next_owner_of_the_descriptor_alone() -> None:
    async def test() -> None:
        first, second = Board(), Board()
        blocked = asyncio.ensure_future
        async with first:
            sending = blocked(first.console.send(bytes(10_000_000)))
            await asyncio.sleep(1)
            old = first.transport.near.fileno()
            await first.console.close()
            assert os.dup2(second.transport.near.fileno(), old) == old
            moved = second.transport.open()
            moved.child_fd = old
            second.transport.open = lambda: moved  # type: ignore[method-assign]
            async with second:
                waiting = blocked(second.console.send(bytes(10_000_000)))
                await asyncio.gather(sending, return_exceptions=True)
                heard = 0
                while heard < 10_000_000:
                    heard += len(await second.transport.hear())
                await waiting
            os.close(old)

    run(test(), jumping=True)


def test_a_send_that_is_cancelled_lets_others_send() -> None:
    async def test() -> None:
        async with Board() as board:
            sending = asyncio.ensure_future(board.console.send(bytes(10_000_000)))
            await asyncio.sleep(1)
            sending.cancel()
            second = asyncio.ensure_future(board.console.send(b"second"))
            heard = b""
            while not heard.endswith(b"second"):
                heard = (heard + await board.transport.hear())[-20:]
            await second

    run(test(), jumping=True)
