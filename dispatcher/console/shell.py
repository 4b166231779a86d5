"""A device's shell that runs one command at a time and says how each ended, over a line that may lose some of it.

Typing at an interactive prompt is at the mercy of line editors: they echo, wrap, complete and cut. So the first thing
typed there starts a loop of a few lines, run by the test shell, that reads plain lines with the echo off. The host
sends ``#NUMBER LENGTH COMMAND`` and the loop answers ``KEY NUMBER STATUS LENGTH ANSWER.`` once it has run it. A line
that arrives with another length than it names is not run; a line sent again is run once; a line that reaches a prompt
after all is a comment there. ``ANSWER`` is whatever the command left in the variable ``R``. A command that begins with
``=`` is a format for printf(1), whose output is appended to the file that ``F`` names.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from dataclasses import dataclass

from dispatcher.console.connection import Console, Listener
from dispatcher.errors import ConsoleError, ConsoleTimeout, InstallError

LINE_LIMIT = 900
"""Bytes of a line typed into the loop. A canonical tty keeps 4095; busybox ash cuts a line at a prompt at 1022."""

FIRST_PATIENCE = 1.0
LAST_PATIENCE = 8.0
"""Seconds without an answer after which a line is sent again: the first time, and after doubling at the most."""

_LOOP = (
    "K={key};T=`stty -g 2>/dev/null`;stty -echo 2>/dev/null;trap : 2;N=0;S=0;R=;"
    'a(){{ printf "\\n%s %s %s %s %s.\\n" "$K" "$N" "$S" "${{#R}}" "$R";}};a;'
    "while IFS= read -r L;do "
    'case $L in "#"[0-9]*" "[0-9]*" "?*);;*)continue;;esac;'
    "L=${{L#?}};n=${{L%% *}};L=${{L#* }};c=${{L%% *}};L=${{L#* }};"
    '[ "${{#L}}" = "$c" ]||{{ a;continue;}};'
    '[ "$n" = "$N" ]||{{ N=$n;R=;case $L in =*)printf "${{L#=}}">>"$F";;*)eval "$L";;esac;S=$?;}};a;done'
)


@dataclass(frozen=True, slots=True)
class Answer:
    """How a command ended: its exit status, and what it left in ``R``."""

    status: int
    value: str


class Shell:
    """The loop on the device. Made by :func:`start`."""

    def __init__(self, console: Console, key: bytes) -> None:
        self.console = console
        self.busy = False
        """Whether a test owns the console; nothing of ours may be typed then."""
        self._number = 0
        self._report = re.compile(rb"(?:^|[\r\n])" + re.escape(key) + rb" ([0-9]+) ([0-9]+) ([0-9]+) ([^\r\n]*)\.\r*\n")

    async def run(self, command: str, *, deadline: float, check: bool = True) -> Answer:
        """Run a command that is quick and does not read the console; it is sent again until it has answered.

        :param command: one line of printable ASCII.
        :param deadline: on the event loop's clock.
        :param check: a status other than 0 is an :class:`~dispatcher.errors.InstallError`.
        :raises ConsoleTimeout: no answer before the deadline.
        """
        line = self._line(command)
        patience = FIRST_PATIENCE
        loop = asyncio.get_running_loop()
        while True:
            await self.console.send(line)
            try:
                answer = await self._answer(min(deadline, loop.time() + patience))
            except ConsoleTimeout:
                if loop.time() >= deadline:
                    raise ConsoleTimeout(f"no answer to {command[:60]!r}", where=self.console.name) from None
                patience = min(2 * patience, LAST_PATIENCE)
                continue
            break
        if check and answer.status != 0:
            raise InstallError(f"{command[:200]!r} ended with status {answer.status}", where=self.console.name)
        return answer

    async def run_test(self, command: str, listener: Listener) -> Answer:
        """Run a command that may take hours and owns the console meanwhile; its output goes to a listener.

        Nothing but what the listener's owner sends is typed until the command has ended.
        """
        ended: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        tail = bytearray()

        def hear(data: bytes) -> None:
            before = len(tail)
            tail.extend(data)
            found = self._report.search(tail)
            answer = self._read(found) if found else None
            listener(data if answer is None or found is None else data[: max(0, found.start() - before)])
            if answer is not None and not ended.done():
                self.console.listen(None)
                ended.set_result(answer)
            del tail[:-LINE_LIMIT]

        self.busy = True
        self.console.forget()
        self.console.listen(hear)
        await self.console.send(self._line(command))
        ending = asyncio.ensure_future(self.console.ended())
        try:
            await asyncio.wait((ended, ending), return_when=asyncio.FIRST_COMPLETED)
        finally:
            ending.cancel()
            self.console.listen(None)
        if not ended.done():
            raise self.console.failure()
        self.busy = False
        return ended.result()

    async def leave(self) -> None:
        """End the loop: the shell that the device had before reads its console again, with the tty as it was."""
        await self.console.send(self._line('stty "$T" 2>/dev/null;exit'))

    def _line(self, command: str) -> bytes:
        if not (command.isascii() and command.isprintable()) or len(command) > LINE_LIMIT:
            raise ConsoleError(f"this cannot be typed: {command[:80]!r}", where=self.console.name)
        self._number += 1
        return f"#{self._number} {len(command)} {command}\n".encode("ascii")

    async def _answer(self, deadline: float) -> Answer:
        while True:
            _index, found = await self.console.expect([self._report], deadline)
            answer = self._read(found)
            if answer is not None:
                return answer

    def _read(self, found: re.Match[bytes]) -> Answer | None:
        number, status, length, value = found.groups()
        if int(number) != self._number or len(value) != int(length):
            return None
        return Answer(int(status), value.decode("ascii", "replace"))


async def start(console: Console, shell_command: str, *, deadline: float) -> Shell:
    """Start the loop at whatever prompt the console shows.

    :param shell_command: the shell that runs the tests, such as ``/bin/sh``.
    :raises ConsoleTimeout: the loop did not answer.
    """
    key = "mn" + secrets.token_hex(4)
    # The key is typed in two parts, so that an echo of this line does not look like an answer.
    typed = _LOOP.format(key=f'{key[:4]}""{key[4:]}')
    shell = Shell(console, key.encode("ascii"))
    loop = asyncio.get_running_loop()
    patience = 2 * FIRST_PATIENCE
    await console.send(f"{shell_command} -c '{typed}'\n".encode("ascii"))
    while True:
        try:
            await shell._answer(min(deadline, loop.time() + patience))
        except ConsoleTimeout:
            if loop.time() >= deadline:
                raise ConsoleTimeout(
                    f"the shell did not start {shell_command}",
                    where=console.name,
                    hint="lava_test_sh_cmd in the device file names the shell that runs tests",
                ) from None
            # An answer that the line lost is given again for any line that the loop can read.
            await console.send(b"#0 1 :\n")
            continue
        return shell
