"""A board for a console's far end: a login and a shell, until SIGUSR1 reboots it, or SIGUSR2 hangs it on its way up.

``python rebooting_board.py [DIRECTORY]``: what every boot loses, as a tmpfs does.
"""

from __future__ import annotations

import contextlib
import os
import pty
import select
import shutil
import signal
import sys
import tty
from pathlib import Path

BOOT = b"\r\nU-Boot\r\nHit any key to stop autoboot: 0\r\n[    0.000000] Linux version 6.1.0-28-arm64 (gcc-12)\r\n"


def say(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


def end_session(leader: int) -> None:
    """Kill all that ran in a boot, as a reset does."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.getsid(int(process.name)) == leader:
                os.kill(int(process.name), signal.SIGKILL)
    os.waitpid(leader, 0)


class Board:
    def __init__(self, volatile: list[str]) -> None:
        self._volatile = volatile
        self._wakeup, self._signal = os.pipe()
        os.set_blocking(self._signal, False)
        signal.set_wakeup_fd(self._signal)
        for number in signal.SIGUSR1, signal.SIGUSR2:
            signal.signal(number, lambda _number, _frame: None)

    def run(self) -> None:
        tty.setraw(0)
        while self._boot() == signal.SIGUSR1:
            for path in self._volatile:
                shutil.rmtree(path, ignore_errors=True)
            say(BOOT)
        say(BOOT + b"Kernel panic\r\n")
        while os.read(0, 4096):
            pass

    def _boot(self) -> int:
        """Ask for a name, and be a shell until a signal comes: which."""
        say(b"\r\nboard login: ")
        while not os.read(0, 4096).strip():
            say(b"\r\nboard login: ")
        leader, shell = pty.fork()
        if leader == 0:
            os.execvpe("sh", ["sh"], {**os.environ, "PS1": "board# ", "BOARD": str(os.getppid())})
        try:
            return self._relay(shell)
        finally:
            end_session(leader)
            os.close(shell)

    def _relay(self, shell: int) -> int:
        while True:
            ready, _, _ = select.select([0, shell, self._wakeup], [], [])
            if self._wakeup in ready:
                return os.read(self._wakeup, 1)[0]
            if shell in ready:
                say(os.read(shell, 4096))
            if 0 in ready:
                os.write(shell, os.read(0, 4096))


if __name__ == "__main__":
    Board(sys.argv[1:]).run()
