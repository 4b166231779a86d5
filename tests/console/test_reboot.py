"""A device that reboots in the middle of a test: noticed, believed only once a prompt answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from console_harness import PairTransport, now, opened, run

from dispatcher.console.connection import Console
from dispatcher.console.reboot import ANSWER, QUIET, SILENCE, RebootWatch

BOOT = b"[    0.000000] Linux version 6.1.0-28-arm64 (gcc-12)\r\n[    1.9] random: crng init done\r\n"


@contextlib.asynccontextmanager
async def watched(*prompts: str) -> AsyncIterator[tuple[PairTransport, Console, RebootWatch]]:
    transport = PairTransport()
    async with opened(transport) as console:
        watch = RebootWatch(console, prompts)
        console.listen(watch.hear)
        try:
            yield transport, console, watch
        finally:
            watch.cancel()
            transport.far.close()


@pytest.mark.parametrize(
    ("prompt", "shown"),
    [
        (b"board login: ", "'board login:'"),
        (b"\x1b[?2004hroot@board:~# ", "'root@board:~#'"),
        (b"panda# ", "'panda#'"),
        (b"panda# [    1.808392] tsc: Refined\r\n[    1.815020] clocksource: tsc\r\n", "'panda#'"),
    ],
)
def test_a_prompt_that_answers_twice_is_believed(prompt: bytes, shown: str) -> None:
    async def test() -> None:
        async with watched("root@board:", "panda# $") as (device, console, _watch):
            await device.say(BOOT + b"\r\n" + prompt)
            for _question in range(2):
                assert await device.hear_line() == b"\n"
                await device.say(b"\r\n" + prompt)
            why = f"board: the device has rebooted in the middle of a test: it answers with {shown}"
            assert str(await console.ended()) == why

    run(test(), jumping=True)


@pytest.mark.parametrize("cut", [1, 25, 4096, 9000, 20000])
def test_a_boot_is_remembered_however_much_was_said_after_it(cut: int) -> None:
    async def test() -> None:
        async with watched("panda# $") as (device, console, _watch):
            said = b"x" * 8000 + b"\r\n" + BOOT + b"[    2.000000] usb 1-1: new device\r\n" * 300 + b"panda# "
            for start in range(0, len(said), cut):
                console._give(said[start : start + cut])
            for _question in range(2):
                assert await device.hear_line() == b"\n"
                await device.say(b"\r\npanda# ")
            assert "the device has rebooted" in str(await console.ended())

    run(test(), jumping=True)


def test_a_prompt_is_asked_as_soon_as_it_has_been_quiet() -> None:
    async def test() -> None:
        async with watched("panda# $") as (device, console, _watch):
            for _word in range(10):
                await device.say(b"a word\r\n")
                await asyncio.sleep(QUIET / 2)
            await device.say(b"panda# ")
            said = now()
            for question in (1, 2):  # before the first has gone unanswered for ANSWER seconds
                assert await device.hear_line() == b"\n"
                assert now() - said == pytest.approx(question * QUIET)
                await device.say(b"\r\npanda# ")
            await console.ended()
            assert now() - said == pytest.approx(3 * QUIET)

    run(test(), jumping=True)


@pytest.mark.parametrize("answers", [[], [b"\r\n"], [b"\r\nboard login: "], [b"\r\nboard login: ", b"\r\n"]])
def test_a_test_that_prints_the_same_is_not_disturbed_for_long(answers: list[bytes]) -> None:
    """dmesg prints a boot, and what ends in a prompt may be a question of the test."""

    async def test() -> None:
        async with watched() as (device, console, _watch):
            await device.say(BOOT + b"board login: ")
            assert await device.hear_line() == b"\n"
            for answer in answers:
                await device.say(answer)
                if b"login" in answer:
                    assert await device.hear_line() == b"\n"
            ended = asyncio.ensure_future(console.ended())
            done, _ = await asyncio.wait([ended], timeout=10 * (QUIET + ANSWER))
            ended.cancel()
            assert not done
            with pytest.raises(BlockingIOError):
                device.far.recv(1)

    run(test(), jumping=True)


LATE = b"[  OK  ] Started getty on ttyS0.\r\nboard login: \r\n[  OK  ] Finished what takes its time.\r\n"
"""What systemd prints, and where."""


def test_a_prompt_that_is_hidden_by_what_follows_it_is_asked_for_after_a_while() -> None:
    async def test() -> None:
        async with watched() as (device, console, _watch):
            await device.say(BOOT + LATE)
            said = now()
            for _question in range(3):
                assert await device.hear_line() == b"\n"
                if now() - said <= SILENCE:
                    assert now() - said == pytest.approx(SILENCE)
                await device.say(b"\r\nboard login: ")
            assert "has rebooted in the middle of a test" in str(await console.ended())

    run(test(), jumping=True)


def test_a_test_that_has_printed_a_boot_is_asked_once() -> None:
    async def test() -> None:
        async with watched() as (device, console, _watch):
            await device.say(BOOT + b"an hour of work follows\r\n")
            assert await device.hear_line() == b"\n"
            await device.say(b"half of it is done\r\n")
            await asyncio.sleep(10 * SILENCE)
            assert not console.has_ended
            with pytest.raises(BlockingIOError):
                device.far.recv(1)

    run(test(), jumping=True)


def test_a_reboot_that_was_meant_is_found_where_no_prompt_can_be_seen() -> None:
    """A kernel that is told to be quiet says no version."""

    async def test() -> None:
        async with watched() as (device, _console, watch):
            told: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            watch.expect(told.set_result)
            await device.say(LATE)
            said = now()
            for silence in (SILENCE, 3 * SILENCE):
                assert await device.hear_line() == b"\n"
                assert now() - said == pytest.approx(silence)
            for _question in range(2):
                await device.say(b"\r\nboard login: ")
                assert await device.hear_line() == b"\n"
            await device.say(b"\r\nboard login: ")
            assert await told == b"\r\nboard login: "

    run(test(), jumping=True)


def test_output_that_goes_on_is_not_asked() -> None:
    async def test() -> None:
        async with watched("board# ") as (device, _console, _watch):
            until = now() + 20 * QUIET
            while now() < until:
                await device.say(b"board# ")
                await asyncio.sleep(QUIET / 2)
            await device.say(b"\r\nthe test goes on\r\n")
            await asyncio.sleep(10 * QUIET)
            with pytest.raises(BlockingIOError):
                device.far.recv(1)

    run(test(), jumping=True)


def test_a_reboot_that_was_meant_is_told_as_soon_as_a_kernel_boots() -> None:
    async def test() -> None:
        async with watched() as (device, console, watch):
            await device.say(BOOT)  # dmesg, before
            await asyncio.sleep(QUIET)
            told: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            watch.expect(told.set_result)
            await device.say(b"U-Boot\r\nboard login: \r\n" + BOOT + b"board login: ")
            assert await told == BOOT[BOOT.index(b"] Linux") :] + b"board login: "
            await asyncio.sleep(10 * QUIET)
            assert not console.has_ended
            with pytest.raises(BlockingIOError):
                device.far.recv(1)

    run(test(), jumping=True)


def test_a_reboot_that_was_meant_is_told_when_a_prompt_answers() -> None:
    async def test() -> None:
        async with watched("board# $") as (device, console, watch):
            told: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            watch.expect(told.set_result)
            await device.say(b"\r\nboard# ")
            for _question in range(2):
                assert await device.hear_line() == b"\n"
                await device.say(b"\r\nboard# ")
            assert await told == b"\r\nboard# "
            assert not console.has_ended

    run(test(), jumping=True)


def test_a_reboot_that_was_taken_back_is_none_that_was_meant() -> None:
    async def test() -> None:
        async with watched() as (device, console, watch):
            watch.expect(lambda said: pytest.fail(f"told: {said!r}"))
            watch.expect(None)
            await device.say(BOOT + b"board login: ")
            for _question in range(2):
                assert await device.hear_line() == b"\n"
                await device.say(b"\r\nboard login: ")
            assert "has rebooted in the middle of a test" in str(await console.ended())

    run(test(), jumping=True)
