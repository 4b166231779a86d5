"""Framing 2: frames that carry a request's id and a checksum, so that what is damaged is never believed.

Theory of operation. The two directions have different enemies. Towards the host a frame is one readable line that a
kernel line may split; it says where it begins and ends, and its two sums say whether it is whole. Towards the device a
frame may reach an interactive root shell, if the call that it was meant for has died: so it is a comment there, made of
sixteen letters that form no command, and that no single flipped bit turns into something that ends the comment or that
the tty acts on. ``docs/console-protocol.md`` has the bytes and why they are so; ``fixtures/frames/`` has vectors that
the tests of this module and of the device's scripts both read.

The sums are two polynomials modulo 16-bit primes, with primitive roots as their bases and every product below 2**31,
so that a shell with 32-bit signed arithmetic (mksh) computes them too. Towards the host they begin with the run's seed:
a frame from an old log, which a person pastes or a test prints, is none of this run's. Any frame has sums for some
seed, so a recording can be read without being told: what is whole has the seed of the other frames.
"""

from __future__ import annotations

import operator
import re
import secrets
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from dispatcher.framing import grammar
from dispatcher.framing.events import Damage
from dispatcher.framing.lava import raw, text
from dispatcher.framing.window import begun

# --- sums --------------------------------------------------------------------------------------------------------


Seed = tuple[int, int]
"""What the two sums begin with: each from 0 to less than its prime."""

UNSEEDED: Final[Seed] = (1, 1)
"""Where scripts have been told no seed, and towards the device, where the id says whose frame it is."""

_FIRST_BASE: Final = 32692
_FIRST_PRIME: Final = 65521
_SECOND_BASE: Final = 32700
_SECOND_PRIME: Final = 65519


def _powers(base: int, prime: int) -> tuple[int, ...]:
    """What each symbol of a frame counts, the last one first."""
    return tuple(pow(base, exponent, prime) for exponent in range(grammar.FRAME_LIMIT))


_FIRST_POWERS: Final = _powers(_FIRST_BASE, _FIRST_PRIME)
_SECOND_POWERS: Final = _powers(_SECOND_BASE, _SECOND_PRIME)
_FIRST_INVERSES: Final = _powers(pow(_FIRST_BASE, -1, _FIRST_PRIME), _FIRST_PRIME)
_SECOND_INVERSES: Final = _powers(pow(_SECOND_BASE, -1, _SECOND_PRIME), _SECOND_PRIME)


ONLY_UNSEEDED: Final = frozenset({UNSEEDED})


def new_seed() -> Seed:
    """A seed that frames of other runs do not have."""
    return secrets.randbelow(_FIRST_PRIME), secrets.randbelow(_SECOND_PRIME)


def sums(values: bytes, seed: Seed = UNSEEDED) -> Seed:
    """The two sums over a frame's symbol values, each at least 1 and fewer than :data:`grammar.FRAME_LIMIT`.

    The device's scripts multiply what they have by the base and add a value. To add every value times its power comes
    to the same, and takes a third of the time here.
    """
    length = len(values)
    first, second = _unseeded(values)
    return (
        (first + seed[0] * _FIRST_POWERS[length]) % _FIRST_PRIME,
        (second + seed[1] * _SECOND_POWERS[length]) % _SECOND_PRIME,
    )


def _unseeded(values: bytes) -> tuple[int, int]:
    backwards = values[::-1]
    return sum(map(operator.mul, backwards, _FIRST_POWERS)), sum(map(operator.mul, backwards, _SECOND_POWERS))


def _seed_of(values: bytes, first: int, second: int) -> Seed | None:
    """What the sums must have begun with to come to these; None where no sums do."""
    if first >= _FIRST_PRIME or second >= _SECOND_PRIME:
        return None
    length = len(values)
    added, added_too = _unseeded(values)
    return (
        (first - added) * _FIRST_INVERSES[length] % _FIRST_PRIME,
        (second - added_too) * _SECOND_INVERSES[length] % _SECOND_PRIME,
    )


# --- device to host ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Up:
    """A frame of the device: part ``number`` of ``total`` of a message's text, still escaped."""

    id: str
    number: int
    total: int
    text: bytes
    offset: int = 0
    seed: Seed = UNSEEDED


_UP_VALUES: Final = bytes(max(0, byte - 31) for byte in range(256))
"""The value of each byte, as a table for :meth:`bytes.translate`."""

_UP = re.compile(
    rb"MN2 ([0-9a-f]{12}) ([1-9][0-9]{0,3})/([1-9][0-9]{0,3}) ([ -;=?-~]{1,150}) "
    rb"(0|[1-9][0-9]{0,4})\.(0|[1-9][0-9]{0,4})"
)


