"""Getting to a shell: from whatever a console shows after it was opened to a prompt that has answered.

A prompt alone proves nothing (a boot log may hold it), so a shell is believed when it has run a command: the text
``ready-N`` that it is asked to print is typed in two halves, which no echo can put together.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass

from dispatcher.console.connection import Console
from dispatcher.errors import ConsoleTimeout

NUDGE_AFTER = 3.0
"""Seconds of waiting for a prompt after which an empty line is typed: a shell that is up already shows its prompt."""

PROBE_AFTER = 1.0
"""Seconds without an answer after which a shell is asked again; the first characters typed are often lost."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What to type at a login prompt. LAVA's ``auto_login``."""

    login_prompt: str
    username: str
    password_prompt: str | None = None
    password: str | None = None


async def login(console: Console, *, prompts: Sequence[str], credentials: Credentials | None, deadline: float) -> None:
    """Wait for a shell, logging in where the device asks for it.

    :param prompts: regular expressions of shell prompts; empty where the console is a shell at once.
    :param deadline: on the event loop's clock, for all of it.
    :raises ConsoleTimeout: no prompt came, or no shell answered at it.
    :raises dispatcher.errors.ConsoleClosed: the console ended.
    """
    if prompts or credentials:
        await _reach_prompt(console, prompts, credentials, deadline)
    await _prove(console, deadline)


async def _reach_prompt(
    console: Console, prompts: Sequence[str], credentials: Credentials | None, deadline: float
) -> None:
    loop = asyncio.get_running_loop()
    steps: list[tuple[re.Pattern[bytes], str | None]] = [(_pattern(prompt), None) for prompt in prompts]
    if credentials:
        steps.append((_pattern(credentials.login_prompt), credentials.username))
        if credentials.password_prompt:
            steps.append((_pattern(credentials.password_prompt), credentials.password or ""))
    patience = NUDGE_AFTER
    while True:
        try:
            index, _match = await console.expect([step[0] for step in steps], min(deadline, loop.time() + patience))
        except ConsoleTimeout:
            if loop.time() >= deadline:
                waited_for = ", ".join(repr(step[0].pattern.decode(errors="replace")) for step in steps)
                raise ConsoleTimeout(
                    f"no prompt came; waited for {waited_for}",
                    where=console.name,
                    hint="see prompts and auto_login in the device file, and the console's log",
                ) from None
            await console.send(b"\n")
            patience = min(2 * patience, 60.0)
            continue
        typed = steps[index][1]
        if typed is None:
            return
        await console.send(typed.encode() + b"\n")
        if not prompts and index == len(steps) - 1:
            return


async def _prove(console: Console, deadline: float) -> None:
    """Ask for a text until it comes. Each question has its own number, so that a late answer is not taken for it."""
    loop = asyncio.get_running_loop()
    patience = PROBE_AFTER
    number = 0
    while True:
        number += 1
        await console.send(b"echo rea''dy-%d.\n" % number)
        try:
            await console.expect([re.compile(rb"ready-%d\." % number)], min(deadline, loop.time() + patience))
        except ConsoleTimeout:
            if loop.time() >= deadline:
                raise ConsoleTimeout(
                    "no shell answered",
                    where=console.name,
                    hint="set prompts (and auto_login) in the device file if it boots first; its log has what it said",
                ) from None
            patience = min(2 * patience, 10.0)
            continue
        return


def _pattern(expression: str) -> re.Pattern[bytes]:
    return re.compile(expression.encode())
