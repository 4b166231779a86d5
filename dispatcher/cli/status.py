"""``multinode status``: who meets at a coordinator, and who waits for what."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterator, Mapping
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
        yield printable(f"{group['name']}: {len(group['members'])} members, {state}")
        width = max(len(f"{member['id']}  {member['role']}") for member in group["members"])
        for member in group["members"]:
            who = f"{member['id']}  {member['role']}".ljust(width)
            waits = [f"{call['call']} for {call['waited']:.1f} s: {call['progress']}" for call in member["calls"]]
            for index, what in enumerate(waits or ["-"]):
                shown = f"{who}  {member['presence']:8}" if index == 0 else " " * (width + 10)
                yield printable(f"  {shown}  {what}")
    for forming in told["forming"]:
        come = ", ".join(f"{member['id']} ({member['role']})" for member in forming["members"])
        yield printable(f"{forming['name']}: forming, {len(forming['members'])} of {forming['size']} have come: {come}")
