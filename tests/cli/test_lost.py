"""Runs whose consoles are lost in the middle: every call is answered, every result arrives, and the gap is told."""

from __future__ import annotations

import json
import os
import pty
import random
import selectors
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import Multinode, job_text

_RESET = struct.pack("ii", 1, 0)


class DroppingServer:
    """A shell behind a TCP server that drops the connection after random numbers of bytes, in the middle of anything.

    What the shell says while nobody is connected is lost, as on a UART.

    :param drops: bytes that pass, either way, before each drop; then it drops no more.
    """

    def __init__(self, drops: Iterator[int]) -> None:
        self._drops = drops
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._pid, self._board = pty.fork()
        if self._pid == 0:
            os.execlp("sh", "sh")
        self._stopping, self._stop = os.pipe()
        self._client: socket.socket | None = None
        self._left: float = next(drops)
        self._selector = selectors.DefaultSelector()
        for what in (self._listener, self._board, self._stopping):
            self._selector.register(what, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            for key, _events in self._selector.select():
                if key.fd == self._stopping:
                    return
                if key.fd == self._listener.fileno():
                    self._accept()
                elif key.fd == self._board:
                    self._said(self._read())
                elif key.fileobj is self._client:
                    self._typed(self._client)

    def _read(self) -> bytes:
        try:
            return os.read(self._board, 512)
        except OSError:  # the shell has ended
            self._selector.unregister(self._board)
            return b""

    def _accept(self) -> None:
        self._drop()
        self._client = self._listener.accept()[0]
        self._selector.register(self._client, selectors.EVENT_READ)

    def _said(self, data: bytes) -> None:
        if self._client is None:
            return
        try:
            self._client.sendall(data[: int(min(self._left, len(data)))])
        except OSError:
            self._drop()
            return
        self._count(len(data))

    def _typed(self, client: socket.socket) -> None:
        try:
            data = client.recv(512)
        except OSError:
            data = b""
        if not data:
            self._drop()
            return
        os.write(self._board, data[: int(min(self._left, len(data)))])
        self._count(len(data))

    def _count(self, passed: int) -> None:
        self._left -= passed
        if self._left <= 0:
            self._left = next(self._drops, float("inf"))
            self._drop()

    def _drop(self) -> None:
        if self._client is not None:
            self._selector.unregister(self._client)
            if self._left % 2 == 0:
                self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._client.close()
            self._client = None

    def close(self) -> None:
        os.killpg(self._pid, signal.SIGKILL)
        os.write(self._stop, b".")
        self._thread.join()
        self._drop()
        self._selector.close()
        self._listener.close()
        for descriptor in (self._board, self._stopping, self._stop):
            os.close(descriptor)
        os.waitpid(self._pid, 0)


@pytest.fixture
def servers() -> Iterator[list[DroppingServer]]:
    """Two boards; each is lost several times, first while the scripts are put there, then in the test."""
    # A line that is typed has up to 1.8 kB, and has to pass now and then.
    made = []
    for seed in (1, 2):
        randomness = random.Random(seed)
        sizes = [randomness.randrange(2500, 9000) for _ in range(8)]
        made.append(DroppingServer(iter(sizes)))
    yield made
    for server in made:
        server.close()


@pytest.mark.slow
def test_no_call_and_no_result_is_lost(
    servers: list[DroppingServer], multinode: Multinode, write: Callable[[str, str], Path]
) -> None:
    rounds = range(8)
    actions = {
        role: [
            step
            for number in rounds
            for step in (
                f"lava-send from-{role}-{number} value={number}",
                f"lava-wait from-{other}-{number}",
                f"grep -q value={number} $LAVA_MULTI_NODE_CACHE",
                f"lava-test-case round-{number} --result pass",
            )
        ]
        for role, other in (("left", "right"), ("right", "left"))
    }
    job = write("job.yaml", job_text(actions))
    devices = "devices:\n" + "".join(
        f"  board-{number}: {{device_type: board, console: {{serial: 'socket://127.0.0.1:{server.port}'}}}}\n"
        for number, server in enumerate(servers, 1)
    )
    ran = multinode("run", job, "--devices", write("devices.yaml", devices))
    assert ran.status == 0, ran.out + ran.err
    for member, role in (1, "left"), (2, "right"):
        assert all(ran.result(member, f"0_{role}", f"round-{number}") == "pass" for number in rounds)
    events = [json.loads(line) for line in (ran.output / "events.jsonl").read_text().splitlines()]
    lost = [event for event in events if event["event"] == "lost"]
    back = [event for event in events if event["event"] == "back"]
    assert len(lost) == len(back) >= 10
    assert ran.err.count("the console was lost: ") == len(lost)
    log = (ran.output / "consoles" / "1.log").read_text(errors="replace")
    assert log.count("\n[multinode: the console was lost: ") == sum(event["job"] == "1" for event in lost)
    assert log.count("s; what it said meanwhile is not here]\n") == sum(event["job"] == "1" for event in back)
