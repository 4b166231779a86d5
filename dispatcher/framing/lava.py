"""Framing 1: LAVA's own markers, so that LAVA's scripts work here and our scripts work under LAVA's dispatcher.

Theory of operation. The device prints markers on lines of their own; anybody else prints too, and may do so in the
middle of a marker. Framing 1 has no checksum, so a decoder can only refuse to guess. A marker is believed when

* it stands on one line, begins with a whole head and ends at the first ``>``;
* nothing inside it can have come from another writer: no second head, no control character, no printk time stamp;
* its own line feed follows. Where other text stands between ``>`` and the end of the line, a kernel line was printed
  between marker and line feed: then the line feed must come as an empty line of its own, before a line that ends in
  ``>`` (which would be the rest of a marker that the kernel split at a ``>`` of its own).

What began like a marker and fails one of these is reported as :class:`Damage`, never as a request. The echo of a
reply that the host typed is recognised by its head, and its line is not looked at any further. A signal in a shell's
trace (``+ echo <LAVA_SIGNAL_…>``, which dash prints without quotes) is passed over: what the command prints comes next.

:class:`Decoder` is fed chunks of any size and gives the same events for the same bytes however they are cut. Every
byte is looked at a constant number of times, and at most :data:`grammar.LINE_LIMIT` of them are kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from dispatcher.errors import CallRefused
from dispatcher.framing import grammar
from dispatcher.framing.events import Damage, Event, InstallFailed, Request, RunnerExit, Signal
from dispatcher.framing.window import begun

_OPENING = b"<LAVA_"
# The opening stands before the alternatives, so that re looks for its bytes and tries nothing anywhere else.
_HEAD = re.compile(
    b"%b(?:(?P<call>%b)|(?P<signal>%b)|(?P<runner>%b)|(?P<echo>%b)|(?P<torn>MULTI_NODE>))"
    % (
        _OPENING,
        *(re.escape(head.removeprefix(_OPENING)) for head in grammar.HEADS),
        grammar.ECHOED_REPLY.pattern.removeprefix(_OPENING),
    )
)
_ECHO_TAIL = b"_COMPLETE"
_TRACE: Final = re.compile(rb"\++ [^ <]")
"""How a line of a shell's trace begins: PS4, once for each level, and a command's first letter."""
_TRACE_BYTES: Final = 16
"""Of a line's beginning, as much as is looked at for that."""
_CALL_OPENING = b"<LAVA_MULTI_NODE> "
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_TRAILERS = b"\r\x00"
_BLANKS = re.compile(rb"[ \t]+")
# Possessive, and only from a run's first blank: any other way a long run of blanks takes quadratic time.
_PAIR_START = re.compile(rb"(?<![ \t])[ \t]++(?=[^ \t=]++=)")
_QUOTED_BYTES = 80
_RUNNER_EVENTS: dict[bytes, type[RunnerExit] | type[InstallFailed]] = {
    b"EXIT": RunnerExit,
    b"INSTALL_FAIL": InstallFailed,
}


def text(data: bytes) -> str:
    """Text of bytes off the line; :func:`raw` gives the same bytes back."""
    return data.decode("utf-8", "surrogateescape")


def raw(string: str) -> bytes:
    """The bytes that :func:`text` was made of."""
    return string.encode("utf-8", "surrogateescape")


@dataclass(slots=True)
class _Pending:
    """A marker whose line feed has not been seen, because another writer's text follows it."""

    event: Event
    quoted: bytes
    offset: int
    lines_left: int = grammar.PENDING_LINES


