"""A console that is lost: opened again, given up, closed meanwhile; what is typed in between waits."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from console_harness import Output, PairTransport, opened, run, soon
from pexpect.fdpexpect import fdspawn

from dispatcher.console import comeback
from dispatcher.console.comeback import FIRST_PAUSE, LAST_PAUSE, LASTING, Comeback
from dispatcher.console.command import CommandTransport
from dispatcher.console.serial import SerialTransport
from dispatcher.console.shell import start
from dispatcher.errors import ConsoleClosed, ConsoleError

# --- when ------------------------------------------------------------------------------------------------------


def test_pauses_grow_and_end_with_the_patience() -> None:
    attempts = Comeback()
    attempts.opened(100.0)
    attempts.lost(100.5, 60)
    pauses = [attempts.pause(101.0) for _ in range(8)]
    assert pauses[0] == FIRST_PAUSE
    assert pauses == sorted(pauses)
    assert pauses[-1] == LAST_PAUSE
    assert [attempts.pause(now) for now in (160.0, 160.5, 161.0)] == [0.5, 0.0, 0.0]
    assert not attempts.hopeless(160.4)
    assert attempts.hopeless(160.5)


def test_a_console_that_is_lost_at_once_has_not_come_back() -> None:
    attempts = Comeback()
    attempts.lost(100.0, 60)
    attempts.pause(100.0)
    attempts.opened(110.0)
    attempts.lost(110.0 + LASTING / 2, 60)
    assert attempts.pause(110.5) > FIRST_PAUSE
    assert attempts.hopeless(160.0)
    attempts.opened(159.0)
    attempts.lost(159.0 + LASTING, 60)
    assert attempts.pause(160.0) == FIRST_PAUSE
    assert not attempts.hopeless(200.0)


# --- a console that cannot be opened again ---------------------------------------------------------------------


class Flaky(PairTransport):
    """Lost whenever the far end closes; opened again only where the test leaves a line for it."""

    def __init__(self, patience: float, attempts: int) -> None:
        super().__init__()
        self.attempts = 0
        self._patience = patience
        self._needed = attempts

    def patience(self) -> float:
        return self._patience

    async def reopen(self) -> fdspawn:
        self.attempts += 1
        if self.attempts < self._needed:
            raise ConsoleError("no answer", where="board")
        again = PairTransport()
        self.near, self.far = again.near, again.far
        return self.open()

    async def close(self) -> None:
        await super().close()
        self.far.close()


def test_a_console_that_stays_away_has_ended(tmp_path: Path) -> None:
    told: list[str] = []

    async def test() -> None:
        transport = Flaky(60.0, 1000)
        began = asyncio.get_running_loop().time()
        async with opened(transport, tmp_path / "log", observe=lambda kind, **_data: told.append(kind)) as console:
            transport.far.close()
            typing = asyncio.ensure_future(console.send(b"typed in vain"))
            why = str(await console.ended())
            assert why == "board: the far end was closed; it could not be opened again within 60 s: no answer"
            assert 60 <= asyncio.get_running_loop().time() - began <= 62
            with pytest.raises(ConsoleClosed):
                await typing
        assert transport.attempts > 30

    run(test(), jumping=True)
    assert told == ["lost"]
    assert (tmp_path / "log").read_bytes() == b"\n[multinode: the console was lost: the far end was closed]\n"


def test_a_console_that_is_lost_again_and_again_has_ended() -> None:
    """A server whose port is taken accepts, says so, and hangs up."""

    async def test() -> None:
        transport = Flaky(60.0, 1)

        def hang_up(kind: str, **_data: Any) -> None:
            if kind == "back":
                transport.far.send(b"Port already in use")
                transport.far.close()

        async with opened(transport, observe=hang_up) as console:
            transport.far.close()
            why = "board: the far end was closed; it was lost again and again for 60 s"
            assert str(await console.ended()) == why
        assert 25 < transport.attempts < 60

    run(test(), jumping=True)


def test_a_console_that_fails_while_it_is_away_does_not_come_back() -> None:
    async def test() -> None:
        transport = Flaky(60.0, 3)
        lost = asyncio.Event()
        async with opened(transport, observe=lambda _kind, **_data: lost.set()) as console:
            transport.far.close()
            await lost.wait()
            console.fail(ConsoleError("of no use any more", where="board"))
            await asyncio.sleep(60)
            assert transport.attempts == 0
            assert str(console.failure()) == "board: of no use any more"

    run(test(), jumping=True)


def test_what_is_typed_meanwhile_arrives_and_what_was_cut_is_not_continued(tmp_path: Path) -> None:
    told: list[tuple[str, dict[str, Any]]] = []
    output, returns = Output(), []

    async def test() -> None:
        transport = Flaky(60.0, 3)
        observe = lambda kind, **data: told.append((kind, data))  # noqa: E731
        async with opened(transport, tmp_path / "log", observe=observe) as console:
            console.listen(output, lambda: returns.append(1))
            await transport.say(b"half a li")
            await output.has(b"half a li")
            transport.far.close()
            typing = asyncio.ensure_future(console.send(b"typed meanwhile"))
            await output.has(b"\n")
            await typing
            assert await transport.hear() == b"typed meanwhile"
            await transport.say(b"ne")
            await output.has(b"ne")

    run(test(), jumping=True)
    assert output.data == b"half a li\nne"
    assert returns == [1]
    assert told == [("lost", {"reason": "the far end was closed"}), ("back", {"gap": 0.7})]
    assert (tmp_path / "log").read_bytes() == (
        b"half a li\n[multinode: the console was lost: the far end was closed]\n"
        b"\n[multinode: the console is open again after 0.7 s; what it said meanwhile is not here]\nne"
    )


def test_a_console_is_closed_while_it_is_away() -> None:
    async def test() -> None:
        transport = Flaky(60.0, 1000)
        lost = asyncio.Event()
        async with opened(transport, observe=lambda _kind, **_data: lost.set()) as console:
            transport.far.close()
            await lost.wait()
        assert str(console.failure()) == "board: the console was closed"

    run(test(), jumping=True)


# --- a UART ----------------------------------------------------------------------------------------------------


class Adapter:
    """A USB adapter of which a test holds the far end: a link that comes and goes, to one pty after another."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: list[int] = []

    def plug(self) -> int:
        master, slave = os.openpty()
        tty.setraw(slave)
        self._open = [master, slave]
        self.path.symlink_to(os.ttyname(slave))
        return master

    def pull(self) -> None:
        self.path.unlink(missing_ok=True)
        while self._open:
            os.close(self._open.pop(0))


