"""The ``serial`` transport: a UART by its path, or any URL that pyserial opens (``rfc2217://``, ``socket://``)."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import termios
import threading
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import serial
from pexpect import fdpexpect
from pexpect.spawnbase import SpawnBase

from dispatcher.console.transport import Option, Transport
from dispatcher.errors import ConsoleError, UserError
from dispatcher.framing import grammar

_RELAY_POLL = 0.2
"""Seconds after which a relay looks whether it is to end; data is handed on at once."""

_RELAY_END = 1.0
"""Seconds that a relay's writer may take to notice that its port is closed."""

_HIGHEST_BAUDRATE = 2**31 - 1  # the kernel's type for it


class SerialTransport(Transport):
    """A pyserial port. A path is polled directly; a URL is opened and relayed by a thread, as that may take seconds."""

    OPTIONS: ClassVar[Mapping[str, str]] = {
        "serial": "a device path, or a URL as pyserial.serial_for_url takes it",
        "baudrate": "bits a second, 115200 unless set",
        "rtscts": "hardware flow control, false unless set",
        "xonxoff": "software flow control, false unless set",
        "dtr": "the level that the DTR line is set to, left as it is unless set",
        "rts": "the level that the RTS line is set to, left as it is unless set",
        "hupcl": "whether closing the port lowers DTR and RTS, left as it is unless set; of a path only",
    }

    def __init__(self, device: str, options: Mapping[str, Option]) -> None:
        super().__init__(device, options)
        self._url = str(options["serial"])
        if not self._url:
            raise UserError("console serial is empty", where=device, hint="name a path such as /dev/ttyUSB0, or a URL")
        baudrate = options.get("baudrate", 115200)
        if not isinstance(baudrate, int) or isinstance(baudrate, bool) or not 0 < baudrate <= _HIGHEST_BAUDRATE:
            raise UserError(f"baudrate {baudrate!r} is not a number of bits a second", where=device)
        self._baudrate = baudrate
        self._rtscts, self._xonxoff = bool(self._flag("rtscts")), bool(self._flag("xonxoff"))
        self._dtr, self._rts, self._hupcl = self._flag("dtr"), self._flag("rts"), self._flag("hupcl")
        self._is_url = "://" in self._url
        if self._is_url and self._hupcl is not None:
            raise UserError(f"hupcl cannot be set on {self._url}", where=device, hint="it can where serial is a path")
        self._port: serial.Serial | None = None
        self._relay: _Relay | None = None

    def _flag(self, name: str) -> bool | None:
        value = self.options.get(name)
        if value is not None and not isinstance(value, bool):
            raise UserError(f"{name} {value!r} is neither true nor false", where=self.device)
        return value

    def open(self) -> SpawnBase[bytes]:
        if self._is_url:
            self._relay = _Relay(self._url, self._open_port)
            descriptor = self._relay.descriptor
        else:
            self._port = self._open_port()
            descriptor = self._port.fileno()
        spawn: fdpexpect.fdspawn[bytes] = fdpexpect.fdspawn(descriptor, timeout=None, encoding=None)
        spawn.delaybeforesend = None
        spawn.delayafterread = None
        return spawn

    def _open_port(self) -> serial.Serial:
        try:
            port = serial.serial_for_url(
                self._url,
                self._baudrate,
                do_not_open=True,
                # Set once, here: on rfc2217:// each change negotiates with the server again.
                timeout=_RELAY_POLL,
                rtscts=self._rtscts,
                xonxoff=self._xonxoff,
                # VMIN 1: without it a read that finds nothing looks like the end of file (termios(3)).
                inter_byte_timeout=None if self._is_url else 0,
                exclusive=None if self._is_url else True,
            )
            self._restrain(port)
            port.open()
            if self._hupcl is not None:
                _set_hupcl(port.fileno(), self._hupcl)
        except Exception as error:  # pyserial lets through what its parts raise: termios.error, KeyError, TypeError …
            what, hint = _explain(error)
            raise ConsoleError(f"cannot open {self._url}: {what}", where=self.device, hint=hint) from None
        return port

    def _restrain(self, port: serial.Serial) -> None:
        """Have opening the port do no more than the device file says; pyserial has no options for that."""
        unwanted = []
        for level, name, update in ((self._dtr, "dtr", "_update_dtr_state"), (self._rts, "rts", "_update_rts_state")):
            if level is None:
                unwanted.append(update)  # it would raise the line
            else:
                setattr(port, name, level)
        if _is_socket(self._url):
            unwanted.append("reset_input_buffer")  # it would drop what came since the connection was made
        for name in unwanted:
            setattr(port, name, _nothing)

    def line(self) -> str | None:
        return None if self._url.startswith("loop://") else self._url

    def ended(self) -> str:
        if self._relay is not None and self._relay.error:
            return self._relay.error
        return f"{self._url} hung up"

    async def close(self) -> None:
        if self._relay is not None:
            await asyncio.to_thread(self._relay.stop)
        if self._port is not None:
            with contextlib.suppress(termios.error, OSError):
                # A device that holds the line by flow control would have close(2) wait for half a minute.
                termios.tcflush(self._port.fileno(), termios.TCOFLUSH)
            await asyncio.to_thread(_close, self._port)


class _Relay:
    """Threads between a port that cannot be polled and a socket that can.

    :param open_port: may take its time; its error becomes the relay's.
    """

    def __init__(self, url: str, open_port: Callable[[], serial.Serial]) -> None:
        self._url = url
        self._open_port = open_port
        self._ours, self._theirs = socket.socketpair()
        self.descriptor = self._theirs.fileno()
        self.error: str | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            port = self._open_port()
        except ConsoleError as error:
            self._fail(error.what)
            return
        writer = threading.Thread(target=self._outward, args=(port,), daemon=True)
        writer.start()
        self._inward(port)
        _close(port)
        writer.join(_RELAY_END)

    def _inward(self, port: serial.Serial) -> None:
        try:
            while not self._stopping.is_set():
                if data := port.read(1):
                    self._ours.sendall(data + self._more(port))
        except (serial.SerialException, OSError) as error:
            self._fail(f"{self._url} ended: {_explain(error)[0]}")

    def _more(self, port: serial.Serial) -> bytes:
        if not _is_socket(self._url):
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
            self._fail(f"{self._url} ended: {_explain(error)[0]}")

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


def _nothing() -> None:
    pass


def _is_socket(url: str) -> bool:
    return url.lower().startswith("socket://")


def _set_hupcl(descriptor: int, wanted: bool) -> None:
    attributes = termios.tcgetattr(descriptor)
    attributes[2] = attributes[2] | termios.HUPCL if wanted else attributes[2] & ~termios.HUPCL
    termios.tcsetattr(descriptor, termios.TCSANOW, attributes)


def _close(port: serial.Serial) -> None:
    # pyserial drops a socket unclosed whose other end has gone.
    underlying: Any = getattr(port, "_socket", None)
    with contextlib.suppress(serial.SerialException, OSError):
        port.close()
    if underlying is not None:
        underlying.close()


def _explain(error: Exception) -> tuple[str, str | None]:
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
