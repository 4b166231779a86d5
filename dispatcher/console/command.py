"""The ``command`` transport: any program on a pty is a console (a shell, ssh, telnet, conmux, QEMU)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, cast

import pexpect
from pexpect.spawnbase import SpawnBase

from dispatcher.console.connection import INTERRUPT
from dispatcher.console.processes import KILL_GRACE, Family, signal_name
from dispatcher.console.transport import Option, Transport
from dispatcher.errors import ConsoleError, UserError

ENDING_GRACE = 0.1
"""Seconds that a program may take from closing its terminal, which its end does first, to having ended."""

_POLL = 0.005
_ROWS, _COLUMNS = 50, 500
"""Wide, so that no line editor on the device wraps what is typed."""

_DEFAULT_SIGNALS = (
    *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM),
    *(signal.SIGPIPE, signal.SIGXFSZ),  # which Python ignores
)


_INTERRUPTED = {(False, signal.SIGINT), (True, 128 + signal.SIGINT)}
"""How a program ends that ^C has ended: by the signal, or with the status by which shells tell that."""


class CommandTransport(Transport):
    """A program on a pty of its own, leader of a session; closing ends every process that came of it.

    These are the session's, and any that bears the mark which its environment holds (a daemon of a test's).
    """

    OPTIONS: ClassVar[Mapping[str, str]] = {
        "command": "the program and its arguments, quoted as for a shell",
        "reconnect": "seconds within which the program, once it has ended, is to run again; 0, not at all, unless set",
    }

    def __init__(self, device: str, options: Mapping[str, Option]) -> None:
        super().__init__(device, options)
        command = str(options["command"])
        try:
            self._argv = shlex.split(command)
        except ValueError as error:
            raise UserError(
                f"console command {command!r}: {str(error).lower()}", where=device, hint="it is quoted as for a shell"
            ) from None
        if not self._argv or not self._argv[0]:
            raise UserError("console command is empty", where=device, hint="name a program, such as: {command: sh}")
        self._reconnect = self.seconds("reconnect", 0)
        self._forget()

    def _forget(self) -> None:
        """Be as before the program was started."""
        self._spawn: pexpect.spawn[bytes] | None = None
        self._family = Family()
        self._end_descriptor: int | None = None
        self._interrupted = False

    def open(self) -> SpawnBase[bytes]:
        program, *arguments = self._argv
        if pexpect.which(program) is None:
            what = "is not a program that can be run" if Path(program).exists() and "/" in program else "is not found"
            raise ConsoleError(
                f"the program {program!r} {what}",
                where=self.device,
                hint="see console: command: in the device file; no shell expands what stands there",
            )
        failure = ""
        try:
            self._spawn = pexpect.spawn(
                program,
                arguments,
                timeout=None,
                dimensions=(_ROWS, _COLUMNS),
                env=self._family.environment(),
                use_poll=True,
                preexec_fn=_default_signals,
            )
        except (pexpect.ExceptionPexpect, OSError) as error:
            # Its traceback would keep the half-made pty and the dead child until some later collection.
            failure = str(error.with_traceback(None))
        if self._spawn is None:
            raise ConsoleError(f"cannot start {program!r}: {failure}", where=self.device)
        self._family.session = int(self._spawn.pid or 0)
        self._spawn.delaybeforesend = None  # pexpect would wait 50 ms before each write
        self._spawn.delayafterread = None
        return self._spawn

    def end_descriptor(self) -> int | None:
        # A program may end and leave one in the background that holds the terminal: then there is no end of file.
        with contextlib.suppress(OSError):  # Linux before 5.3
            self._end_descriptor = os.pidfd_open(self._family.session)
        return self._end_descriptor

    def write(self, spawn: SpawnBase[bytes], data: bytes) -> int:
        self._interrupted = self._interrupted or INTERRUPT in data
        return super().write(spawn, data)

    def ended(self) -> str:
        program = repr(self._argv[0])
        try:
            left = self._leader()
            deadline = time.monotonic() + ENDING_GRACE
            while left is None and time.monotonic() < deadline:
                time.sleep(_POLL)
                left = self._leader()
        except ChildProcessError:  # SIGCHLD is ignored here, so the kernel has forgotten the status
            return f"{program} ended"
        if left is None:
            return f"{program} closed its terminal"
        if self._interrupted and (left.si_code == os.CLD_EXITED, left.si_status) in _INTERRUPTED:
            return f"{program} took the Ctrl-C that was typed for a shell as its own and ended; it passes none on"
        if left.si_code == os.CLD_EXITED:
            return f"{program} ended with status {left.si_status}"
        return f"{program} was ended by {signal_name(left.si_status)}"

    def _leader(self) -> os.waitid_result | None:
        # WNOWAIT: the leader stays a zombie until close(), so that its number still names the session.
        return os.waitid(os.P_PID, self._family.session, os.WEXITED | os.WNOHANG | os.WNOWAIT)

    def patience(self) -> float:
        return self._reconnect

    async def close(self) -> None:
        child = self._spawn
        if child is None:
            return
        # pexpect's own close() sleeps between its signals, and sends them to the leader alone.
        process = cast(Any, child).ptyproc
        with contextlib.suppress(OSError):
            process.fileobj.close()
        process.fd, process.closed = -1, True
        child.child_fd, child.closed = -1, True
        if self._end_descriptor is not None:
            os.close(self._end_descriptor)
            self._end_descriptor = None
        await self._family.end()
        await _reap(self._family.session)
        process.terminated = child.terminated = True
        self._forget()


async def _reap(pid: int) -> None:
    """Have the kernel forget a child that has ended.

    The first thread of a program is a zombie before the others have gone, and cannot be waited for until then.
    """
    for _ in range(int(KILL_GRACE / _POLL)):
        if _reaped(pid):
            return
        await asyncio.sleep(_POLL)


def _reaped(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG) != (0, 0)
    except ChildProcessError:
        return True


def _default_signals() -> None:
    """Undo what Python, and whoever started it, ignores: a shell on the device could not (POSIX, trap)."""
    for number in _DEFAULT_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
