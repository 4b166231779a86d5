"""A bad line, simulated: what a serial console does to bytes between the host and a shell on a pty, from a seed.

The host's whole stack runs over it as over any other transport. Faults fall on byte counts, not on times: two runs of
one seed differ only where processes were scheduled differently.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import signal
import socket
import termios
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pexpect import fdpexpect
from pexpect.spawnbase import SpawnBase

from dispatcher.console.transport import Transport

FIFO = 16
"""Bytes that a 16550's receiver holds until its driver takes them all."""

KERNEL_LINES = (
    b"[   12.345678] usb 1-1: new high-speed USB device number 3 using xhci_hcd\r\n",
    b"random: crng init done\r\n",
    b"[   71.000321] EXT4-fs (mmcblk0p2): mounted filesystem <ordered> r/w\r\n",
    b"audit: type=1400 audit(1.2:3): op='x' obj=a->b >\r\n",
    b"\r\n[  901.100000] Call trace: <IRQ> #0 foo+0x1/0x2\r\n",
    b"<6>[    3.141592] eth0: link up, 100Mbps, full-duplex\r\n",
)

_FRAME = re.compile(rb"<MN2 [^\n]*\n")
_CHUNK = 65536


@dataclass(frozen=True, slots=True)
class Faults:
    """What a line does. Rates are "one in N", 0 for never.

    :param lost: bytes lost, each way.
    :param flipped: bytes of which one bit is flipped, each way.
    :param kernel: the device's frames that a kernel line is printed into, at any byte.
    :param fifo: seconds from one emptying of the device's FIFO to the next; what comes in between beyond
        :data:`FIFO` bytes is lost. 0: there is none.
    :param echo: whatever goes to the device comes back, whatever its tty is told.
    :param baud: bits a second, ten to a byte, each way. 0: no time at all.
    """

    lost: int = 0
    flipped: int = 0
    kernel: int = 0
    fifo: float = 0.0
    echo: bool = False
    baud: int = 0


CLEAN = Faults()
BAD = Faults(lost=500, flipped=1000, kernel=5)


class _Noise:
    """Loses and flips bytes."""

    def __init__(self, generator: random.Random, faults: Faults) -> None:
        self._random = generator
        self._faults = faults
        self._lose = self._gap(faults.lost)
        self._flip = self._gap(faults.flipped)

    def _gap(self, rate: int) -> int:
        return 1 + int(self._random.expovariate(1 / rate)) if rate else -1

    def __call__(self, data: bytes) -> bytes:
        if not self._faults.lost and not self._faults.flipped:
            return data
        out = bytearray()
        for byte in data:
            self._lose -= 1
            self._flip -= 1
            lost, flipped = self._lose == 0, self._flip == 0
            if lost:
                self._lose = self._gap(self._faults.lost)
            if flipped:
                self._flip = self._gap(self._faults.flipped)
            if not lost:
                out.append(byte ^ 1 << self._random.randrange(8) if flipped else byte)
        return bytes(out)


