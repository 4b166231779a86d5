"""Keeps a device's kernel from printing between what is typed at its shell, and lets it print again for the tests.

What the kernel prints on its console is decided by console_loglevel, the first number of ``/proc/sys/kernel/printk``
(proc(5), ``dmesg -n``): messages of a lower level are printed. Only root may write it, and most containers may not.

A ``read`` of the shell's would not do: it reads byte by byte, of which the kernel gives the first alone, and a kernel
that was started with ``debug`` has level 10.

While the level is not what was found, the loop of the shell has a trap that puts that back when the loop ends: because
it is left, because the next run has it leave after this one was killed, or because the terminal hangs up. A level that
somebody else has set meanwhile stays.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from dispatcher.console.shell import Shell

PRINTK = "/proc/sys/kernel/printk"

QUIET: Final = 1
"""The level at which only a kernel that goes down prints."""

LOUDEST: Final = 8
"""The level at which even messages for debugging are printed."""


class KernelMessages:
    """The console_loglevel of one device.

    :param level: what it is to be while tests run, from :data:`QUIET` to :data:`LOUDEST`; None: what it is.
    :param unable: called when such a level cannot be set; once a shell.
    """

    def __init__(self, level: int | None, unable: Callable[[], None]) -> None:
        self._level = level
        self._unable = unable
        self._shell: Shell | None = None
        self._able = True

    @asynccontextmanager
    async def quiet(self, shell: Shell, deadline: float) -> AsyncIterator[None]:
        """Have the kernel print nothing where it can be told so, and afterwards what it is to print while tests run.

        It stays quiet after an exception, until the loop of the shell ends.

        :param deadline: on the event loop's clock.
        :raises dispatcher.errors.ConsoleTimeout: no answer before the deadline.
        """
        if shell is not self._shell:
            self._shell, self._able = shell, True
        if not self._able:
            yield
            return
        # A level that is low enough is written too: only that tells whether it can be.
        ask = f"R=$(cat {PRINTK})&&R=${{R%%[!0-9]*}}&&{{ [ $R -le {QUIET} ]&&_p=$R||_p={QUIET};echo $_p >{PRINTK};}}"
        keep = f"_q=${{_q:-$R}}&&trap '{_put_back(QUIET)}' 0 1"
        answer = await shell.run(
            f"{{ {ask};}} 2>/dev/null&&{keep}", deadline=deadline, check=False, doing="quiet the kernel's messages"
        )
        self._able = answer.status == 0
        if not self._able and self._level is not None:
            self._unable()
        yield
        if self._able:
            await shell.run(self._after(), deadline=deadline, check=False, doing="let the kernel print its messages")

    def _after(self) -> str:
        if self._level is None:
            return f"{_put_back(QUIET)};_q=;trap - 0 1"
        return f"echo {self._level} >{PRINTK};trap '{_put_back(self._level)}' 0 1"


def _put_back(ours: int) -> str:
    """A command of the loop's shell that sets the level that was found, if it is still what we have made it."""
    return f"{{ _p=$(cat {PRINTK})&&[ ${{_p%%[!0-9]*}} = {ours} ]&&echo $_q >{PRINTK};}} 2>/dev/null"
