"""The host's side of framing 2: every request done once, every answer given until it has arrived.

Theory of operation. The device drives: it repeats what it said until it hears, and asks again while it waits, so the
host need only answer whatever stands. A call is in one of five states, and :data:`TABLE` says what each thing that can
happen does in each of them; a pair that is missing there is ignored, because a device may print anything. The one thing
the host repeats by itself is an answer to a call that it had told to hold, and only while that call has asked within
:data:`ASK_INTERVAL`: whoever else reads the console then should not have our frames typed at it.

Nothing here reads a clock or a console: time is passed in (seconds on any monotonic clock), bytes to type and requests
to do are taken out.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from dispatcher.framing import grammar
from dispatcher.framing.events import Abandoned, Damage, Request
from dispatcher.framing.reliable import Down, Kind, Message, Up, answer_frames, decode_message, encode_down

HOLD_AFTER: Final = 0.2
"""Seconds that a call's answer may take before the device is told to hold; a quick answer needs no such frame."""

CONFIRM_AFTER: Final = 1.0
"""Seconds without a word from a held call after which its answer is typed again; doubles each time."""

ASK_INTERVAL: Final = 65.0
"""Seconds within which a live call asks again: the 60 that a waiting script takes at most, and some for the line."""

CALLS_REMEMBERED: Final = 256
"""Calls of one console that are remembered, the open ones included; the oldest are forgotten first."""

NEWS_BURST: Final = 256
NEWS_RATE: Final = 500.0
"""Frames of unknown calls that are heard at once, and each second in the long run. A device makes one call after the
other, so this is more than it can ask for. What comes on top is not looked into; a call that is real repeats it."""

ANSWERS_REMEMBERED: Final = 8 * 1024 * 1024
"""Bytes of answers that are kept to be given again."""

REQUEST_LIMIT: Final = 3 * grammar.MESSAGE_LIMIT + 4096
"""Bytes of one escaped message: each byte may be escaped to three."""


News = Request | Abandoned | Damage


class State(Enum):
    """Where a call is."""

    COLLECTING = "its parts are coming in"
    ASKED = "it is being done"
    HELD = "it is being done, and the device knows"
    ANSWERED = "its answer has been typed"
    CLOSED = "the device has its answer, or wants none any more"


class Input(Enum):
    """What can happen to a call. The last three come from this side of the line."""

    PART = "a part of the request"
    ASK = "+ASK"
    NEXT = "+NEXT"
    BYE = "+BYE"
    ANSWER = "its answer is there"
    WAITED = "HOLD_AFTER has passed"
    UNCONFIRMED = "the answer has not been confirmed"


@dataclass(slots=True)
class _Call:
    id: str
    state: State = State.COLLECTING
    total: int = 0
    text: bytearray = field(default_factory=bytearray)
    parts: int = 0
    frames: list[Down] = field(default_factory=list)
    current: int = 0
    size: int = 0
    asked: float = 0.0
    due: float = 0.0
    patience: float = CONFIRM_AFTER
    was_held: bool = False


