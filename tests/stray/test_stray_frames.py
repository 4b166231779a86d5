"""A reply whose call has died reaches an interactive root shell: whole, without its head, or with one byte damaged.

What a damaged byte can still do is written down here, shell by shell, and argued in ``docs/console-protocol.md``.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import pytest
from stray_terminal import HISTORY, KINDS, MORE, PROMPT, Terminal

from dispatcher.framing.reliable import LETTERS, Down, Kind, encode_down

pytestmark = pytest.mark.slow

ID = "5e49b9d48fa2"
FRAMES = [
    encode_down(Down(ID, Kind.DONE)),
    encode_down(Down(ID, Kind.DATA, 1, 1, b"ip=10.0.0.7\n")),
    encode_down(Down(ID, Kind.FAIL, 1, 1, b"timed out")),
]

LONGEST_NAME = 26
"""Letters. Every shorter piece of a frame is the name of a command here."""

TERMINALS = 8
"""How many shells share one test's strays: busybox sleeps 20 ms after a line."""


class Effect(StrEnum):
    """What a stray reply does, from nothing to the worst."""

    NOTHING = "nothing"
    NO_COMMAND = "a name that no command has is looked up"
    SWALLOWS = "the next line is taken for the rest of the comment"
    BEHEADS = "the next line loses its first bytes"
    APPENDS = "the next line is run with the comment at its end"
    RECALLS = "the next line is run at the end of an old line of the shell's history"
    QUOTES = "a quote is open"
    RUNS = "what is left of it is run, a command without arguments"


@dataclass(frozen=True, slots=True)
class Stray:
    """What reaches a shell: ``before`` first, then ``after``, which begins where the damage is.

    :param what: the byte that is damaged, and how.
    """

    what: str
    before: bytes
    after: bytes


def name_of(byte: int) -> str:
    return "LF" if byte == ord("\n") else chr(byte)


def damaged() -> Iterator[Stray]:
    """The frames whole, with each byte lost, and with each bit of each byte flipped."""
    for frame in FRAMES:
        yield Stray("whole", b"", frame)
        for place, byte in enumerate(frame):
            head, tail = frame[:place], frame[place + 1 :]
            name = name_of(byte) if place else "first #"
            yield Stray(f"{name} lost", head, tail)
            for bit in range(8):
                yield Stray(f"{name} ^ {1 << bit:02x}", head, bytes([byte ^ 1 << bit]) + tail)


def beheaded() -> Iterator[Stray]:
    """What a call that died in the middle of reading a frame has left of it."""
    for frame in FRAMES:
        for place in range(1, len(frame)):
            yield Stray("tail", b"", frame[place:])


class Shells:
    """Some shells of one kind, where every piece of a frame names a command."""

    def __init__(self, kind: str, root: Path) -> None:
        self.root = root
        self.bait = root / "bait"
        self.bait.mkdir()
        script = root / "script"
        script.write_text('#!/bin/sh\necho "ran: ${0##*/}"\n')
        script.chmod(0o755)
        for name in self._names():
            (self.bait / name).symlink_to(script)
        self.terminals = [Terminal(KINDS[kind], path=self.bait, root=root / str(n)) for n in range(TERMINALS)]

    def _names(self) -> set[str]:
        bodies = [frame.strip(b"#\n").decode() for frame in FRAMES]
        return {
            name for body in bodies for length in range(1, LONGEST_NAME + 1) for name in (body[:length], body[-length:])
        }

    def files(self) -> dict[str, bytes]:
        """Every file there and what it holds, but the shells' own histories."""
        paths = [path for path in self.root.rglob("*") if path.is_file() and path.name != HISTORY]
        return {str(path): path.read_bytes() for path in paths}

    def effects(self, strays: Iterator[Stray]) -> Mapping[str, set[Effect]]:
        """Type strays at the shells, and find out what each kind of damage does."""
        numbered = list(enumerate(strays))
        found: dict[str, set[Effect]] = collections.defaultdict(set)
        with ThreadPoolExecutor(TERMINALS) as pool:
            shares = [numbered[first::TERMINALS] for first in range(TERMINALS)]
            for effects in pool.map(_effects, self.terminals, shares):
                for what, effect in effects:
                    found[what].add(effect)
        return found

    def close(self) -> None:
        for terminal in self.terminals:
            terminal.close()


@pytest.fixture(params=KINDS, scope="module")
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def shells(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shells]:
    shells = Shells(kind, tmp_path_factory.mktemp("shells"))
    yield shells
    shells.close()


def _effects(terminal: Terminal, strays: list[tuple[int, Stray]]) -> list[tuple[str, Effect]]:
    for _ in range(8):  # the history, which some line editors can be sent into
        terminal.type(b"echo old\n")
        terminal.prompted()
    before = terminal.output(b"pwd; set +o")
    effects = [(stray.what, _effect(terminal, stray, number)) for number, stray in strays]
    assert terminal.output(b"pwd; set +o") == before
    return effects


