"""A board that is no process of ours: what a run leaves on it, and two members that would share its line."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import threading
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import LOCAL, PATIENCE, Multinode, Running, job_text, marked, until

pytestmark = pytest.mark.slow

Write = Callable[[str, str], Path]


class Board:
    """A shell at the other end of a serial line, which goes on when the line is closed."""

    def __init__(self, environment: dict[str, str]) -> None:
        pid, self._shell = pty.fork()
        if pid == 0:
            os.execvpe("sh", ["sh", "-i"], environment)
        self._pid = pid
        self._host_end, line = pty.openpty()
        tty.setraw(line)
        self._line = line  # kept open, as a UART is
        self.path = os.ttyname(line)
        ways = (self._host_end, self._shell), (self._shell, self._host_end)
        self._pumps = [threading.Thread(target=self._pump, args=way, daemon=True) for way in ways]
        for pump in self._pumps:
            pump.start()

    @staticmethod
    def _pump(source: int, sink: int) -> None:
        try:
            while data := os.read(source, 4096):
                os.write(sink, data)
        except OSError:
            return

    def asks(self, question: bytes, answer: bytes) -> None:
        """Type as a person would, and read until the answer is there."""
        os.write(self._line, question)
        said = b""
        os.set_blocking(self._line, False)
        deadline = time.monotonic() + PATIENCE
        while answer not in said:
            assert time.monotonic() < deadline, said
            try:
                said += os.read(self._line, 4096)
            except BlockingIOError:
                threading.Event().wait(0.01)

    def types(self, text: bytes) -> None:
        """Type at the board's own keyboard, beside the line."""
        os.write(self._shell, text)

    def close(self) -> None:
        os.killpg(os.tcgetpgrp(self._shell), signal.SIGKILL)  # a test that did not end, else the shell itself
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        self._pumps[1].join(PATIENCE)  # the terminal ends with the last of its processes


@pytest.fixture
def board(environment: dict[str, str]) -> Iterator[Board]:
    board = Board(environment)
    yield board
    board.close()


def devices(*paths: str) -> str:
    lines = (f"  b{n}: {{device_type: board, console: {{serial: {path}}}}}\n" for n, path in enumerate(paths))
    return "devices:\n" + "".join(lines)


@pytest.mark.parametrize(
    ("step", "moment"),
    [
        ("echo the-test-runs; sleep 1000", "| the-test-runs"),
        ("lava-wait never", "lava-wait never ..."),
        ("while :; do lava-wait never || sleep 0.1; done", "lava-wait never ..."),
        ("lava-wait never & sleep 1000", "lava-wait never ..."),
    ],
)
def test_an_interrupted_run_leaves_the_board_at_its_prompt(
    step: str, moment: str, board: Board, write: Write, command: list[str], mark: str, tmp_path: Path
) -> None:
    job, output = write("job.yaml", job_text({"a": [step]})), tmp_path / "o"
    arguments = ["run", job, "--devices", write("d.yaml", devices(board.path)), "--output", output, "-v"]
    with subprocess.Popen([*command, *map(str, arguments)], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        for line in run.stdout:
            if moment in line:
                break
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=PATIENCE)
    assert run.returncode == 130
    board.asks(b"echo hu''man\n", b"human")
    until(lambda: marked(mark) == ["sh -i "], "the test is still there")
    directory = (output / "events.jsonl").read_text().partition('"directory": "')[2].partition('"')[0]
    assert not Path(directory or "/").exists()


@pytest.mark.parametrize("prompts", ["", "prompts: ['[#$] $'], "])
@pytest.mark.parametrize(
    "step",
    [
        "lava-wait never",
        "while :; do lava-wait never || sleep 0.1; done",
        "while :; do lava-test-case again --result pass; done",
    ],
)
def test_a_run_takes_a_board_from_one_that_was_killed(
    step: str, prompts: str, board: Board, write: Write, start: Callable[..., Running], multinode: Multinode
) -> None:
    file = write("d.yaml", devices(board.path).replace("console:", prompts + "console:"))
    run = start("run", write("job.yaml", job_text({"a": [step]})), "--devices", file)
    run.line("again: pass" if "again" in step else "lava-wait never ...")
    run.end(signal.SIGKILL)
    job = job_text({"a": ["lava-test-case first --result pass"]}).replace(
        "action:\n    minutes: 3", "action:\n    seconds: 200"
    )
    ran = multinode("run", write("job.yaml", job), "--devices", file)
    assert (ran.status, ran.result(1, "0_a", "first")) == (0, "pass"), ran.out + ran.err
    assert {case["name"] for case in ran.results} == {"first", "0_a"}


def test_a_test_that_takes_too_long_is_stopped_on_the_board(
    board: Board, write: Write, multinode: Multinode, mark: str
) -> None:
    job = job_text({"a": ["sleep 1000"]}).replace("action:\n    minutes: 3", "action:\n    seconds: 15")
    ran = multinode("run", write("job.yaml", job), "--devices", write("d.yaml", devices(board.path)))
    assert ran.status == 1, ran.err
    assert ran.reason(1, "lava", "0_a") == "the test action timed out"
    board.asks(b"echo hu''man\n", b"human")
    until(lambda: marked(mark) == ["sh -i "], "the test is still there")


@pytest.mark.slow
def test_a_test_that_does_not_heed_ctrl_c_is_told(board: Board, write: Write, multinode: Multinode) -> None:
    job = job_text({"a": ["trap '' INT; sleep 1000"]}).replace("action:\n    minutes: 3", "action:\n    seconds: 15")
    ran = multinode("run", write("job.yaml", job), "--devices", write("d.yaml", devices(board.path)))
    assert ran.status == 1, ran.err
    assert "the test does not heed Ctrl-C; it may still run on the device" in ran.out


def test_two_members_cannot_have_one_line(multinode: Multinode, write: Write) -> None:
    file = write("d.yaml", devices("/dev/ttyS9", "/dev/ttyS9"))
    for subcommand in ("check", "run"):
        ran = multinode(subcommand, write("job.yaml", job_text({"a": ["true"], "b": ["true"]})), "--devices", file)
        assert ran.status == 2
        assert "b1: /dev/ttyS9 is the console of b0 already" in ran.err


def test_a_failed_step_is_told_with_what_the_device_said(multinode: Multinode, write: Write) -> None:
    ran = multinode("run", write("job.yaml", job_text({"a": ["lava-send"]})), "--devices", LOCAL)
    assert ran.status == 1
    assert "usage: lava-send ID [KEY=VALUE ...]" in ran.reason(1, "lava", "0_a")
