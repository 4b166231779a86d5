"""Relays a port that cannot be polled, as most of pyserial's URLs, to a socket that can: a thread for each way."""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import socket
import threading
from collections.abc import Callable
from typing import Any

import serial

from dispatcher.errors import ConsoleError
from dispatcher.framing import grammar

POLL = 0.2
"""Seconds after which a relay looks whether it is to end; data is handed on at once."""

_WRITER_END = 1.0
"""Seconds that a relay's writer may take to notice that its port is closed."""


class Relay:
    """Threads between a port that cannot be polled and a socket that can.

    :param open_port: may take its time; its error becomes the relay's.
    :param settled: called by a thread once the port is open, or cannot be opened.
    :ivar is_open: whether the port has been opened.
    :ivar error: why the relay has ended, None while it has not.
    """

    def __init__(self, url: str, open_port: Callable[[], serial.Serial], settled: Callable[[], None]) -> None:
        self._url = url
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
        close_port(port)
        writer.join(_WRITER_END)

    def _inward(self, port: serial.Serial) -> None:
        try:
            while not self._stopping.is_set():
                if data := port.read(1):
                    self._ours.sendall(data + self._more(port))
        except (serial.SerialException, OSError) as error:
            with contextlib.suppress(OSError):
                self._ours.sendall(_last_words(port))
            self._fail(f"{self._url} ended: {explain(error)[0]}")

    def _more(self, port: serial.Serial) -> bytes:
        if not is_socket(self._url):
            return port.read(port.in_waiting)
        try:
            # pyserial knows of one byte at most that waits in a socket.
            return os.read(port.fileno(), grammar.READ_SIZE)
        except BlockingIOError:
            return b""

    def _outward(self, port: serial.Serial) -> None:
        try:
            while data := self._ours.recv(1024):
                port.write(data)
        except Exception as error:  # what a port raises that is closed meanwhile is anybody's guess
            self._fail(f"{self._url} ended: {explain(error)[0]}")

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


def is_socket(url: str) -> bool:
    """Whether a URL is that of a bare TCP connection."""
    return url.lower().startswith("socket://")


def close_port(port: serial.Serial) -> None:
    """Close a port, whatever state it is in."""
    # pyserial drops a socket unclosed whose other end has gone.
    underlying: Any = getattr(port, "_socket", None)
    with contextlib.suppress(serial.SerialException, OSError):
        port.close()
    if underlying is not None:
        underlying.close()


def explain(error: Exception) -> tuple[str, str | None]:
    """What pyserial's error says, once, and what to do about it."""
    number = getattr(error, "errno", None)
    match number:
        case errno.ENOENT:
            return "there is no such file", "see console: serial: in the device file, and whether the cable is in"
        case errno.EACCES:
            return "permission denied", "your user may have to join the group that owns it, often dialout"
        case errno.EAGAIN:
            return "another program uses it", "close that one first"
        case int():
            return os.strerror(number), None
        case _:
            # pyserial's own texts repeat the port and end with the system's error.
            return str(error).rpartition("[Errno ")[2].partition("] ")[2] or str(error) or type(error).__name__, None


def _last_words(port: serial.Serial) -> bytes:
    """What was read before the end: pyserial's ``rfc2217://`` tells the end first, and keeps the rest to itself."""
    unread: Any = getattr(port, "_read_buffer", None)
    words = b""
    with contextlib.suppress(queue.Empty):
        while isinstance(unread, queue.Queue):
            words += unread.get_nowait() or b""
    return words
