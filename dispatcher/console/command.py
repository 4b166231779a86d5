"""The ``command`` transport: any program on a pty is a console (a shell, ssh, telnet, conmux, QEMU)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shlex
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, cast

import pexpect
from pexpect.spawnbase import SpawnBase

from dispatcher.console.transport import Option, Transport
from dispatcher.errors import ConsoleError, UserError

HANGUP_GRACE = 2.0
"""Seconds that a program may take to go after SIGHUP and SIGTERM, before SIGKILL."""

MARK = "MULTINODE_CONSOLE"
"""The environment variable by which the processes of one console are known."""

_POLL = 0.02
_ROWS, _COLUMNS = 50, 500
"""Wide, so that no line editor on the device wraps what is typed."""


class CommandTransport(Transport):
    """A program on a pty of its own, leader of a session; closing ends every process that came of it.

    These are the session's, and any that carries the mark which its environment holds (a daemon of a test's).
    """

    OPTIONS: ClassVar[Mapping[str, str]] = {"command": "the program and its arguments, quoted as for a shell"}

    def __init__(self, device: str, options: Mapping[str, Option]) -> None:
        super().__init__(device, options)
        try:
            self._argv = shlex.split(str(options["command"]))
        except ValueError as error:
            raise UserError(f"console command: {error}", where=device) from None
        if not self._argv:
            raise UserError("console command is empty", where=device, hint="name a program, such as: {command: sh}")
        self._spawn: pexpect.spawn[bytes] | None = None
        self._family = _Family()

    def open(self) -> SpawnBase[bytes]:
        program, *arguments = self._argv
        if pexpect.which(program) is None:
            raise ConsoleError(
                f"there is no program {program!r}", where=self.device, hint="see console: command: in the device file"
            )
        try:
            self._spawn = pexpect.spawn(
                program,
                arguments,
                timeout=None,
                dimensions=(_ROWS, _COLUMNS),
                env=self._family.environment(),
                use_poll=True,
            )
        except (pexpect.ExceptionPexpect, OSError) as error:
            raise ConsoleError(f"cannot start {program!r}: {error}", where=self.device) from None
        self._family.session = int(self._spawn.pid or 0)
        self._spawn.delaybeforesend = None  # pexpect would wait 50 ms before each write
        self._spawn.delayafterread = None
        return self._spawn

    def ended(self) -> str:
        child = self._spawn
        if child is None:
            return super().ended()
        # WNOWAIT: the leader stays a zombie until close(), so that its number still names the session.
        left = os.waitid(os.P_PID, self._family.session, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if left is None:
            return f"{self._argv[0]!r} closed its terminal"
        if left.si_code == os.CLD_EXITED:
            return f"{self._argv[0]!r} ended with status {left.si_status}"
        return f"{self._argv[0]!r} was ended by {signal.Signals(left.si_status).name}"

    async def close(self) -> None:
        child = self._spawn
        if child is None:
            return
        family = self._family
        _signal(family.members(), signal.SIGHUP, signal.SIGTERM, signal.SIGCONT)
        # pexpect's own close() sleeps between its signals, and sends them to the leader alone.
        process = cast(Any, child).ptyproc
        with contextlib.suppress(OSError):
            process.fileobj.close()
        process.fd, process.closed = -1, True
        child.child_fd, child.closed = -1, True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + HANGUP_GRACE
        while members := family.members():
            if loop.time() >= deadline:
                _signal(members, signal.SIGKILL)
            await asyncio.sleep(_POLL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(family.session, 0)  # noqa: ASYNC222 - it is a zombie, so this does not wait
        process.terminated = child.terminated = True


class _Family:
    """The processes that came of one program: those of its session, and those that left it but bear its mark."""

    def __init__(self) -> None:
        self.session = 0
        self._mark = secrets.token_hex(8)

    def environment(self) -> dict[str, str]:
        """The program's environment: ours, the mark, and a terminal that no line editor decorates."""
        return {**os.environ, "TERM": "dumb", MARK: self._mark}

    def members(self) -> list[int]:
        """Those that still run."""
        pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
        return [pid for pid in pids if self._holds(pid)]

    def _holds(self, pid: int) -> bool:
        # proc(5): state, parent, process group and session follow the name, which may hold anything.
        try:
            state, _parent, _group, session = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[:4]
            if state == b"Z":
                return False
            return int(session) == self.session or self._marked(pid)
        except OSError:
            return False  # it has ended meanwhile, or is another user's

    def _marked(self, pid: int) -> bool:
        return f"{MARK}={self._mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


def _signal(pids: Iterable[int], *numbers: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            for number in numbers:
                os.kill(pid, number)
