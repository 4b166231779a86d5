"""Ends the calls of a test that an earlier run has left on a board, as one does that is killed.

Such a test waits in a call for ever, or for minutes, and Ctrl-C does nothing meanwhile: the tty's signals are off.
What it says has that run's seed, which nobody knows any more, so anything that has a frame's form is answered; an
answer to a call that does not exist is a comment at a shell.
"""

from __future__ import annotations

import re
from typing import Final

from dispatcher.framing.events import Request
from dispatcher.framing.link import Link
from dispatcher.framing.reliable import Kind, Seed, decode_up

FRAME: Final = re.compile(rb"<(MN2 [^<>\n]*)>")

_REASON: Final = b"the run that this test was of has ended"
_TOLD: Final = frozenset({"SIGNAL", "RUNNER"})
"""What needs no answer but that it was heard."""


class Leftover:
    """What is left on one console.

    :param seed: what the frames of this run begin with, whose calls somebody will answer.
    """

    def __init__(self, seed: Seed | None) -> None:
        self._seed = seed
        self._link = Link()

    def answer(self, content: bytes, now: float) -> bytes | None:
        """What to type at a frame of an earlier run, which may be nothing: every call fails. None: it is no such frame.

        :param content: what stood between its ``<`` and ``>``.
        :param now: on any monotonic clock.
        """
        frame = decode_up(content, seeds=None)
        if frame is None or frame.seed == self._seed:
            return None
        for said in self._link.receive(frame, now):
            if isinstance(said, Request) and said.id is not None:
                kind = Kind.DONE if said.name in _TOLD else Kind.FAIL
                self._link.answer(said.id, kind, b"" if kind is Kind.DONE else _REASON, now)
        typed = b"".join(self._link.typed)
        self._link.typed.clear()
        return typed
