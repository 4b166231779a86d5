"""What a console showed and when, as a terminal recording: asciicast version 2, which ``asciinema play`` shows.

The first line is a JSON object, each other line an event ``[SECONDS, KIND, TEXT]``; of kind ``o`` is what was read, of
kind ``m`` a remark of ours. What is typed is not recorded: it holds passwords, and a device echoes what is to be seen.
"""

from __future__ import annotations

import codecs
import json
import time
from collections.abc import Callable
from typing import Final

WIDTH, HEIGHT = 80, 24
"""What most programs on a device believe of a serial console."""

_OUTPUT: Final = "o"
_REMARK: Final = "m"


class Recorder:
    """Makes a recording's lines; times count from the header's.

    :param monotonic: seconds.
    :param wall: seconds since the epoch.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._monotonic = monotonic
        self._began = monotonic()
        self._wall = wall
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def header(self) -> bytes:
        """The first line."""
        header = {"version": 2, "width": WIDTH, "height": HEIGHT, "timestamp": int(self._wall())}
        return json.dumps(header).encode("ascii") + b"\n"

    def output(self, data: bytes) -> bytes:
        """The line for what was read, without the part of a character at its end, which waits for its rest.

        Empty where nothing is left; a byte that is no text is shown as U+FFFD.
        """
        text = self._decoder.decode(data)
        return self._event(_OUTPUT, text) if text else b""

    def remark(self, text: str) -> bytes:
        """The lines for a remark: a marker, and the same to be seen."""
        return self._event(_REMARK, text) + self._event(_OUTPUT, f"\r\n[multinode: {text}]\r\n")

    def _event(self, kind: str, text: str) -> bytes:
        # A UART hands over 16 bytes at a time: to encode the list as a whole would cost five times as much.
        elapsed = self._monotonic() - self._began
        return f'[{elapsed:.6f}, "{kind}", {json.dumps(text)}]\n'.encode("ascii")
