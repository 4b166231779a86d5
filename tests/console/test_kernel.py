"""The kernel's messages, under every shell. A file stands for ``/proc/sys/kernel/printk``; guests have the real one."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
from console_harness import Output, opened, run, soon, started
from pexpect.fdpexpect import fdspawn

from dispatcher.console import kernel
from dispatcher.console.connection import Console
from dispatcher.console.kernel import KernelMessages
from dispatcher.console.shell import RELEASE, start
from dispatcher.console.transport import Transport


@pytest.fixture
def printk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "printk"
    set_level(file, 7)
    monkeypatch.setattr(kernel, "PRINTK", str(file))
    return file


def level(printk: Path) -> int:
    return int(printk.read_text().split()[0])


def set_level(printk: Path, value: int) -> None:
    printk.write_text(f"{value}\t4\t1\t7\n")


def unexpected() -> None:
    pytest.fail("the level can be set")


async def back_at_its_shell(console: Console) -> None:
    """Wait until the loop has ended: the shell that started it reads again."""
    await console.send(b"echo do''ne\n")
    await console.expect([re.compile(b"done")], soon())


def test_the_kernel_is_quiet_and_then_as_before(shell_command: str, printk: Path) -> None:
    async def test() -> None:
        async with started("sh", shell_command) as shell:
            messages = KernelMessages(None, unexpected)
            for before in (7, 10, 0):
                set_level(printk, before)
                async with messages.quiet(shell, soon()):
                    assert level(printk) == min(before, 1)
                assert level(printk) == before
            set_level(printk, 1)
            await shell.leave()
            await back_at_its_shell(shell.console)
            assert level(printk) == 1

    run(test())


def test_tests_run_at_the_level_that_was_asked_for(shell_command: str, printk: Path) -> None:
    async def test() -> None:
        async with started("sh", shell_command) as shell:
            messages = KernelMessages(8, unexpected)
            for _ in range(2):
                async with messages.quiet(shell, soon()):
                    assert level(printk) == 1
                assert level(printk) == 8
                answer = await shell.run_test(f"read level rest <{printk};exit $level", Output())
                assert answer.status == level(printk) == 8
            await shell.leave()
            await back_at_its_shell(shell.console)
            assert level(printk) == 7

    run(test())


@pytest.mark.parametrize("asked", [None, 3])
def test_a_level_that_somebody_else_sets_stays(asked: int | None, printk: Path) -> None:
    async def test() -> None:
        async with started() as shell:
            async with KernelMessages(asked, unexpected).quiet(shell, soon()):
                if asked is None:
                    set_level(printk, 5)
            if asked is not None:
                set_level(printk, 5)
            await shell.leave()
            await back_at_its_shell(shell.console)
            assert level(printk) == 5

    run(test())


def test_what_was_cut_short_is_put_back_when_the_shell_is_left(shell_command: str, printk: Path) -> None:
    async def test() -> None:
        async with started("sh", shell_command) as shell:
            messages = KernelMessages(8, unexpected)
            with pytest.raises(ZeroDivisionError):
                async with messages.quiet(shell, soon()):
                    raise ZeroDivisionError
            assert level(printk) == 1
            async with messages.quiet(shell, soon()):
                pass
            assert level(printk) == 8
            await shell.leave()
            await back_at_its_shell(shell.console)
            assert level(printk) == 7

    run(test())


def test_the_next_run_puts_back_what_one_that_was_killed_has_left(shell_command: str, printk: Path) -> None:
    async def test() -> None:
        async with started("sh", shell_command) as shell:
            await KernelMessages(None, unexpected).quiet(shell, soon()).__aenter__()
            assert level(printk) == 1
            await shell.console.send(RELEASE)
            await back_at_its_shell(shell.console)
            assert level(printk) == 7

    run(test())


class Terminal(Transport):
    """A shell on a pty that hangs up without a signal but the kernel's."""

    OPTIONS: ClassVar = {"pty": "nothing"}

    def __init__(self) -> None:
        super().__init__("board", {})
        self._ends, lives = os.pipe()
        self._master, terminal = pty.openpty()
        self._shell = subprocess.Popen(
            ["setsid", "-c", "sh"], stdin=terminal, stdout=terminal, stderr=terminal, pass_fds=[lives]
        )
        os.close(lives)
        os.close(terminal)

    def open(self) -> fdspawn:
        return fdspawn(self._master, timeout=None, encoding=None)

    async def close(self) -> None:
        os.close(self._master)
        assert os.read(self._ends, 1) == b""  # all that ran there has ended
        os.close(self._ends)
        self._shell.wait()

    def ended(self) -> str:
        return "it hung up"


def test_a_terminal_that_hangs_up_has_it_put_back(shell_command: str, printk: Path) -> None:
    async def test() -> None:
        async with opened(Terminal()) as console:
            shell = await start(console, shell_command, deadline=soon())
            async with KernelMessages(8, unexpected).quiet(shell, soon()):
                pass
            assert level(printk) == 8
        assert level(printk) == 7

    run(test())


def missing(printk: Path) -> None:
    printk.unlink()


def no_file(printk: Path) -> None:
    printk.unlink()
    printk.mkdir()


def not_to_be_written(printk: Path) -> None:
    printk.unlink()
    printk.symlink_to("/proc/uptime")


def quiet_and_not_to_be_written(printk: Path) -> None:
    printk.unlink()
    printk.symlink_to("/proc/sys/fs/aio-nr")


@pytest.mark.parametrize("trouble", [missing, no_file, not_to_be_written, quiet_and_not_to_be_written])
def test_a_kernel_that_cannot_be_told_prints_on(
    trouble: Callable[[Path], None], shell_command: str, printk: Path, tmp_path: Path
) -> None:
    trouble(printk)
    told: list[None] = []

    async def test() -> None:
        async with opened("sh", tmp_path / "log") as console:
            shell = await start(console, shell_command, deadline=soon())
            messages = KernelMessages(8, lambda: told.append(None))
            for _ in range(2):
                async with messages.quiet(shell, soon()):
                    assert (await shell.run("R=alive", deadline=soon())).value == "alive"

    run(test())
    assert told == [None]
    assert b"printk" not in (tmp_path / "log").read_bytes(), "a complaint"
