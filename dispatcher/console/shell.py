"""A device's shell that runs one command at a time and says how each ended, over a line that may damage some of it.

Typing at an interactive prompt is at the mercy of line editors: they echo, wrap, complete and cut. So the first thing
typed there starts a loop of a few lines, run by the test shell, that reads plain lines with the echo off.

- The host sends ``#NUMBER COMMAND #NUMBER COMMAND``; the loop runs it if both halves are the same. A ``COMMAND`` that
  begins with ``+`` is a test: the loop says when it has begun, runs the rest in a subshell and puts the tty back. Both
  that and its end are said twice: there is no good moment to ask again.
- Or it sends ``#NUMBER =LENGTH FORMAT``: a format for printf(1) whose output is appended to the file that ``F`` names.
  Its length alone is checked; whoever writes a file checks the whole.
- The loop answers ``KEY NUMBER STATUS VALUE KEY NUMBER STATUS VALUE.``; ``VALUE`` is what the command left in the
  variable ``R``, ``STATUS`` its status, ``+`` for a test that has begun, or ``?`` for a line that is not whole.

A line sent again is run once. A line that reaches a prompt after all is a comment there. One hit, whether it is a lost
or changed byte or a kernel line in between, spares at least one ``KEY`` of an answer: the host sees that it missed one.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
from dataclasses import dataclass
from typing import Final

from dispatcher.console.connection import INTERRUPT, Console, Listener
from dispatcher.console.reboot import login_prompt
from dispatcher.errors import ConsoleError, ConsoleTimeout, DeviceRebooted, InstallError, MultinodeError
from dispatcher.framing.window import begun

LINE_LIMIT: Final = 900
"""Bytes of a command. Sent twice in a line it fits a canonical tty, which keeps 4095."""

PROMPT_LIMIT: Final = 1000
"""Bytes of the line that starts the loop; busybox ash cuts a line at a prompt at 1022."""

FIRST_PATIENCE = 1.0
LAST_PATIENCE = 8.0
"""Seconds without an answer after which a line is sent again: the first time, and after doubling at the most."""

GAP_PATIENCE = 60.0
"""The longest such time when a console was lost in the middle of a test, whose end may have been told meanwhile."""

NOT_WHOLE: Final = -1
"""The status of a command of which no copy has arrived whole."""

LOST: Final = 3
"""How often a line has had no answer, in seven seconds or more, where a login prompt says that the loop is gone."""

CHECK_LIMIT = 30.0
"""Seconds within which a loop has to say whether it was damaged on its way; then another one is started."""

SLOWEST_LINE: Final = 500
"""Bytes a second of a slow line; what is typed may take that long to arrive before patience begins to count."""

FIRST_STOP = 0.5
"""Seconds that a test may take to end after ^C before it is typed again; each time half as long again."""

_LEAVE_TRIES: Final = 6
_SILENCES: Final = 2
"""How often the loop is told to end, at the most, and after how many times without an answer it is taken to have."""

_BURST: Final = 5
_BURST_PAUSE: Final = 0.03
"""How often ^C is typed when one was not enough, and the seconds between: calls that follow each other closely leave
only moments in which the tty heeds it."""

_LOOP = (
    "_k=@KEY@;_t=`stty -g 2>/dev/null`;stty -echo 2>/dev/null;_e=`stty -g 2>/dev/null`;"
    # One flipped bit makes a backslash, a colon or a 3 a character that ends or stops the loop, or what it says.
    "stty -ixon quit undef susp undef 2>/dev/null;_d=`stty -g 2>/dev/null`;"
    # Many profiles export it, and bash's and ksh93's read gives up after so many seconds.
    "TMOUT=0;_i=;trap _i=1 2;_n=0;_s=0;R=;"
    # R may be a message of several lines; an answer is one.
    '_a(){ _r="$_k $_n $1";set -f;set -- $R;set +f;_r="$_r $*";printf "\\n%s %s.\\n" "$_r" "$_r";};_a 0;'
    "while :;do "
    # An interrupt ends a read like the end of file does.
    'IFS= read -r _l||{ [ "$_i" ]||break;_i=;continue;};'
    'case $_l in "#"[0-9]*" "?*);;*)continue;;esac;'
    "_l=${_l#?};_m=${_l%% *};_l=${_l#* };case $_l in "
    '=*)_h=${_l#* };[ "=${#_h}" = "${_l%% *}" ]&&_h==$_h||_h=;;'
    '*)_h=${_l%" #$_m "*};[ "$_l" = "$_h #$_m $_h" ]||_h=;;esac;'
    '[ "$_h" ]||{ _a "?";continue;};'
    '[ "$_m" = "$_n" ]||{ _n=$_m;R=;case $_h in '
    '=*)printf "${_h#=}">>"$F";_s=$?;;'
    '+*)_a +;_a +;stty "$_e" 2>/dev/null;(eval "${_h#?}");_s=$?;stty "$_d" 2>/dev/null;_a $_s;;'
    '*)eval "$_h";_s=$?;;esac;};_a $_s;done'
)

# The first bytes typed at a console are often lost, the # too: no shell but the loop's may end itself for that.
_LEAVE = 'case $_k in mn*)_a 0;stty "$_t" 2>/dev/null;exit;;esac'
_END_OF_FILE: Final = b"\x04"
ANY_LINE: Final = b"#0 ?\n"
"""A line that is not whole; any such loop says so, and then shows :data:`NOT_WHOLE_SAID`. A comment at a prompt."""

NOT_WHOLE_SAID: Final = re.compile(rb"\b(mn[0-9a-f]{8} [0-9]+ \? )[^\n]*\1[^\n]*\.")

RELEASE: Final = f"#0- {_LEAVE} #0- {_LEAVE}\n".encode("ascii")
"""A line that ends any such loop, one that an earlier run has left behind too; a comment at a prompt."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How a command ended: its exit status, and what it left in ``R``, with white space as single blanks."""

    status: int
    value: str


