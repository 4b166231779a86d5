"""pyserial's ports: their ends, their errors, and the way in which a relay takes them."""

from __future__ import annotations

import contextlib
import errno
import os
import queue
from typing import Any

import serial

from dispatcher.framing import grammar


class SerialPort:
    """A :class:`~dispatcher.console.relay.Port` of pyserial's; its timeout must be the relay's poll.

    :param url: as it was opened, for messages.
    """

    def __init__(self, url: str, port: serial.Serial) -> None:
        self._url = url
        self._port = port

    def read(self) -> bytes:
        begun: bytes = self._port.read(1)
        return begun

    def more(self) -> bytes:
        if not self._url.lower().startswith("socket://"):
            more: bytes = self._port.read(self._port.in_waiting)
            return more
        try:
            # pyserial knows of one byte at most that waits in a socket.
            return os.read(self._port.fileno(), grammar.READ_SIZE)
        except BlockingIOError:
            return b""

    def write(self, data: bytes) -> None:
        self._port.write(data)

    def close(self) -> None:
        close_port(self._port)

    def last_words(self) -> bytes:
        """pyserial's ``rfc2217://`` tells the end before the rest, which it keeps to itself."""
        unread: Any = getattr(self._port, "_read_buffer", None)
        words = b""
        with contextlib.suppress(queue.Empty):
            while isinstance(unread, queue.Queue):
                words += unread.get_nowait() or b""
        return words

    def reason(self, error: Exception) -> str:
        return f"{self._url} ended: {explain(error)[0]}"


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
            return _in_words(str(error) or type(error).__name__)


def _in_words(text: str) -> tuple[str, str | None]:
    """What one of pyserial's own texts says; they repeat the port and end with the system's error."""
    if f"({errno.ENOTTY}, " in text:
        return "it is no serial line", "see console: serial: in the device file"
    if text.startswith("no ports found"):
        return text, "see console: serial: in the device file, and whether the cable is in"
    if text.startswith("Remote does not"):
        return f"{text}; socket:// is for bare ports, ?ign_set_control for lines without modem lines", None
    return text.rpartition("[Errno ")[2].partition("] ")[2] or text, None