class Link:
    """Framing 2 on one console.

    :ivar typed: bytes to type, in order; whoever types them takes them away.
    :ivar heard: how many frames have come.
    :ivar repeats: how often the device repeated itself, because it had not heard what it was told; a growing number
        says that the line to it loses bytes.
    """

    def __init__(self) -> None:
        self.typed: list[bytes] = []
        self.heard = self.repeats = 0
        self._calls: OrderedDict[str, _Call] = OrderedDict()
        self._finished: dict[str, None] = {}
        self._timed: dict[str, _Call] = {}
        self._size = 0
        self._news = _Allowance()
        self._events: list[News] = []

    def receive(self, frame: Up, now: float) -> list[News]:
        """Take a frame that has checked; what it asks for, if that is news."""
        self._events = []
        self.heard += 1
        call = self._calls.get(frame.id)
        if call is None and not self._news.take(now):
            if self._news.just_spent:
                self._events.append(Damage("too many calls at once", frame.id, frame.offset))
            return self._events
        message = decode_message(frame.text) if frame.text.startswith(b"+") else None
        if message is not None:
            self._control(call, message, frame, now)
        elif call is not None:
            call.asked = now
            self._step(call, Input.PART, frame, now)
        elif frame.number == 1:
            call = _Call(frame.id, total=frame.total, asked=now)
            self._remember(call)
            self._step(call, Input.PART, frame, now)
        else:
            self._say(Down(frame.id, Kind.AGAIN))
        return self._events

    def answer(self, request: str, kind: Kind, content: bytes, now: float) -> None:
        """Answer a call: ``DATA`` (``DONE`` where empty), ``DONE`` or ``FAIL``.

        One that is forgotten or has been answered is let be.
        """
        call = self._calls.get(request)
        if call is None or call.state not in {State.ASKED, State.HELD}:
            return
        call.frames = [Down(request, kind)] if kind is Kind.DONE else answer_frames(request, kind, content)
        call.current = 1
        call.size = len(content)
        self._size += call.size
        self._step(call, Input.ANSWER, None, now)
        self._forget_old()

    def tick(self, now: float) -> None:
        """Do what is due. Call it at :meth:`due` at the latest."""
        for call in list(self._timed.values()):
            if call.due <= now:
                self._wake(call, None)
                due = Input.UNCONFIRMED if call.state is State.ANSWERED else Input.WAITED
                self._step(call, due, None, now)

    def due(self) -> float | None:
        """When :meth:`tick` has something to do, None for nothing."""
        return min((call.due for call in self._timed.values()), default=None)

    def waiting(self) -> list[str]:
        """The ids of calls that are being done."""
        return [call.id for call in self._calls.values() if call.state in {State.ASKED, State.HELD}]

    # --- the table's actions ---------------------------------------------------------------------------------

    def _control(self, call: _Call | None, message: Message, frame: Up, now: float) -> None:
        verb = {"+ASK": Input.ASK, "+NEXT": Input.NEXT, "+BYE": Input.BYE}.get(message.verb)
        if verb is None:
            self._events.append(Damage("it is no control message", message.verb[:80], frame.offset))
        elif call is not None:
            call.asked = now
            self._step(call, verb, frame, now)
        elif verb is not Input.BYE:
            self._say(Down(frame.id, Kind.AGAIN))

    def _step(self, call: _Call, what: Input, frame: Up | None, now: float) -> None:
        action = TABLE.get((call.state, what))
        if action is not None:
            action(self, call, frame, now)

    def _collect(self, call: _Call, frame: Up | None, now: float) -> None:
        if frame is None or frame.total != call.total:
            return
        if frame.number != call.parts + 1:
            self.repeats += frame.number <= call.parts
            self._go(call, frame, now)
            return
        call.parts += 1
        call.text += frame.text
        if len(call.text) > REQUEST_LIMIT:
            self._events.append(Damage("a message is too long", call.id, frame.offset))
            self._close(call, frame, now)
        elif call.parts < call.total:
            self._go(call, frame, now)
        else:
            self._ask(call, frame, now)

    def _go(self, call: _Call, _frame: Up | None, _now: float) -> None:
        self._say(Down(call.id, Kind.GO, call.parts, call.total))

    def _ask(self, call: _Call, frame: Up, now: float) -> None:
        message = decode_message(bytes(call.text))
        call.text.clear()
        call.state = State.ASKED
        if message is None:
            self._events.append(Damage("a message that checks makes no sense", call.id, frame.offset))
            self.answer(call.id, Kind.FAIL, b"the dispatcher cannot read this message", now)
            return
        self._wake(call, now + HOLD_AFTER)
        self._events.append(Request(message.verb, message.args, frame.offset, call.id, message.options))

    def _hold(self, call: _Call, frame: Up | None, _now: float) -> None:
        # While it is being done the device has heard nothing yet that could be lost, and a held call asks anyway.
        self.repeats += frame is not None and call.state is State.HELD and not frame.text.startswith(b"+")
        call.state = State.HELD
        call.was_held = True
        self._wake(call, None)
        self._say(Down(call.id, Kind.HOLD))

    def _give(self, call: _Call, _frame: Up | None, now: float) -> None:
        """The answer is there: type its first frame, unless the call has not asked for so long that it must be dead."""
        call.state = State.ANSWERED
        self._finished[call.id] = None
        self._wake(call, None)
        if not call.was_held:
            self._say(call.frames[0])
        elif now - call.asked <= ASK_INTERVAL:
            self._say(call.frames[0])
            call.patience = CONFIRM_AFTER
            self._wake(call, now + call.patience)

    def _give_again(self, call: _Call, frame: Up | None, now: float) -> None:
        self.repeats += frame is not None
        if now - call.asked > ASK_INTERVAL:
            return
        self._say(call.frames[call.current - 1])
        if call.was_held:
            call.patience *= 2
            self._wake(call, now + call.patience)

    def _give_next(self, call: _Call, frame: Up | None, now: float) -> None:
        message = decode_message(frame.text) if frame else None
        wanted = message.args[0] if message and message.args else ""
        if not (wanted.isascii() and wanted.isdigit() and 1 <= int(wanted) <= len(call.frames)):
            return
        self.repeats += call.current == int(wanted)
        call.current = int(wanted)
        self._say(call.frames[call.current - 1])
        call.patience = CONFIRM_AFTER
        self._wake(call, now + call.patience if call.was_held else None)

    def _close(self, call: _Call, _frame: Up | None, _now: float) -> None:
        call.state = State.CLOSED
        self._finished[call.id] = None
        self._wake(call, None)
        self._size -= call.size
        call.size = 0
        call.frames = []
        call.text.clear()

    def _abandon(self, call: _Call, frame: Up | None, now: float) -> None:
        self._close(call, frame, now)
        self._events.append(Abandoned(call.id, frame.offset if frame else 0))

    def _wake(self, call: _Call, when: float | None) -> None:
        """Have :meth:`tick` look after a call then, or no more."""
        if when is None:
            self._timed.pop(call.id, None)
        else:
            call.due = when
            self._timed[call.id] = call

    def _say(self, frame: Down) -> None:
        self.typed.append(encode_down(frame))

    # --- memory ----------------------------------------------------------------------------------------------

    def _remember(self, call: _Call) -> None:
        self._calls[call.id] = call
        self._forget_old()

    def _forget_old(self) -> None:
        """Keep to the limits: first the finished calls, oldest first, then the oldest of all."""
        while len(self._calls) > CALLS_REMEMBERED or self._size > ANSWERS_REMEMBERED:
            oldest = next(iter(self._finished or self._calls))
            self._finished.pop(oldest, None)
            self._timed.pop(oldest, None)
            self._size -= self._calls.pop(oldest).size


