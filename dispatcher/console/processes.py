"""The processes that came of a console's program: found wherever they went, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Final

HANGUP_GRACE = 2.0
"""Seconds that a program may take to go after SIGHUP and SIGTERM, before SIGKILL."""

KILL_GRACE = 2.0
"""Seconds to wait for what SIGKILL ends. What is left then is not ours to end: another user's, or stuck in a driver."""

MARK: Final = "MULTINODE_CONSOLE"
"""The environment variable by which the processes of one console are known."""

_FIRST_POLL, _LAST_POLL = 0.005, 0.1


class Family:
    """The processes that came of one program: those of its session, and those that left it but bear its mark.

    :ivar session: the program's process number; 0 before it has been started.
    """

    def __init__(self) -> None:
        self.session = 0
        self._mark = secrets.token_hex(8)
        self._looked = time.monotonic()

    def environment(self) -> dict[str, str]:
        """The program's environment: ours, the mark, and a terminal that no line editor decorates."""
        return {**os.environ, "TERM": "dumb", MARK: self._mark}

    def members(self) -> set[int]:
        """Those that still run, or did at a moment that is later than the one for which this was asked last.

        None is an answer for ever, however old: they come of each other.
        """
        look = _CENSUS.look(self._looked)
        self._looked = look.at
        return look.members(self.session, self._mark)

    async def end(self) -> None:
        """Have all of them end; those that do not care are killed."""
        self._looked = time.monotonic()
        deadline = self._looked + HANGUP_GRACE
        asked: set[int] = set()
        poll = _FIRST_POLL
        await asyncio.sleep(0)  # so that consoles which are closed together begin before the first of them looks
        while members := self.members():
            now = time.monotonic()
            if now >= deadline + KILL_GRACE:
                return
            if now >= deadline:
                _signal(members, signal.SIGKILL)
            else:
                _signal(members - asked, signal.SIGHUP, signal.SIGTERM, signal.SIGCONT)
                asked |= members
            await asyncio.sleep(poll)
            poll = min(2 * poll, _LAST_POLL)


class _Look:
    """What ran at one moment, for all consoles.

    A process may fork and end while it is looked at, so whoever finds none looks a second time: that is shared, too.
    """

    def __init__(self, census: _Census, at: float) -> None:
        self.at = at
        self._census = census
        self._found = [census.found()]

    def members(self, session: int, mark: str) -> set[int]:
        if members := self._members(session, mark):
            return members
        if len(self._found) == 1:
            self._found.append(self._census.found())
        return self._members(session, mark)

    def _members(self, session: int, mark: str) -> set[int]:
        found = self._found[-1]
        return {pid for pid in (*found.get(session, ()), *found.get(mark, ())) if _runs(pid)}


class _Census:
    """Looks at all processes of this machine; reading an environment, which costs most, is done once for each."""

    def __init__(self) -> None:
        self._marks: dict[tuple[int, str], str] = {}
        self._look: _Look | None = None

    def look(self, since: float) -> _Look:
        """What ran at a moment after ``since``: one look serves all consoles that close together."""
        if self._look is None or self._look.at <= since:
            self._look = _Look(self, time.monotonic())
        return self._look

    def found(self) -> dict[int | str, list[int]]:
        """Session, or mark: the processes of which it is that, zombies among them."""
        found: defaultdict[int | str, list[int]] = defaultdict(list)
        marks: dict[tuple[int, str], str] = {}
        user = os.geteuid()
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                found[os.getsid(pid)].append(pid)
                if os.stat(f"/proc/{pid}").st_uid != user:
                    continue  # its environment cannot be read
                born = pid, _stat(pid)[_STARTED]
                mark = self._marks.get(born)
                marks[born] = _mark(pid) if mark is None else mark
                found[marks[born]].append(pid)
        self._marks = marks
        return found


_CENSUS = _Census()

_STATE, _STARTED = 0, 19
"""Where these stand behind the name of a program in ``/proc/PID/stat`` (proc(5): fields 3 and 22)."""


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()


def _runs(pid: int) -> bool:
    """Whether a process is still there, and no zombie."""
    try:
        return _stat(pid)[_STATE] not in "ZX"
    except OSError:
        return False


def _mark(pid: int) -> str:
    """The mark in a process's environment; empty for none, or where that cannot be read."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return ""
    head = f"{MARK}=".encode()
    return next(
        (entry[len(head) :].decode("ascii", "replace") for entry in environment.split(b"\0") if entry.startswith(head)),
        "",
    )


def _signal(pids: Iterable[int], *numbers: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            for number in numbers:
                os.kill(pid, number)


def signal_name(number: int) -> str:
    """What people call a signal, for messages: ``SIGKILL``."""
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have no name
        return f"signal {number}"
