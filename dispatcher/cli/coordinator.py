"""``multinode coordinator``: the group coordinator as a service."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

from dispatcher.cli.signals import until_signal
from dispatcher.coordinator.desk import Desk
from dispatcher.coordinator.hall import Hall
from dispatcher.coordinator.journal import Journal
from dispatcher.coordinator.journal.memory import MemoryJournal
from dispatcher.coordinator.live import Notice
from dispatcher.coordinator.remote import Address
from dispatcher.coordinator.server import Limits, Server
from dispatcher.errors import Stopped

_OTHER_FILES = 64
"""Files that this process has open beside its connections."""

_log = logging.getLogger("multinode.coordinator")
_WARNINGS = {"stuck", "expired", "damaged"}


def command(arguments: argparse.Namespace) -> int:
    """Serve until a signal comes."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    with _journal(arguments.journal) as journal, contextlib.suppress(Stopped):
        asyncio.run(until_signal(serve(arguments, journal)))
    return 0


@contextlib.contextmanager
def _journal(place: str) -> Iterator[Journal]:
    if place == "memory":
        yield MemoryJournal()
        return
    from dispatcher.coordinator.journal.sqlite import SqliteJournal

    with SqliteJournal(Path(place), tell=_log.warning) as journal:
        yield journal


async def serve(arguments: argparse.Namespace, journal: Journal) -> None:
    """Serve until cancelled; then answer whoever waits.

    :raises CoordinatorError: the address cannot be listened on.
    """
    hall = Hall(journal, grace=arguments.stuck_grace, expiry=arguments.expiry, observe=_tell)
    server = Server(Desk(hall), limits=Limits(connections=_connections()))
    port = await server.start(arguments.host, arguments.port)
    # Whoever has started us with --port 0 reads here which one it is.
    print(f"ready on {Address(arguments.host, port)}", flush=True)
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        await server.stop()


def _connections() -> int:
    """How many connections this process may have, once it has asked for all that it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return max(1, min(Limits().connections, soft - _OTHER_FILES))


def _tell(group: str, notice: Notice) -> None:
    level = logging.WARNING if notice.kind in _WARNINGS else logging.INFO
    _log.log(level, "%s: %s: %s", group, notice.kind, notice.text, extra={"group": group, "members": notice.members})
