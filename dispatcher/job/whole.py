"""Work that an interrupt may delay and not break off."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def whole(work: Coroutine[Any, Any, None]) -> None:
    """Do some work to its end though this task is cancelled meanwhile, and only then be cancelled.

    An interrupt must leave neither a program behind nor a test on a board.
    """
    doing = asyncio.ensure_future(work)
    cancelled = False
    while not doing.done():
        try:
            await asyncio.shield(doing)
        except asyncio.CancelledError:
            cancelled = True
    doing.result()
    if cancelled:
        raise asyncio.CancelledError
