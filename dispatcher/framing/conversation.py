"""Both framings on one console: the device may speak either at any time, and is answered in the one that it used.

LAVA's own scripts, and tests that print LAVA's signals themselves, speak framing 1; our scripts speak framing 2. No I/O
and no clock: bytes and the time come in, events go out, and bytes to type are taken from :attr:`Conversation.typed`.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from dispatcher.errors import CallRefused
from dispatcher.framing import lava
from dispatcher.framing.events import Abandoned, Damage, Event, InstallFailed, Request, RunnerExit, Signal
from dispatcher.framing.link import Link
from dispatcher.framing.reliable import UNSEEDED, Kind, Seed, Up, UpDecoder, cache_content

Answer = Mapping[str, Mapping[str, str]] | Sequence[str] | None
"""What a call gives: a wait's data, a plugin's words, or nothing but that it was done."""

UNANSWERED: Final = frozenset({"SEND"})
"""Calls that framing 1 has no reply for."""

ALWAYS_PREFIXED: Final = frozenset({"WAIT_ALL", "SYNC"})
"""Calls whose lines in the cache name their sender."""

DONE_LIMIT: Final = 9_000
"""Requests of a device that are known to have been done, the oldest are forgotten first. A device that has no source of
random ids counts to 9,999 and begins again: one that comes then must be none of these."""

_OFFSET: Final = operator.attrgetter("offset")


class Done:
    """The ids of requests that have been done; a device's, whatever test they were of."""

    def __init__(self) -> None:
        self._ids: dict[str, None] = {}

    def __contains__(self, request: str | None) -> bool:
        return request in self._ids

    def add(self, request: str) -> None:
        """Remember one."""
        self._ids[request] = None
        if len(self._ids) > DONE_LIMIT:
            del self._ids[next(iter(self._ids))]


class Conversation:
    """What a device says on its console, and what it is answered.

    :param damage_limit: damaged frames to tell one by one, None for all.
    :param seed: what the sums of its frames begin with.
    :param done: what was done in earlier conversations with it; a signal or a result that is there is not told again.
    :ivar typed: bytes to type, in order; whoever types them takes them away.
    """

    def __init__(self, damage_limit: int | None = None, *, seed: Seed = UNSEEDED, done: Done | None = None) -> None:
        self._markers = lava.Decoder()
        self._frames = UpDecoder(damage_limit, seeds=frozenset({seed}))
        self._link = Link()
        self._done = Done() if done is None else done
        self.typed: list[bytes] = []

    @property
    def heard(self) -> int:
        """How many frames of the device have come."""
        return self._link.heard

    @property
    def repeats(self) -> int:
        """How often the device had to repeat itself."""
        return self._link.repeats

    @property
    def untold(self) -> int:
        """How many damaged frames have come that were not told."""
        return self._frames.untold

    def hear(self, data: bytes, now: float) -> list[Event | Abandoned]:
        """The events in these bytes, in their order."""
        return self._events([*self._markers.feed(data), *self._frames.feed(data)], now)

    def finish(self, now: float) -> list[Event | Abandoned]:
        """The events of what the console ended in the middle of."""
        return self._events([*self._markers.finish(), *self._frames.finish()], now)

    def succeed(self, request: Request, answer: Answer, now: float) -> None:
        """Answer a call that was done. :raises CallRefused: framing 1 cannot carry the answer; nothing was typed."""
        if answer is not None and (isinstance(answer, str) or not isinstance(answer, Mapping | Sequence)):
            raise CallRefused(f"{request.name} was answered with {type(answer).__name__}, neither data nor words")
        if request.id is None:
            if request.name not in UNANSWERED:
                self.typed.append(_reply(request.name, answer))
            return
        if isinstance(answer, Mapping):
            prefixed = request.name in ALWAYS_PREFIXED or "p" in request.options
            content = cache_content(answer, prefixed=prefixed)
        else:
            content = lava.raw(" ".join(answer or ()))
        self._answer(request.id, Kind.DATA, content, now)

    def fail(self, request: Request, reason: str, now: float) -> None:
        """Answer a call that failed. Over framing 1 the device learns only that."""
        if request.id is not None:
            self._answer(request.id, Kind.FAIL, lava.raw(" ".join(reason.split())), now)
        elif request.name not in UNANSWERED:
            self.typed.append(lava.encode_nack(request.name))

    def due(self) -> float | None:
        """When :meth:`tick` has something to do, None for nothing."""
        return self._link.due()

    def tick(self, now: float) -> None:
        """Do what is due."""
        self._link.tick(now)
        self._take()

    # ---------------------------------------------------------------------------------------------------------

    def _answer(self, request: str, kind: Kind, content: bytes, now: float) -> None:
        self._done.add(request)
        self._link.answer(request, kind, content, now)
        self._take()

    def _take(self) -> None:
        self.typed += self._link.typed
        self._link.typed.clear()

    def _events(self, found: list[Event | Up], now: float) -> list[Event | Abandoned]:
        events: list[Event | Abandoned] = []
        if not found:
            return events
        for event in sorted(found, key=_OFFSET):
            if not isinstance(event, Up):
                events.append(event)
                continue
            for said in self._link.receive(event, now):
                if told := self._progress(said, now) if isinstance(said, Request) else said:
                    events.append(told)
        self._take()
        return events

    def _progress(self, request: Request, now: float) -> Event | None:
        """The test shell's progress travels as requests, which are done once they are heard."""
        again = request.id in self._done
        event: Event = request
        if request.name == "SIGNAL" and request.args:
            event = Signal(request.args[0], " ".join(request.args[1:]), request.offset)
        elif request.name == "RUNNER" and request.args == ("EXIT",):
            event = RunnerExit(request.offset)
        elif request.name == "RUNNER" and request.args == ("INSTALL_FAIL",):
            event = InstallFailed(request.offset)
        elif request.name in {"SIGNAL", "RUNNER"}:
            self._answer(request.id or "", Kind.FAIL, b"there is no such signal", now)
            return Damage("it is no signal", " ".join(request.args)[:80], request.offset)
        else:
            return replace(request, again=True) if again else request
        self._answer(request.id or "", Kind.DONE, b"", now)
        return None if again else event


def _reply(name: str, answer: Answer) -> bytes:
    if isinstance(answer, Mapping):
        return lava.encode_reply(name, answer)
    return lava.encode_words(name, answer or ())
