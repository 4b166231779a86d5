"""The host's end of framing 2 for scripts on a pty: the dispatcher's own code, told what to answer and what to lose."""

from __future__ import annotations

import os
import re
import select
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from script_harness import TIMEOUT, Call, Device

from dispatcher.framing.conversation import Answer, Conversation
from dispatcher.framing.events import Damage, Event, Request
from dispatcher.framing.reliable import Down, Up, decode_down, decode_up
from dispatcher.job.overlay import BYTES

SPEED = 10.0
"""How much faster the host's clock goes than ours: its delays of 0.2 and of 1 s need not be waited for."""

FRAME = re.compile(rb"<(MN2 [^<>]*)>")


@dataclass(frozen=True, slots=True)
class Fail:
    """A call is to fail."""

    reason: str


@dataclass(frozen=True, slots=True)
class Later:
    """A call is to be told to hold; its answer follows at once."""

    answer: Answer | Fail = None


NEVER = Later(Fail("never"))
"""A call is to be told to hold, and that is all."""

Reaction = Answer | Fail | Later


def frames_settings(**values: str) -> dict[str, str]:
    """The settings of a device that speaks framing 2 and is tested fast."""
    return {"FRAMING": "2", "QUIET": "1", "NONCE": "beef", "BYTES": BYTES} | values


@dataclass
class Host:
    """Answers what one process on a pty calls.

    :param react: what to answer a request; what it raises ends the test.
    :param up: what becomes of a line of the device; nothing where it is lost.
    :param down: what becomes of a frame to the device.
    :ivar events: what the device said.
    :ivar heard: every byte of the device; ``typed``: every byte to it.
    """

    call: Call
    react: Callable[[Request], Reaction] = lambda _request: None
    up: Callable[[bytes], bytes] = lambda line: line
    down: Callable[[bytes], bytes] = lambda frame: frame
    events: list[Event] = field(default_factory=list)
    heard: bytes = b""
    typed: bytes = b""
    _line: bytes = b""
    _held: list[tuple[Request, Answer | Fail]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.conversation = Conversation()

    # --- what was said ----------------------------------------------------------------------------------------

    @property
    def requests(self) -> list[Request]:
        return [event for event in self.events if isinstance(event, Request)]

    @property
    def damage(self) -> list[Damage]:
        return [event for event in self.events if isinstance(event, Damage)]

    @property
    def said(self) -> list[Up]:
        """The frames of the device."""
        frames = [decode_up(found[1]) for found in FRAME.finditer(self.heard)]
        return [frame for frame in frames if frame]

    @property
    def texts(self) -> list[str]:
        """The texts of the frames of the device."""
        return [frame.text.decode() for frame in self.said]

    @property
    def answers(self) -> list[tuple[str, int]]:
        """The kinds and parts of the frames that were typed, before the line did anything to them."""
        frames = [decode_down(line) for line in self.typed.splitlines()]
        return [(frame.kind.name, frame.part) for frame in frames if isinstance(frame, Down)]

    @property
    def printed(self) -> bytes:
        """What else the console showed, with plain line feeds."""
        return FRAME.sub(b"", self.heard.replace(b"\r\n", b"\n").replace(b">\n", b">"))

    # --- the conversation -------------------------------------------------------------------------------------

    def restart(self) -> None:
        """Forget everything, as a dispatcher that was started again does."""
        self.conversation = Conversation()
        self._held.clear()

    def until(self, condition: Callable[[], Any]) -> None:
        """Talk until something is so."""
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            assert time.monotonic() < deadline, f"in vain: {self.heard[-2000:]!r}"
            assert self._step(), f"it has ended: {self.heard[-2000:]!r}"

    def finish(self) -> int:
        """Talk until the device's process has ended; its exit status."""
        deadline = time.monotonic() + TIMEOUT
        while self._step():
            assert time.monotonic() < deadline, f"it does not end: {self.heard[-2000:]!r}"
        return self.call.process.wait(TIMEOUT)

    def quiet(self, seconds: float) -> None:
        """Talk for some time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._step()

    def type(self, data: bytes) -> None:
        """Type something of the test's own."""
        self.call.type(data)

    def _step(self) -> bool:
        now = time.monotonic() * SPEED
        self.conversation.tick(now)
        self._answer(now)
        due = self.conversation.due()
        wait = 0.05 if due is None else min(0.05, max(0.0, (due - now) / SPEED))
        readable, _, _ = select.select([self.call.master], [], [], wait)
        if not readable:
            return True
        try:
            data = os.read(self.call.master, 65536)
        except OSError:
            return False
        self.heard += data
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            self._hear(self.up(line + b"\n"), time.monotonic() * SPEED)
        return bool(data)

    def _hear(self, line: bytes, now: float) -> None:
        for event in self.conversation.hear(line, now):
            self.events.append(event)
            if isinstance(event, Request):
                reaction = self.react(event)
                if isinstance(reaction, Later):
                    self._held.append((event, reaction.answer))
                else:
                    self._settle(event, reaction, now)
        self._answer(now)

    def _settle(self, request: Request, answer: Answer | Fail, now: float) -> None:
        if isinstance(answer, Fail):
            self.conversation.fail(request, answer.reason, now)
        else:
            self.conversation.succeed(request, answer, now)

    def release(self, request_id: str, answer: Answer | Fail) -> None:
        """Answer a call that was told to hold."""
        request = next(request for request in self.requests if request.id == request_id)
        self._settle(request, answer, time.monotonic() * SPEED)

    def _answer(self, now: float) -> None:
        for data in self.conversation.typed:
            self.typed += data
            if data.startswith(b"#") and (frame := decode_down(data)) and frame.kind.name == "HOLD":
                for held in [held for held in self._held if held[0].id == frame.id and held[1] != NEVER.answer]:
                    self._held.remove(held)
                    self._settle(*held, now)
        typed, self.conversation.typed[:] = list(self.conversation.typed), []
        for data in typed:
            self.call.type(self.down(data))


def start(
    device: Device,
    name: str,
    *args: str | bytes,
    react: Callable[[Request], Reaction] | Mapping[str, Reaction] | None = None,
    **options: Any,
) -> Host:
    """Start a script and a host for it. ``react``: a function, or the reactions by ``NAME first-argument``."""
    faults = {key: options.pop(key) for key in ("up", "down") if key in options}
    if isinstance(react, Mapping):
        table = react
        react = lambda request: table.get(" ".join([request.name, *request.args[:1]]))  # noqa: E731
    return Host(device.start(name, *args, **options), react or (lambda _request: None), **faults)
