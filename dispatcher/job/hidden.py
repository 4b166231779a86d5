"""A job's ``secrets:``: given to the devices of a run, and kept out of what it tells and writes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from dispatcher.job.yamlfile import Node

HIDDEN_FROM: Final = 4
"""Characters from which on a value is hidden. Shorter ones stand in everything by chance."""

HIDDEN: Final = "[hidden]"

FILE: Final = "secrets"
"""The file in a member's directory that holds them, LAVA's."""

Hide = Callable[[str], str]


def read_secrets(node: Node | None) -> dict[str, str]:
    """Names and values. No message shows a value."""
    if node is None or node.is_null:
        return {}
    if not node.is_mapping:
        raise node.error(f"{node.name} must be a mapping of names to values")
    secrets: dict[str, str] = {}
    for key, value in node.items():
        name, text = key.word(), value.text()
        if "=" in name or not name.isprintable():
            raise key.error("a secret's name is printable text without '='")
        if text and not text.isprintable():
            raise value.error(f"{value.name} must be one line of printable text")
        secrets[name] = text
    return secrets


def content(secrets: Mapping[str, str]) -> bytes:
    """The file, as LAVA's overlay writes it: ``KEY=value`` a line."""
    return "".join(f"{name}={value}\n" for name, value in secrets.items()).encode()


def hider(values: Iterable[str]) -> Hide:
    """What takes some values out of a text, also as Python's ``repr`` shows them in one."""
    shown = {each for value in values if len(value) >= HIDDEN_FROM for each in _spellings(value)}
    # The longest first: one may begin with another.
    hidden = sorted(shown, key=len, reverse=True)
    if not hidden:
        return str
    pattern = re.compile("|".join(map(re.escape, hidden)))
    return lambda text: pattern.sub(HIDDEN, text)


def _spellings(value: str) -> tuple[str, ...]:
    doubled = value.replace("\\", "\\\\")
    return value, doubled, doubled.replace("'", "\\'")


def hidden_in(data: Any, hide: Hide) -> Any:
    """The same data of lists, mappings and texts, with what is to be hidden taken out of every text."""
    if hide is str:
        return data
    if isinstance(data, str):
        return hide(data)
    if isinstance(data, Mapping):
        return {hidden_in(key, hide): hidden_in(value, hide) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [hidden_in(each, hide) for each in data]
    return data
