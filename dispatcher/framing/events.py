"""What a framing tells of a console: the requests, signals and damage found in its bytes.

Both framings give the same values, so that whoever acts on them need not know which one the device speaks.
Text is UTF-8 with ``surrogateescape``: every byte comes back as it was. ``offset`` counts the bytes that the
console had sent before the marker began.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Request:
    """A call that waits for its answer: ``SEND``, ``WAIT``, ``WAIT_ALL``, ``SYNC``, or a plugin's own.

    ``args`` of a ``SEND`` are the message ID and then ``key=value`` items, of any other call its words. Only framing 2
    gives requests an ``id`` of the device's making and ``options`` (``t``: the call's own time limit, seconds;
    ``b``: made in the background; ``p``: every line of the cache is to name its sender), and tells those that were
    done before and come ``again``, in whichever test.
    """

    name: str
    args: tuple[str, ...]
    offset: int = 0
    id: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    again: bool = False


@dataclass(frozen=True, slots=True)
class Abandoned:
    """The process that made a call was ended before its answer came. Framing 2 only; ``id`` is the request's."""

    id: str
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Signal:
    """What the test shell tells: ``STARTRUN``, ``ENDRUN``, ``STARTTC``, ``ENDTC``, ``TESTCASE`` and the rest."""

    name: str
    params: str
    offset: int = 0


@dataclass(frozen=True, slots=True)
class RunnerExit:
    """The test runner has ended."""

    offset: int = 0


@dataclass(frozen=True, slots=True)
class InstallFailed:
    """The install steps of a definition failed; the runner goes on with the next."""

    offset: int = 0


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes that began like a marker and do not spell one. ``text`` is their beginning, for the log."""

    reason: str
    text: str
    offset: int = 0


Event = Request | Signal | RunnerExit | InstallFailed | Damage
"""What either framing tells."""
