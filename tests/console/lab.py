"""A lab's real parts for the tests: a board behind a UART, and ser2net before it."""

from __future__ import annotations

import contextlib
import os
import pty
import selectors
import shutil
import signal
import subprocess
import threading
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest
from port_harness import lasting_port

PATIENCE = 120.0
_POLL = 0.02


def need(*programs: str) -> None:
    """Skip the test where a program is missing; in CI that is an error."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        complain = pytest.fail if os.environ.get("CI") else pytest.skip
        complain(f"not installed: {' '.join(missing)}")


class Board:
    """A shell at a prompt whose console is a UART: what stands in the device file is :attr:`path`.

    A thread carries bytes between the shell's terminal and the line, which is never hung up.
    """

    def __init__(self, *shell: str) -> None:
        self._line, self._far = os.openpty()
        tty.setraw(self._far)
        self.path = os.ttyname(self._far)
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            os.execvpe(shell[0], shell, {**os.environ, "PS1": "board# ", "HISTFILE": "/dev/null", "TERM": "dumb"})
        self._stopping, self._stop = os.pipe()
        self._thread = threading.Thread(target=self._carry)
        self._thread.start()

    def _carry(self) -> None:
        ways = {self._line: self._terminal, self._terminal: self._line}
        with selectors.DefaultSelector() as selector:
            for descriptor in (*ways, self._stopping):
                selector.register(descriptor, selectors.EVENT_READ)
            while True:
                for key, _events in selector.select():
                    if key.fd == self._stopping:
                        return
                    try:
                        os.write(ways[int(key.fd)], os.read(int(key.fd), 256))
                    except OSError:  # the shell has ended
                        selector.unregister(key.fd)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        os.write(self._stop, b".")
        self._thread.join()
        os.waitpid(self._pid, 0)
        for descriptor in (self._line, self._far, self._terminal, self._stopping, self._stop):
            os.close(descriptor)


class Ser2net:
    """Debian's ser2net before one line.

    :param accepter: how it is reached, as ser2net.yaml(5) writes it: ``tcp``, ``telnet,tcp``, ``telnet(rfc2217),tcp``.
    """

    def __init__(self, folder: Path, line: str, accepter: str) -> None:
        self._file = folder / "ser2net.yaml"
        self._line = line
        self._accepter = accepter
        self.port = lasting_port()
        assert self.start()

    def start(self) -> bool:
        """Start it, again too; whether it listens on its port."""
        self._file.write_text(
            "%YAML 1.1\n---\nconnection: &board\n"
            f"  accepter: {self._accepter},127.0.0.1,{self.port}\n"
            f"  connector: serialdev,{self._line},115200n81,local\n"
            "  options: {kickolduser: true}\n"
        )
        self._process = subprocess.Popen(
            ["ser2net", "-n", "-u", "-c", self._file], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # It says nothing when it is ready, and nothing that can be waited for when it is not.
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self._process.poll() is None:
            if _listens(self._process.pid, self.port):
                return True
            time.sleep(_POLL)
        self.kill()
        return False

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def _listens(pid: int, port: int) -> bool:
    sockets = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            sockets.add(os.readlink(link))
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _number, local, _remote, state, *rest = line.split()
        if state == "0A" and int(local.rpartition(":")[2], 16) == port and f"socket:[{rest[5]}]" in sockets:
            return True
    return False


@contextlib.contextmanager
def board(*shell: str) -> Iterator[Board]:
    made = Board(*(shell or ("sh", "-i")))
    try:
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def ser2net(folder: Path, line: str, accepter: str) -> Iterator[Ser2net]:
    need("ser2net")
    made = Ser2net(folder, line, accepter)
    try:
        yield made
    finally:
        made.kill()
