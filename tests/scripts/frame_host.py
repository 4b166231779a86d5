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
from dispatcher.framing.reliable import Up, decode_down, decode_up
from dispatcher.job.overlay import BYTES

SPEED = 20.0
"""How much faster the host's clock goes than ours: its delays of 0.2 and of 1 s need not be waited for."""

FRAME = re.compile(rb"<(MN2 [^<>]*)>")

Filter = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Fail:
    """A call is to fail."""

    reason: str


@dataclass(frozen=True, slots=True)
class Later:
    """A call is to be told to hold, and answered then."""

    answer: Answer | Fail = None


class Never:
    """A call is to be told to hold. :meth:`Host.release` answers it."""


Reaction = Answer | Fail | Later | Never


def frames_settings(**values: str) -> dict[str, str]:
    """The settings of a device that speaks framing 2 and loses no time, in a test: a runner knows how the tty was."""
    return {"FRAMING": "2", "QUIET": "3", "NONCE": "beef", "BYTES": BYTES, "TTY": "known"} | values


@dataclass
class Host:
    """Answers what the processes on a pty call.

    :param react: what to answer a request.
    :param up: what becomes of a line of the device; ``down``: of a frame to it. Nothing where it is lost.
    :ivar events: what the device said.
    :ivar heard: every byte of the device; ``typed``: every frame to it, before it was lost.
    """

    call: Call
    react: Callable[[Request], Reaction] = lambda _request: None
    up: Filter = lambda line: line
    down: Filter = lambda frame: frame
    events: list[Event] = field(default_factory=list)
    heard: bytes = b""
    typed: list[bytes] = field(default_factory=list)
    _line: bytes = b""
    _held: dict[str, tuple[Request, Answer | Fail]] = field(default_factory=dict)

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
    def told(self) -> list[str]:
        """What the device told, each frame once: on a busy machine it may not wait long enough for an answer."""
        return list({(frame.id, frame.number, frame.text): frame.text.decode() for frame in self.said}.values())

    @property
    def answered(self) -> list[str]:
        """What the device was answered, each once."""
        return list(dict.fromkeys(self.answers))

    @property
    def answers(self) -> list[str]:
        """The kinds of the frames to the device, with their parts."""
        frames = [decode_down(frame) for frame in self.typed]
        return [f"{frame.kind.name} {frame.part}" if frame.part else frame.kind.name for frame in frames if frame]

    def holds(self, name: str) -> bool:
        """Whether a call whose first argument is ``name`` has been told to hold."""
        held = {frame.id for frame in map(decode_down, self.typed) if frame and frame.kind.name == "HOLD"}
        return any(request.id in held for request in self.requests if request.args[:1] == (name,))

    @property
    def printed(self) -> bytes:
        """What else the console showed, with plain line feeds."""
        plain = self.heard.replace(b"\r\n", b"\n")
        return re.sub(FRAME.pattern + rb"\n", b"", plain)

    # --- the conversation -------------------------------------------------------------------------------------

    def restart(self) -> None:
        """Forget everything, as a dispatcher that was started again does."""
        self.conversation = Conversation()
        self._held.clear()

    def release(self, name: str, answer: Answer | Fail = None) -> None:
        """Answer the last call whose first argument is ``name``."""
        request = next(request for request in reversed(self.requests) if request.args[:1] == (name,))
        self._settle(request, answer)
        self._type()

    def until(self, condition: Callable[[], Any]) -> None:
        """Talk until something is so."""
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            assert time.monotonic() < deadline, f"in vain: {self.heard[-2000:]!r}"
            assert self._step(), f"it has ended: {self.heard[-2000:]!r}"

    def shows(self, text: bytes) -> None:
        """Talk until the console has shown a text."""
        self.until(lambda: text in self.heard)

    def finish(self, timeout: float = TIMEOUT) -> int:
        """Talk until the console is closed; the exit status of the process."""
        deadline = time.monotonic() + timeout
        while self._step():
            assert time.monotonic() < deadline, f"it does not end: {self.heard[-2000:]!r}"
        return self.call.process.wait(TIMEOUT)

    def _now(self) -> float:
        return time.monotonic() * SPEED

    def _step(self) -> bool:
        self.conversation.tick(self._now())
        self._type()
        due = self.conversation.due()
        wait = 0.05 if due is None else min(0.05, max(0.0, (due - self._now()) / SPEED))
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
            self._hear(self.up(line + b"\n"))
        return bool(data)

    def _hear(self, line: bytes) -> None:
        for event in self.conversation.hear(line, self._now()):
            self.events.append(event)
            if not isinstance(event, Request):
                continue
            reaction = self.react(event)
            if isinstance(reaction, Later):
                self._held[event.id or ""] = (event, reaction.answer)
            elif not isinstance(reaction, Never):
                self._settle(event, reaction)
        self._type()

    def _settle(self, request: Request, answer: Answer | Fail) -> None:
        if isinstance(answer, Fail):
            self.conversation.fail(request, answer.reason, self._now())
        else:
            self.conversation.succeed(request, answer, self._now())

    def _type(self) -> None:
        while self.conversation.typed:
            data = self.conversation.typed.pop(0)
            self.typed.append(data)
            self.call.type(self.down(data))
            frame = decode_down(data)
            if frame and frame.kind.name == "HOLD" and frame.id in self._held:
                self._settle(*self._held.pop(frame.id))


def start(
    device: Device,
    name: str,
    *args: str | bytes,
    react: Callable[[Request], Reaction] | Mapping[str, Reaction] | None = None,
    up: Filter = lambda line: line,
    down: Filter = lambda frame: frame,
    **options: Any,
) -> Host:
    """Start a script, and a host for it.

    :param react: what to answer a request, or that by its name and first argument (``"WAIT ready"``).
    """
    return Host(device.start(name, *args, **options), reactions(react), up, down)


def reactions(
    react: Callable[[Request], Reaction] | Mapping[str, Reaction] | None,
) -> Callable[[Request], Reaction]:
    """A function from a table. What is not in the table is done, without data."""
    if callable(react):
        return react
    table = react or {}
    return lambda request: table.get(" ".join([request.name, *request.args[:1]]))


def losing(*numbers: int) -> Filter:
    """Loses the frames with these numbers, counted from 1."""
    seen = 0

    def pass_on(data: bytes) -> bytes:
        nonlocal seen
        seen += data.startswith(b"#") or b"<MN2 " in data
        return b"" if seen in numbers else data

    return pass_on
