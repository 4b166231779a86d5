"""What a transport is: one way of reaching a device's console, named by a key of ``console:`` in a device file.

A transport opens the console and hands out a pexpect object on a pollable descriptor; it closes it again and leaves
nothing behind. Reading, searching, recording and paced writing are the same for all of them and are done in
:mod:`dispatcher.console.connection`. Transports are found by the entry point group ``multinode.transports``, the
built-in ones too (:mod:`dispatcher.plugins`).
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Final

from pexpect import fdpexpect
from pexpect.spawnbase import SpawnBase

from dispatcher.errors import UserError

Option = str | int | bool

_LONGEST: Final = 7 * 24 * 3600


def spawn_on(descriptor: int) -> SpawnBase[bytes]:
    """Make pexpect's object for what a transport has opened itself; it never waits."""
    spawn: fdpexpect.fdspawn[bytes] = fdpexpect.fdspawn(descriptor, timeout=None, encoding=None)
    spawn.delaybeforesend = None
    spawn.delayafterread = None
    return spawn


class Transport(ABC):
    """One console, not yet open. Constructing it checks the options and touches nothing.

    :param device: the device's name, for messages.
    :param options: what stands under ``console:``; :attr:`OPTIONS` has told which keys may.
    :raises dispatcher.errors.UserError: an option has a value that cannot be meant.
    """

    OPTIONS: ClassVar[Mapping[str, str]]
    """Each key that ``console:`` may hold for this transport, the transport's own name first, and what it means."""

    def __init__(self, device: str, options: Mapping[str, Option]) -> None:
        self.device = device
        self.options = options

    @abstractmethod
    def open(self) -> SpawnBase[bytes]:
        """Open the console: bytes mode (``encoding=None``), ``child_fd`` fit for poll(2).

        Called in the event loop's thread: it must not wait for the device. One that takes time to reach lets a
        thread do it; where that fails, the descriptor reads end of file and :meth:`ended` says why.

        :raises dispatcher.errors.ConsoleError: it cannot be opened.
        """

    def end_descriptor(self) -> int | None:
        """A descriptor that polls readable once the console has ended although its own does not say so; None: there is
        none. Asked once, after :meth:`open`."""
        return None

    @abstractmethod
    async def close(self) -> None:
        """Close the console and end every process that :meth:`open` started. Called after :meth:`open`; where there is
        :meth:`patience`, also while nothing is open, which does no harm."""

    def patience(self) -> float:
        """Seconds within which a console that has ended is to be opened again; 0: its end is the end. Asked then."""
        return 0.0

    async def reopen(self) -> SpawnBase[bytes]:
        """Open a console that has ended and was closed once more; the device may be waited for.

        :raises dispatcher.errors.ConsoleError: it cannot be opened now.
        """
        return self.open()

    def write(self, spawn: SpawnBase[bytes], data: bytes) -> int:
        """Write what can be written without waiting; how many bytes that was. ``BlockingIOError``: none now."""
        return os.write(spawn.child_fd, data)

    def seconds(self, name: str, default: int) -> int:
        """The value of an option that is a number of seconds. :raises dispatcher.errors.UserError: it is none."""
        value = self.options.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LONGEST:
            raise UserError(f"{name} {value!r} is not a number of seconds", where=self.device)
        return value

    def line(self) -> str | None:
        """What only one console can have open at a time, such as a device's path; None where there is no such thing."""
        return None

    def access(self) -> str | None:
        """The command by which a person reaches the console once it has been closed here; None: it ends with that."""
        return None

    def ended(self) -> str:
        """Why the console has ended, for a person, after end of file was read."""
        return "the console ended"
