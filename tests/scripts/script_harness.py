"""A device without a device: the target scripts in a directory, run by one shell on a real pty.

The test is the dispatcher: it expects the markers that the scripts print and types the replies.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import termios
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pexpect
from pexpect.fdpexpect import fdspawn

TARGET_SCRIPTS = Path(__file__).resolve().parents[2] / "target-scripts"
TIMEOUT = 120.0
"""Seconds after which what hangs is ended. No test that passes waits for it."""

SETSID = shutil.which("setsid") or "setsid"

SHELLS = {
    "dash": ("dash",),
    "bash": ("bash",),
    "mksh": ("mksh",),
    "ksh93": ("ksh93",),
    "busybox-ash": ("busybox", "ash"),
}


def quoted(text: str) -> str:
    """``text`` in single quotes, as the dispatcher writes a setting."""
    return "'" + text.replace("'", "'\\''") + "'"


class Call:
    """One process on a pty of its own, in a session of its own.

    :ivar initial: how the tty was set when the process started.
    :ivar output: all that the console showed, once :meth:`finish` has returned.
    """

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        cwd: Path,
        env: dict[str, str],
        terminal: bool = True,
        path_setting: Path | None = None,
        **streams: Any,
    ) -> None:
        self.master, slave = os.openpty()
        self.initial = self.tty()
        # Nobody else may hold a pty that is opened by its path only: without a holder it is closed for good.
        self._held = os.dup(slave) if path_setting else None
        try:
            if path_setting:
                with path_setting.open("a") as settings:
                    settings.write(f"LAVA_CONSOLE={quoted(os.ttyname(slave))}\n")
            stdio = {"stdin": slave, "stdout": slave, "stderr": slave} | streams
            # Without preexec_fn Python need not copy itself; setsid takes the controlling terminal as well.
            self.process = subprocess.Popen(
                [SETSID, "--ctty", *argv] if terminal else argv,
                cwd=cwd,
                env=env,
                start_new_session=not terminal,
                **stdio,
            )
        finally:
            os.close(slave)
        self.console = fdspawn(self.master, timeout=TIMEOUT, maxread=65536)
        self._seen: list[bytes] = []
        self.output = b""

    def expect(self, data: bytes) -> bytes:
        """Wait for exactly ``data``; what stood before it."""
        self.console.expect_exact(data)
        self._seen += [self.console.before, data]
        return bytes(self.console.before)

    def type(self, data: bytes) -> None:
        """Write all of ``data`` to the device, however slowly it reads."""
        deadline = time.monotonic() + TIMEOUT
        os.set_blocking(self.master, False)
        while data:
            _, writable, _ = select.select([], [self.master], [], max(0.0, deadline - time.monotonic()))
            assert writable, f"the device does not read: {data[:80]!r} …"
            data = data[os.write(self.master, data) :]
        os.set_blocking(self.master, True)

    def answer(self, request: bytes, reply: bytes) -> bytes:
        """Expect the call ``request``, type the line ``reply``; what stood before the call."""
        before = self.expect(b"<LAVA_MULTI_NODE> <LAVA_" + request + b">\r\n")
        self.type(reply + b"\n")
        return before

    def settle(self) -> None:
        """Wait until every process of the session sleeps.

        A shell that has looked for signals and not yet begun to read does not notice one that comes in between.
        """
        deadline = time.monotonic() + TIMEOUT
        while not all(state == "S" for state in self._states()):
            assert time.monotonic() < deadline, "the processes do not come to rest"
            os.sched_yield()

    def _states(self) -> list[str]:
        """The states of the session's processes, see proc(5)."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                state, _parent, _group, session = stat.read_text(errors="replace").rpartition(") ")[2].split()[:4]
                if int(session) == self.process.pid:
                    found.append(state)
        return found

    def finish(self) -> int:
        """Wait for the end; the exit status, a signal's as the negative number."""
        if self._held is not None:
            self.process.wait(TIMEOUT)
            self._let_go()
        self.console.expect_exact(pexpect.EOF)
        self.output = b"".join([*self._seen, self.console.before])
        return self.process.wait(TIMEOUT)

    def _let_go(self) -> None:
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def tty(self) -> list[Any]:
        """How the tty is set now."""
        return termios.tcgetattr(self.master)

    def close(self) -> None:
        """End what a failed test left running."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(TIMEOUT)
        self._let_go()
        os.close(self.master)


def write_script(target: Path, text: str, shell: Sequence[str]) -> None:
    """Write a script, its first line rewritten for ``shell`` as the dispatcher does."""
    target.write_text(text.replace("#!/bin/sh\n", f"#!{' '.join(shell)}\n", 1))
    target.chmod(0o755)


def write_target_scripts(directory: Path, shell: Sequence[str]) -> None:
    """Write all of the target scripts into ``directory``, for :class:`Device` to link."""
    for source in TARGET_SCRIPTS.glob("lava-*"):
        write_script(directory / source.name, source.read_text(), shell)


class Device:
    """A directory as the dispatcher lays it out on a device, and a shell to run it.

    :param scripts: the target scripts as written for ``shell``, on the file system of ``root``.
    :ivar bin: where the scripts are, written for :attr:`shell`.
    :ivar work: the directory that processes start in; empty.
    """

    def __init__(self, root: Path, shell: Sequence[str], scripts: Path) -> None:
        self.shell = list(shell)
        self.root = root
        self.bin = root / "bin"
        self.work = root / "work"
        self.cache = root / "cache.txt"
        self.bin.mkdir(parents=True)
        self.work.mkdir()
        for script in scripts.iterdir():
            (self.bin / script.name).hardlink_to(script)
        self.calls: list[Call] = []
        self.settings()

    def add(self, name: str, text: str) -> None:
        """Put a script into the bin directory, its first line rewritten for the shell."""
        (self.bin / name).unlink(missing_ok=True)
        write_script(self.bin / name, text, self.shell)

    def settings(self, **values: str) -> None:
        """Write the settings file; ``values`` without their ``LAVA_``."""
        defaults = {
            "JOB_ID": "12346",
            "ROLE": "server",
            "GROUP": "12345\tclient\n12346\tserver\n12347\tclient",
            "CONSOLE": "",
            "MULTI_NODE_CACHE_DEFAULT": str(self.cache),
        }
        lines = [f"LAVA_{name}={quoted(value)}\n" for name, value in (defaults | values).items()]
        (self.bin / "lava-multi-node.conf").write_bytes("".join(lines).encode("utf-8", "surrogateescape"))

    def start(
        self,
        name: str | Path,
        *args: str | bytes,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        **options: Any,
    ) -> Call:
        """Start a script of the bin directory (or any program by its path); see :class:`Call` for ``options``."""
        path = f"{self.bin}:/usr/bin:/bin"
        call = Call(
            [self.bin / name, *args],  # type: ignore[list-item]
            cwd=cwd or self.work,
            env={"PATH": path, "HOME": str(self.root)} | (env or {}),
            **options,
        )
        self.calls.append(call)
        return call

    def run(self, name: str | Path, *args: str | bytes, **options: Any) -> tuple[int, bytes]:
        """Run a script to its end: exit status, and the console with plain line feeds."""
        call = self.start(name, *args, **options)
        status = call.finish()
        return status, call.output.replace(b"\r\n", b"\n")

    def test(self, text: str, **options: Any) -> Call:
        """Start ``text`` as a test definition's script would be started: by the shell, the scripts in PATH."""
        script = self.root / "test.sh"
        script.write_text(text)
        return self.start(self.shell[0], *self.shell[1:], str(script), **options)

    def close(self) -> None:
        for call in self.calls:
            call.close()


def find_shell(name: str) -> list[str] | None:
    """The command of a shell, its program as an absolute path; None where it is not installed."""
    program, *rest = SHELLS[name]
    found = shutil.which(program)
    return [found, *rest] if found else None
