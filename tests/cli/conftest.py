"""Runs the command as a user does, in a process of its own, on local shells."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

FIXTURES = Path(__file__).parents[2] / "fixtures"
LOCAL = FIXTURES / "devices" / "local.yaml"
PATIENCE = 240
"""Seconds after which a command that hangs is ended."""


def job_text(actions: dict[str, list[str]], *, counts: dict[str, int] | None = None, **top: Any) -> str:
    """A job: role → run steps, one member a role unless ``counts`` says otherwise."""
    roles = {role: {"device_type": "board", "count": (counts or {}).get(role, 1)} for role in actions}
    tests = [
        {
            "test": {
                "role": role,
                "definitions": [
                    {
                        "name": role,
                        "from": "inline",
                        "path": f"inline/{role}.yaml",
                        "repository": {
                            "metadata": {"format": "Lava-Test Test Definition 1.0", "name": role},
                            "run": {"steps": steps},
                        },
                    }
                ],
            }
        }
        for role, steps in actions.items()
    ]
    job = {
        "job_name": "t",
        "timeouts": {"job": {"minutes": 4}, "action": {"minutes": 3}},
        "protocols": {"lava-multinode": {"roles": roles}},
        "actions": tests,
    }
    return yaml.safe_dump(job | top, sort_keys=False)


@dataclass
class Ran:
    """A command that has ended."""

    status: int
    out: str
    err: str
    output: Path

    @property
    def results(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = yaml.safe_load((self.output / "results.yaml").read_text())
        return found

    def result(self, job: int, suite: str, name: str) -> str:
        (case,) = [c for c in self.results if (c["job"], c["suite"], c["name"]) == (str(job), suite, name)]
        return str(case["result"])

    def reason(self, job: int, suite: str, name: str) -> str:
        (case,) = [c for c in self.results if (c["job"], c["suite"], c["name"]) == (str(job), suite, name)]
        return str(case["metadata"]["reason"])


Multinode = Callable[..., Ran]
Write = Callable[[str, str], Path]


@dataclass
class Running:
    """A command that runs."""

    process: subprocess.Popen[str]
    port: int = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def line(self, holding: str) -> str:
        """The next line on stdout that holds a text."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if holding in line:
                return line
        pytest.fail(f"{holding!r} never came: {self.process.stderr.read() if self.process.stderr else ''}")

    def end(self, number: signal.Signals | None = None) -> tuple[int, str, str]:
        """Send a signal, if there is one to send; the status and what was written."""
        if number is not None:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, err


Service = Callable[..., Running]


def until(condition: Callable[[], object], what: str) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what


def marked(mark: str) -> list[str]:
    """The command lines of all processes that carry a mark in their environment, but for zombies."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


@pytest.fixture
def mark() -> Iterator[str]:
    """A text that every process of this test has in its environment; none may be left when it ends."""
    text = f"multinode-test-{uuid.uuid4().hex}"
    yield text
    assert not marked(text), "the run left processes behind"


@pytest.fixture
def environment(mark: str, tmp_path: Path) -> dict[str, str]:
    state = str(tmp_path / "state")
    return {**os.environ, "MULTINODE_TEST_MARK": mark, "NO_COLOR": "1", "XDG_STATE_HOME": state}


@pytest.fixture
def command() -> list[str]:
    return [sys.executable, "-W", "error", "-m", "dispatcher.cli.main"]


@pytest.fixture
def multinode(tmp_path: Path, environment: dict[str, str], command: list[str]) -> Multinode:
    """``multinode ARGUMENTS…``; ``run`` gets an output directory of the test's own."""

    def run(*arguments: str | Path) -> Ran:
        output = tmp_path / "output"
        extra = ["--output", str(output)] if arguments[0] == "run" and "--output" not in arguments else []
        done = subprocess.run(
            [*command, *map(str, arguments), *extra],
            capture_output=True,
            timeout=PATIENCE,
            env=environment,
            cwd=tmp_path,
            check=False,
        )
        return Ran(done.returncode, done.stdout.decode(), done.stderr.decode(), output)

    return run


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    """Write a file below the test's own folder."""

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def start(command: list[str], environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start ``multinode ARGUMENTS…``; it is ended with the test."""
    with ExitStack() as stack:

        def start(*arguments: str | Path) -> Running:
            process = stack.enter_context(
                subprocess.Popen(
                    [*command, *map(str, arguments)],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env=environment,
                    text=True,
                    cwd=tmp_path,
                )
            )
            stack.callback(process.kill)
            return Running(process)

        yield start


@pytest.fixture
def service(start: Callable[..., Running]) -> Service:
    """Start a coordinator, on a port of its own unless one is given."""

    def service(*arguments: str | Path, port: int = 0) -> Running:
        running = start("coordinator", "--port", str(port), *arguments)
        running.port = int(running.line("ready on 127.0.0.1:").rpartition(":")[2])
        return running

    return service
