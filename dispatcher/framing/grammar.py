"""The grammar of the console on one page: delimiters, alphabets and limits that both ends of the line share.

Framing 1 is LAVA's. The delimiters were read off the patterns that LAVA's dispatcher compiles
(``lava_dispatcher/actions/test/shell.py`` and ``multinode.py``) and off what its device scripts print.
Everything here is bytes: text begins after framing.
"""

from __future__ import annotations

import re
from typing import Final

# --- framing 1: what the device prints -------------------------------------------------------------------

CALL_HEAD: Final = b"<LAVA_MULTI_NODE> <LAVA_"
SIGNAL_HEAD: Final = b"<LAVA_SIGNAL_"
RUNNER_HEAD: Final = b"<LAVA_TEST_RUNNER "
HEADS: Final = (CALL_HEAD, SIGNAL_HEAD, RUNNER_HEAD)
TAIL: Final = b">"

NAME: Final = re.compile(rb"[A-Z][A-Z0-9_]*")
"""The name of a call or signal, after its head: ``SEND``, ``WAIT_ALL``, ``TESTCASE``."""

KERNEL_STAMP: Final = re.compile(rb"\[ *[0-9]+\.[0-9]{6}\]")
"""printk's time stamp (``Documentation/core-api/printk-basics``, ``printk.time``). Inside a marker it is a
kernel line that split the marker, whatever else stands there."""

# --- framing 1: what the host types ----------------------------------------------------------------------

REPLY_HEAD: Final = b"<LAVA_%s_COMPLETE"
ECHOED_REPLY: Final = re.compile(rb"<LAVA_[A-Z0-9_]+_COMPLETE")
"""The start of a reply of ours. Seen from the device it is an echo, and so is the rest of its line."""

# --- identifiers and values (docs/semantics.md) ----------------------------------------------------------

ID_LIMIT: Final = 128
"""A message ID is 1 to 128 printable bytes without white space and without ``=`` (no ``>`` in framing 1)."""

MESSAGE_LIMIT: Final = 64 * 1024
"""All keys and values of one message, bytes. More is refused on the device."""

_NO_UTF8: Final = re.compile("[\udc80-\udcff]")


def is_printable(text: str) -> bool:
    """Whether a text is one printable line. Bytes that are no UTF-8, which stand as surrogates, are printable too."""
    return _NO_UTF8.sub("", text).isprintable()


# --- buffers ---------------------------------------------------------------------------------------------

LINE_LIMIT: Final = MESSAGE_LIMIT + 1024
"""Bytes of one line that a decoder keeps: a whole send of the largest message. What is longer is skipped to its
end and told as damage where it started with a marker."""

PENDING_LINES: Final = 16
"""Lines that may stand between a marker and its own line feed when other writers print in between."""

READ_SIZE: Final = 64 * 1024
"""Bytes asked of a console at a time."""

# --- framing 2 -------------------------------------------------------------------------------------------

UP_HEAD: Final = b"<MN2 "

FRAME_LIMIT: Final = 200
"""Bytes of a frame of the device, its line feed included: a tty line and most FIFOs survive it."""

UP_PART: Final = 150
"""Bytes of a message's escaped text in one frame of the device."""

UP_PARTS: Final = 9999
"""Parts of one message of the device."""

DOWN_PAYLOAD: Final = 80
"""Bytes of an answer in one frame of the host; it has two letters a byte."""

DOWN_PARTS: Final = 0xFFFF
"""Parts of one answer."""
