"""What tests of staying need: a clock that can be moved, stays made by hand, and a connection that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from coordinator_lab import PATIENCE, Lab, until

from dispatcher.coordinator import wire


class Time:
    """The event loop's clock, which can be moved on."""

    def __init__(self) -> None:
        self._ahead = 0.0
        asyncio.get_running_loop().time = lambda: time.monotonic() + self._ahead  # type: ignore[method-assign]

    def pass_(self, seconds: float) -> None:
        """Let seconds have passed; what is due then happens in the next turns of the loop."""
        self._ahead += seconds


def in_time(scenario: Callable[[Time], Awaitable[None]]) -> None:
    """Play a scenario; one that hangs ends by a clock that stays what it is."""

    async def run() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        watchdog = threading.Timer(PATIENCE, loop.call_soon_threadsafe, (task.cancel,))
        watchdog.start()
        try:
            await scenario(Time())
        finally:
            watchdog.cancel()

    asyncio.run(run())


@dataclass
class Stay:
    """A stay made by hand."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def answer(self) -> wire.Reply:
        """What it ends with."""
        with contextlib.closing(self.writer):
            framed = await self.reader.read()
        return wire.parse_reply(framed[wire.HEADER_SIZE :])


async def begin(lab: Lab, member: str, join: str | None, group: str = "g") -> Stay:
    """Ask to stay."""
    reader, writer = await asyncio.open_connection("127.0.0.1", lab.port)
    writer.write(wire.dump(wire.Stay(wire.Caller(group, member, join=join))))
    return Stay(reader, writer)


async def stay(lab: Lab, member: str, join: str, group: str = "g") -> Stay:
    """Stay, once the server knows it."""
    before = lab.counters.requests["stay"]
    made = await begin(lab, member, join, group)
    await until(lambda: lab.counters.requests["stay"] > before)
    return made


@dataclass
class Line:
    """A way to a port that can be cut, and on which requests can be held up."""

    to: int
    port: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    free: asyncio.Event = field(default_factory=asyncio.Event)

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.to)
        self.writers += [writer, there_writer]
        for source, sink, free in ((reader, there_writer, self.free), (there_reader, writer, None)):
            task = asyncio.get_running_loop().create_task(self._pass_on(source, sink, free))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _pass_on(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, free: asyncio.Event | None
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                if free is not None:
                    await free.wait()
                sink.write(data)
        sink.close()

    def cut(self) -> None:
        """Reset every connection that is there."""
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()


@contextlib.asynccontextmanager
async def line(to: int) -> AsyncIterator[Line]:
    """A way to a port until the end of the block."""
    made = Line(to)
    made.free.set()
    server = await asyncio.start_server(made.carry, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        made.cut()
        server.close()
