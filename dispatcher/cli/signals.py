"""Ends a run on SIGINT, SIGTERM, SIGHUP and SIGQUIT alike: cancelled once, so that it can close what it opened."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from dispatcher.errors import Stopped

_T = TypeVar("_T")

ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


async def until_signal(work: Coroutine[Any, Any, _T]) -> _T:
    """Do some work; the first signal cancels it, and those after it are ignored while it closes.

    :raises Stopped: a signal came.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    came: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        if not came:
            task.cancel()
        came.append(number)

    for number in ENDING:
        loop.add_signal_handler(number, stop, number)
    try:
        return await task
    except asyncio.CancelledError:
        if came:
            raise Stopped(came[0]) from None
        raise
    finally:
        for number in ENDING:
            loop.remove_signal_handler(number)
