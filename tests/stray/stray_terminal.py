"""Interactive root shells of every kind, each on a pty, that are typed at as a console's host does."""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

TIMEOUT = 120.0
"""Seconds after which a shell is taken for stuck. No test that passes waits for it."""

PROMPT = b"ready# "
"""Of root's shells mksh insists on the ``#``."""

MORE = b"more> "
"""What a shell prints that has read an unfinished command."""

HISTORY = "history"
"""The file, in its home, where a shell itself notes what it was told."""

SETSID = shutil.which("setsid") or "setsid"


@dataclass(frozen=True, slots=True)
class Kind:
    """A shell, and what makes it read its terminal in one way or another.

    :param argv: the interactive shell.
    :param locale: whether bytes above 0x7f are characters of their own or parts of UTF-8.
    :param inputrc: readline's settings.
    """

    argv: tuple[str, ...]
    locale: str = "C"
    inputrc: str = ""


SHELLS: Mapping[str, tuple[str, ...]] = {
    "dash": ("dash", "-i"),
    "bash": ("bash", "--norc", "-i"),
    "mksh": ("mksh", "-i"),
    "ksh93": ("ksh93", "-i"),
    "ash": ("busybox", "ash", "-i"),
}

KINDS: Mapping[str, Kind] = {
    "dash": Kind(SHELLS["dash"]),
    "bash": Kind(SHELLS["bash"], inputrc="set enable-bracketed-paste off\n"),
    "bash utf-8 paste": Kind(SHELLS["bash"], "C.UTF-8", "set enable-bracketed-paste on\n"),
    "mksh": Kind(SHELLS["mksh"]),
    "mksh utf-8": Kind(SHELLS["mksh"], "C.UTF-8"),
    "ksh93": Kind(SHELLS["ksh93"]),
    "ksh93 utf-8": Kind(SHELLS["ksh93"], "C.UTF-8"),
    "ash": Kind(SHELLS["ash"]),
    "ash utf-8": Kind(SHELLS["ash"], "C.UTF-8"),
}


def program(name: str) -> str:
    """A shell's path. A missing one is skipped on a person's machine and an error in CI."""
    found = shutil.which(name)
    if found is None:
        complain = pytest.fail if os.environ.get("CI") else pytest.skip
        complain(f"{name} is not installed")
    return found


class Terminal:
    """An interactive shell on a pty of its own.

    :param path: what it finds commands in.
    :param root: its home; ``work`` in it is where it starts.
    :ivar seen: what it printed since :meth:`type` or :meth:`forget` was called last.
    """

    def __init__(self, kind: Kind, *, path: Path, root: Path) -> None:
        self._master, self.slave = os.openpty()
        # No line of a test is to be wrapped or scrolled by a line editor.
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 250, 0, 0))
        self.tty = os.ttyname(self.slave)
        self.seen = b""
        (root / "work").mkdir(parents=True)
        (root / "inputrc").write_text(kind.inputrc)
        env = {"PATH": str(path), "HOME": str(root), "TERM": "vt100", "LC_ALL": kind.locale}
        env |= {"PS1": PROMPT.decode(), "PS2": MORE.decode(), "HISTFILE": str(root / HISTORY)}
        env |= {"HISTSIZE": "5000", "INPUTRC": str(root / "inputrc")}
        self.process = subprocess.Popen(
            [SETSID, "--ctty", program(kind.argv[0]), *kind.argv[1:]],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            cwd=root / "work",
            env=env,
        )
        self.prompted()

    def type(self, data: bytes) -> None:
        self.seen = b""
        os.write(self._master, data)

    def add(self, data: bytes) -> None:
        """Type more, without forgetting what was seen."""
        os.write(self._master, data)

    def until(self, condition: Callable[[bytes], object], seconds: float = TIMEOUT) -> bool:
        """Read until what was seen fulfils a condition; whether it did in time."""
        deadline = time.monotonic() + seconds
        while not condition(self.seen):
            readable, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
            if not readable:
                return False
            self.seen += os.read(self._master, 65536)
        return True

    def expect(self, condition: Callable[[bytes], object], what: str) -> None:
        """Read until what was seen fulfils a condition, and the shell waits for more."""
        assert self.until(condition), f"{what}, status {self.process.poll()}: {self.seen[-2000:]!r}"
        self._idle()

    def prompted(self) -> None:
        self.expect(lambda seen: PROMPT in seen, "no prompt")

    def _idle(self) -> None:
        """Wait until the shell sleeps: it has printed its prompt before it is ready for a signal."""
        while (Path("/proc") / str(self.process.pid) / "stat").read_bytes().rpartition(b")")[2].split()[0] == b"R":
            pass

    def modes(self) -> list[object]:
        """How the tty is set now; at a prompt, a line editor's own modes."""
        return termios.tcgetattr(self.slave)

    def output(self, command: bytes) -> bytes:
        """Type a command; what it prints."""
        self.type(command + b"; echo en\\d.\n")
        self.expect(lambda seen: PROMPT in seen.partition(b"end.\r\n")[2], "no output")
        return self.seen.partition(b"end.\r\n")[0].rpartition(b"en\\d.")[2]

    def interrupt(self, number: int) -> None:
        """Type Ctrl-C until the shell answers at its prompt."""
        for attempt in range(10):
            self.type(b"\x03")
            if self.until(lambda seen: PROMPT in seen, 2):
                self._idle()
                self.type(b"echo usab\\le-%d-%d.\n" % (number, attempt))
                answer = b"usable-%d-%d.\r\n" % (number, attempt)
                if self.until(lambda seen, answer=answer: PROMPT in seen.partition(answer)[2], 2):
                    self._idle()
                    return
        raise AssertionError(f"not usable: {self.seen[-2000:]!r}")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)
        os.close(self.slave)