class Decoder:
    """Finds the markers in what a device prints, whatever else it prints and however the bytes arrive."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._line_offset = 0
        self._searched = 0
        self._skipping = False
        self._first = b""
        self._last = b""
        self._pending: _Pending | None = None

    def feed(self, data: bytes) -> list[Event]:
        """The events that these bytes complete, in the order of the bytes."""
        events: list[Event] = []
        start = self._skim(data, 0)
        while (end := data.find(b"\n", start)) >= 0:
            if self._first or self._pending is not None or end - start > grammar.LINE_LIMIT:
                self._gather(data[start:end], events)
                self._end_line(events, consumed=1)
            else:
                self._take_whole(data[start:end], events)
            start = self._skim(data, end + 1)
        if start < len(data):
            self._gather(data[start:], events)
        return events

    def _skim(self, data: bytes, start: int) -> int:
        """Pass over the rest of a line and whole ones, at one go, where no marker begins; where the next may begin."""
        if self._line or self._skipping or self._pending is not None:
            return start
        opening = data.find(_OPENING, start)
        end = data.rfind(b"\n", start, opening if opening >= 0 else len(data)) + 1
        if end <= start:
            return start
        self._line_offset += end - start
        self._first = self._last = b""
        return end

    def finish(self) -> list[Event]:
        """The events of a last line that no line feed ended; for the end of a recording or of a console."""
        events: list[Event] = []
        if self._last:
            self._end_line(events, consumed=0)
        if self._pending is not None:
            events.append(_damage("other text follows it", self._pending.quoted, self._pending.offset))
            self._pending = None
        return events

    @property
    def kept(self) -> int:
        """Bytes kept for later, never more than :data:`grammar.LINE_LIMIT` and the length of a head."""
        return len(self._line)

    def _take_whole(self, line: bytes, events: list[Event]) -> None:
        """Take a line that came in one piece, as most do."""
        self._first = line[:_TRACE_BYTES]
        self._scan(line.rstrip(_TRAILERS), events)
        self._line_offset += len(line) + 1
        self._first = b""

    def _gather(self, piece: bytes, events: list[Event]) -> None:
        """Take a piece of the current line, and let go of what cannot belong to a marker."""
        if told := piece.rstrip(_TRAILERS):
            self._last = told[-1:]
        if len(self._first) < _TRACE_BYTES:
            self._first += piece[: _TRACE_BYTES - len(self._first)]
        line = self._line
        if self._skipping or not (line or _OPENING[:1] in piece):
            self._line_offset += len(piece)
            return
        start = 0
        while start < len(piece) and not self._skipping:
            # Never past the limit, so that it is met at the same byte however the bytes are cut.
            taken = piece[start : start + grammar.LINE_LIMIT + 1 - len(line)]
            start += len(taken)
            line += taken
            if not line.startswith(_OPENING):
                found = line.find(_OPENING, max(0, self._searched - len(_OPENING)))
                self._drop(found if found >= 0 else len(line) - begun(line, _OPENING))
            self._searched = len(line)
            if len(line) > grammar.LINE_LIMIT:
                self._overflow(events)
        self._line_offset += len(piece) - start

    def _overflow(self, events: list[Event]) -> None:
        """Let go of a line that has outgrown every marker, but for one that may have begun at its end."""
        line = self._line
        if _ECHO_TAIL in line and any(match.lastgroup == "echo" for match in _HEAD.finditer(line)):
            self._drop(len(line))
            self._skipping = True
            return
        match = _HEAD.match(line)
        if match is not None:
            events.append(_damage("it has no end", line, self._line_offset))
        last = line.rfind(_OPENING, 1)
        if line.endswith(_CALL_OPENING, 0, max(last, 0)):
            last -= len(_CALL_OPENING)  # it stands inside the head of a call
        self._drop(last if last > 0 else len(line) - begun(line, _OPENING, at_least=1))
        self._searched = len(line)

    def _drop(self, count: int) -> None:
        del self._line[:count]
        self._line_offset += count

    def _end_line(self, events: list[Event], *, consumed: int) -> None:
        line = bytes(self._line.rstrip(_TRAILERS))
        if self._pending is not None:
            self._settle(self._pending, line, events)
        if line and not self._skipping:
            self._scan(line, events)
        self._line_offset += len(self._line) + consumed
        self._line.clear()
        self._searched = 0
        self._skipping = False
        self._first = b""
        self._last = b""

    def _settle(self, pending: _Pending, line: bytes, events: list[Event]) -> None:
        """Decide on a marker that other text followed, now that the next line is whole."""
        pending.lines_left -= 1
        if not self._last:
            events.append(pending.event)
        elif self._last == grammar.TAIL or _HEAD.search(line) or pending.lines_left == 0:
            events.append(_damage("other text follows it", pending.quoted, pending.offset))
        else:
            return
        self._pending = None

    def _scan(self, line: bytes, events: list[Event]) -> None:
        """Report every marker of one whole line, which has no line feed and no trailing carriage returns."""
        heads = list(_HEAD.finditer(line))
        for index, head in enumerate(heads):
            if head.lastgroup == "echo":
                return
            offset = self._line_offset + head.start()
            following = heads[index + 1].start() if index + 1 < len(heads) else len(line)
            self._scan_marker(line, head, following, offset, events)

    def _scan_marker(
        self, line: bytes, head: re.Match[bytes], following: int, offset: int, events: list[Event]
    ) -> None:
        if head.lastgroup == "signal" and _TRACE.match(self._first):
            return
        quoted = line[head.start() : following]
        end = line.find(grammar.TAIL, head.end(), following)
        if head.lastgroup == "torn" or end < 0:
            events.append(_damage("it has no end on its line", quoted, offset))
            return
        content = line[head.end() : end]
        if grammar.KERNEL_STAMP.search(content) or _CONTROL.search(content):
            events.append(_damage("other output stands inside it", quoted, offset))
            return
        event = _spell(head.lastgroup or "", content, offset)
        if event is None:
            events.append(_damage("it spells nothing known", quoted, offset))
        elif end + 1 in (following, len(line)):
            events.append(event)
        elif following == len(line):
            self._pending = _Pending(event, quoted, offset)
        else:
            events.append(_damage("other text follows it", quoted, offset))


def _spell(kind: str, content: bytes, offset: int) -> Event | None:
    """What stands between a head and its ``>``, or None where that is nothing of this framing."""
    if kind == "runner":
        runner_event = _RUNNER_EVENTS.get(content)
        return runner_event(offset) if runner_event else None
    name = grammar.NAME.match(content)
    if name is None:
        return None
    params = content[name.end() :]
    if params and params[:1] not in (b" ", b"\t"):
        return None
    if kind == "signal":
        return Signal(text(name[0]), text(params.strip(b" \t")), offset)
    return Request(text(name[0]), _arguments(name[0], params.lstrip(b" \t")), offset)


def _arguments(name: bytes, params: bytes) -> tuple[str, ...]:
    """The arguments of a call. A send's values keep their blanks: a pair ends where the next ``key=`` begins."""
    if name != b"SEND":
        return tuple(text(word) for word in _BLANKS.split(params) if word)
    message_id, *rest = _BLANKS.split(params, maxsplit=1)
    pairs = _PAIR_START.split(rest[0]) if rest and rest[0] else []
    return tuple(text(item) for item in (message_id, *pairs) if item)


