"""Getting to a shell: from whatever a console shows after it was opened to a shell that has answered.

A prompt alone proves nothing (a boot log may hold it), so a shell is believed when it has run a command: the text
``ready-N`` that it is asked to print is typed in two halves, which no echo can put together. Login prompts are
answered until then, also after something that looked like a shell's prompt.

Login commands (``sudo -i``, ``su -``) lead to another shell, which may ask for a password first. The shell that answers
afterwards may be the old one all the same, so the first question to it asks with what status the command has ended: a
shell that has just begun says 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from dispatcher.console import leftover
from dispatcher.console.connection import INTERRUPT, Console
from dispatcher.console.leftover import Leftover
from dispatcher.console.shell import ANY_LINE, NOT_WHOLE_SAID, RELEASE
from dispatcher.errors import ConsoleClosed, ConsoleError, ConsoleTimeout
from dispatcher.framing.grammar import KERNEL_STAMP
from dispatcher.framing.reliable import Seed

NUDGE_AFTER = 3.0
"""Seconds of silence without a prompt after which an empty line is typed: a shell that is up shows its prompt."""

BOOT_SILENCE = 30.0
"""The same on a device that was reset, or that has said something: it may be booting, and an empty line stops a boot
loader's countdown. Boards train their memory and wait for their network in silence, for many seconds."""

TALK_LIMIT = 180.0
"""Seconds that a device which nobody has reset may talk without a pause before it is asked all the same: what an
earlier test has left in the background may print for ever below its prompt."""

UP = 300.0
"""Seconds on a kernel's clock from which on what it prints is no boot: its device is up, and may talk for ever."""

PROBE_AFTER = 1.0
"""Seconds without an answer after which a shell is asked again; the first characters typed are often lost."""

SETTLE = 0.3
"""Seconds in which nothing may follow a second login prompt: ``Last login:`` is none."""

REFUSALS = 5
"""``Login incorrect`` so many times is believed; some may come of what was typed while the device booted."""

CALM_LIMIT = 2.0
"""Seconds that a shell which has answered may take to show its prompt before a login command is typed all the same."""

_LAST_NUDGE, _LAST_PROBE = 60.0, 10.0
_GENTLE_PROBES, _GENTLE_PROBES_OF_A_COMMAND = 2, 5
_STATUS_PROBES = 2
_HARD_NUDGE = 4
_SOON, _MOMENTS = 0.01, 6
_REFUSED = re.compile(rb"[Ll]ogin incorrect")
_QUESTION = re.compile(rb"\s*echo rea''dy-[0-9]+(?:-\$\?)?\.\s*")
"""The echo of what asks for a shell, which its own terminal shows of a program that reads nothing."""

_TELNETS = re.compile(rb"Trying .*\.\.\.|Connected to .*\.|Escape character is .*\.")
"""What Debian's telnet says itself, of which no board boots."""
_MORE = re.compile(rb"(?=\S)")
_ANYTHING = re.compile(rb".+", re.DOTALL)
_ASKS_PASSWORD = re.compile(rb"[Pp]ass(?:word|phrase)[^\n]*: ?\Z")
"""What sudo, su and their like ask (sudoers(5), passprompt)."""

_Act = Callable[[], Awaitable[None]]

Tell = Callable[[int, str, int], None]
"""Told of a login command that has failed: its number from 1, its first word (of ``NAME=VALUE`` the name, as the value
may be secret), and its status."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What to type at a login prompt, and at the shell that follows. LAVA's ``auto_login``."""

    login_prompt: str
    username: str
    password_prompt: str | None = None
    password: str | None = None
    commands: tuple[str, ...] = ()


