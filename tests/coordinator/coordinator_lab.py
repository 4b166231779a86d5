"""A coordinator on a port of its own, and clients that speak to it by hand."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from dispatcher.coordinator.desk import Desk
from dispatcher.coordinator.hall import Hall
from dispatcher.coordinator.journal import Journal
from dispatcher.coordinator.journal.memory import MemoryJournal
from dispatcher.coordinator.live import Notice
from dispatcher.coordinator.server import Limits, Server

PATIENCE = 120.0
"""Seconds after which a test that hangs is ended."""


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Lab:
    """A coordinator that serves."""

    def __init__(self, journal: Journal, limits: Limits | None, grace: float | None) -> None:
        self.clock = Clock()
        self.notices: list[tuple[str, Notice]] = []
        self.journal = journal
        self.hall = Hall(
            journal,
            grace=grace,
            expiry=3600.0,
            clock=self.clock,
            observe=lambda group, n: self.notices.append((group, n)),
        )
        self.server = Server(Desk(self.hall), limits=limits)
        self.counters = self.server.counters
        self.port = 0

    async def raw(self, data: bytes, *, half_close: bool = False) -> bytes:
        """Say some bytes; everything that is answered until the server closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        with contextlib.closing(writer):
            writer.write(data)
            if half_close:
                writer.write_eof()
            with contextlib.suppress(ConnectionError):
                return await reader.read()
        return b""

    async def ask(self, **fields: Any) -> dict[str, Any]:
        """Make one request as LAVA's clients do."""
        body = json.dumps(fields)
        answer = await self.raw(f"{len(body):08X}{body}".encode(), half_close="multinode" not in fields)
        assert int(answer[:8], 16) == len(answer) - 8
        reply: dict[str, Any] = json.loads(answer[8:])
        reply.pop("multinode")
        return reply

    async def stock(
        self, member: str, request: str, group: str = "g", role: str = "tester", **fields: Any
    ) -> dict[str, Any]:
        """A request with what LAVA's dispatcher puts into each."""
        base = {"port": self.port, "blocksize": 4096, "poll_delay": 3, "host": "localhost", "hostname": "worker1"}
        return await self.ask(**base, client_name=member, group_name=group, role=role, request=request, **fields)

    async def gather(self, *members: str, **roles: str) -> None:
        """Let stock members form the group ``g``."""
        everybody = {**dict.fromkeys(members, "tester"), **roles}
        for member, role in everybody.items():
            await self.stock(member, "group_data", role=role, group_size=len(everybody))


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop turn until something is so."""
    while True:
        if condition():
            return
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def serving(
    journal: Journal | None = None, *, limits: Limits | None = None, grace: float | None = None
) -> AsyncIterator[Lab]:
    """A coordinator until the end of the block."""
    lab = Lab(journal or MemoryJournal(), limits, grace)
    lab.port = await lab.server.start("127.0.0.1", 0)
    try:
        yield lab
    finally:
        await lab.server.stop()


def in_lab(
    scenario: Callable[[Lab], Awaitable[None]],
    *,
    journal: Journal | None = None,
    limits: Limits | None = None,
    grace: float | None = None,
) -> None:
    """Play a scenario against a coordinator."""

    async def run() -> None:
        async with asyncio.timeout(PATIENCE), serving(journal, limits=limits, grace=grace) as lab:
            await scenario(lab)

    asyncio.run(run())