@pytest.fixture
def adapter(tmp_path: Path) -> Iterator[Adapter]:
    adapter = Adapter(tmp_path / "ttyUSB0")
    yield adapter
    adapter.pull()


def test_an_adapter_is_pulled_and_put_in_again(adapter: Adapter) -> None:
    events: asyncio.Queue[str] = asyncio.Queue()

    async def test() -> None:
        adapter.plug()
        transport = SerialTransport("board", {"serial": str(adapter.path)})
        async with opened(transport, observe=lambda kind, **_data: events.put_nowait(kind)) as console:
            adapter.pull()
            assert await events.get() == "lost"
            master = adapter.plug()
            assert await events.get() == "back"
            await console.send(b"still there?")
            assert os.read(master, 100) == b"still there?"
            os.write(master, b"yes")
            await console.expect([re.compile(b"yes")], soon())

    run(test())


# --- a program -------------------------------------------------------------------------------------------------


def test_a_program_that_ends_is_run_again_where_the_device_file_says_so() -> None:
    program = "sh -c 'echo up; read line; echo got $line'"
    events: asyncio.Queue[str] = asyncio.Queue()

    async def test() -> None:
        transport = CommandTransport("board", {"command": program, "reconnect": 60})
        async with opened(transport, observe=lambda kind, **_data: events.put_nowait(kind)) as console:
            for word in (b"one", b"two"):
                await console.send(word + b"\n")
                await console.expect([re.compile(b"got " + word)], soon())
                assert [await events.get(), await events.get()] == ["lost", "back"]

    run(test())


# --- a test that ends meanwhile --------------------------------------------------------------------------------


@pytest.mark.usefixtures("impatient")
def test_the_end_of_a_test_that_was_told_to_nobody_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comeback, "LAST_PAUSE", FIRST_PAUSE)

    async def test() -> None:
        master, shell = shell_on_a_pty()
        transport = Detachable(master)
        async with opened(transport) as console:
            loop = await start(console, "sh", deadline=soon())
            output = Output()
            ran = asyncio.ensure_future(loop.run_test("echo begun; read go; exit 7", output))
            await output.has(b"begun")
            transport.detach()
            os.write(master, b"go\n")
            await transport.heard(b" 7 ")
            transport.attach()
            answer = await ran
            assert answer.status == 7
            await loop.leave()
        shell.kill()
        shell.wait()
        os.close(master)

    run(test())


def shell_on_a_pty() -> tuple[int, subprocess.Popen[bytes]]:
    """A shell, and the host's end of its console. A process of asyncio's would leave a thread behind for a moment."""
    master, slave = os.openpty()
    shell = subprocess.Popen(["sh"], stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    return master, shell


class Detachable(PairTransport):
    """A board's pty behind a server that can be detached: then what the board says is heard by nobody."""

    def __init__(self, board: int) -> None:
        super().__init__()
        self._board = board
        self._unheard = b""
        self._news = asyncio.Event()
        self._may_return = asyncio.Event()

    def patience(self) -> float:
        return 60.0

    def open(self) -> fdspawn:
        loop = asyncio.get_running_loop()
        loop.add_reader(self._board, self._said)
        loop.add_reader(self.far, lambda: os.write(self._board, self.far.recv(65536)))
        return super().open()

    def _said(self) -> None:
        data = os.read(self._board, 65536)
        if self.far.fileno() >= 0:
            self.far.sendall(data)
        else:
            self._unheard += data
            self._news.set()

    async def heard(self, part: bytes) -> None:
        while part not in self._unheard:
            self._news.clear()
            await self._news.wait()

    def detach(self) -> None:
        asyncio.get_running_loop().remove_reader(self.far)
        self.far.close()

    def attach(self) -> None:
        self._may_return.set()

    async def reopen(self) -> fdspawn:
        await self._may_return.wait()
        again = PairTransport()
        self.near, self.far = again.near, again.far
        return self.open()

    async def close(self) -> None:
        loop = asyncio.get_running_loop()
        if self.far.fileno() >= 0:
            loop.remove_reader(self._board)
            self.detach()
        await super().close()
