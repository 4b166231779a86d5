"""A device's power commands, run on this host: LAVA's ``power_on``, ``power_off`` and ``hard_reset``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence

from dispatcher.errors import ConsoleError

COMMAND_TIMEOUT = 60.0
"""Seconds that one power command may take, where nobody says otherwise."""

_SHOWN = 300


async def switch(device: str, what: str, commands: Sequence[str], *, limit: float = COMMAND_TIMEOUT) -> None:
    """Run a device's power commands, one after another, each by the host's shell.

    :param what: which they are, for messages: ``hard_reset``, say.
    :param limit: seconds that each may take.
    :raises ConsoleError: one failed, or took too long; the end of what it said is in the message.
    """
    for command in commands:
        process = await asyncio.create_subprocess_shell(
            command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(limit):
                output, _none = await process.communicate()
        except TimeoutError:
            raise ConsoleError(f"{what}: {command!r} did not end in {limit:g} s", where=device) from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if process.returncode != 0:
            said = " ".join(output.decode(errors="replace").split())[-_SHOWN:]
            raise ConsoleError(
                f"{what}: {command!r} ended with status {process.returncode}" + (f": {said}" if said else ""),
                where=device,
                hint="see commands: in the device file",
            )