def encode_up(request: str, number: int, total: int, part: bytes, seed: Seed = UNSEEDED) -> bytes:
    """A frame as the device's scripts write it, its line feed included; the truth that they are tested against."""
    body = b"MN2 %s %d/%d %s" % (request.encode("ascii"), number, total, part)
    return b"<%s %d.%d>\n" % (body, *sums(body.translate(_UP_VALUES), seed))


def decode_up(content: bytes, offset: int = 0, seeds: Container[Seed] | None = ONLY_UNSEEDED) -> Up | None:
    """The frame that stands between ``<`` and ``>``, or None where the sums or the form say that it is damaged.

    :param seeds: what the sums may begin with; None for anything, where only the form can say so.
    """
    found = _UP.fullmatch(content)
    if found is None:
        return None
    request, number, total, part, first, second = found.groups()
    seed = _seed_of(content[: found.end(4)].translate(_UP_VALUES), int(first), int(second))
    if seed is None or (seeds is not None and seed not in seeds) or int(number) > int(total):
        return None
    return Up(request.decode(), int(number), int(total), part, offset, seed)


class UpDecoder:
    """Finds the device's frames in what it prints, however the bytes arrive.

    Every byte is looked at a constant number of times, and at most :data:`grammar.FRAME_LIMIT` of them are kept.

    :param damage_limit: pieces of damage to tell one by one, None for all.
    :param seeds: what the sums may begin with; None for anything.
    :ivar untold: how many there were on top.
    """

    def __init__(self, damage_limit: int | None = None, *, seeds: Container[Seed] | None = ONLY_UNSEEDED) -> None:
        self._seeds = seeds
        self._kept = b""
        self._offset = 0
        self._left = damage_limit
        self.untold = 0

    def feed(self, data: bytes) -> list[Up | Damage]:
        """The frames that these bytes complete, and what began like a frame and is none."""
        events: list[Up | Damage] = []
        if not self._kept and grammar.UP_HEAD[:1] not in data:
            self._offset += len(data)
            return events
        window = self._kept + data
        position = window.find(grammar.UP_HEAD)
        while position >= 0:
            if self._left == 0:
                position = self._pass_over(window, position)
            following = window.find(grammar.UP_HEAD, position + 1)
            stop = limit = position + grammar.FRAME_LIMIT
            if 0 <= following < limit:
                stop = following
            end = window.find(grammar.TAIL, position, stop)
            if end < 0 and following < 0 and len(window) < limit:
                break  # the rest may still come
            offset = self._offset + position
            frame = decode_up(window[position + 1 : end], offset, self._seeds) if end >= 0 else None
            if frame is not None:
                events.append(frame)
            elif self._left == 0:
                self.untold += 1
            else:
                quoted = text(window[position : end + 1 if end >= 0 else stop][:80])
                events.append(Damage("its sums do not fit", quoted, offset))
                self._left = None if self._left is None else self._left - 1
            position = following
        keep = position if position >= 0 else len(window) - begun(window, grammar.UP_HEAD)
        self._offset += keep
        self._kept = window[keep:]
        return events

    def _pass_over(self, window: bytes, head: int) -> int:
        """Count what begins here, and again before the next end; the last head before that may be a frame's."""
        end = window.find(grammar.TAIL, head)
        last = window.rfind(grammar.UP_HEAD, head, end if end >= 0 else len(window))
        self.untold += window.count(grammar.UP_HEAD, head, last)
        return last

    def finish(self) -> list[Up | Damage]:
        """What a recording ended in the middle of."""
        if not self._kept.startswith(grammar.UP_HEAD):
            return []
        quoted, self._kept = text(self._kept[:80]), b""
        return [Damage("the recording ends in it", quoted, self._offset)]


# --- messages ----------------------------------------------------------------------------------------------------

_ESCAPED = re.compile(rb"[%<> \x00-\x1f\x7f-\xff]")
_ESCAPE = re.compile(rb"%([0-9A-F]{2})")
_VERB = re.compile(rb"(\+?[A-Z][A-Z0-9_]*)((?:/[a-z][0-9.]*)*)")


@dataclass(frozen=True, slots=True)
class Message:
    """What a device says: a verb, its options (``t30`` → ``{"t": "30"}``) and its arguments, unescaped."""

    verb: str
    options: dict[str, str]
    args: tuple[str, ...]


