"""A door to an open console for people: a UNIX socket that hands on what the device says and types what comes in."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import Final

from dispatcher.console.connection import Console
from dispatcher.errors import ConsoleClosed

_READ_SIZE: Final = 4096
_BACKLOG_LIMIT: Final = 1024 * 1024
"""Bytes that may wait for somebody who does not read; what comes on top is not shown to them."""


class Door:
    """Open from :meth:`open` to :meth:`close`; nobody else may listen to the console meanwhile.

    :ivar path: the socket; only this user can reach it.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        # Not in the output directory: a socket's path has at most 107 bytes (unix(7)).
        self._folder = Path(tempfile.mkdtemp(prefix="multinode-"))
        self.path = self._folder / "console"
        self._server: asyncio.Server | None = None
        self._ending: asyncio.Task[None] | None = None
        self._guests: set[asyncio.StreamWriter] = set()

    @property
    def command(self) -> str:
        """What a person runs to come in; Ctrl-] leads out again."""
        return f"socat -,rawer,escape=0x1d UNIX-CONNECT:{self.path}"

    async def open(self) -> None:
        self._server = await asyncio.start_unix_server(self._let_in, self.path)
        self._console.listen(self._say)
        self._ending = asyncio.create_task(self._tell_end())

    async def _tell_end(self) -> None:
        """Show everybody out once the console has ended: it would take what they type, and say nothing."""
        end = await self._console.ended()
        self._say(f"\r\n[multinode: {end.what}]\r\n".encode())
        self._shut()

    def _say(self, data: bytes) -> None:
        for guest in self._guests:
            if guest.transport.get_write_buffer_size() < _BACKLOG_LIMIT:
                guest.write(data)

    async def _let_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._guests.add(writer)
        try:
            with contextlib.suppress(ConsoleClosed, ConnectionError):
                while data := await reader.read(_READ_SIZE):
                    await self._console.send(data)
        finally:
            self._guests.discard(writer)
            writer.close()

    def _shut(self) -> None:
        if self._server is not None:
            self._server.close()
        for guest in list(self._guests):
            guest.close()

    async def close(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
            self._console.listen(None)
            self._shut()
        shutil.rmtree(self._folder, ignore_errors=True)
