"""Who else has a line open: the process, for the message that a console is taken."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

_LOCK_FOLDERS: Final = ("/run/lock", "/var/lock")
"""Where programs note that they use a line: ``LCK..NAME`` with their process number (FHS 3.0, 5.9)."""

_MEMORY: Final = 1
"""The major number of ``/dev/null`` and its like, which anybody may share (Linux, devices.txt)."""

_PSEUDO_TERMINALS: Final = range(136, 144)
"""Those of a pty's slaves (ibidem)."""

_SHOWN: Final = 100


def holder(path: str) -> str | None:
    """The process that has a line open or locked, as ``process 123 (picocom /dev/ttyUSB0)``; None: none is known.

    This process is not meant. Those of other users are known by their locks alone, unless root asks.
    """
    real = os.path.realpath(path)
    try:
        file = os.stat(real)
    except OSError:
        return None
    device = file.st_rdev
    if os.major(device) == _MEMORY:
        return None
    own = os.getpid()
    return _named(pid for pid in (*_locking(file), *_openers(real, device), *_lockers(real)) if pid != own)


def is_simulated(path: str) -> bool:
    """Whether a line is a pty: simulators hold theirs open at this end too, lest it hang up, and read none of it."""
    try:
        return os.major(os.stat(path).st_rdev) in _PSEUDO_TERMINALS
    except OSError:
        return False


def _locking(file: os.stat_result) -> Iterator[int]:
    """Who has locked it, another user's too: ``1: FLOCK ADVISORY WRITE 4711 00:05:90 0 EOF`` (proc_locks(5))."""
    wanted = (os.major(file.st_dev), os.minor(file.st_dev), file.st_ino)
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if "->" in words:  # waits for one
                continue
            major, minor, inode = words[5].split(":")
            if (int(major, 16), int(minor, 16), int(inode)) == wanted:
                yield int(words[4])


def inhabitant(path: str) -> str | None:
    """The process whose terminal a pty is, named as by :func:`holder`; None: it is no terminal of anybody's.

    A simulator's pty has a number that is another's when the simulator has ended: a person's shell perhaps.
    """
    real = os.path.realpath(path)
    try:
        device = os.stat(real).st_rdev
    except OSError:
        return None
    return _named(pid for pid in _openers(real, device) if _terminal(pid) == device)


def _named(processes: Iterable[int]) -> str | None:
    """The first of some processes that still runs, with its command."""
    for pid in processes:
        if (command := _command(pid)) is not None:
            return f"process {pid} ({command})"
    return None


def _terminal(pid: int) -> int | None:
    """The number of a process's controlling terminal (proc_pid_stat(5), tty_nr); None where it does not run."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    number = int(fields[4])
    return os.makedev(number >> 8 & 0xFFF, number & 0xFF | number >> 12 & 0xFFF00)


def _openers(path: str, device: int) -> Iterator[int]:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            if any(_is(f"/proc/{pid}/fd/{number}", path, device) for number in os.listdir(f"/proc/{pid}/fd")):
                yield int(pid)


def _is(link: str, path: str, device: int) -> bool:
    with contextlib.suppress(OSError):  # closed meanwhile
        if os.readlink(link) != path:
            return False
        # The name alone proves nothing: a container has terminals of its own.
        found = os.stat(link)
        return stat.S_ISCHR(found.st_mode) and found.st_rdev == device
    return False


def _lockers(path: str) -> Iterator[int]:
    for folder in _LOCK_FOLDERS:
        with contextlib.suppress(OSError, ValueError):
            yield int((Path(folder) / f"LCK..{Path(path).name}").read_text().split()[0])


def _command(pid: int) -> str | None:
    """A process's command line, shortened; None where it does not run."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        text = b" ".join(words).decode(errors="replace").strip() or Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return None
    return "".join(character if character.isprintable() else "." for character in text)[:_SHOWN]
