"""``multinode plugins``."""

from __future__ import annotations

import argparse

from dispatcher.plugins import TRANSPORTS, load


def command(_arguments: argparse.Namespace) -> int:
    """List what is loaded, from which distribution, and what is skipped and why."""
    for found in load().found:
        kind = "transport" if found.group == TRANSPORTS else "call"
        problem = f"  skipped: {found.problem}" if found.problem else ""
        print(f"{kind:9}  {found.name:12}  {found.distribution}{problem}")
    return 0