@dataclass(frozen=True, slots=True)
class _Report:
    """One answer of the loop as it stands on the line; ``status`` is a number, ``+`` or ``?``."""

    number: str
    status: str
    value: str

    @staticmethod
    def pattern(key: bytes) -> re.Pattern[bytes]:
        return re.compile(re.escape(key) + rb" (\S+) ([0-9]+|[+?]) ([^\n]*?) " + re.escape(key) + rb" \1 \2 \3\.")

    @classmethod
    def read(cls, found: re.Match[bytes]) -> _Report:
        number, status, value = (part.decode("utf-8", "surrogateescape") for part in found.groups())
        return cls(number, status, value)


class Shell:
    """The loop on the device. Made by :func:`start`."""

    def __init__(self, console: Console, key: bytes) -> None:
        self.console = console
        self.busy = False
        """Whether a test owns the console; nothing of ours may be typed then."""
        self._key = key
        self._pattern = _Report.pattern(key)
        self._number = 0
        self._test: _Test | None = None

    async def run(
        self,
        command: str,
        *,
        deadline: float,
        check: bool = True,
        doing: str | None = None,
        hint: str | None = None,
        copies: int | None = None,
    ) -> Answer:
        """Run a command that is quick and does not read the console; it is sent again until it has answered.

        :param command: one line of printable ASCII.
        :param deadline: on the event loop's clock.
        :param check: a status other than 0 is an :class:`~dispatcher.errors.InstallError`.
        :param doing: what the command is for, as it would follow "cannot"; for messages, as is ``hint``.
        :param copies: how many may be refused as damaged before the status is :data:`NOT_WHOLE`; None: any number.
        :raises ConsoleTimeout: no answer before the deadline.
        :raises DeviceRebooted: there is a login prompt in the loop's place.
        """
        answer = await self._until(deadline, self._doubled(command), doing or f"run {command[:60]!r}", copies)
        if check and answer.status != 0:
            why = answer.value or f"the command ended with status {answer.status}"
            raise InstallError(f"cannot {doing or f'run {command[:200]!r}'}: {why}", where=self.console.name, hint=hint)
        return answer

    async def append(self, piece: str, *, deadline: float, doing: str) -> Answer:
        """Have a piece of a file appended to what ``F`` names; only its length is checked.

        :param piece: a format for printf(1), one line of printable ASCII.
        """
        return await self._until(deadline, self._line(piece, f"={len(piece)} {piece}"), doing)

    async def run_test(self, command: str, listener: Listener) -> Answer:
        """Run a command that may take hours and owns the console meanwhile; its output goes to a listener.

        It runs in a subshell, so whatever it sets is gone afterwards. ^C ends that at once, without what it still waits
        for: a program that has to put something in order then must be in its place (``exec``). Nothing but what the
        listener's owner sends is typed meanwhile; the listener gets the output as it comes, without the loop's answers.
        """
        line = self._doubled("+" + command)
        test = self._test = _Test(self._key, self._pattern, str(self._number), listener)
        self.busy = True
        self.console.forget()
        self.console.listen(test.hear, test.back)
        ending = asyncio.ensure_future(self.console.ended())
        try:
            await self._follow(test, line, ending)
        finally:
            ending.cancel()
            self.console.listen(None)
        if test.answer is None:
            raise self.console.failure()
        self.busy = False
        return test.answer

    async def _follow(self, test: _Test, line: bytes, ending: asyncio.Future[MultinodeError]) -> None:
        patience = _patience(line)
        ask = True
        while test.answer is None and not ending.done():
            if ask:
                test.refused = False
                # In the middle of a test any line will do: the loop speaks of it once it reads again.
                await self.console.send(ANY_LINE if test.gap and test.begun else line)
            news = asyncio.ensure_future(test.news.wait())
            quiet = None if test.begun and not test.missed and not test.gap else patience
            try:
                await asyncio.wait((news, ending), timeout=quiet, return_when=asyncio.FIRST_COMPLETED)
            finally:
                news.cancel()
            ask = test.refused or not test.news.is_set()
            if not test.news.is_set():
                patience = min(2 * patience, GAP_PATIENCE if test.gap else max(LAST_PATIENCE, _patience(line)))
            test.news.clear()

    async def leave(self) -> None:
        """End the loop: the shell that the device had before reads its console again, with the tty as it was."""
        line = self._doubled(_LEAVE)
        loop = asyncio.get_running_loop()
        silences = 0
        for _attempt in range(_LEAVE_TRIES):
            await self.console.send(line)
            until = loop.time() + _patience(line)
            try:
                if await self._answer(until) is not None:
                    return
            except ConsoleTimeout:
                # It has gone perhaps, and its answer was lost; or the line, with the console.
                silences += loop.time() >= until
                if silences == _SILENCES:
                    return

    async def _is_whole(self, code: str) -> bool:
        """Whether the loop says that it is what was typed. One that was damaged may answer once and never again."""
        line = self._doubled("R=$1")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CHECK_LIMIT + self.console.seconds_to_type(4 * len(line))):
                return (await self._ask(line)).value == code
        return False

    async def _abandon(self) -> None:
        """End a loop that is not what was typed, if it is there."""
        await self.leave()
        self.console.forget()
        await self.console.send(ANY_LINE)
        with contextlib.suppress(ConsoleTimeout):
            report = await self._report(asyncio.get_running_loop().time() + FIRST_PATIENCE)
            if report.status == "?":  # no shell at a prompt, which this would end
                await self.console.send(_END_OF_FILE)

    async def stop(self, *, deadline: float) -> None:
        """End the test that runs by ^C, typed until the loop answers; then commands can be run again.

        One is not enough: it is lost between a fork and its exec, and on a call that waits, which has the tty read it
        as a byte. The test's listener goes on to hear: who stops a test has to answer its calls, so that they end.

        :raises ConsoleTimeout: the test did not end before the deadline.
        """
        if self._test is None or not self.busy:
            return
        self.console.listen(self._test.hear, self._test.back)
        self._test.refused = False
        try:
            async with asyncio.timeout_at(deadline):
                await self._interrupt(self._test)
        except TimeoutError:
            raise ConsoleTimeout("the test does not heed Ctrl-C", where=self.console.name) from None
        finally:
            self.console.listen(None)
        self.busy = False

    async def _interrupt(self, test: _Test) -> None:
        pause = FIRST_STOP
        await self.console.send(INTERRUPT)
        while not await test.over(pause):
            # The end may have been told, and lost: any line makes the loop speak.
            await self.console.send(b"\n" + ANY_LINE)
            if await test.over(pause):
                return
            for _ in range(_BURST):
                await self.console.send(INTERRUPT)
                await asyncio.sleep(_BURST_PAUSE)
            pause *= 1.5

    # --- lines and answers -----------------------------------------------------------------------------------

    def _doubled(self, command: str) -> bytes:
        while f" #{self._number + 1} " in command:  # where the halves part could not be told
            self._number += 1
        return self._line(command, f"{command} #{self._number + 1} {command}")

    def _line(self, command: str, body: str) -> bytes:
        if not (command.isascii() and command.isprintable() and 0 < len(command) <= LINE_LIMIT):
            raise ConsoleError(f"this cannot be typed: {command[:80]!r}", where=self.console.name)
        self._number += 1
        return f"#{self._number} {body}\n".encode("ascii")

    async def _until(self, deadline: float, line: bytes, doing: str, copies: int | None = None) -> Answer:
        try:
            async with asyncio.timeout_at(deadline):
                return await self._ask(line, copies)
        except TimeoutError:
            raise ConsoleTimeout(
                f"the device's shell stopped answering; it was to {doing}",
                where=self.console.name,
                hint=_last_line(self.console),
            ) from None

    async def _ask(self, line: bytes, copies: int | None = None) -> Answer:
        patience = _patience(line)
        unanswered = refused = 0
        while True:
            await self.console.send(line)
            until = asyncio.get_running_loop().time() + patience
            try:
                answer = await self._answer(until)
            except ConsoleTimeout:
                # What a console that was lost has swallowed says nothing of how patient to be.
                if asyncio.get_running_loop().time() >= until:
                    patience = min(2 * patience, max(LAST_PATIENCE, _patience(line)))
                    unanswered += 1
                if unanswered >= LOST:
                    self._check_for_a_login()
                continue
            if answer is not None:
                return answer
            refused += 1
            if refused == copies:
                return Answer(NOT_WHOLE, "")

    def _check_for_a_login(self) -> None:
        """:raises DeviceRebooted: the console shows a login prompt."""
        if (prompt := login_prompt(self.console.recent)) is not None:
            shown = prompt.decode(errors="replace").strip()
            raise DeviceRebooted(f"the device has rebooted: it answers with {shown!r}", where=self.console.name)

    async def _answer(self, deadline: float) -> Answer | None:
        """The answer to the line sent last; None for a line that did not arrive whole."""
        while True:
            report = await self._report(deadline)
            if report.status == "?":
                return None
            if report.number == str(self._number) and report.status != "+":
                return Answer(int(report.status), report.value)

    async def _report(self, deadline: float) -> _Report:
        _index, found = await self.console.expect([self._pattern], deadline, whole=True)
        return _Report.read(found)


