"""Reboots that a test has announced (``lava-reboot``): which may be, and how the device is awaited afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dispatcher.console.connection import Console
from dispatcher.console.reboot import RebootWatch
from dispatcher.console.shell import PROMPT_LIMIT, Shell
from dispatcher.errors import CallRefused, ConsoleError, ConsoleTimeout, DeviceRebooted

CALL: Final = "REBOOT"
"""What ``lava-reboot`` says, with the definition's run, the step and the boot's id; alone, that no reboot comes."""

CASE: Final = "multinode-reboot"
"""The test case that a reboot leaves in its definition's suite."""

ANSWER = 20.0
"""Seconds that a shell has to say of which boot it is; one of a system that goes down may go before it has."""

QUESTION: Final = 2 * PROMPT_LIMIT
"""Bytes that are typed for that, at the most; where characters have pauses between them, their time is added."""

SETTLE = 1.0
"""Seconds after which what a shell that was left shows is over."""

_STEP_DIGITS: Final = 9


@dataclass(frozen=True, slots=True)
class Announced:
    """A reboot that is on its way.

    :ivar suite: the run of the definition that goes on afterwards, behind the step of this number.
    :ivar boot_id: of the boot that ends; empty where the device cannot tell (random(4)).
    :ivar began: on the event loop's clock; all of it may take ``limit`` seconds.
    """

    suite: str
    step: int
    boot_id: str
    began: float
    limit: float

    @property
    def deadline(self) -> float:
        """When the device has to be back, on the event loop's clock."""
        return self.began + self.limit


class Reboots:
    """The reboots of one test action.

    :param steps: each run of a definition → how many steps it has.
    :param limit: seconds that the job allows a boot, None where it says nothing.
    :param deadline: the test action's end, on the event loop's clock.
    :param noticed: whether it is known what the device shows when it is up again.
    :ivar watch: notices them.
    :ivar announced: the one that is on its way.
    """

    def __init__(
        self, watch: RebootWatch, steps: Mapping[str, int], *, limit: float | None, deadline: float, noticed: bool
    ) -> None:
        self.watch = watch
        self.announced: Announced | None = None
        self._steps = steps
        self._limit = limit
        self._deadline = deadline
        self._noticed = noticed
        self._behind = dict.fromkeys(steps, 0)

    def announce(self, args: Sequence[str], running: str, now: float) -> Announced:
        """Take what ``lava-reboot`` has said.

        :param running: the run of a definition that the device is in.
        :raises CallRefused: the test could not go on after it.
        """
        suite, step, boot_id = (*args, "", "", "")[:3]
        # A device that lies may send more digits than int() takes.
        number = int(step) if step.isascii() and step.isdigit() and len(step) <= _STEP_DIGITS else 0
        if suite not in self._steps or suite != running or not self._behind[suite] < number <= self._steps[suite]:
            raise CallRefused("only a step of the definition that runs can reboot the device")
        if not self._noticed:
            raise CallRefused("the device file has neither prompts nor auto_login, by which the device would be known")
        if self.announced is not None:
            raise CallRefused("the device reboots already")
        left = self._deadline - now
        limit = left if self._limit is None else min(self._limit, left)
        self.announced = Announced(suite, number, boot_id, now, limit)
        return self.announced

    def failure(self, error: ConsoleError) -> ConsoleError:
        """Why the test does not go on: a console's error, and the reboot that it came in, if any."""
        if self.announced is None:
            return error
        within = f" within {self.announced.limit:.3g} s" if isinstance(error, ConsoleTimeout) else ""
        what = f"the device has not come back from the reboot in step {self.announced.step} of {self.announced.suite}"
        return ConsoleError(f"{what}{within}: {error.what}", where=error.where, hint=error.hint)

    def settle(self, *, done: bool) -> None:
        """The device is back, or does not reboot after all."""
        if done and self.announced is not None:
            self._behind[self.announced.suite] = self.announced.step
        self.announced = None
        self.watch.expect(None)


async def boot_id_of(shell: Shell, deadline: float) -> str:
    """The id of the boot that a shell runs in (random(4)); empty where the device cannot tell."""
    command = "{ read -r R </proc/sys/kernel/random/boot_id;} 2>/dev/null"
    return (await shell.run(command, deadline=deadline, check=False)).value


async def come_back(
    console: Console,
    announced: Announced,
    log_in: Callable[[float], Awaitable[None]],
    start: Callable[[float], Awaitable[Shell]],
) -> tuple[Shell, str]:
    """Wait for the system that comes up, log in, and start a shell there; with the id of its boot.

    A prompt of the system that goes down may still answer, so one whose boot is the old one is left again.

    :param log_in: gets to a prompt until a deadline; ``start``: starts a shell there, until one.
    :raises ConsoleError: no other system has come until the reboot's deadline, or the console ended.
    """
    loop = asyncio.get_running_loop()
    still_up = False
    while True:
        try:
            await log_in(announced.deadline)
            until = min(announced.deadline, loop.time() + ANSWER + console.seconds_to_type(QUESTION))
            shell = await start(until)
            boot_id = await boot_id_of(shell, until)
            if not boot_id or boot_id != announced.boot_id:
                return shell, boot_id
            still_up = True
            await shell.leave()
        except (ConsoleTimeout, DeviceRebooted):
            if loop.time() < announced.deadline and not console.has_ended:
                continue
            if still_up:
                raise ConsoleTimeout("only the system that was to go down has answered", where=console.name) from None
            raise
        await asyncio.sleep(SETTLE)
        console.forget()
