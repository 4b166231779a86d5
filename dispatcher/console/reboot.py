"""Notices that a device shows a prompt where its test should be running: it has rebooted, or somebody ended the test.

What is printed proves nothing, a test may print a boot's log or a prompt. So a prompt that is followed by silence is
asked: an empty line makes a shell and a login show their prompt again, and a test, or a call that waits, nothing.
What a system starts late prints below its prompt, so after a boot a long silence is asked, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Sequence
from typing import Final

from dispatcher.console.connection import SEARCH_WINDOW, Console, plain_text
from dispatcher.errors import ConsoleClosed, DeviceRebooted
from dispatcher.framing.grammar import KERNEL_STAMP

QUIET: Final = 2.0
"""Seconds of silence after a prompt before it is asked, and between two answers."""

ANSWER: Final = 10.0
"""Seconds that a prompt has to answer; one that does not was none."""

QUESTIONS: Final = 2
"""How many empty lines a prompt has to answer, each, to be believed."""

SILENCE: Final = 60.0
"""Seconds of silence after which a device is asked once that has booted and shows no prompt; while a reboot is meant,
again and again after twice as long. A boot loader stops at what is typed: it has said something by then."""

_LOGIN: Final = rb"(?:^|\s)login: ?$"
_KERNEL: Final = re.compile(KERNEL_STAMP.pattern + rb"[^\n]*(?:\n|\Z)")
"""What the kernel prints, at any time, also behind a prompt."""

_BANNER: Final = b"Linux version "
_BOOT: Final = re.compile(rb"(?:^|[\n\]] ?)" + _BANNER + rb"[0-9]")


def login_prompt(said: bytes) -> bytes | None:
    """The login prompt that some output ends with, but for what the kernel prints."""
    line = _last_line(said)
    return line if re.search(_LOGIN, line) else None


def _last_line(said: bytes) -> bytes:
    return _KERNEL.sub(b"", plain_text(said)).rpartition(b"\n")[2]


class RebootWatch:
    """Listens while a test runs, from the first :meth:`hear` to :meth:`cancel`; ends the console with
    :class:`~dispatcher.errors.DeviceRebooted`, unless the reboot was meant.

    :param prompts: regular expressions of what the device shows when it has booted.
    """

    def __init__(self, console: Console, prompts: Sequence[str]) -> None:
        self._console = console
        self._prompts = [re.compile(prompt.encode()) for prompt in prompts] + [re.compile(_LOGIN)]
        self._loop = asyncio.get_running_loop()
        self._tail = bytearray()
        self._booted = False
        self._unasked = False
        """Whether a boot has been seen since the device was asked last."""
        self._silence = SILENCE
        self._asked = 0
        self._act = self._look
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._typing: asyncio.Task[None] | None = None
        self._meant: Callable[[bytes], None] | None = None

    def expect(self, told: Callable[[bytes], None] | None) -> None:
        """A reboot is meant from now on: have it told instead of ending the console. None: it is not any more.

        A kernel that says its version is believed at once then.

        :param told: what the new system has said by then, which is its prompt perhaps. Called once.
        """
        self._meant = told
        self._booted = self._unasked = False
        self._silence = SILENCE
        self._asked = 0
        self._tail.clear()

    def hear(self, data: bytes) -> None:
        """Take what the console said. Never waits."""
        self._tail += data
        if self._meant is not None and (boot := _BOOT.search(self._tail)):
            self._tell(self._meant, bytes(self._tail[boot.start() :]))
            return
        if len(self._tail) > 2 * SEARCH_WINDOW:
            self._search()
        self._later(QUIET, self._look)

    def _tell(self, told: Callable[[bytes], None], said: bytes) -> None:
        self.cancel()
        self._meant = None
        told(said)

    def cancel(self) -> None:
        """Ask nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._typing is not None:
            self._typing.cancel()

    def _search(self) -> None:
        """Look for a boot in what was said, and let go of all but its end."""
        if _BANNER in self._tail and _BOOT.search(self._tail) is not None:
            self._booted = self._unasked = True
        del self._tail[:-SEARCH_WINDOW]

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        """Do something after some time, and not what was to be done until now."""
        self._act, self._due = act, self._loop.time() + seconds
        # Most often it is only put off, by each block that a UART hands over: the timer that runs finds that out.
        if self._timer is None or self._timer.when() > self._due:
            self._start()

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._due, self._fire)

    def _fire(self) -> None:
        self._timer = None
        if self._loop.time() < self._due:
            self._start()
        else:
            self._act()

    def _look(self) -> None:
        """It has been quiet for a while."""
        self._search()
        line = _last_line(bytes(self._tail))
        if not line.strip() or not any(prompt.search(line) for prompt in self._prompts):
            self._asked = 0
            if self._meant is not None or self._unasked:
                self._later(self._silence - QUIET, self._ask_silence)
        elif self._asked < QUESTIONS:
            self._ask()
        elif self._meant is not None:
            self._tell(self._meant, bytes(self._tail))
        else:
            rebooted, ended = "the device has rebooted in the middle of a test", "the test on the device has been ended"
            what = rebooted if self._booted else ended
            shown = line.decode(errors="replace").strip()
            self._console.fail(DeviceRebooted(f"{what}: it answers with {shown!r}", where=self._console.name))

    def _ask_silence(self) -> None:
        if self._meant is not None:
            self._silence *= 2
            self._later(self._silence, self._ask_silence)
        elif not self._unasked:
            return  # it was meant, and taken back
        self._type_soon()

    def _ask(self) -> None:
        self._asked += 1
        self._type_soon()
        self._later(ANSWER, self._unanswered)

    def _type_soon(self) -> None:
        self._unasked = False
        self._tail.clear()
        self._typing = asyncio.get_running_loop().create_task(self._type())

    async def _type(self) -> None:
        with contextlib.suppress(ConsoleClosed):  # whoever runs the test is told by the console itself
            await self._console.send(b"\n")

    def _unanswered(self) -> None:
        self._asked = 0
