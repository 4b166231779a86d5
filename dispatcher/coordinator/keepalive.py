"""How members and their coordinator find out that the other side of a connection has vanished."""

from __future__ import annotations

import asyncio
import errno
from typing import Final

from dispatcher.keepalive import Keepalive

IDLE: Final = 30
"""Seconds without a word until the other side's kernel is asked whether it is still there."""

INTERVAL: Final = 10
"""Seconds between two such questions."""

COUNT: Final = 3
"""Questions without an answer that end the connection."""

_SILENT: Final = frozenset(
    {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH, errno.ENETDOWN, errno.ENETRESET}
)


def keep_alive(transport: asyncio.BaseTransport) -> None:
    """Have a connection end when nobody is at its other end any more, though nothing is said on it."""
    Keepalive(IDLE, INTERVAL, COUNT).set(transport.get_extra_info("socket"))


def is_silence(error: BaseException | None) -> bool:
    """Whether a connection ended as its other side fell silent; else somebody there has closed it."""
    return isinstance(error, OSError) and error.errno in _SILENT
