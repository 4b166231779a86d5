"""Every error this package raises on purpose, and the exit status that each branch ends a run with.

::

    MultinodeError
    ├── UserError            2  something the user wrote is wrong; nothing was opened
    │   ├── UsageError          the command line
    │   ├── FileError           a job or device file: names file and line
    │   └── PluginError         an installed plugin that cannot be used
    ├── WorldError           3  what the user wrote is right, the world did not play along
    │   ├── ConsoleError        a console: names it
    │   │   ├── ConsoleClosed       it ended (end of file, hang-up)
    │   │   ├── DeviceRebooted      it shows a prompt where our shell or its test should be
    │   │   ├── ConsoleTimeout      it did not say what was waited for
    │   │   └── InstallError        the scripts did not arrive whole
    │   ├── CoordinatorError    the coordinator is away, or speaks nonsense
    │   ├── JournalError        the coordinator's journal cannot be opened or written
    │   └── OutputError         the output directory cannot be written
    ├── JobEnded             1  the job's own rules ended it
    ├── GroupError              an event that contradicts the log of its group
    ├── WireError               a request or reply that breaks the coordinator's wire; reason for the peer
    └── CallRefused             a call that the rules of the API forbid, or that failed; reason for the device

The first branch is the user's to mend, the second the lab's. The last three never end a run by themselves: they
are answers that travel back to whoever made the call.
"""

from __future__ import annotations


class MultinodeError(Exception):
    """The root. ``str()`` is what a user reads: ``where: what``, then what to do on a line of its own.

    :param what: what is wrong, one line, no full stop.
    :param where: the file and line, or the console's name.
    :param hint: what to do about it, one line.
    """

    exit_status = 1

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}\n  {self.hint}" if self.hint else text


class UserError(MultinodeError):
    """Something the user wrote is wrong; nothing was opened."""

    exit_status = 2


class UsageError(UserError):
    """The command line."""


class FileError(UserError):
    """A job or device file. ``where`` is ``file:line``."""


class PluginError(UserError):
    """An installed plugin cannot be used. ``where`` is its entry point and distribution."""


class WorldError(MultinodeError):
    """A console, the coordinator or the host failed."""

    exit_status = 3


class ConsoleError(WorldError):
    """A console failed. ``where`` is the device's name."""


class ConsoleClosed(ConsoleError):
    """The console ended. Silence is never told this way: that is :class:`ConsoleTimeout`."""


class DeviceRebooted(ConsoleError):
    """The device answers with a prompt where our shell, or its test, should be running."""


class ConsoleTimeout(ConsoleError):
    """The console did not say what was waited for before the deadline."""


class InstallError(ConsoleError):
    """The scripts did not arrive whole on the device."""


class CoordinatorError(WorldError):
    """The coordinator cannot be reached or broke its protocol. ``where`` is ``host:port``."""


class UntrustedError(CoordinatorError):
    """It and this client do not agree on TLS."""


class JournalError(WorldError):
    """The coordinator's journal cannot be opened or written. ``where`` is its path."""


class OutputError(WorldError):
    """The output directory cannot be written."""


class JobEnded(MultinodeError):
    """A time limit has passed, an essential member has failed, or a test has raised. ``where`` is the device's name."""


class GroupError(MultinodeError):
    """An event contradicts the log of its group (a role nobody defined, a stranger's send)."""


class WireError(MultinodeError):
    """A request or reply that breaks the coordinator's wire. ``what`` is the reason, one line, for the peer."""


class CallRefused(MultinodeError):
    """A call that failed: refused, timed out, or never to be satisfied. ``what`` is the reason, one line."""


class Stopped(BaseException):
    """A signal has ended the run, and everything is closed. No error: nothing but the command line may catch it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