class _Allowance:
    """How many calls may still be made now.

    :ivar just_spent: whether :meth:`take` refused, for the first time since it last had plenty.
    """

    def __init__(self) -> None:
        self.just_spent = False
        self._left = float(NEWS_BURST)
        self._at = 0.0
        self._told = False

    def take(self, now: float) -> bool:
        """Take one, if there is one."""
        self._left = min(NEWS_BURST, self._left + max(0.0, now - self._at) * NEWS_RATE)
        self._at = now
        self._told = self._told and self._left < NEWS_BURST
        allowed = self._left >= 1
        self._left -= allowed
        self.just_spent = not allowed and not self._told
        self._told = self._told or not allowed
        return allowed


Action = Callable[[Link, _Call, Up | None, float], None]

TABLE: Final[dict[tuple[State, Input], Action]] = {
    (State.COLLECTING, Input.PART): Link._collect,
    (State.COLLECTING, Input.ASK): Link._go,
    (State.COLLECTING, Input.BYE): Link._close,
    (State.ASKED, Input.PART): Link._hold,
    (State.ASKED, Input.ASK): Link._hold,
    (State.ASKED, Input.BYE): Link._abandon,
    (State.ASKED, Input.WAITED): Link._hold,
    (State.ASKED, Input.ANSWER): Link._give,
    (State.HELD, Input.PART): Link._hold,
    (State.HELD, Input.ASK): Link._hold,
    (State.HELD, Input.BYE): Link._abandon,
    (State.HELD, Input.ANSWER): Link._give,
    (State.ANSWERED, Input.PART): Link._give_again,
    (State.ANSWERED, Input.ASK): Link._give_again,
    (State.ANSWERED, Input.NEXT): Link._give_next,
    (State.ANSWERED, Input.BYE): Link._close,
    (State.ANSWERED, Input.UNCONFIRMED): Link._give_again,
}
"""What each input does in each state. What is missing does nothing: a script asks for what it was not promised only
when it is not ours."""