async def login(
    console: Console,
    *,
    prompts: Sequence[str],
    credentials: Credentials | None,
    deadline: float,
    booting: bool = False,
    silence: float | None = None,
    believe: bool = False,
    failed: Tell | None = None,
    seed: Seed | None = None,
) -> None:
    """Wait for a shell, logging in where the device asks for it.

    :param prompts: regular expressions of shell prompts, which need not allow for colours and other escape sequences;
        empty where the console is a shell at once.
    :param deadline: on the event loop's clock, for all of it.
    :param booting: the device has just been reset.
    :param silence: seconds within which the console must have said something, None for no limit.
    :param believe: a prompt is enough, and is not asked: what shows it may be no shell.
    :param failed: told when a login command has failed; who logs in goes on.
    :param seed: what the frames of this run begin with; a test that says others is one of an earlier run, and is ended.
    :raises ConsoleTimeout: no prompt came, or no shell answered at it.
    :raises ConsoleError: the device does not let this user in, or there is no password for a login command.
    :raises ConsoleClosed: the console ended; its last words are the hint.
    """
    attempt = _Login(console, prompts, credentials, booting, believe, failed, seed)
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle | None = None
    mute = False

    def listen(limit: asyncio.Timeout) -> None:
        nonlocal mute
        mute = _is_echo(console.recent)
        if mute:
            limit.reschedule(loop.time())

    try:
        async with asyncio.timeout_at(deadline) as limit:
            if silence is not None:
                timer = loop.call_later(silence, listen, limit)
            await attempt.run()
    except ConsoleClosed as error:
        if error.hint is None and (said := console.last_line(but=_QUESTION)):
            error.hint = f"the console said last: {said!r}"
        raise
    except TimeoutError:
        if mute:
            hint = "timeouts: connection says so; is the device on, and this its console, at the right speed?"
            raise ConsoleTimeout(f"nothing came in {silence:g} s", where=console.name, hint=hint) from None
        raise attempt.late() from None
    finally:
        if timer is not None:
            timer.cancel()