class _Fifo:
    """Sixteen bytes that the device empties now and then."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._emptied = -1.0
        self._held = 0

    def __call__(self, data: bytes, now: float) -> bytes:
        if not self._interval:
            return data
        if now - self._emptied >= self._interval:
            self._emptied, self._held = now, 0
        taken = data[: FIFO - self._held]
        self._held += len(taken)
        return taken


class _Outlet:
    """Writes to a descriptor as fast as it takes bytes; meanwhile whoever fills it stops."""

    def __init__(self, descriptor: int, stop: Callable[[], None], go: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._stop, self._go = stop, go
        self._pending = bytearray()

    def write(self, data: bytes) -> None:
        waiting = bool(self._pending)
        self._pending += data
        if not waiting and not self._flush():
            self._stop()
            asyncio.get_running_loop().add_writer(self._descriptor, self._writable)

    def _writable(self) -> None:
        if self._flush():
            asyncio.get_running_loop().remove_writer(self._descriptor)
            self._go()

    def _flush(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            while self._pending:
                del self._pending[: os.write(self._descriptor, self._pending[:_CHUNK])]
        return not self._pending


class _Wire:
    """Hands bytes on when the last of each few has had time to pass."""

    def __init__(self, baud: int, deliver: Callable[[bytes], None]) -> None:
        self._seconds = 10 / baud if baud else 0.0
        self._deliver = deliver
        self._free = 0.0
        self.carried = 0

    def carry(self, data: bytes) -> None:
        self.carried += len(data)
        if not self._seconds:
            self._deliver(data)
            return
        loop = asyncio.get_running_loop()
        for start in range(0, len(data), FIFO // 2):
            piece = data[start : start + FIFO // 2]
            self._free = max(self._free, loop.time()) + len(piece) * self._seconds
            loop.call_at(self._free, self._deliver, piece)


class BadLine(Transport):
    """A shell on a pty, and a line to it with faults.

    :ivar connected: while False, all bytes are lost.
    :ivar up: the wire to the host.
    :ivar down: the wire to the device.
    :ivar frames: how many frames the device has printed.
    :ivar typed: is set when the host types something.
    :ivar lost: how many bytes never reached the device.
    :ivar split: how many of the frames a kernel line was printed into.
    """

    OPTIONS: ClassVar[Mapping[str, str]] = {}

    def __init__(self, faults: Faults, seed: int) -> None:
        super().__init__("bad line", {})
        self.faults = faults
        self.connected = True
        self.frames = 0
        self.split = 0
        self.lost = 0
        self.typed = asyncio.Event()
        self.up = _Wire(faults.baud, self._reach_host)
        self.down = _Wire(faults.baud, self._reach_device)
        self.process: asyncio.subprocess.Process | None = None
        self._kernel = random.Random(f"{seed} kernel")
        self._noise_up = _Noise(random.Random(f"{seed} up"), faults)
        self._noise_down = _Noise(random.Random(f"{seed} down"), faults)
        self._fifo = _Fifo(faults.fifo)

    # --- the host's end --------------------------------------------------------------------------------------

    def open(self) -> SpawnBase[bytes]:
        self._master, self._slave = os.openpty()
        os.set_blocking(self._master, False)
        self.tty = os.ttyname(self._slave)
        self._initial = termios.tcgetattr(self._slave)
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._loop = asyncio.get_running_loop()
        master, ours = self._master, self._ours.fileno()
        self._to_host = _Outlet(
            ours, lambda: self._loop.remove_reader(master), lambda: self._loop.add_reader(master, self._device_says)
        )
        self._to_device = _Outlet(
            master, lambda: self._loop.remove_reader(ours), lambda: self._loop.add_reader(ours, self._host_says)
        )
        self._loop.add_reader(master, self._device_says)
        self._loop.add_reader(ours, self._host_says)
        spawn: fdpexpect.fdspawn[bytes] = fdpexpect.fdspawn(self._theirs.fileno(), timeout=None, encoding=None)
        return spawn

    async def close(self) -> None:
        await self.power_off()
        for descriptor in (self._master, self._ours.fileno()):
            self._loop.remove_reader(descriptor)
            self._loop.remove_writer(descriptor)
        for descriptor in (self._master, self._slave):
            os.close(descriptor)
        self._ours.close()
        self._theirs.close()

    # --- the device ------------------------------------------------------------------------------------------

    async def power_on(self, argv: Sequence[str], *, cwd: Path, env: dict[str, str]) -> None:
        """Start the device's program on the pty, its controlling terminal."""
        termios.tcsetattr(self._slave, termios.TCSANOW, self._initial)
        self.process = await asyncio.create_subprocess_exec(
            "setsid", "--ctty", *argv, stdin=self._slave, stdout=self._slave, stderr=self._slave, cwd=cwd, env=env
        )

    async def power_off(self) -> None:
        """End everything that runs on the device at once, as a reset does."""
        if self.process is None:
            return
        session = self.process.pid
        while pids := _session(session):
            # The leader last, as its end hangs up on the others, and none while another may still notice.
            for end in (signal.SIGSTOP, signal.SIGKILL):
                for pid in sorted(pids, key=lambda pid: pid == session):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, end)
            await asyncio.sleep(0.01)
        await self.process.wait()
        self.process = None

    # --- bytes -----------------------------------------------------------------------------------------------

    def _device_says(self) -> None:
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._master, _CHUNK)
            self.up.carry(self._noise_up(_FRAME.sub(self._interrupt, data)))

    def _interrupt(self, found: re.Match[bytes]) -> bytes:
        """Print a kernel line into a frame, sometimes."""
        self.frames += 1
        frame = found[0]
        if not self.faults.kernel or self._kernel.random() >= 1 / self.faults.kernel:
            return frame
        self.split += 1
        place = self._kernel.randrange(len(frame))
        return frame[:place] + self._kernel.choice(KERNEL_LINES) + frame[place:]

    def _host_says(self) -> None:
        with contextlib.suppress(BlockingIOError):
            data = self._ours.recv(_CHUNK)
            self.down.carry(data)

    def _reach_host(self, data: bytes) -> None:
        if self.connected:
            self._to_host.write(data)

    def _reach_device(self, data: bytes) -> None:
        arrived = self._noise_down(self._fifo(data, self._loop.time())) if self.connected else b""
        self.lost += len(data) - len(arrived)
        self.typed.set()
        if self.faults.echo:
            self.up.carry(arrived)
        self._to_device.write(arrived)


def _session(leader: int) -> list[int]:
    """The processes of a session that still run."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            # proc(5): state, parent, process group and session follow the name, which may hold anything.
            with contextlib.suppress(OSError):
                state, _, _, session = (entry / "stat").read_bytes().rpartition(b")")[2].split()[:4]
                if int(session) == leader and state != b"Z":
                    found.append(int(entry.name))
    return found
