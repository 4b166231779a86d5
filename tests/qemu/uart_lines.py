"""Run in a guest: opens and closes a real UART as a device file says, and prints what its lines are each time."""

from __future__ import annotations

import asyncio
import concurrent.futures.thread  # noqa: F401 -- asyncio imports it late, when it is too late to bring it along
import fcntl
import os
import struct
import sys
import termios

from dispatcher.console.serial import SerialTransport

PORT = "/dev/ttyS1"
LOWERED = termios.TIOCM_DTR | termios.TIOCM_RTS


def lines() -> str:
    """What the driver drives, told without opening the port."""
    with open("/proc/tty/driver/serial") as table:
        port = next(line for line in table if line.startswith("1:"))
    words = port.split()[-1].split("|")
    return "+".join(name for name in ("DTR", "RTS") if name in words) or "none"


def hupcl() -> bool:
    descriptor = os.open(PORT, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        return bool(termios.tcgetattr(descriptor)[2] & termios.HUPCL)
    finally:
        os.close(descriptor)


def say(name: str, *states: str | bool) -> None:
    print("case", name, *states, flush=True)


async def once(**options: bool) -> tuple[str, str]:
    """The lines while the transport has the port open, and after that."""
    transport = SerialTransport("board", {"serial": PORT, **options})
    transport.open()
    during = lines()
    await transport.close()
    return during, lines()


async def beside_another() -> tuple[str, str, str]:
    """The same while another process has the port open and held both lines low."""
    other = os.open(PORT, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        fcntl.ioctl(other, termios.TIOCMBIC, struct.pack("I", LOWERED))
        return lines(), *await once(exclusive=False)
    finally:
        os.close(other)


async def main() -> None:
    say("untouched", lines(), hupcl())
    say("plain", *await once())
    say("plain-hupcl", hupcl())
    say("beside", *await beside_another())
    say("low", *await once(dtr=False, rts=False))
    say("kept", *await once(hupcl=False))
    say("kept-hupcl", hupcl())
    say("kept-then-plain", *await once())
    say("kept-then-low", *await once(dtr=False))
    say("kept-then-raised", *await once())
    say("dropped", *await once(hupcl=True))
    say("dropped-hupcl", hupcl())


if __name__ == "__main__":
    asyncio.run(main())
    sys.stdout.flush()