class _Login:
    """One attempt at a console: what is waited for now, and what is done when it comes or does not."""

    def __init__(
        self,
        console: Console,
        prompts: Sequence[str],
        credentials: Credentials | None,
        booting: bool,
        believe: bool,
        failed: Tell | None,
        seed: Seed | None,
    ) -> None:
        self._booting = booting
        self._believe = believe
        self._console = console
        self._credentials = credentials
        self._prompts = [_pattern(prompt) for prompt in prompts]
        self._at_prompt = not prompts and credentials is None
        """Whether a shell's prompt has been seen, or is not waited for."""
        self._failed = failed
        self._after_command = False
        """Whether a login command has been typed."""
        self._password_is_due = False
        """Whether a name has been typed, and no password since."""
        self._names_typed = self._refusals = self._nudges = self._probes = 0
        self._unanswered = 0
        """Questions since the last answer."""
        self._patience = PROBE_AFTER if self._at_prompt else NUDGE_AFTER
        self._typed = asyncio.get_running_loop().time()
        self._leftover = Leftover(seed)
        self._leftovers = 0
        self._found: re.Match[bytes]

    async def run(self) -> None:
        if self._at_prompt:
            await self._probe()
        await self._reach_a_shell()
        for number, command in enumerate(self._credentials.commands if self._credentials else (), 1):
            await self._calm()
            # Another shell may answer from now on, `sudo -i` for one, and its prompt need not be known. It is asked at
            # a prompt, or after a while: a question that comes at once would be read as a password.
            self._at_prompt, self._patience, self._unanswered = not self._prompts, PROBE_AFTER, 0
            self._after_command, self._password_is_due = True, False
            await self._type(command.encode() + b"\n")
            status = await self._reach_a_shell()
            if status and self._failed is not None:
                self._failed(number, command.strip().partition(" ")[0].partition("=")[0], status)

    async def _calm(self) -> None:
        """Let the shell that has answered show its prompt, which is not that of the next one."""
        loop = asyncio.get_running_loop()
        until = loop.time() + CALM_LIMIT
        with contextlib.suppress(ConsoleTimeout):
            if self._prompts and not self._believe:
                await self._console.expect(self._prompts, until, plain=True)
            while loop.time() < until:
                await self._console.expect([_ANYTHING], min(loop.time() + SETTLE, until))

    async def _reach_a_shell(self) -> int:
        """Wait for a shell's answer; the status of the login command before it, 0 where it does not tell."""
        while True:
            acts = [*self._login_acts(), *self._shell_acts(), *self._leftover_acts()]
            try:
                index, found = await self._console.expect([each[0] for each in acts], self._until(), plain=True)
            except ConsoleTimeout:
                await self._nothing_came()
                continue
            act = acts[index][1]
            if act is None:
                return 0 if self._believe else int(found["status"] or 0)
            self._found = found
            await act()

    def _login_acts(self) -> list[tuple[re.Pattern[bytes], _Act | None]]:
        if self._credentials is None:
            return []
        acts: list[tuple[re.Pattern[bytes], _Act | None]] = [
            (_pattern(self._credentials.login_prompt), self._name),
            (_REFUSED, self._refused),
        ]
        if self._credentials.password_prompt:
            acts.append((_pattern(self._credentials.password_prompt), self._password))
        if self._after_command:
            acts.append((_ASKS_PASSWORD, self._command_asks))
        return acts

    def _shell_acts(self) -> list[tuple[re.Pattern[bytes], _Act | None]]:
        if self._at_prompt:
            # Each question has its own number: what is left of an earlier answer must not be read as this one.
            return [(re.compile(rb"ready-%d(?:-(?P<status>[0-9]{1,3}))?\." % self._probes), None)]
        return [(prompt, None if self._believe else self._prompt) for prompt in self._prompts]

    def _leftover_acts(self) -> list[tuple[re.Pattern[bytes], _Act | None]]:
        # A boot loader would stop at what is typed.
        return [] if self._booting else [(leftover.FRAME, self._left_behind), (NOT_WHOLE_SAID, self._loop_left_behind)]

    def _until(self) -> float:
        if self._at_prompt or self._is_to_be_asked or self._is_up():
            # A shell may answer below a kernel that never stops talking; a device that still boots is to be left alone.
            silent = max(self._typed, self._console.heard) + self._patience
            return min(silent, self._typed + self._patience + _LAST_PROBE)
        boots = not self._nudges and (self._booting or self._console.last_line(_TELNETS))
        patience = max(self._patience, BOOT_SILENCE) if boots else self._patience
        silent = max(self._typed, self._console.heard) + patience
        return silent if self._booting else min(silent, self._typed + max(patience, TALK_LIMIT))

    @property
    def _is_to_be_asked(self) -> bool:
        """Whether a shell is there that need not show a prompt which is known."""
        return self._after_command and not self._believe

    def _is_up(self) -> bool:
        # A boot loader may have followed the kernel that went down.
        stamps = KERNEL_STAMP.findall(self._said_last())
        return bool(stamps) and not self._booting and float(stamps[-1].strip(b"[] ")) >= UP

    def _said_last(self) -> bytes:
        return self._console.recent.rstrip().rpartition(b"\n")[2]

    # --- what came ---------------------------------------------------------------------------------------------

    async def _prompt(self) -> None:
        self._at_prompt, self._patience = True, PROBE_AFTER
        await self._probe()

    async def _name(self) -> None:
        if self._credentials is None:
            return
        if (self._names_typed or self._after_command) and await self._more_follows():
            return
        self._names_typed += 1
        self._password_is_due = True
        # Without a prompt to wait for, a shell is asked for once the login has had its time.
        self._at_prompt, self._patience = not self._prompts, NUDGE_AFTER
        await self._type(self._credentials.username.encode() + b"\n")

    async def _password(self) -> None:
        # A shell would show it in the log, if what looks like the prompt stands in a message of the day.
        if not self._password_is_due and await self._more_follows():
            return
        self._password_is_due = False
        password = self._credentials.password if self._credentials else None
        await self._type((password or "").encode() + b"\n")

    async def _command_asks(self) -> None:
        """A login command asks for a password, in words that are its own."""
        if self._credentials is None or self._credentials.password is None:
            if await self._more_follows():
                return
            raise ConsoleError(
                f"a login command asks {self._console.last_line()!r}, and there is no password",
                where=self._console.name,
                hint="auto_login's password is typed there; sudo asks for none where sudoers has NOPASSWD",
            )
        await self._password()

    async def _refused(self) -> None:
        self._refusals += 1
        if self._refusals >= REFUSALS and self._credentials:
            raise ConsoleError(
                f"the device does not let {self._credentials.username!r} in",
                where=self._console.name,
                hint="see auto_login in the device file: username, password_prompt and password",
            )

    async def _left_behind(self) -> None:
        """A test of an earlier run calls: its calls fail, so that Ctrl-C can end it."""
        answer = self._leftover.answer(self._found[1], asyncio.get_running_loop().time())
        if answer is None:
            return
        self._patience = PROBE_AFTER
        self._nudges = max(self._nudges, _HARD_NUDGE - 1)
        self._unanswered = max(self._unanswered, self._gentle_probes())
        await self._type(answer)
        # If it makes one call after the other, there is no silence, and Ctrl-C works but for moments between two: soon
        # after an answer, and nobody knows how soon.
        await asyncio.sleep(_SOON * 2 ** (self._leftovers % _MOMENTS))
        self._leftovers += 1
        await self._type(INTERRUPT)

    async def _loop_left_behind(self) -> None:
        """A loop of an earlier run has answered."""
        await self._type(RELEASE + b"\n")

    async def _more_follows(self) -> bool:
        try:
            await self._console.expect([_MORE], asyncio.get_running_loop().time() + SETTLE)
        except ConsoleTimeout:
            return False
        return True

    # --- what did not come ---------------------------------------------------------------------------------------

    async def _nothing_came(self) -> None:
        if self._at_prompt or self._is_to_be_asked:
            self._at_prompt = True
            await self._probe()
        elif asyncio.get_running_loop().time() >= self._until():
            await self._nudge()

    async def _nudge(self) -> None:
        self._nudges += 1
        self._patience = min(2 * self._patience, _LAST_NUDGE)
        if self._nudges == 1 or self._believe:
            await self._type(b"\n")
        elif self._nudges < _HARD_NUDGE:
            # A loop that an earlier run has left behind reads no empty lines. As short as can be: the device may be
            # booting, and where more than a FIFO's 16 bytes wait for the kernel's driver, QEMU's PL011 may stay deaf.
            await self._type(ANY_LINE)
        else:
            # And it may be in the middle of a test.
            await self._console.interrupt()
            await self._type(b"\n" + RELEASE + b"\n")

    async def _probe(self) -> None:
        self._probes += 1
        self._unanswered += 1
        gentle = self._unanswered <= self._gentle_probes()
        # A shell that is no POSIX shell may know no $?, so it is not always asked.
        status = b"-$?" if self._after_command and self._unanswered <= _STATUS_PROBES else b""
        question = b"echo rea''dy-%d%b.\n" % (self._probes, status)
        silence = asyncio.get_running_loop().time() - self._console.heard
        if not gentle and silence >= PROBE_AFTER:
            # What was lost may have been a quote, and an earlier run may have left its loop or its test behind.
            await self._console.interrupt()
            question = b"\n" + RELEASE + question
        if self._unanswered > 1:
            self._patience = min(2 * self._patience, _LAST_PROBE)
        await self._type(question)

    def _gentle_probes(self) -> int:
        """Questions before Ctrl-C is typed, which would end a login command that is silent for a while."""
        return _GENTLE_PROBES_OF_A_COMMAND if self._after_command else _GENTLE_PROBES

    async def _type(self, data: bytes) -> None:
        await self._console.send(data)
        self._typed = asyncio.get_running_loop().time()

    # --- giving up -----------------------------------------------------------------------------------------------

    def late(self) -> ConsoleTimeout:
        """What to raise when the deadline has passed."""
        what = "no shell answered"
        if not self._at_prompt:
            waited_for = [pattern.pattern for pattern, _act in (*self._login_acts(), *self._shell_acts())]
            known = [repr(each.decode(errors="replace")) for each in waited_for if each != _REFUSED.pattern]
            what = f"no prompt came; waited for {', '.join(known)}"
        said = self._console.last_line()
        if leftover.FRAME.search(self._said_last()):
            hint = "a test of an earlier run is still there and calls; reset the device, or end that test by hand"
        elif said:
            hint = f"the console said last: {said!r}; see prompts and auto_login in the device file"
        else:
            hint = "the console has said nothing; is the device on, and this its console, at the right speed?"
        return ConsoleTimeout(what, where=self._console.name, hint=hint)


def _is_echo(text: bytes) -> bool:
    """Whether a terminal has said no more than what was typed at it, as one does whose program does not read yet."""
    for typed in (RELEASE.strip(), ANY_LINE.strip(), b"^C"):
        text = text.replace(typed, b"")
    return not text.strip()


def _pattern(expression: str) -> re.Pattern[bytes]:
    return re.compile(expression.encode())
