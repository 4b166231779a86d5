"""Relays what cannot be polled, as most of pyserial's URLs, to a socket that can: a thread for each way."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Protocol

from dispatcher.errors import ConsoleError

POLL = 0.2
"""Seconds after which a relay looks whether it is to end; data is handed on at once."""

_WRITER_END = 1.0
"""Seconds that a relay's writer may take to notice that its port is closed."""


class Port(Protocol):
    """What is relayed; called by the relay's threads, which take whatever it raises for its end."""

    def read(self) -> bytes:
        """The beginning of what came, as soon as something did; nothing once :data:`POLL` seconds went by without."""
        ...

    def more(self) -> bytes:
        """What else has come by now; does not wait."""
        ...

    def write(self, data: bytes) -> None:
        """Write all of it; raise once the port is closed."""
        ...

    def close(self) -> None:
        """Close it, whatever state it is in; never raises."""
        ...

    def last_words(self) -> bytes:
        """What it still holds once it has ended; never raises."""
        ...

    def reason(self, error: Exception) -> str:
        """Why it has ended, from what it raised."""
        ...


class Relay:
    """Threads between a port that cannot be polled and a socket that can.

    :param open_port: called by a thread, and may take its time; its :class:`ConsoleError` becomes the relay's.
    :param settled: called by a thread once the port is open, or cannot be opened.
    :ivar is_open: whether the port has been opened.
    :ivar error: why the relay has ended, None while it has not.
    """

    def __init__(self, open_port: Callable[[], Port], settled: Callable[[], None] = lambda: None) -> None:
        self._open_port = open_port
        self._settled = settled
        self.is_open = False
        self._ours, self._theirs = socket.socketpair()
        self.descriptor = self._theirs.fileno()
        self.error: str | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            port = self._open_port()
            self.is_open = True
        except ConsoleError as error:
            self._fail(error.what)
            return
        finally:
            self._settled()
        writer = threading.Thread(target=self._outward, args=(port,), daemon=True)
        writer.start()
        self._inward(port)
        port.close()
        writer.join(_WRITER_END)

    def _inward(self, port: Port) -> None:
        begun = b""
        try:
            while not self._stopping.is_set():
                begun = port.read()
                if begun:
                    data, begun = begun + port.more(), b""
                    self._ours.sendall(data)
        except Exception as error:
            with contextlib.suppress(OSError):
                self._ours.sendall(begun + port.last_words())
            self._fail(port.reason(error))

    def _outward(self, port: Port) -> None:
        try:
            while data := self._ours.recv(1024):
                port.write(data)
        except Exception as error:  # what a port raises that is closed meanwhile is anybody's guess
            self._fail(port.reason(error))

    def _fail(self, error: str) -> None:
        if self.error is None and not self._stopping.is_set():
            self.error = error
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._ours.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        """End the threads; waits for the one that reads, at most its poll, or for the port to have been opened."""
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._ours.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._ours.close()
        self._theirs.close()
