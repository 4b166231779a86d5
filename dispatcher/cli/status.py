"""``multinode status``: who meets at a coordinator, and who waits for what."""

from __future__ import annotations

import argparse
import asyncio
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dispatcher.cli.elsewhere import tls
from dispatcher.coordinator.remote import ask_status
from dispatcher.job.results import printable


def command(arguments: argparse.Namespace) -> int:
    """Ask a running coordinator, and show what it says as a table or as JSON."""
    told = asyncio.run(ask_status(arguments.coordinator, token=arguments.token, ssl=tls(arguments))).message
    if arguments.json:
        print(json.dumps(told, indent=2))
    else:
        print("\n".join(table(told)))
    return 0


def table(told: Mapping[str, Any]) -> Iterator[str]:
    """The lines of the table: a group, its members, and the calls in which they wait."""
    if not told["groups"] and not told["forming"]:
        yield "no groups"
    for group in told["groups"]:
        state = "stuck" if group["stuck"] else "complete" if group["complete"] else "not complete yet"
        yield printable(f"{group['name']}: {_members(len(group['members']))}, {state}")
        ids, roles = (_wide(member[key] for member in group["members"]) for key in ("id", "role"))
        states = max(8, *(len(_state(member)) for member in group["members"]))
        for member in group["members"]:
            who = f"{_padded(member['id'], ids)}  {_padded(member['role'], roles)}  {_state(member):{states}}"
            waits = [f"{call['call']} for {call['waited']:.1f} s: {call['progress']}" for call in member["calls"]]
            for index, what in enumerate(waits or ["-"]):
                yield f"  {who if index == 0 else ' ' * (ids + roles + states + 4)}  {printable(what)}"
    for forming in told["forming"]:
        come = ", ".join(_come(member) for member in forming["members"])
        yield printable(f"{forming['name']}: forming, {len(forming['members'])} of {forming['size']} have come: {come}")


def _state(member: Mapping[str, Any]) -> str:
    """Where a member of an open group is."""
    absent = member["absent"]
    return str(member["presence"]) if absent is None else f"gone for {absent:.0f} s"


def _come(member: Mapping[str, Any]) -> str:
    """A member of a group that forms, and whether it is ready."""
    absent = member["absent"]
    state = "" if member["joined"] else ", getting ready"
    return f"{member['id']} ({member['role']}{state if absent is None else f', gone for {absent:.0f} s'})"


def _members(count: int) -> str:
    return "1 member" if count == 1 else f"{count} members"


def _columns(text: str) -> int:
    """The columns of a terminal that a text takes; letters of East Asia take two."""
    return sum(
        2 if unicodedata.east_asian_width(letter) in "WF" else not unicodedata.combining(letter) for letter in text
    )


def _wide(words: Iterable[str]) -> int:
    return max(_columns(printable(word)) for word in words)


def _padded(word: str, columns: int) -> str:
    shown = printable(word)
    return shown + " " * (columns - _columns(shown))
