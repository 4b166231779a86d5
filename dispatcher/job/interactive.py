"""LAVA's ``test: interactive:``: what is typed at a console that may be no shell, a boot loader's say, and what it must
answer; and calls that are made for the device between two commands."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from dispatcher.errors import CallRefused
from dispatcher.job import keys
from dispatcher.job.fields import pattern
from dispatcher.job.requests import CALLS, check_template
from dispatcher.job.testdef import suite_name
from dispatcher.job.yamlfile import Node
from dispatcher.wording import quoted

DELAY_LIMIT: Final = 24 * 3600
"""Seconds of one ``delay:``."""

ERRORS: Final = ("InfrastructureError", "JobError", "TestError")
"""What a failure may be raised as: the lab's fault, or the job's or the test's."""

_ACTS: Final = ("delay", *CALLS, "command")
"""What an entry may do, LAVA's order: where there is more than one the first is done."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A message that fails its command.

    :ivar exception: one of :data:`ERRORS`, which ends the member; None where the command has merely failed.
    :ivar error: what that error says, None for what the device has said.
    """

    message: str
    exception: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Delay:
    """Seconds in which nothing is done."""

    seconds: float


@dataclass(frozen=True, slots=True)
class GroupCall:
    """A call, ``lava-send`` say, with its words; ``{KEY}`` stands for what was received."""

    call: str
    words: tuple[str, ...]
    where: str


@dataclass(frozen=True, slots=True)
class Command:
    """A line to be typed, and what may come of it.

    :ivar text: None to type nothing and only wait.
    :ivar name: of its test case; a command without one must not fail.
    :ivar successes: regular expressions; where there are any, a prompt alone is a failure.
    :ivar wait_for_prompt: whether a prompt is waited for behind a success or a failure.
    """

    text: str | None
    name: str | None
    successes: tuple[str, ...]
    failures: tuple[Failure, ...]
    wait_for_prompt: bool


Entry = Delay | GroupCall | Command


@dataclass(frozen=True, slots=True)
class Script:
    """One of ``interactive:``.

    :ivar prompts: regular expressions of what shows that the next command can be typed; none where nothing does.
    :ivar discard_echo: whether a command's first line of output is its echo, in which nothing is looked for.
    """

    name: str
    prompts: tuple[str, ...]
    discard_echo: bool
    entries: tuple[Entry, ...]

    @property
    def awaited(self) -> tuple[str, ...]:
        """The prompts at which it can begin; none where it does not begin by typing."""
        first = next((entry for entry in self.entries if isinstance(entry, Command)), None)
        return () if first is None or first.text is None else self.prompts


def read_interactive(node: Node, roles: Collection[str]) -> tuple[Script, ...]:
    """The ``interactive:`` of one test action. :raises FileError: naming the line of what is wrong."""
    scripts = tuple(_script(entry, roles) for entry in node.sequence("a script"))
    if not scripts:
        raise node.error("a test action needs at least one script")
    return scripts


def _script(entry: Node, roles: Collection[str]) -> Script:
    found = entry.mapping(keys.INTERACTIVE)
    name = suite_name(entry.need(found, "name"), "a script")
    prompts = tuple(pattern(prompt) for prompt in entry.need(found, "prompts").sequence("a prompt"))
    if "echo" in found:
        found["echo"].choice(("discard",))
    entries = tuple(_entry(each, prompts, roles) for each in entry.need(found, "script").sequence("an entry"))
    return Script(name, prompts, "echo" in found, entries)


def _entry(node: Node, prompts: tuple[str, ...], roles: Collection[str]) -> Entry:
    found = node.mapping(keys.SCRIPT)
    act = next((act for act in _ACTS if act in found), None)
    if act is None:
        raise node.error("an entry of a script does nothing", f"give it one of {', '.join(_ACTS)}")
    if act == "command":
        return _command(node, found, prompts)
    for key in found:
        if key != act:
            found[key].skip(f"{quoted(key)} beside {act!r} is not used")
    if act == "delay":
        return Delay(found[act].number(DELAY_LIMIT))
    words = tuple(_template(found[act]).split())
    try:
        check_template(act, words, roles)
    except CallRefused as error:
        raise found[act].error(f"{act}: {error.what}") from None
    return GroupCall(act, words, found[act].where)


def _command(node: Node, found: Mapping[str, Node], prompts: tuple[str, ...]) -> Command:
    successes, failures = _messages(found.get("successes")), _failures(found.get("failures"))
    waits = "wait_for_prompt" not in found or found["wait_for_prompt"].boolean()
    if not prompts and not successes and not failures:
        raise node.error("this command waits for nothing", "give it successes:, or its script prompts:")
    if not prompts and waits:
        hint = "give the script prompts:, or the command wait_for_prompt: false"
        raise node.error("this command waits for a prompt, of which its script has none", hint)
    return Command(
        text=None if found["command"].is_null else _template(found["command"]),
        name=suite_name(found["name"], "a test case") if "name" in found else None,
        successes=successes,
        failures=failures,
        wait_for_prompt=waits,
    )


def _template(node: Node) -> str:
    """A text in which ``{KEY}`` stands for what is known when it is used."""
    text = node.text()
    if "{SERVER_IP}" in text:
        # LAVA's dispatcher has one address for its devices; which of ours a device can reach, nobody has said.
        hint = "write the address, or receive it: lava-wait, then {KEY}"
        raise node.error(f"{node.name} holds {{SERVER_IP}}, which is not known here", hint)
    return text


def _messages(node: Node | None) -> tuple[str, ...]:
    if node is None:
        return ()
    entries = [(entry, entry.mapping(keys.SUCCESS)) for entry in node.sequence("a success")]
    return tuple(pattern(entry.need(found, "message")) for entry, found in entries)


def _failures(node: Node | None) -> tuple[Failure, ...]:
    return () if node is None else tuple(_failure(entry) for entry in node.sequence("a failure"))


def _failure(entry: Node) -> Failure:
    found = entry.mapping(keys.FAILURE)
    return Failure(
        message=pattern(entry.need(found, "message")),
        exception=found["exception"].choice(ERRORS) if "exception" in found else None,
        error=found["error"].string() if "error" in found else None,
    )


_KEY: Final = re.compile(r"\{([^{}\s]+)\}")


def filled(text: str, values: Mapping[str, str]) -> str:
    """A template with every ``{KEY}`` replaced that is known."""
    return _KEY.sub(lambda found: values.get(found[1], found[0]), text)
