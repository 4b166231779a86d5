"""A device's power commands, run on this host: LAVA's ``power_on``, ``power_off`` and ``hard_reset``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator, Sequence

from dispatcher.console.processes import signal_name
from dispatcher.errors import ConsoleError

COMMAND_TIMEOUT = 60.0
"""Seconds that one power command may take, where nobody says otherwise."""

_SHOWN = 300
_READ = 1 << 16
"""Bytes; what a pipe holds (pipe(7)), so that one read takes all that a command has said just before its end."""


async def switch(device: str, what: str, commands: Sequence[str], *, limit: float = COMMAND_TIMEOUT) -> None:
    """Run a device's power commands, one after another, each by the host's shell.

    A command has ended when its shell has: what it leaves in the background, QEMU say, goes on.

    :param what: which they are, for messages: ``hard_reset``, say.
    :param limit: seconds that each may take.
    :raises ConsoleError: one failed, or took too long; the end of what it said is in the message.
    """
    for command in commands:
        said = bytearray()
        with _read_into(said) as pipe:
            status = await _run(command, pipe, limit)
        if status == 0:
            continue
        how = f"did not end in {limit:g} s" if status is None else f"ended with status {status}"
        if status is not None and status < 0:
            how = f"was ended by {signal_name(-status)}"
        text = " ".join(said.decode(errors="replace").split())[-_SHOWN:].strip()
        raise ConsoleError(
            f"{what}: {command!r} {how}" + (f": {text}" if text else ""),
            where=device,
            hint="see commands: in the device file",
        )


async def _run(command: str, output: int, limit: float) -> int | None:
    """A command's status, None if it had to be killed."""
    process = await asyncio.create_subprocess_shell(
        command, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
    )
    try:
        async with asyncio.timeout(limit):
            return await process.wait()
    except TimeoutError:
        return None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


@contextlib.contextmanager
def _read_into(said: bytearray) -> Iterator[int]:
    """A pipe of which the last bytes are kept, so that a command may print without an end, or leave it open."""
    loop = asyncio.get_running_loop()
    reading, writing = os.pipe()
    os.set_blocking(reading, False)

    def read() -> None:
        with contextlib.suppress(BlockingIOError):
            said.extend(os.read(reading, _READ))
            del said[:-_READ]

    loop.add_reader(reading, read)
    try:
        yield writing
        read()
    finally:
        loop.remove_reader(reading)
        os.close(reading)
        os.close(writing)
