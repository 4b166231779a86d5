"""The values that job files and device files have in common: prompts, log-ins, variables of a shell."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from typing import Final

from dispatcher.job.keys import AUTO_LOGIN
from dispatcher.job.yamlfile import Node
from dispatcher.wording import quoted

PATTERN_LIMIT: Final = 1000
"""Characters of one prompt."""

DELAY_LIMIT: Final = 10_000
"""Milliseconds between two characters."""

_RESULTS_DIR = re.compile(r"/[-A-Za-z0-9_.+@/]*%s[-A-Za-z0-9_.+@/]*")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class AutoLogin:
    """How to get past a login prompt. The prompts are regular expressions, as in LAVA.

    :ivar password_prompt: and ``password``: both, or neither where the account needs none.
    :ivar commands: LAVA's ``login_commands``, typed one by one at the shell that follows.
    """

    login_prompt: str
    username: str
    password_prompt: str | None = None
    password: str | None = None
    commands: tuple[str, ...] = ()


def pattern(node: Node) -> str:
    """A regular expression that a console is searched for. It must not match where nothing has been printed."""
    text = node.string(PATTERN_LIMIT)
    try:
        with warnings.catch_warnings():
            # What Python may one day read differently is no fault of the file today.
            warnings.simplefilter("ignore")
            compiled = re.compile(text)
            re.compile(text.encode())
    except (re.error, ValueError, OverflowError, RecursionError) as error:
        what = f"{node.name}: {quoted(text)} is not a regular expression: {str(error).splitlines()[0]}"
        raise node.error(what, "put a backslash before a bracket, star or plus that means itself") from error
    if compiled.search(""):
        what = f"{node.name}: {quoted(text)} matches before anything is printed"
        raise node.error(what, "name some text that must be there")
    return text


def prompts(node: Node) -> tuple[str, ...]:
    """A prompt or a list of prompts."""
    return tuple(pattern(value) for value in node.one_or_more())


def auto_login(node: Node) -> AutoLogin:
    """LAVA's ``auto_login``."""
    found = node.mapping(AUTO_LOGIN)
    prompt, password = found.get("password_prompt"), found.get("password")
    if (prompt is None) != (password is None):
        raise node.error(f"{node.name} needs both 'password_prompt' and 'password', or neither")
    return AutoLogin(
        login_prompt=pattern(node.need(found, "login_prompt")),
        username=node.need(found, "username").line_of_text(),
        password_prompt=None if prompt is None else pattern(prompt),
        password=None if password is None else _typed(password),
        commands=_commands(found["login_commands"]) if "login_commands" in found else (),
    )


def _commands(node: Node) -> tuple[str, ...]:
    return tuple(command.line_of_text() for command in node.sequence("a command"))


def _typed(node: Node) -> str:
    text = node.text()
    if text and not text.isprintable():
        raise node.error(f"{node.name} must be one line of printable text")
    return text


def character_delay(node: Node) -> float:
    """Milliseconds between two characters that are sent, as seconds."""
    return node.number(DELAY_LIMIT) / 1000


def results_dir(node: Node) -> str:
    """Where a test's files go on a device; ``%s`` stands for the member's id."""
    path = node.line_of_text(200)
    if not _RESULTS_DIR.fullmatch(path):
        hint = "write it like /tmp/lava-%s, with letters, digits, and one %s for the member's id"
        raise node.error(f"{quoted(path)} cannot be the directory of a test", hint)
    return path


def variables(node: Node) -> dict[str, str]:
    """Names and values for a shell. Values stand as they are written in the file: ``yes`` is ``yes``."""
    found: dict[str, str] = {}
    for key, value in node.items():
        name = key.word()
        if not _IDENTIFIER.fullmatch(name):
            what = f"{quoted(name)} in {node.name} is not a name that a shell gives a variable"
            raise key.error(what, "use letters, digits and underscores, and no digit first")
        found[name] = value.text()
    return found
