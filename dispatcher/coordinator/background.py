"""An event loop in a thread of its own, so that code that blocks can use what is asynchronous here."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

_Result = TypeVar("_Result")


class Background:
    """The loop, from its making to :meth:`close`. Any thread may use it, but not the loop's own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="multinode", daemon=True)
        self._thread.start()

    def start(self, work: Coroutine[Any, Any, _Result]) -> Future[_Result]:
        """Begin some work; what it will give. Cancelling that cancels the work."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Do some work and wait for its end. What interrupts the waiting, a signal's handler perhaps, cancels it."""
        running = self.start(work)
        try:
            return running.result()
        finally:
            running.cancel()

    def close(self) -> None:
        """Cancel what is under way, wait until it has cleaned up, and end the thread."""
        if self._loop.is_closed():
            return
        self.start(_cancel_others()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
