"""Loops, lines and devices for the console's tests: a clock that jumps, a socket pair, a real shell on a bad line."""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import shutil
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pexpect.fdpexpect import fdspawn

from dispatcher.console.command import CommandTransport
from dispatcher.console.connection import Console
from dispatcher.console.shell import Shell, start
from dispatcher.console.transcript import Transcript
from dispatcher.console.transport import Transport

PATIENCE = 120.0
"""Seconds after which a test on the real clock has failed; none waits that long."""

SHELLS = {
    "dash": "dash",
    "bash": "bash",
    "mksh": "mksh",
    "ksh93": "ksh93",
    "busybox-ash": "busybox ash",
}
INTERACTIVE = {
    "dash": "env HISTFILE=/dev/null PS1='guest$ ' dash -i",
    "bash": "env TERM=xterm HISTFILE=/dev/null PS1='guest$ ' bash --norc --noprofile -i",
    "mksh": "env HISTFILE=/dev/null TERM=xterm PS1='guest$ ' mksh -i",
    "ksh93": "env HISTFILE=/dev/null PS1='guest$ ' ksh93 -E",
    "busybox-ash": "env HISTFILE=/dev/null PS1='guest$ ' busybox ash",
}

_Result = TypeVar("_Result")


# --- loops -----------------------------------------------------------------------------------------------------


class _JumpingSelector(selectors.DefaultSelector):
    """Never waits for a time: when nothing is ready, the time has come."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if ready := super().select(0):
            return ready
        if timeout is None:
            ready = super().select(PATIENCE)
            assert ready, "nothing is left that could happen"
        elif timeout > 0:
            self.now += timeout
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer as soon as nothing else is to be done."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def run(test: Coroutine[Any, Any, _Result], *, jumping: bool = False) -> _Result:
    """Run a test to its end. What the loop would only log is an error."""
    complaints: list[dict[str, Any]] = []

    async def bounded() -> _Result:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
        if jumping:
            return await test
        async with asyncio.timeout(PATIENCE):
            return await test

    with asyncio.Runner(loop_factory=JumpingLoop if jumping else asyncio.SelectorEventLoop) as runner:
        result = runner.run(bounded())
    assert not complaints
    return result


def now() -> float:
    return asyncio.get_running_loop().time()


def soon() -> float:
    """A deadline that no test reaches unless it has failed."""
    return now() + PATIENCE


# --- consoles --------------------------------------------------------------------------------------------------


class PairTransport(Transport):
    """A console whose far end is a socket in the test's hands."""

    OPTIONS: ClassVar = {"pair": "nothing"}

    def __init__(self) -> None:
        super().__init__("board", {})
        self.near, self.far = socket.socketpair()
        self.far.setblocking(False)

    def open(self) -> fdspawn:
        return fdspawn(self.near.fileno(), timeout=None, encoding=None)

    async def close(self) -> None:
        self.near.close()

    def ended(self) -> str:
        return "the far end was closed"

    async def hear(self, size: int = 65536) -> bytes:
        """What was typed."""
        return await asyncio.get_running_loop().sock_recv(self.far, size)

    async def hear_line(self) -> bytes:
        """One typed line, with its line feed."""
        line = b""
        while not line.endswith(b"\n"):
            line += await self.hear(1)
        return line

    async def say(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.far, data)


Noise = Callable[[bytes], bytes]


class BadLine(Transport):
    """A program's console on a line that damages what passes.

    :param typed: makes of each line that is typed what arrives.
    :param printed: makes of each line that the program prints what is read.
    """

    OPTIONS: ClassVar = {"command": "the program"}

    def __init__(self, command: str, *, typed: Noise | None = None, printed: Noise | None = None) -> None:
        super().__init__("board", {})
        self.inner = CommandTransport("board", {"command": command})
        self._noise = {"typed": typed, "printed": printed}
        self._held = {"typed": b"", "printed": b""}
        self._near, self._far = socket.socketpair()
        self._pty = -1

    def open(self) -> fdspawn:
        loop = asyncio.get_running_loop()
        self._pty = self.inner.open().child_fd
        loop.add_reader(self._pty, self._from_program)
        loop.add_reader(self._far, self._from_host)
        return fdspawn(self._near.fileno(), timeout=None, encoding=None)

    def _from_program(self) -> None:
        try:
            data = os.read(self._pty, 65536)
        except OSError:
            asyncio.get_running_loop().remove_reader(self._pty)
            self._far.shutdown(socket.SHUT_WR)
            return
        self._pass("printed", data, self._far.sendall)

    def _from_host(self) -> None:
        self._pass("typed", self._far.recv(65536), lambda data: os.write(self._pty, data))

    def _pass(self, way: str, data: bytes, onward: Callable[[bytes], Any]) -> None:
        *lines, self._held[way] = (self._held[way] + data).split(b"\n")
        noise = self._noise[way] or bytes
        if arriving := b"".join(noise(line + b"\n") for line in lines):
            onward(arriving)

    async def close(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._pty)
        loop.remove_reader(self._far)
        await self.inner.close()
        self._near.close()
        self._far.close()


class Hits:
    """Noise that hits chosen lines, each hit once, in this order.

    :param hits: what a line holds → what becomes of the line.
    """

    def __init__(self, *hits: tuple[bytes, Noise]) -> None:
        self.left = list(hits)

    def __call__(self, line: bytes) -> bytes:
        if self.left and self.left[0][0] in line:
            return self.left.pop(0)[1](line)
        return line


def without(part: bytes) -> Noise:
    """Lose the first occurrence of a part of the line."""
    return lambda line: line.replace(part, b"", 1)


def changed(part: bytes, other: bytes) -> Noise:
    """Change the first occurrence of a part of the line."""
    return lambda line: line.replace(part, other, 1)


def lost(_line: bytes) -> bytes:
    """Lose the line."""
    return b""


@contextlib.asynccontextmanager
async def opened(transport: Transport | str, log: Path = Path(os.devnull), **options: Any) -> AsyncIterator[Console]:
    """An open console: of a transport, or of a program on a pty."""
    if isinstance(transport, str):
        transport = CommandTransport("board", {"command": transport})
    console = Console("board", transport, Transcript(log), **options)
    try:
        console.open()
        yield console
    finally:
        await console.close()


def installed(shell: str) -> bool:
    return shutil.which(shell.split(maxsplit=1)[0]) is not None


def children() -> set[int]:
    """This process's children, zombies among them."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that has just ended
            found.update(map(int, (task / "children").read_text().split()))
    return found


@contextlib.asynccontextmanager
async def started(transport: Transport | str = "sh", shell_command: str = "sh") -> AsyncIterator[Shell]:
    """A loop on a console."""
    async with opened(transport) as console:
        yield await start(console, shell_command, deadline=soon())


class Output:
    """A listener that keeps what it got."""

    def __init__(self) -> None:
        self.data = b""
        self._grown = asyncio.Event()

    def __call__(self, data: bytes) -> None:
        self.data += data
        self._grown.set()

    async def has(self, part: bytes) -> None:
        while part not in self.data:
            self._grown.clear()
            await self._grown.wait()
