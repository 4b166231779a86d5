"""labgrid's consoles as transports of ours, so that a labgrid test can make its targets meet; see ``docs/labgrid.md``.

It needs labgrid (the extra ``labgrid``), and nothing else here imports it.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Mapping
from typing import ClassVar, Final

import attr
import pexpect
from labgrid.driver import Driver
from labgrid.factory import target_factory
from labgrid.protocol import ConsoleProtocol
from pexpect.spawnbase import SpawnBase

from dispatcher.console.relay import POLL, Relay
from dispatcher.console.transport import Option, Transport, spawn_on
from dispatcher.framing import grammar

_EMPTY: Final = 0.01
"""Seconds between two reads of a console that answers with nothing where others wait."""


class LabgridTransport(Transport):
    """A console that labgrid has activated, and that stays its own: this only begins and ends our use of it."""

    OPTIONS: ClassVar[Mapping[str, str]] = {}

    def __init__(self, console: ConsoleProtocol, options: Mapping[str, Option] | None = None) -> None:
        """``options``: none; the parameter is every transport's."""
        super().__init__(console.target.name, options or {})
        self._console = console
        self._relay: Relay | None = None

    def open(self) -> SpawnBase[bytes]:
        self._relay = Relay(lambda: LabgridPort(self._console))
        return spawn_on(self._relay.descriptor)

    async def close(self) -> None:
        if self._relay is not None:
            await asyncio.to_thread(self._relay.stop)

    def ended(self) -> str:
        return (self._relay and self._relay.error) or "labgrid's console ended"


class LabgridPort:
    """A console of labgrid's as a relay takes it: labgrid knows no descriptor that could be polled."""

    def __init__(self, console: ConsoleProtocol) -> None:
        self._console = console
        # labgrid's report of steps keeps one stack for all threads, and would get a step for every read.
        self._read: Callable[..., bytes | None] = inspect.unwrap(type(console).read)
        self._write: Callable[..., int | None] = inspect.unwrap(type(console).write)
        self._ending = threading.Event()

    def read(self) -> bytes:
        # Some drivers wait until they have as much as they were asked for.
        begun = self._some(1, POLL)
        if not begun:
            self._ending.wait(_EMPTY)
        return begun

    def more(self) -> bytes:
        return self._some(grammar.READ_SIZE, 0.0)

    def _some(self, size: int, timeout: float) -> bytes:
        try:
            return self._read(self._console, size=size, timeout=timeout) or b""
        except pexpect.TIMEOUT:
            return b""

    def write(self, data: bytes) -> None:
        while data and not self._ending.is_set():
            try:
                written = self._write(self._console, data)
            except BlockingIOError:
                self._ending.wait(_EMPTY)
                continue
            data = b"" if written is None else data[written:]

    def close(self) -> None:
        self._ending.set()

    def last_words(self) -> bytes:
        return b""

    def reason(self, error: Exception) -> str:
        return " ".join(f"labgrid's console ended: {type(error).__name__}: {error}".split())


@target_factory.reg_driver
@attr.s(eq=False)
class MultinodeDriver(Driver):  # type: ignore[misc]
    """Binds to a target's console, whatever its driver; ``transport`` is for ``multinode.run()`` and ``start()``."""

    bindings: ClassVar[Mapping[str, object]] = {"console": ConsoleProtocol}

    @property
    def transport(self) -> LabgridTransport:
        """The console, for one run; the next one takes it anew."""
        return LabgridTransport(self.console)
