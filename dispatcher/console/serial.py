"""The ``serial`` transport: a UART by its path, or any URL that pyserial opens (``rfc2217://``, ``socket://``)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Mapping
from typing import ClassVar

import serial
from pexpect import fdpexpect
from pexpect.spawnbase import SpawnBase

from dispatcher.console.transport import Option, Transport
from dispatcher.errors import ConsoleError, UserError
from dispatcher.framing import grammar

_RELAY_POLL = 0.2
"""Seconds after which a relay looks whether it is to end; data is handed on at once."""


class SerialTransport(Transport):
    """A pyserial port. One that has no descriptor of its own (``rfc2217://``, ``loop://``) is relayed by a thread."""

    OPTIONS: ClassVar[Mapping[str, str]] = {
        "serial": "a device path, or a URL as pyserial.serial_for_url takes it",
        "baudrate": "bits a second, 115200 unless set",
        "rtscts": "hardware flow control, false unless set",
        "xonxoff": "software flow control, false unless set",
    }

    def __init__(self, device: str, options: Mapping[str, Option]) -> None:
        super().__init__(device, options)
        self._url = str(options["serial"])
        if not self._url:
            raise UserError("console serial is empty", where=device, hint="name a path such as /dev/ttyUSB0, or a URL")
        baudrate = options.get("baudrate", 115200)
        if not isinstance(baudrate, int) or isinstance(baudrate, bool) or baudrate <= 0:
            raise UserError(f"baudrate {baudrate!r} is not a positive number", where=device)
        self._baudrate = baudrate
        self._rtscts, self._xonxoff = self._flag("rtscts"), self._flag("xonxoff")
        self._port: serial.Serial | None = None
        self._relay: _Relay | None = None

    def _flag(self, name: str) -> bool:
        value = self.options.get(name, False)
        if not isinstance(value, bool):
            raise UserError(f"{name} {value!r} is neither true nor false", where=self.device)
        return value

    def open(self) -> SpawnBase[bytes]:
        try:
            # The timeout is set once, here: on rfc2217:// each change negotiates with the server again.
            port = serial.serial_for_url(
                self._url, self._baudrate, timeout=_RELAY_POLL, rtscts=self._rtscts, xonxoff=self._xonxoff
            )
        except (serial.SerialException, ValueError, OSError) as error:
            raise ConsoleError(f"cannot open {self._url}: {error}", where=self.device) from None
        self._port = port
        try:
            descriptor = port.fileno()
        except (AttributeError, OSError):
            self._relay = _Relay(port)
            descriptor = self._relay.descriptor
        spawn: fdpexpect.fdspawn[bytes] = fdpexpect.fdspawn(descriptor, timeout=None, encoding=None)
        spawn.delaybeforesend = None
        spawn.delayafterread = None
        return spawn

    def ended(self) -> str:
        return f"{self._url} ended" + (f": {self._relay.error}" if self._relay and self._relay.error else "")

    async def close(self) -> None:
        if self._relay is not None:
            await asyncio.to_thread(self._relay.stop)
        if self._port is not None:
            with contextlib.suppress(serial.SerialException, OSError):
                await asyncio.to_thread(self._port.close)


class _Relay:
    """Two threads between a port that cannot be polled and a socket that can."""

    def __init__(self, port: serial.Serial) -> None:
        self._port = port
        ours, self._theirs = socket.socketpair()
        self._ours = ours
        self.descriptor = self._theirs.fileno()
        self.error: str | None = None
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._inward, self._outward)]
        for thread in self._threads:
            thread.start()

    def _inward(self) -> None:
        try:
            while not self._stopping.is_set():
                data = self._port.read(max(1, self._port.in_waiting))
                if data:
                    self._ours.sendall(data)
        except (serial.SerialException, OSError) as error:
            self.error = str(error)
        finally:
            with contextlib.suppress(OSError):
                self._ours.shutdown(socket.SHUT_WR)

    def _outward(self) -> None:
        with contextlib.suppress(serial.SerialException, OSError):
            while data := self._ours.recv(grammar.READ_SIZE):
                self._port.write(data)

    def stop(self) -> None:
        """End both threads; waits for the one that reads, at most its poll."""
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._ours.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._ours.close()
        self._theirs.close()
