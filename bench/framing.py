"""How fast a console's bytes are decoded, by both framings together, beside reading the same pty and doing nothing.

Prints MB/s for kinds of output and sizes of reads, and the share of the plain read's speed. Half-finished markers and
endless lines are there because a decoder that looks back gets slower with every byte of them.
"""

from __future__ import annotations

import os
import pty
import threading
import time
import tty

from dispatcher.framing.conversation import Conversation
from dispatcher.framing.reliable import encode_message, encode_up

SIZE = 8_000_000
FRAME = encode_up("0123456789ab", 1, 1, encode_message("SIGNAL", ["TESTCASE", "TEST_CASE_ID=x", "RESULT=pass"]))
KINDS = {
    "text": b"[   12.345678] usb 1-1: new high-speed USB device number 2 using xhci_hcd\r\n",
    "text, a frame in 20 lines": b"just a line of what a test prints, some sixty bytes long\r\n" * 20 + FRAME,
    "no line feed": b"x" * 64,
    "half markers": b"<LAVA_MULTI_NODE> <LAVA_WAIT ",
    "half frames": b"<MN2 0123456789ab 1/1 ",
}


def through_a_pty(data: bytes, size: int, hear: object) -> float:
    """Seconds to read ``data`` from a pty in reads of at most ``size`` bytes, giving each to ``hear``."""
    reader, writer = pty.openpty()
    tty.setraw(writer)

    def write() -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(writer, view) :]

    thread = threading.Thread(target=write)
    began = time.perf_counter()
    thread.start()
    left = len(data)
    while left:
        chunk = os.read(reader, size)
        left -= len(chunk)
        hear(chunk)  # type: ignore[operator]
    seconds = time.perf_counter() - began
    thread.join()
    os.close(reader)
    os.close(writer)
    return seconds


def main() -> None:
    print(f"{'output':28}{'reads of':>10}{'plain MB/s':>12}{'decoded MB/s':>14}{'share':>8}")
    for kind, block in KINDS.items():
        data = block * (SIZE // len(block))
        for size in (65536, 16):
            part = data if size > 16 else data[: SIZE // 16]
            plain = through_a_pty(part, size, lambda _chunk: None)
            conversation = Conversation()
            decoded = through_a_pty(part, size, lambda chunk, to=conversation: to.hear(chunk, 0.0))
            megabytes = len(part) / 1e6
            print(
                f"{kind:28}{size:>10}{megabytes / plain:>12.1f}{megabytes / decoded:>14.1f}{plain / decoded:>8.0%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
