"""labgrid's consoles as transports of ours, so that a labgrid test can make its targets meet; see ``docs/labgrid.md``.

It needs labgrid (the extra ``labgrid``), and nothing else here imports it.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

import attr
import pexpect
from labgrid.driver import Driver
from labgrid.factory import target_factory
from labgrid.protocol import ConsoleProtocol
from pexpect import fdpexpect
from pexpect.spawnbase import SpawnBase

from dispatcher.console.transport import Option, Transport
from dispatcher.framing import grammar

_POLL: Final = 0.1
"""Seconds that a read waits for data, after which the reader looks whether it is to end."""

_EMPTY: Final = 0.01
"""Seconds between two reads of a console that answers with nothing where others wait."""


class LabgridTransport(Transport):
    """A console that labgrid has activated, and that stays its own: opening and closing this starts and stops our use.

    labgrid knows no descriptor that could be polled, so two threads call ``read()`` and ``write()``.
    """

    OPTIONS: ClassVar[Mapping[str, str]] = {}

    def __init__(self, console: ConsoleProtocol, options: Mapping[str, Option] | None = None) -> None:
        """``options``: none; the parameter is every transport's."""
        super().__init__(console.target.name, options or {})
        self._console = console
        # labgrid's report of steps keeps one stack for all threads, and would get a step for every read.
        self._read: Callable[..., bytes | None] = inspect.unwrap(type(console).read)
        self._write: Callable[..., int | None] = inspect.unwrap(type(console).write)
        self._ending = threading.Event()
        self._threads: list[threading.Thread] = []
        self._why = "labgrid's console ended"

    def open(self) -> SpawnBase[bytes]:
        self._ours, self._theirs = socket.socketpair()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._inward, self._outward)]
        for thread in self._threads:
            thread.start()
        spawn: fdpexpect.fdspawn[bytes] = fdpexpect.fdspawn(self._theirs.fileno(), timeout=None, encoding=None)
        spawn.delaybeforesend = None
        spawn.delayafterread = None
        return spawn

    async def close(self) -> None:
        self._end()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        self._ours.close()
        self._theirs.close()

    def ended(self) -> str:
        return self._why

    def _inward(self) -> None:
        with self._told():
            while not self._ending.is_set():
                # Some drivers wait until they have as much as they were asked for.
                data = self._some(1, _POLL)
                if data:
                    self._ours.sendall(data + self._some(grammar.READ_SIZE, 0.0))
                else:
                    self._ending.wait(_EMPTY)

    def _some(self, size: int, timeout: float) -> bytes:
        try:
            return self._read(self._console, size=size, timeout=timeout) or b""
        except pexpect.TIMEOUT:
            return b""

    def _outward(self) -> None:
        with self._told():
            while data := self._ours.recv(grammar.READ_SIZE):
                while data and not self._ending.is_set():
                    try:
                        written = self._write(self._console, data)
                    except BlockingIOError:
                        self._ending.wait(_EMPTY)
                        continue
                    data = b"" if written is None else data[written:]

    @contextlib.contextmanager
    def _told(self) -> Any:
        """Have whatever a driver raises end the console, as its reason."""
        try:
            yield
        except Exception as error:
            if not self._ending.is_set():
                self._why = " ".join(f"labgrid's console ended: {type(error).__name__}: {error}".split())
        finally:
            self._end()

    def _end(self) -> None:
        self._ending.set()
        with contextlib.suppress(OSError):
            self._ours.shutdown(socket.SHUT_RDWR)


@target_factory.reg_driver
@attr.s(eq=False)
class MultinodeDriver(Driver):  # type: ignore[misc]
    """Binds to a target's console, whatever its driver; ``transport`` is for ``multinode.run()`` and ``start()``."""

    bindings: ClassVar[Mapping[str, object]] = {"console": ConsoleProtocol}

    @property
    def transport(self) -> LabgridTransport:
        """The console, for one run; the next one takes it anew."""
        return LabgridTransport(self.console)
