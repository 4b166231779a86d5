"""What happens to a console as a whole: it is cut, it echoes, its device reboots or is slow to take bytes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from badline import BAD, CLEAN, Faults
from linelab import DEVICE, PARTNER, Lab
from plan import Step, act, check, mixed, run, scripts

from dispatcher.framing.link import HOLD_AFTER
from dispatcher.group.events import Member

pytestmark = pytest.mark.slow

PATIENCE = 240.0


def in_lab(
    scenario: Callable[[Lab], Awaitable[None]],
    root: Path,
    shell: Path,
    faults: Faults = CLEAN,
    seed: int = 1,
    members: tuple[Member, ...] = (DEVICE, PARTNER),
) -> None:
    async def run() -> None:
        async with Lab(root, shell, faults, seed, members=members) as lab:
            try:
                async with asyncio.timeout(PATIENCE):
                    await scenario(lab)
            except TimeoutError:
                raise AssertionError(f"it hangs: {lab.report()}\n{lab.device.shown()[-2000:]!r}") from None
            print(lab.report())

    asyncio.run(run())


async def held(lab: Lab, step: Step) -> None:
    """Wait until the device waits in a call and knows it."""
    await lab.device.noted("call", name=step.verb)
    await asyncio.sleep(1.5 * HOLD_AFTER)


def test_a_call_that_waits_gets_its_answer_when_the_line_is_back(shell: Path, tmp_path: Path) -> None:
    steps = [
        Step("WAIT", "wait-0", "0_first", answer={b"k": b"v w"}, late=True),
        Step("SEND", "send-1", "0_first", pairs={b"k": b"v"}),
    ]

    async def scenario(lab: Lab) -> None:
        await lab.start(lab.board.add_stage(scripts(lab, steps)))
        await held(lab, steps[0])
        lab.line.connected = False
        lab.line.typed.clear()
        await lab.clients[PARTNER.id].send("partner", "wait-0", [("k", "v w")])
        await lab.line.typed.wait()
        assert lab.line.lost > 0, "the answer was typed, and the line was cut"
        lab.line.connected = True
        await lab.finish(["0_first"])
        check(lab, steps)

    in_lab(scenario, tmp_path, shell)


def test_a_line_that_comes_and_goes_loses_nothing(any_shell: Path, tmp_path: Path) -> None:
    async def flap(lab: Lab) -> None:
        generator = random.Random(7)
        while True:
            await asyncio.sleep(generator.uniform(0.02, 0.3))
            lab.line.connected = not lab.line.connected

    async def scenario(lab: Lab) -> None:
        flapping = asyncio.create_task(flap(lab))
        try:
            await run(lab, mixed(7, 20))
        finally:
            flapping.cancel()

    in_lab(scenario, tmp_path, any_shell)


def test_an_echo_is_never_taken_for_the_device(any_shell: Path, tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        await run(lab, mixed(8, 10))

    in_lab(scenario, tmp_path, any_shell, replace(BAD, echo=True))


@pytest.mark.parametrize("baud", [0, 115200])
def test_a_device_that_is_late_at_its_fifo_is_typed_at_slowly(any_shell: Path, tmp_path: Path, baud: int) -> None:
    steps = [Step("WAIT", f"wait-{number}", "0_first", answer={b"k": b"v" * 300}) for number in range(10)]

    async def scenario(lab: Lab) -> None:
        await run(lab, steps)
        assert lab.line.lost > 0, "the FIFO has overrun"
        assert lab.line.down.carried < 3 * 10 * 900, "most frames came through the first time"

    in_lab(scenario, tmp_path, any_shell, Faults(fifo=0.002, baud=baud))


def test_a_device_that_reboots_starts_anew(shell: Path, tmp_path: Path) -> None:
    before = [
        Step("SEND", "send-0", "0_first", pairs={b"k": b"v"}),
        Step("WAIT", "never", "0_first", answer={b"k": b"touch bad"}, late=True),
    ]
    after = mixed(9, 5)

    async def scenario(lab: Lab) -> None:
        await lab.start(lab.board.add_stage(scripts(lab, before)))
        await held(lab, before[1])
        await lab.line.power_off()
        await lab.start([str(lab.board.shell), "-i"])
        lab.line.typed.clear()
        await lab.clients[PARTNER.id].send("partner", "never", [("k", "touch bad")])
        # The answer is typed at whatever has the console now, here a root shell.
        await lab.line.typed.wait()
        lab.forget()
        argv = lab.board.add_stage(scripts(lab, after), stage=1)
        lab.device.session._typist.say([f"exec {' '.join(argv)}\n".encode()])
        partner = asyncio.create_task(act(lab, after))
        await lab.finish(step.suite for step in after)
        partner.cancel()
        assert b"not found" not in lab.device.shown(), "the answer was run as a command"
        lost = lab.device.cases.pop(0)
        assert (lost.suite, lost.name, lost.metadata["reason"]) == ("lava", "0_first", "it did not reach its end")
        check(lab, after)

    in_lab(scenario, tmp_path, shell)


def test_a_wait_all_that_64_members_have_answered_arrives_whole(shell: Path, tmp_path: Path) -> None:
    partners = [Member(str(number), PARTNER.role) for number in range(2, 66)]
    step = Step("WAIT_ALL", "ready", "0_first")

    async def scenario(lab: Lab) -> None:
        for partner in partners:
            client = lab.clients[partner.id]
            await client.send(f"partner {partner.id}", step.id, [("ipaddr", f"10.0.0.{partner.id}"), ("n", "<#>")])
        steps = step.script(bytes(lab.board.cache), b"")
        await lab.start(lab.board.add_stage({step.suite: steps}))
        await lab.finish([step.suite])
        lines = "".join(f"{member.id}:ipaddr=10.0.0.{member.id}\n{member.id}:n=<#>\n" for member in partners)
        assert lab.board.cache.read_text() == lines
        assert [case.result for case in lab.device.cases] == ["pass", "pass"]

    in_lab(scenario, tmp_path, shell, replace(BAD, fifo=0.001), members=(DEVICE, *partners))
