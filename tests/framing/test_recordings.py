"""Markers and frames where real consoles split lines and lost bytes: see ``fixtures/transcripts/README.md``."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from dispatcher.framing.events import Damage, Request
from dispatcher.framing.lava import Decoder
from dispatcher.framing.reliable import Up, UpDecoder, encode_up

TRANSCRIPTS = Path(__file__).parents[2] / "fixtures" / "transcripts"
KERNEL_LINE = re.compile(rb"\[ *[0-9]+\.[0-9]{6}\][^\n]*\r\n")
LINE = re.compile(rb"USER-(\d{4})-abcdefghijklmnopqrstuvwxyz-END\r\n")
WIDTH = 40
"""Bytes of a guest's line without its end."""


def marker(number: int) -> bytes:
    return b"<LAVA_MULTI_NODE> <LAVA_SYNC %s>\r\n" % (b"%d" % number).ljust(10, b"x")


def frame(number: int) -> bytes:
    """A frame as wide as a marker."""
    frames = (encode_up(f"{number:012x}", 1, 1, b"SYNC " + b"x" * padding) for padding in range(1, 9))
    return next(frame.replace(b"\n", b"\r\n") for frame in frames if len(frame) == WIDTH + 1)


def frame_or_marker(number: int) -> bytes:
    """Not every number has a frame of that width."""
    try:
        return frame(number)
    except StopIteration:
        return marker(number)


@pytest.mark.parametrize(
    ("name", "splits_inside"), [("mix-8250-n8-info", False), ("mix-pl011-n4-err", False), ("bigwrite-8250", True)]
)
def test_markers_split_where_a_real_kernel_split_a_line(name: str, splits_inside: bool) -> None:
    recording = (TRANSCRIPTS / f"{name}.raw").read_bytes()
    pieces, kernel = KERNEL_LINE.split(recording), [*KERNEL_LINE.findall(recording), b""]
    written = b"".join(map(marker, range(1000, 1200)))[: sum(map(len, pieces))]
    mixed, taken = b"", 0
    for piece, line in zip(pieces, kernel, strict=True):
        mixed += written[taken : taken + len(piece)] + line
        taken += len(piece)
    assert taken == len(written)

    ids, damage = decode_markers(mixed)
    intact = [int(found) for found in re.findall(rb"<LAVA_MULTI_NODE> <LAVA_SYNC (\d+)x+>", mixed)]
    assert ids == intact, "exactly the markers that no kernel line has split"
    assert b">[" in mixed or splits_inside, "some were split from their line feed"
    assert bool(damage) is splits_inside


def decode_markers(data: bytes) -> tuple[list[int], list[Damage]]:
    decoder = Decoder()
    events = [event for start in range(0, len(data), 16) for event in decoder.feed(data[start : start + 16])]
    events += decoder.finish()
    ids = [int(event.args[0][:4]) for event in events if isinstance(event, Request)]
    return ids, [event for event in events if isinstance(event, Damage)]


def decode_frames(data: bytes) -> tuple[list[int], list[Damage]]:
    decoder = UpDecoder()
    events = [event for start in range(0, len(data), 16) for event in decoder.feed(data[start : start + 16])]
    events += decoder.finish()
    ids = [int(event.id, 16) for event in events if isinstance(event, Up)]
    return ids, [event for event in events if isinstance(event, Damage)]


def lost_as_on(recording: bytes, written: Callable[[int], bytes]) -> tuple[bytes, set[int], set[int]]:
    """A recording in which the guest wrote something else.

    A full 16550 loses what the guest writes while the kernel prints, so that of one or two lines a beginning and an end
    are left, with a kernel line between them.

    :return: the bytes, the numbers whose lines arrived whole, and those of which something was lost.
    """
    result, at, whole, number = b"", 0, set(), 0
    for found in LINE.finditer(recording):
        between, at = recording[at : found.start()], found.end()
        first, number = number + 1, int(found[1])
        if whole and first < number:
            cut = KERNEL_LINE.search(between)
            assert cut is not None
            lines = b"".join(map(written, range(first, number)))
            tail = KERNEL_LINE.sub(b"", between[cut.end() :])
            between = lines[: cut.start()] + cut[0] + lines[len(lines) - len(tail) :]
        result += between + written(number)
        whole.add(number)
    return result + recording[at:], whole, set(range(min(whole), max(whole))) - whole


def test_a_full_fifo_costs_markers_and_nothing_else() -> None:
    recording = (TRANSCRIPTS / "paced-115200baud-8250-6.12.raw").read_bytes()
    data, whole, lost = lost_as_on(recording, marker)
    assert lost
    ids, damage = decode_markers(data)
    assert ids == sorted(whole)
    assert damage


def test_a_full_fifo_costs_frames_and_nothing_else() -> None:
    recording = (TRANSCRIPTS / "paced-115200baud-8250-6.12.raw").read_bytes()
    data, whole, lost = lost_as_on(recording, frame_or_marker)
    framed = {number for number in whole | lost if frame_or_marker(number).startswith(b"<MN2")}
    assert lost & framed
    ids, damage = decode_frames(data)
    assert ids == sorted(whole & framed)
    assert damage
