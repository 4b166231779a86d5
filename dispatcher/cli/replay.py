"""``multinode replay FILE``: what a recorded console says, offline."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from dispatcher.errors import UsageError
from dispatcher.framing import grammar, lava
from dispatcher.framing.events import Damage, Event, InstallFailed, Request, RunnerExit, Signal
from dispatcher.framing.reliable import UNSEEDED, Message, Seed, Up, UpDecoder, decode_message
from dispatcher.job.results import printable


def command(arguments: argparse.Namespace) -> int:
    """Print every frame and marker of a recording with its offset, what is damaged and what was sent again."""
    for line in replay(arguments.file):
        print(line)
    return 0


def replay(path: Path) -> Iterator[str]:
    """The lines to print for a recording. :raises UsageError: it cannot be read."""
    with _opened(path) as recording:
        markers, frames, reader = lava.Decoder(), UpDecoder(seeds=_seeds(recording)), _Reader()
        recording.seek(0)
        for data in _read(recording):
            yield from reader.read([*markers.feed(data), *frames.feed(data)])
        yield from reader.read([*markers.finish(), *frames.finish()])
        yield reader.summary()


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A recording that can be read twice, also where it comes from a pipe."""
    try:
        with path.open("rb") as given:
            if given.seekable():
                yield given
                return
            with tempfile.TemporaryFile() as copy:
                shutil.copyfileobj(given, copy)
                copy.seek(0)
                yield copy
    except OSError as error:
        raise UsageError(f"cannot read it: {error.strerror}", where=str(path)) from None


def _seeds(recording: BinaryIO) -> set[Seed]:
    """The seeds of a recording's runs: what more than one frame has, or the only one, as what is damaged has any."""
    decoder = UpDecoder(0, seeds=None)
    found = Counter(frame.seed for data in _read(recording) for frame in decoder.feed(data) if isinstance(frame, Up))
    return {UNSEEDED, *(seed for seed, count in found.items() if count > 1 or len(found) == 1)}


def _read(recording: BinaryIO) -> Iterator[bytes]:
    while data := recording.read(grammar.READ_SIZE):
        yield data


class _Reader:
    """Tells frames from those that were sent again, and puts the parts of messages together."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, int, bytes]] = set()
        self._parts: dict[str, dict[int, bytes]] = {}
        self._counts = {"frames": 0, "sent again": 0, "markers": 0, "damaged": 0, "results": 0}

    def read(self, events: list[Event | Up]) -> Iterator[str]:
        for event in sorted(events, key=lambda event: event.offset):
            kind, text = self._frame(event) if isinstance(event, Up) else self._marker(event)
            yield f"{event.offset:10}  {kind:7}  {printable(text)}"

    def summary(self) -> str:
        return ", ".join(f"{what} {count}" for what, count in self._counts.items())

    def _frame(self, frame: Up) -> tuple[str, str]:
        self._counts["frames"] += 1
        part = f"{frame.id} {frame.number}/{frame.total}"
        key = (frame.id, frame.number, frame.text)
        again = key in self._seen
        self._seen.add(key)
        if again:
            self._counts["sent again"] += 1
            return "again", f"{part}  {lava.text(frame.text)}"
        if frame.text.startswith(b"+"):
            return "frame", f"{part}  {lava.text(frame.text)}"
        parts = self._parts.setdefault(frame.id, {})
        parts[frame.number] = frame.text
        if len(parts) < frame.total:
            return "frame", f"{part}  {lava.text(frame.text)}"
        message = decode_message(b"".join(parts[number] for number in sorted(parts)))
        del self._parts[frame.id]
        if message is None:
            self._counts["damaged"] += 1
            return "damage", f"{part}  a message that checks makes no sense"
        self._counts["results"] += message.args[:1] == ("TESTCASE",)
        return "frame", f"{part}  {_told(message)}"

    def _marker(self, event: Event) -> tuple[str, str]:
        if isinstance(event, Damage):
            self._counts["damaged"] += 1
            return "damage", f"{event.reason}: {event.text}"
        self._counts["markers"] += 1
        match event:
            case Request():
                return "marker", " ".join([event.name, *event.args])
            case Signal():
                self._counts["results"] += event.name == "TESTCASE"
                return "marker", f"SIGNAL {event.name} {event.params}"
            case RunnerExit():
                return "marker", "RUNNER EXIT"
            case InstallFailed():
                return "marker", "RUNNER INSTALL_FAIL"


def _told(message: Message) -> str:
    options = "".join(f"/{option}{value}" for option, value in message.options.items())
    return " ".join([message.verb + options, *message.args])
