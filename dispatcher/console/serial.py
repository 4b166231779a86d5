"""The ``serial`` transport: a UART by its path, or any URL that pyserial opens (``rfc2217://``, ``socket://``)."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shlex
import shutil
import sys
import termios
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

import serial
from pexpect.spawnbase import SpawnBase

from dispatcher.console import address
from dispatcher.console.holder import holder, inhabitant, is_simulated
from dispatcher.console.port import SerialPort, close_port, explain
from dispatcher.console.relay import POLL, Relay
from dispatcher.console.transport import Option, Transport, spawn_on
from dispatcher.errors import ConsoleError, UserError
from dispatcher.keepalive import Keepalive

RECONNECT: Final = 60
"""Seconds within which a line that was lost is to be there again, unless the device file says otherwise."""

_KEEPALIVE: Final = Keepalive(idle=10, interval=5, count=4)
"""How a connection is found out whose other end has gone without a word, as on a power cut: after half a minute."""

_FLAGS: Final = ("rtscts", "xonxoff", "dsrdtr")
_TAKEN: Final = (errno.EAGAIN, errno.EBUSY)
_HIGHEST_BAUDRATE = 2**31 - 1  # the kernel's type for it


class SerialTransport(Transport):
    """A pyserial port. A path is polled directly; a URL is opened and relayed by a thread, as that may take seconds."""

    OPTIONS: ClassVar[Mapping[str, str]] = {
        "serial": "a device path, or a URL as pyserial.serial_for_url takes it",
        "baudrate": "bits a second, 115200 unless set",
        "rtscts": "hardware flow control, false unless set",
        "xonxoff": "software flow control, false unless set",
        "dsrdtr": "hardware flow control by the other pair of lines, false unless set",
        "exclusive": "whether nobody else may have the port open, true unless set; of a path only",
        "dtr": "the level that the DTR line is set to, left as it is unless set",
        "rts": "the level that the RTS line is set to, left as it is unless set",
        "hupcl": "whether closing the port lowers DTR and RTS, left as it is unless set; of a path only",
        "reconnect": f"seconds within which a lost line is to be there again, {RECONNECT} unless set; 0: its loss is "
        "the end",
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
        self._flow_control = {name: bool(self._flag(name)) for name in _FLAGS}
        self._dtr, self._rts, self._hupcl = self._flag("dtr"), self._flag("rts"), self._flag("hupcl")
        self._exclusive = self._flag("exclusive")
        if "://" in self._url:
            address.check(self._url, device)
        else:
            address.check_path(self._url, device)
        self._is_url = "://" in self._url and not self._url.lower().startswith(address.SEARCH)
        for name, value in (("hupcl", self._hupcl), ("exclusive", self._exclusive)):
            if self._is_url and value is not None:
                hint = "it can where serial is a path"
                raise UserError(f"{name} cannot be set on {self._url}", where=device, hint=hint)
        self._reconnect = self.seconds("reconnect", RECONNECT)
        self._was_open = False
        self._port: serial.Serial | None = None
        self._relay: Relay | None = None
        self._settled = asyncio.Event()

    def _flag(self, name: str) -> bool | None:
        value = self.options.get(name)
        if value is not None and not isinstance(value, bool):
            raise UserError(f"{name} {value!r} is neither true nor false", where=self.device)
        return value

    def open(self) -> SpawnBase[bytes]:
        if self._is_url:
            self._settled = settled = asyncio.Event()
            loop = asyncio.get_running_loop()
            self._relay = Relay(lambda: SerialPort(self._url, self._open_port()), lambda: _tell(loop, settled))
            descriptor = self._relay.descriptor
        else:
            self._port = self._open_port()
            self._was_open = True
            descriptor = self._port.fileno()
        return spawn_on(descriptor)

    async def reopen(self) -> SpawnBase[bytes]:
        spawn = self.open()
        if self._relay is not None:
            await self._settled.wait()
            if not self._relay.is_open:
                raise ConsoleError(self._relay.error or f"cannot open {self._url}", where=self.device)
        return spawn

    def patience(self) -> float:
        was_open = self._was_open or (self._relay is not None and self._relay.is_open)
        return self._reconnect if was_open else 0

    def _open_port(self) -> serial.Serial:
        exclusive = not self._is_url and self._exclusive is not False
        path = self._url
        try:
            port = serial.serial_for_url(
                self._url,
                self._baudrate,
                do_not_open=True,
                # Set once, here: on rfc2217:// each change negotiates with the server again.
                timeout=POLL,
                # VMIN 1: without it a read that finds nothing looks like the end of file (termios(3)).
                inter_byte_timeout=None if self._is_url else 0,
                exclusive=exclusive or None,
                rtscts=self._flow_control["rtscts"],
                xonxoff=self._flow_control["xonxoff"],
                dsrdtr=self._flow_control["dsrdtr"],
            )
            path = str(port.port)
            self._restrain(port)
            if exclusive and (other := (inhabitant if is_simulated(path) else holder)(path)):
                raise self._taken(other)
            port.open()
            self._settle(port)
        except ConsoleError:
            raise
        except Exception as error:  # pyserial lets through what its parts raise: termios.error, KeyError, TypeError …
            if getattr(error, "errno", None) in _TAKEN and not self._is_url:
                raise self._taken(holder(path)) from None
            what, hint = explain(error)
            what = what.removeprefix(f"Could not open port {self._url}: ")
            raise ConsoleError(f"cannot open {self._url}: {what}", where=self.device, hint=hint) from None
        return port

    def _taken(self, other: str | None) -> ConsoleError:
        what = f"{other} uses it" if other else "another program uses it"
        hint = "close that one first, or share what comes with it: exclusive: false in the device file"
        return ConsoleError(f"cannot open {self._url}: {what}", where=self.device, hint=hint)

    def _settle(self, port: serial.Serial) -> None:
        """Set what pyserial has no options for, on a port that has just been opened."""
        if self._hupcl is not None:
            _set_hupcl(port.fileno(), self._hupcl)
        connection: Any = getattr(port, "_socket", None)
        if connection is not None:
            _KEEPALIVE.set(connection)

    def _restrain(self, port: serial.Serial) -> None:
        """Have opening the port do no more than the device file says; pyserial has no options for that."""
        unwanted = []
        for level, name, update in ((self._dtr, "dtr", "_update_dtr_state"), (self._rts, "rts", "_update_rts_state")):
            if level is None:
                unwanted.append(update)  # it would raise the line
            else:
                setattr(port, name, level)
        # They would drop what has come already: since the connection was made, or while the line was lost.
        unwanted += ["reset_input_buffer", "_reset_input_buffer"]
        for name in unwanted:
            setattr(port, name, _nothing)
        inner: Any = port
        if (read := getattr(port, "_telnet_read_loop", None)) is not None:
            # Its thread would print a traceback over what is no telnet. Whoever reads is told that it has ended.
            inner._telnet_read_loop = lambda: _whatever_comes(read)

    def line(self) -> str | None:
        if self._url.startswith("loop://"):
            return None
        # A link below /dev/serial is the same line.
        if self._is_url:
            return self._url
        with contextlib.suppress(Exception):  # what is searched for is not there; told when it is opened
            return os.path.realpath(str(serial.serial_for_url(self._url, do_not_open=True).port))
        return self._url

    def access(self) -> str | None:
        if self.line() is None:
            return None
        flow = [f"--{name}" for name in ("rtscts", "xonxoff") if self._flow_control[name]]
        # It was installed beside this program, which need not be in PATH.
        found = shutil.which("pyserial-miniterm") is not None
        miniterm = ["pyserial-miniterm"] if found else [sys.executable, "-m", "serial.tools.miniterm"]
        return shlex.join([*miniterm, *flow, self._url, str(self._baudrate)])

    def ended(self) -> str:
        if self._relay is not None and self._relay.error:
            return self._relay.error
        return f"{self._url} hung up"

    async def close(self) -> None:
        if self._relay is not None:
            self._was_open = self._was_open or self._relay.is_open
            await asyncio.to_thread(self._relay.stop)
            self._relay = None
        if self._port is not None:
            with contextlib.suppress(termios.error, OSError):
                # A device that holds the line by flow control would have close(2) wait for half a minute.
                termios.tcflush(self._port.fileno(), termios.TCOFLUSH)
            await asyncio.to_thread(close_port, self._port)
            self._port = None


def _tell(loop: asyncio.AbstractEventLoop, settled: asyncio.Event) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
        loop.call_soon_threadsafe(settled.set)


def _nothing() -> None:
    pass


def _whatever_comes(read: Callable[[], None]) -> None:
    with contextlib.suppress(Exception):
        read()


def _set_hupcl(descriptor: int, wanted: bool) -> None:
    attributes = termios.tcgetattr(descriptor)
    attributes[2] = attributes[2] | termios.HUPCL if wanted else attributes[2] & ~termios.HUPCL
    termios.tcsetattr(descriptor, termios.TCSANOW, attributes)