def _effect(terminal: Terminal, stray: Stray, number: int) -> Effect:
    """Type one stray and two lines after it; leave the shell at its prompt."""
    terminal.type(stray.before)
    # The byte that is damaged comes alone, as on a slow line: readline takes what comes in one go as plain text.
    terminal.expect(lambda seen: seen.endswith(stray.before[-8:]), f"{stray} is not echoed")
    terminal.seen = b""
    terminal.add(stray.after + b"echo usab\\le-%d-1\necho usab\\le-%d-2\n" % (number, number))
    last = b"usable-%d-2\r\n" % number
    terminal.expect(lambda seen: PROMPT in seen.partition(last)[2] or seen.count(MORE) == 3, f"stuck after {stray}")
    seen = terminal.seen
    if MORE in seen:
        terminal.interrupt(number)
        return Effect.QUOTES
    if b"ran: " in seen:
        return Effect.RUNS
    if b"oldecho usable-%d-1\r\n" % number in seen:
        return Effect.RECALLS
    if b"usable-%d-1\r\n" % number in seen:
        return Effect.NO_COMMAND if b"not found" in seen else Effect.NOTHING
    if b"not found" in seen:
        return Effect.BEHEADS
    return Effect.APPENDS if b"usable-%d-1" % number in seen else Effect.SWALLOWS


# --- what is known ---------------------------------------------------------------------------------------------

LINE_END = {f"LF {how}": {Effect.SWALLOWS} for how in ("lost", "^ 01", "^ 02", "^ 04", "^ 08", "^ 20", "^ 40", "^ 80")}
"""It is no line end any more: the comment goes on."""

CTRL_Z = {"LF ^ 10": {Effect.SWALLOWS}}
"""Line editors let Ctrl-Z pass; a plain tty drops the comment at it."""

FIRST = {f"first # {how}": {Effect.NO_COMMAND} for how in ("lost", "^ 02", "^ 08", "^ 10", "^ 40", "^ 80")} | {
    f"first # {how}": {Effect.QUOTES} for how in ("^ 01", "^ 04")
}
"""It is no comment any more but a word of 29 letters or more; ``#`` and one flipped bit can be ``"`` or ``'``."""

EDITOR = LINE_END | CTRL_Z | FIRST


KNOWN: Mapping[str, Mapping[str, set[Effect]]] = {
    "dash": LINE_END | FIRST,
    "bash": EDITOR
    # Meta-r empties the line.
    | {"r ^ 80": {Effect.NO_COMMAND}},
    "bash utf-8 paste": EDITOR,
    "mksh": EDITOR,
    "mksh utf-8": EDITOR,
    # Ctrl-N of its line editor goes to the start of the history.
    "ksh93": EDITOR | {"LF ^ 04": {Effect.RECALLS}},
    # Half of a character sends its line editor to the start of the line.
    "ksh93 utf-8": EDITOR
    | {"LF ^ 04": {Effect.RECALLS}, "LF ^ 80": {Effect.BEHEADS}}
    | {"letter ^ 80": {Effect.NOTHING, Effect.NO_COMMAND, Effect.APPENDS}},
    "ash": EDITOR,
    # Half of a character takes what follows, which near the end is the line feed and the next line.
    "ash utf-8": EDITOR | {"letter ^ 80": {Effect.NOTHING, Effect.BEHEADS}},
}


def grouped(kind: str, effects: Mapping[str, set[Effect]]) -> dict[str, set[Effect]]:
    """What is more than nothing; where it is the place that counts, the letters as one."""
    found: dict[str, set[Effect]] = collections.defaultdict(set)
    for what, some in effects.items():
        letter, _, how = what.partition(" ")
        found[f"letter {how}" if letter in LETTERS + "#" and KINDS[kind].locale != "C" else what] |= some
    return {what: some for what, some in found.items() if some != {Effect.NOTHING}}


def test_the_frames_have_every_letter() -> None:
    for frame in FRAMES:
        assert set(frame.decode()) == set(LETTERS) | {"#", "\n"}


def test_a_stray_reply_does_nothing_but_what_is_known(kind: str, shells: Shells) -> None:
    files = shells.files()
    modes = [terminal.modes() for terminal in shells.terminals]
    effects = shells.effects(damaged())
    # Ctrl-C, whose signal may or may not come before the shell has read the rest of the line.
    for interrupted in ("first # ^ 20", "# ^ 20"):
        assert effects.pop(interrupted) <= {Effect.NOTHING, Effect.NO_COMMAND}
    assert grouped(kind, effects) == KNOWN[kind]
    assert [terminal.modes() for terminal in shells.terminals] == modes
    assert shells.files() == files


def test_the_rest_of_a_reply_names_no_command(kind: str, shells: Shells) -> None:
    files = shells.files()
    assert shells.effects(beheaded()) == {"tail": {Effect.NOTHING, Effect.NO_COMMAND}}
    assert shells.files() == files


def test_an_open_quote_is_closed_by_itself(kind: str, shells: Shells) -> None:
    for terminal, quote in zip(shells.terminals, (b"'", b'"'), strict=False):
        terminal.type(quote + FRAMES[0][1:])
        terminal.expect(lambda seen: MORE in seen, "no quote is open")
        terminal.type(quote + b"\n")
        terminal.expect(lambda seen: b"not found" in seen and PROMPT in seen, "the quote stays open")
        assert b"usable\r\n" in terminal.output(b"echo usab\\le")


def test_an_interrupt_frees_a_line_that_has_not_ended(kind: str, shells: Shells) -> None:
    terminal, frame = shells.terminals[0], FRAMES[0]
    for unfinished, shown in ((frame[:-1], frame[-9:-1]), (b"'" + frame[1:], MORE), (b'"' + frame[1:-1], frame[-9:-1])):
        terminal.type(unfinished)
        terminal.expect(lambda seen, shown=shown: shown in seen, "no echo")
        terminal.type(b"\x03")
        terminal.prompted()
        assert b"not found" not in terminal.seen
        assert b"usable\r\n" in terminal.output(b"echo usab\\le")
