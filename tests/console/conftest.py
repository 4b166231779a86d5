"""Nothing that a console's test has opened or started is left behind; and the shells that tests run under."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from console_harness import INTERACTIVE, SHELLS, children, installed

from dispatcher.console import shell

PATIENCE = 60
"""Seconds that a thread may take to end on a busy host."""


def _descriptors() -> set[tuple[str, str]]:
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.add((link.name, os.readlink(link)))
        except FileNotFoundError:  # the one that lists the directory
            continue
    return found


@pytest.fixture(autouse=True, scope="session")
def _quick_collections() -> Iterator[None]:
    """What was there before the tests need not be searched for garbage after each."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    descriptors, threads, processes = _descriptors(), set(threading.enumerate()), children()
    yield
    gc.collect()
    assert children() <= processes, "a process is left, or a zombie"
    for thread in set(threading.enumerate()) - threads:
        thread.join(PATIENCE)  # asyncio's, which has waited for a program, ends a little after it has told so
    assert set(threading.enumerate()) <= threads
    assert _descriptors() <= descriptors


def _shell(command: str) -> str:
    if not installed(command):
        complain = pytest.fail if os.environ.get("CI") else pytest.skip
        complain(f"{command.split(maxsplit=1)[0]} is not installed")
    return command


@pytest.fixture(params=list(SHELLS))
def shell_command(request: pytest.FixtureRequest) -> str:
    """What starts each shell that runs tests."""
    return _shell(SHELLS[request.param])


@pytest.fixture(params=list(INTERACTIVE))
def interactive_shell(request: pytest.FixtureRequest) -> str:
    """What starts each shell that may stand at a prompt."""
    _shell(SHELLS[request.param])
    return INTERACTIVE[request.param]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines to the loop are sent again at once; sent too often, they are run once all the same."""
    monkeypatch.setattr(shell, "FIRST_PATIENCE", 0.05)
    monkeypatch.setattr(shell, "LAST_PATIENCE", 0.2)
    monkeypatch.setattr(shell, "SLOWEST_LINE", 100_000)
    monkeypatch.setattr(shell, "CHECK_LIMIT", 2.0)
