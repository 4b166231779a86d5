"""The ``command`` transport: any program on a pty is a console (a shell, ssh, telnet, conmux, QEMU)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shlex
import signal
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, cast

import pexpect
from pexpect.spawnbase import SpawnBase

from dispatcher.console.transport import Option, Transport
from dispatcher.errors import ConsoleError, UserError

HANGUP_GRACE = 2.0
"""Seconds that a program may take to go after SIGHUP and SIGTERM, before SIGKILL."""

KILL_GRACE = 2.0
"""Seconds to wait for what SIGKILL ends. What is left then is not ours to end: another user's, or stuck in a driver."""

ENDING_GRACE = 0.1
"""Seconds that a program may take from closing its terminal, which its end does first, to having ended."""

MARK = "MULTINODE_CONSOLE"
"""The environment variable by which the processes of one console are known."""

_FIRST_POLL, _LAST_POLL = 0.005, 0.1
_ROWS, _COLUMNS = 50, 500
"""Wide, so that no line editor on the device wraps what is typed."""

_DEFAULT_SIGNALS = (
    *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM),
    *(signal.SIGPIPE, signal.SIGXFSZ),  # which Python ignores
)


class _Family:
    """The processes that came of one program: those of its session, and those that left it but bear its mark."""

    def __init__(self) -> None:
        self.session = 0
        self._mark = secrets.token_hex(8)

    def environment(self) -> dict[str, str]:
        """The program's environment: ours, the mark, and a terminal that no line editor decorates."""
        return {**os.environ, "TERM": "dumb", MARK: self._mark}

    def members(self) -> set[int]:
        """Those that still run.

        It looks twice before it says that there are none: a process may fork and end while it is being looked at.
        """
        return self._look() or self._look()

    def _look(self) -> set[int]:
        pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
        return {pid for pid in pids if self._holds(pid)}

    def _holds(self, pid: int) -> bool:
        try:
            return (os.getsid(pid) == self.session or self._marked(pid)) and self._runs(pid)
        except OSError:
            return False  # it has ended meanwhile, or is another user's

    def _marked(self, pid: int) -> bool:
        return f"{MARK}={self._mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")

    @staticmethod
    def _runs(pid: int) -> bool:
        """Whether a process is no zombie (proc(5), the fields of ``/proc/PID/stat``)."""
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        return stat.rpartition(")")[2].split()[0] not in "ZX"


class CommandTransport(Transport):
    """A program on a pty of its own, leader of a session; closing ends every process that came of it.

    These are the session's, and any that bears the mark which its environment holds (a daemon of a test's).
    """

    OPTIONS: ClassVar[Mapping[str, str]] = {"command": "the program and its arguments, quoted as for a shell"}

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
        self._spawn: pexpect.spawn[bytes] | None = None
        self._family = _Family()
        self._end_descriptor: int | None = None

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

    def ended(self) -> str:
        program = repr(self._argv[0])
        try:
            left = self._leader()
            deadline = time.monotonic() + ENDING_GRACE
            while left is None and time.monotonic() < deadline:
                time.sleep(_FIRST_POLL)
                left = self._leader()
        except ChildProcessError:  # SIGCHLD is ignored here, so the kernel has forgotten the status
            return f"{program} ended"
        if left is None:
            return f"{program} closed its terminal"
        if left.si_code == os.CLD_EXITED:
            return f"{program} ended with status {left.si_status}"
        return f"{program} was ended by {_signal_name(left.si_status)}"

    def _leader(self) -> os.waitid_result | None:
        # WNOWAIT: the leader stays a zombie until close(), so that its number still names the session.
        return os.waitid(os.P_PID, self._family.session, os.WEXITED | os.WNOHANG | os.WNOWAIT)

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
        await _end_family(self._family)
        _reap(self._family.session)
        process.terminated = child.terminated = True


async def _end_family(family: _Family) -> None:
    """Have every process that came of a program end; those that do not care are killed."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + HANGUP_GRACE
    asked: set[int] = set()
    poll = _FIRST_POLL
    while members := family.members():
        now = loop.time()
        if now >= deadline + KILL_GRACE:
            return
        if now >= deadline:
            _signal(members, signal.SIGKILL)
        else:
            _signal(members - asked, signal.SIGHUP, signal.SIGTERM, signal.SIGCONT)
            asked |= members
        await asyncio.sleep(poll)
        poll = min(2 * poll, _LAST_POLL)


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _default_signals() -> None:
    """Undo what Python, and whoever started it, ignores: a shell on the device could not (POSIX, trap)."""
    for number in _DEFAULT_SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have no name
        return f"signal {number}"


def _signal(pids: Iterable[int], *numbers: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            for number in numbers:
                os.kill(pid, number)
