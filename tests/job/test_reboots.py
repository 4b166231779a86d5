"""Reboots that a test announces: which are taken, and which of the systems that answer is the new one."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dispatcher.console.command import CommandTransport
from dispatcher.console.connection import Console
from dispatcher.console.reboot import RebootWatch
from dispatcher.console.shell import PROMPT_LIMIT, Shell, start
from dispatcher.console.transcript import Transcript
from dispatcher.errors import CallRefused, ConsoleClosed, ConsoleTimeout, DeviceRebooted
from dispatcher.job import reboots
from dispatcher.job.reboots import Announced, Reboots, come_back


@contextlib.asynccontextmanager
async def a_console(character_delay: float = 0.0) -> AsyncIterator[Console]:
    transport = CommandTransport("board", {"command": "sh"})
    console = Console("board", transport, Transcript(Path(os.devnull)), character_delay=character_delay)
    try:
        console.open()
        yield console
    finally:
        await console.close()


def planned(*, limit: float | None = None, noticed: bool = True) -> Reboots:
    async def make() -> Reboots:
        async with a_console() as console:
            watch = RebootWatch(console, [])
        return Reboots(watch, {"0_a": 3, "1_b": 2}, limit=limit, deadline=1000.0, noticed=noticed)

    return asyncio.run(make())


@pytest.mark.parametrize(
    "args",
    [
        ("0_a", "0"),
        ("0_a", "4"),
        ("0_a", "x"),
        ("0_a", "\N{SUPERSCRIPT TWO}"),
        ("0_a", "9" * 5000),
        ("0_a",),
        ("1_b", "1"),
        ("2_c", "1"),
    ],
    ids=map(str, range(8)),
)
def test_a_step_that_does_not_run_cannot_reboot(args: tuple[str, ...]) -> None:
    with pytest.raises(CallRefused, match="only a step of the definition that runs can reboot the device"):
        planned().announce(args, "0_a", 0.0)


def test_each_reboot_is_behind_the_one_before() -> None:
    test = planned()
    assert test.announce(("0_a", "2", "id"), "0_a", 10.0) == Announced("0_a", 2, "id", 10.0, 990.0)
    with pytest.raises(CallRefused, match="reboots already"):
        test.announce(("0_a", "3"), "0_a", 11.0)
    test.settle(done=False)
    test.announce(("0_a", "2"), "0_a", 12.0)
    test.settle(done=True)
    with pytest.raises(CallRefused, match="only a step"):
        test.announce(("0_a", "2"), "0_a", 13.0)
    assert test.announce(("0_a", "3"), "0_a", 14.0).boot_id == ""


@pytest.mark.parametrize(("limit", "allowed"), [(None, 900.0), (60.0, 60.0), (2000.0, 900.0)])
def test_a_reboot_may_take_as_long_as_a_boot(limit: float | None, allowed: float) -> None:
    assert planned(limit=limit).announce(("0_a", "1"), "0_a", 100.0).limit == allowed


def test_a_device_that_nobody_would_know_again_is_not_rebooted() -> None:
    with pytest.raises(CallRefused, match="neither prompts nor auto_login"):
        planned(noticed=False).announce(("0_a", "1"), "0_a", 0.0)


def test_what_went_wrong_names_the_reboot() -> None:
    test = planned(limit=60)
    ended = ConsoleClosed("it ended", where="board")
    assert test.failure(ended) is ended
    test.announce(("0_a", "1"), "0_a", 0.0)
    assert test.failure(ended).what == "the device has not come back from the reboot in step 1 of 0_a: it ended"
    late = ConsoleTimeout("no prompt came", where="board", hint="look")
    why = "board: the device has not come back from the reboot in step 1 of 0_a within 60 s: no prompt came\n  look"
    assert str(test.failure(late)) == why


def test_the_system_that_goes_down_is_not_the_one_that_comes_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reboots, "SETTLE", 0.0)
    boots = ["old", "new"]
    done: list[str] = []

    async def boot_id_of(shell: Shell, deadline: float) -> str:
        assert (await shell.run("R=alive", deadline=deadline)).value == "alive"
        return boots.pop(0)

    monkeypatch.setattr(reboots, "boot_id_of", boot_id_of)

    async def test() -> None:
        async with a_console() as console:
            announced = Announced("0_a", 1, "old", asyncio.get_running_loop().time(), 30.0)

            async def log_in(deadline: float) -> None:
                assert deadline == announced.deadline
                done.append("login")

            async def start_shell(deadline: float) -> Shell:
                assert deadline <= announced.deadline
                if done.count("login") == 2:
                    raise ConsoleTimeout("it went down")
                if done.count("login") == 3:
                    raise DeviceRebooted("it has come up")
                done.append("shell")
                return await start(console, "sh", deadline=deadline)

            shell, boot_id = await come_back(console, announced, log_in, start_shell)
            assert boot_id == "new"
            assert (await shell.run("R=alive", deadline=announced.deadline)).value == "alive"

    asyncio.run(test())
    assert done == ["login", "shell", "login", "login", "login", "shell"]


def test_a_system_that_never_goes_down_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reboots, "SETTLE", 0.0)

    async def boot_id_of(_shell: Shell, _deadline: float) -> str:
        return "old"

    monkeypatch.setattr(reboots, "boot_id_of", boot_id_of)

    async def test() -> None:
        async with a_console() as console:
            announced = Announced("0_a", 1, "old", asyncio.get_running_loop().time(), 30.0)
            logins: list[float] = []

            async def log_in(deadline: float) -> None:
                logins.append(deadline)
                if len(logins) == 2:
                    object.__setattr__(announced, "limit", 0.0)  # its time has come
                    raise ConsoleTimeout("no prompt came")

            with pytest.raises(ConsoleTimeout, match="only the system that was to go down has answered"):
                await come_back(console, announced, log_in, lambda deadline: start(console, "sh", deadline=deadline))

    asyncio.run(test())


def test_nobody_is_waited_for_longer_than_the_reboot_may_take() -> None:
    async def log_in(_deadline: float) -> None:
        pass

    async def start_shell(_deadline: float) -> Shell:
        raise ConsoleTimeout("it does not answer")

    async def test() -> None:
        async with a_console() as console:
            announced = Announced("0_a", 1, "", asyncio.get_running_loop().time() - 30.0, 30.0)
            with pytest.raises(ConsoleTimeout, match="it does not answer"):
                await come_back(console, announced, log_in, start_shell)

    asyncio.run(test())


def test_a_device_that_is_typed_at_slowly_has_the_time_for_it() -> None:
    class Enough(Exception):
        pass

    async def log_in(_deadline: float) -> None:
        pass

    async def start_shell(deadline: float) -> Shell:
        left = deadline - asyncio.get_running_loop().time()
        assert left > reboots.ANSWER + 0.5 * PROMPT_LIMIT
        raise Enough

    async def test() -> None:
        async with a_console(character_delay=0.5) as console:
            announced = Announced("0_a", 1, "", asyncio.get_running_loop().time(), 3600.0)
            with pytest.raises(Enough):
                await come_back(console, announced, log_in, start_shell)

    asyncio.run(test())