def _damage(reason: str, quoted: bytes | bytearray, offset: int) -> Damage:
    return Damage(reason, text(bytes(quoted[:_QUOTED_BYTES])), offset)


# --- replies -------------------------------------------------------------------------------------------------

Data = Mapping[str, Mapping[str, str]]
"""What a wait gives: member id → its pairs, in the order of the group."""

_UNSPEAKABLE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_LOOKS_LIKE_ITEM = re.compile(rb"[ \t][0-9]+:[^ \t=]+=")


def encode_reply(name: str, data: Data) -> bytes:
    """The line to type for a satisfied call, its line feed included.

    :raises CallRefused: a value that this framing cannot carry unchanged: a control character, something that
        reads as the start of the next item, or a marker (whose echo would look like the device's own).
    """
    items = b"".join(_item(member, key, value) for member, pairs in data.items() for key, value in pairs.items())
    return grammar.REPLY_HEAD % raw(name) + items + grammar.TAIL + b"\n"


def encode_nack(name: str) -> bytes:
    """The line to type for a call that failed. The reason cannot travel over this framing."""
    return grammar.REPLY_HEAD % raw(name) + b" nack" + grammar.TAIL + b"\n"


def encode_words(name: str, words: Iterable[str]) -> bytes:
    """The line to type for a plugin's call whose answer is words without white space."""
    line = b"".join(b" " + raw(word) for word in words)
    if _UNSPEAKABLE.search(line) or _OPENING in line:
        raise CallRefused(f"the answer to {name} cannot be typed over framing 1")
    return grammar.REPLY_HEAD % raw(name) + line + grammar.TAIL + b"\n"


def _item(member: str, key: str, value: str) -> bytes:
    item = raw(f"{member}:{key}={value}")
    for trouble, what in (
        (_UNSPEAKABLE.search(item), "a control character"),
        (_LOOKS_LIKE_ITEM.search(raw(value)), "what reads as another item"),
        (_OPENING in item, "a marker"),
    ):
        if trouble:
            raise CallRefused(f"{key!r} of {member} holds {what}, which framing 1 cannot carry")
    return b" " + item
