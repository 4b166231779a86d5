"""``multinode coordinator``: the group coordinator as a service."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import resource
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

from dispatcher.cli.service import read_settings
from dispatcher.cli.signals import until_signal
from dispatcher.coordinator import logs, metrics, notify
from dispatcher.coordinator.access import Tokens, check_listening, is_loopback, server_tls
from dispatcher.coordinator.desk import Desk
from dispatcher.coordinator.hall import Hall
from dispatcher.coordinator.journal import Journal
from dispatcher.coordinator.journal.memory import MemoryJournal
from dispatcher.coordinator.journal.sqlite import SqliteJournal
from dispatcher.coordinator.remote import Address
from dispatcher.coordinator.server import Limits, Server
from dispatcher.coordinator.settings import File, Settings
from dispatcher.errors import JournalError, Stopped

_LOCAL = "127.0.0.1"

_OTHER_FILES = 64
"""Files that this process has open beside its connections."""

_log = logging.getLogger(logs.LOGGER)


def command(arguments: argparse.Namespace) -> int:
    """Serve until a signal comes."""
    settings, file = read_settings(arguments)
    tls = _tls(settings)
    check_listening(settings.host, tls=tls is not None, insecure=settings.insecure_listen)
    tokens = Tokens(settings.tokens) if settings.tokens else None
    logs.configure(settings.log_format, sys.stderr)
    _tell_of(file, settings)
    with _journal(settings) as journal, contextlib.suppress(Stopped):
        asyncio.run(until_signal(serve(settings, journal, tokens, tls)))
    return 0


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.tls_cert is None:
        return None
    return server_tls(settings.tls_cert, settings.tls_key or settings.tls_cert, settings.tls_client_ca)


def _tell_of(file: File, settings: Settings) -> None:
    """LAVA's coordinator listens on every address whatever its file says, so whoever moves here may miss that."""
    named = file.clients.get("coordinator_hostname")
    if isinstance(named, str) and named != "localhost" and is_loopback(settings.host):
        what = "the file sends clients to %r (coordinator_hostname), but only this machine can reach %s: set host"
        _log.warning(what, named, settings.host)


@contextlib.contextmanager
def _journal(settings: Settings) -> Iterator[Journal]:
    if settings.journal is None:
        yield MemoryJournal()
        return
    with SqliteJournal(settings.journal, sync=settings.sync, tell=_log.error) as journal:
        yield journal


async def serve(settings: Settings, journal: Journal, tokens: Tokens | None, tls: ssl.SSLContext | None) -> None:
    """Serve until cancelled; then answer whoever waits.

    :raises CoordinatorError: the address cannot be listened on.
    :raises JournalError: the journal cannot be written any more.
    """
    hall = Hall(
        journal,
        members_limit=settings.members,
        grace=settings.stuck_grace,
        absence=settings.absence,
        expiry=settings.expiry,
        observe=logs.tell,
    )
    desk = Desk(hall, tokens.gate) if tokens else Desk(hall)
    limits = settings.limits
    server = Server(desk, limits=replace(limits, connections=_connections(limits)))
    ended = _end_with_the_journal(server)
    try:
        addresses = [str(Address(settings.host, await server.start(settings.host, settings.port, ssl=tls)))]
        if settings.local_port is not None:
            addresses.append(f"{Address(_LOCAL, await server.start(_LOCAL, settings.local_port))} without TLS")
        async with _metrics(settings, server):
            # Whoever has started us with --port 0 reads here which one it is.
            for address in addresses:
                print(f"ready on {address}", flush=True)
            notify.ready(f"{', '.join(addresses)}, {len(hall.rooms)} groups from the journal")
            await ended
    finally:
        notify.stopping()
        await server.stop()


def _end_with_the_journal(server: Server) -> asyncio.Future[None]:
    """A future that fails when the journal does. What it did not keep must not be acknowledged in any answer."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def failed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, JournalError):
            loop.default_exception_handler(context)
            return
        for connection in list(server.connections):
            connection.abort()
        if not ended.done():
            ended.set_exception(error)

    loop.set_exception_handler(failed)
    return ended


@contextlib.asynccontextmanager
async def _metrics(settings: Settings, server: Server) -> AsyncIterator[None]:
    if settings.metrics_port is None:
        yield
        return
    counted = metrics.MetricsServer(lambda: metrics.render(metrics.metrics(server.counters, server.desk.hall)))
    port = await counted.start(settings.metrics_host, settings.metrics_port)
    _log.info("metrics are at http://%s/metrics", Address(settings.metrics_host, port))
    try:
        yield
    finally:
        await counted.stop()


def _connections(limits: Limits) -> int:
    """How many connections this process may have, once it has asked for all that it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return max(1, min(limits.connections, soft - _OTHER_FILES))