def encode_message(verb: str, args: Sequence[str], options: Iterable[str] = ()) -> bytes:
    """The text of a message, escaped, to be cut into parts."""
    head = b"/".join([verb.encode("ascii"), *(option.encode("ascii") for option in options)])
    return b" ".join([head, *(_ESCAPED.sub(lambda found: b"%%%02X" % found[0][0], raw(arg)) for arg in args)])


def decode_message(joined: bytes) -> Message | None:
    """The message of all parts joined, or None where it is none."""
    head, *args = joined.split(b" ")
    found = _VERB.fullmatch(head)
    if found is None or b"%" in _ESCAPE.sub(b"", joined):
        return None
    options = {option[:1].decode(): option[1:].decode() for option in found[2].split(b"/") if option}
    unescaped = (_ESCAPE.sub(lambda escape: bytes([int(escape[1], 16)]), arg) for arg in args)
    return Message(found[1].decode(), options, tuple(text(arg) for arg in unescaped))


def parts_up(message: bytes) -> list[bytes]:
    """A message's text in parts."""
    step = grammar.UP_PART
    return [message[start : start + step] for start in range(0, len(message), step)]


# --- host to device ----------------------------------------------------------------------------------------------


class Kind(IntEnum):
    """What a frame of the host says."""

    GO = 0
    DONE = 1
    DATA = 2
    HOLD = 3
    FAIL = 4
    AGAIN = 5


@dataclass(frozen=True, slots=True)
class Down:
    """A frame of the host."""

    id: str
    kind: Kind
    part: int = 0
    of: int = 0
    payload: bytes = b""


LETTERS: Final = "ceijkmKqrsuvyzEF"
"""The sixteen letters of a frame to the device, by value. None means anything to a shell, and no single flipped bit
turns one into a quote, ``$``, a backquote, ``;``, ``|``, ``&``, ``<``, ``>``, a backslash, a line end or a character
that a tty acts on (termios(3), Linux's defaults)."""

_TO_LETTERS = bytes.maketrans(b"0123456789abcdef", LETTERS.encode())
_FROM_LETTERS = bytes.maketrans(LETTERS.encode(), b"0123456789abcdef")
_DOWN_VALUES: Final = bytes.maketrans(LETTERS.encode(), bytes(range(1, 17)))
_DOWN = re.compile(rb"#([ceijkmKqrsuvyzEF]{29,%d})" % (grammar.FRAME_LIMIT - len("##\n")))


def encode_down(frame: Down) -> bytes:
    """A frame to type, its line feed included.

    The ``#`` at its end makes what a killed reader leaves of it a word that names no command.
    """
    hexadecimal = f"{frame.id}{frame.kind:x}{frame.part:04x}{frame.of:04x}{frame.payload.hex()}"
    body = hexadecimal.encode("ascii").translate(_TO_LETTERS)
    first, second = sums(body.translate(_DOWN_VALUES))
    return b"#" + body + (b"%04x%04x" % (first, second)).translate(_TO_LETTERS) + b"#\n"


def decode_down(line: bytes) -> Down | None:
    """The frame on a line, or None; what the device's scripts do, for tests and recordings."""
    found = _DOWN.search(line)
    if found is None:
        return None
    body, given = found[1][:-8], found[1][-8:]
    first, second = sums(body.translate(_DOWN_VALUES))
    if given != (b"%04x%04x" % (first, second)).translate(_TO_LETTERS):
        return None
    digits = body.translate(_FROM_LETTERS).decode()
    kind, payload = int(digits[12], 16), digits[21:]
    if kind not in list(Kind) or len(payload) % 2:
        return None
    return Down(digits[:12], Kind(kind), int(digits[13:17], 16), int(digits[17:21], 16), bytes.fromhex(payload))


def cache_content(data: Mapping[str, Mapping[str, str]], *, prefixed: bool) -> bytes:
    """A wait's data as the lines of the cache file: ``key=value``, or ``id:key=value``."""
    return b"".join(
        raw(f"{member}:{key}={value}\n" if prefixed else f"{key}={value}\n")
        for member, pairs in data.items()
        for key, value in pairs.items()
    )


def answer_frames(request: str, kind: Kind, content: bytes) -> list[Down]:
    """An answer in as many frames as it takes. ``DONE`` where there is nothing to give."""
    if kind is Kind.DATA and not content:
        return [Down(request, Kind.DONE)]
    pieces = list(_pieces(content)) or [b""]
    return [Down(request, kind, number, len(pieces), piece) for number, piece in enumerate(pieces, 1)]


def _pieces(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), grammar.DOWN_PAYLOAD):
        yield content[start : start + grammar.DOWN_PAYLOAD]