class _Test:
    """Listens to a test: parts the loop's answers from the test's output, which it hands on as it comes."""

    def __init__(self, key: bytes, pattern: re.Pattern[bytes], number: str, listener: Listener) -> None:
        self.news = asyncio.Event()
        self.begun = False
        self.refused = False
        """The loop has answered that the line was not whole."""
        self.missed = False
        """The loop has answered, and nobody can tell what; until it has answered again."""
        self.gap = False
        """The console was lost for a while, and the loop may have told the test's end to nobody."""
        self.answer: Answer | None = None
        self._key = key
        self._pattern = pattern
        self._number = number
        self._listener = listener
        self._held = b""

    async def over(self, patience: float) -> bool:
        """Whether the loop reads lines again by now, or within some seconds: it told the end, or refused a line."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while self.answer is None and not self.refused:
                    self.news.clear()
                    await self.news.wait()
        return self.answer is not None or self.refused

    def back(self) -> None:
        """The console was lost and is open again."""
        self.gap = True
        self.news.set()

    def hear(self, data: bytes) -> None:
        data = self._held + data
        self._held = b""
        while data and self.answer is None:
            start = data.find(self._key)
            if start < 0:
                start = len(data) - begun(data, self._key)
                self._hand_on(data[:start])
                self._held = data[start:]
                return
            self._hand_on(data[:start])
            line, newline, rest = data[start:].partition(b"\n")
            if not newline and len(line) <= 4 * LINE_LIMIT:
                self._held = line
                return
            self._take(line + newline)
            data = rest

    def _hand_on(self, data: bytes) -> None:
        if data:
            self._listener(data)

    def _take(self, line: bytes) -> None:
        found = self._pattern.match(line)
        if found is None:
            self.missed = True
            self._hand_on(line)
        else:
            self._note(_Report.read(found))
        self.news.set()

    def _note(self, report: _Report) -> None:
        if report.status == "?":
            self.refused, self.gap = True, False
        elif report.number == self._number:
            self.begun, self.missed = True, False
            if report.status != "+":
                self.answer = Answer(int(report.status), report.value)


def _patience(line: bytes) -> float:
    return FIRST_PATIENCE + len(line) / SLOWEST_LINE


def _last_line(console: Console) -> str:
    said = console.last_line()
    return f"the console said last: {said}" if said else "the console has said nothing"


async def start(console: Console, shell_command: str, *, deadline: float) -> Shell:
    """Start the loop at whatever prompt the console shows.

    :param shell_command: the shell that runs the tests, such as ``/bin/sh``.
    :raises ConsoleTimeout: the loop did not answer.
    """
    try:
        async with asyncio.timeout_at(deadline):
            while True:
                shell = await _try_to_start(console, shell_command)
                if shell is not None:
                    return shell
    except TimeoutError:
        raise ConsoleTimeout(
            f"the shell did not start {shell_command}",
            where=console.name,
            hint=f"lava_test_sh_cmd in the device file names the shell that runs tests; {_last_line(console)}",
        ) from None


async def _try_to_start(console: Console, shell_command: str) -> Shell | None:
    key = "mn" + secrets.token_hex(4)
    # The key is typed in two parts, so that an echo of this line does not look like an answer.
    code = _LOOP.replace("@KEY@", f'{key[:4]}""{key[4:]}')
    typed = f"{shell_command} -c 'eval \"$1\"' sh '{code}'\n".encode("ascii")
    shell = Shell(console, key.encode("ascii"))
    loop = asyncio.get_running_loop()
    await console.send(typed)
    # An answer that the line lost is given again for any line that the loop can read.
    for last in (False, True):
        try:
            await shell._report(loop.time() + _patience(typed))
        except ConsoleTimeout:
            if last:
                await console.interrupt()
            await console.send(b"\n" + RELEASE if last else ANY_LINE)
            continue
        if await shell._is_whole(code):
            return shell
        await shell._abandon()
        break
    return None
