"""Where a stream of bytes is cut in the middle of something, how much of it has come."""

from __future__ import annotations


def begun(data: bytes | bytearray, head: bytes, at_least: int = 0) -> int:
    """How many bytes at the end of some data are the beginning of a head, but not the whole of it.

    :param at_least: bytes at the data's beginning that do not count.
    """
    start = max(at_least, len(data) - len(head) + 1)
    first = head[:1]
    while (start := data.find(first, start)) >= 0:
        if head.startswith(data[start:]):
            return len(data) - start
        start += 1
    return 0
