"""Runs the monitors of a test action on a console: listens, and records what they find."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final

from dispatcher.console.connection import Console
from dispatcher.errors import JobEnded, MultinodeError
from dispatcher.job.definition import Test
from dispatcher.job.monitors import Began, Ended, Found, Monitor, Watcher
from dispatcher.job.results import MemberResults
from dispatcher.job.session import KEPT_LIMIT, OUTPUT_LINE_LIMIT, Note, shown
from dispatcher.wording import quoted

QUIET: Final = 0.2
"""Seconds after which results are looked for in what has come, though it is not much."""


async def watch(
    console: Console, test: Test, stage: int, *, results: MemberResults, note: Note, deadline: float
) -> None:
    """Run the monitors of a test action to the end of the last one.

    :param stage: how many test actions the member has had before; it numbers the suites.
    :param deadline: on the event loop's clock.
    :raises JobEnded: an end, or a start, has not come before the deadline.
    :raises MultinodeError: the console ended first.
    """
    suites = [f"{stage}_{monitor.name}" for monitor in test.monitors]
    results.plan(dict(zip(suites, test.monitors, strict=True)))
    note("testing", suites=suites)
    watching = _Watch(console, test.monitors, suites, results, note)
    failure: MultinodeError
    try:
        async with asyncio.timeout_at(deadline):
            await watching.run()
        return
    except TimeoutError:
        failure = JobEnded(f"the test action timed out; it waited for {watching.awaited}", where=console.name)
    except MultinodeError as error:
        failure = error
    results.never_ended(suites, failure.what)
    raise failure


class _Watch:
    """One test action's monitors on one console; ``suites`` has the name of each monitor's suite."""

    def __init__(
        self, console: Console, monitors: Sequence[Monitor], suites: Sequence[str], results: MemberResults, note: Note
    ) -> None:
        self._console = console
        self._monitors = monitors
        self._watcher = Watcher(monitors)
        self._suites = suites
        self._results = results
        self._note = note
        self._line = b""
        self._kept = 0
        self._over = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def awaited(self) -> str | None:
        """What has to come next, for a message."""
        return self._watcher.awaited

    async def run(self) -> None:
        """Listen until the end of the last monitor. :raises MultinodeError: the console ended first."""
        self._console.listen(self._hear)
        waits = [asyncio.ensure_future(self._over.wait()), asyncio.ensure_future(self._console.ended())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._console.listen(None)
            for each in waits:
                each.cancel()
            if self._timer is not None:
                self._timer.cancel()
            self._flush()
        if not self._over.is_set():
            raise self._console.failure()
        self._console.give_back(self._watcher.rest)

    def _hear(self, data: bytes) -> None:
        self._show(data)
        self._record(self._watcher.hear(data))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(QUIET, self._flush)

    def _flush(self) -> None:
        self._timer = None
        self._record(self._watcher.flush())

    def _show(self, data: bytes) -> None:
        whole, newline, rest = (self._line + data).rpartition(b"\n")
        self._line = rest[:OUTPUT_LINE_LIMIT]
        if newline and (lines := shown(whole)):
            self._note("output", lines=lines)

    def _record(self, events: Iterable[Began | Found | Ended]) -> None:
        for event in events:
            match event:
                case Began():
                    suite = self._suites[event.monitor]
                    # Another monitor of this action may have the same name, as in LAVA.
                    self._results.plan({suite: self._monitors[event.monitor]})
                    self._results.start_run(suite)
                case Ended():
                    self._results.end_run(self._suites[event.monitor])
                case Found():
                    self._result(event)
        if self._watcher.awaited is None:
            self._over.set()

    def _result(self, found: Found) -> None:
        self._kept += 1
        if self._kept > KEPT_LIMIT + 1:
            return
        trouble: str | None = f"{KEPT_LIMIT} results of a test action are kept, and no more"
        if self._kept <= KEPT_LIMIT:
            trouble = self._results.take(found.name, found.result, found.measurement, found.unit)
        if trouble:
            self._note("untaken", reason=f"the result {quoted(found.name)} was not taken: {trouble}")
