"""What happens in a run, as events: written to ``events.jsonl`` as they come, and handed to whoever shows them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from dispatcher.errors import OutputError
from dispatcher.group.events import Member
from dispatcher.job.hidden import Hide, hidden_in


@dataclass(frozen=True, slots=True)
class RunEvent:
    """One event.

    :param kind: ``opened``, ``ready``, ``started``, ``call``, ``answered``, ``failed``, ``case``, ``output`` …
    :param elapsed: seconds since the run began.
    :param member: whose console it happened on, None for the whole run.
    """

    kind: str
    elapsed: float
    logged: datetime
    member: Member | None
    device: str | None
    data: dict[str, Any] = field(default_factory=dict)


Observer = Callable[[RunEvent], None]


class Record:
    """The events of one run.

    :param path: where they are written, one JSON object a line; None for nowhere.
    :param observers: told of each, in order.
    :param hide: takes out of every text what is not to be told.
    :raises OutputError: the file cannot be made.
    :ivar failure: why the file does not hold all events. They are told to the observers all the same.

    What is noted in one turn of the event loop is written at its end, at one go, and so before anything else is read.
    """

    def __init__(self, path: Path | None, *observers: Observer, hide: Hide = str) -> None:
        self.hide = hide
        self.failure: OutputError | None = None
        self._path = path
        self._observers = observers
        self._began = time.monotonic()
        self._file: TextIO | None = None
        self._flushes = False
        """Whether the file is written at the end of this turn."""
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = path.open("w", encoding="utf-8")
            except OSError as error:
                raise OutputError(f"cannot write {path}: {error.strerror}") from None

    def note(self, kind: str, member: Member | None = None, device: str | None = None, **data: Any) -> None:
        """Record that something happened now."""
        data = hidden_in(data, self.hide)
        event = RunEvent(kind, time.monotonic() - self._began, datetime.now(UTC), member, device, data)
        if kind != "output":
            self._write(event)
        for observer in self._observers:
            observer(event)

    def _write(self, event: RunEvent) -> None:
        if self._file is None:
            return
        try:
            self._file.write(_as_json(event))
        except OSError as error:
            self._fail(error)
            return
        if not self._flushes:
            self._flushes = True
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Write what has been noted until now."""
        self._flushes = False
        if self._file is None:
            return
        try:
            self._file.flush()
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        # Told at the end: this is called where a member must not be stopped, while it closes its console too.
        self.failure = OutputError(f"cannot write {self._path}: {error.strerror}")
        self.close()

    def close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # it tries once more to write what it could not
                self._file.close()
            self._file = None


def _as_json(event: RunEvent) -> str:
    """An event as a line of the file."""
    told: dict[str, Any] = {"event": event.kind}
    if event.member is not None:
        told["job"] = event.member.id
        told["role"] = event.member.role
    if event.device is not None:
        told["device"] = event.device
    told.update(event.data)
    # Nearly all of it is texts: to encode the whole as one object would cost twice as much.
    pairs = "".join([f', "{key}": {json.dumps(value)}' for key, value in told.items()])
    return f'{{"time": "{event.logged.isoformat()}", "elapsed": {event.elapsed:.6f}{pairs}}}\n'
