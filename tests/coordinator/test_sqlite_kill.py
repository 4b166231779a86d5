"""``kill -9`` of a process that writes a journal: whatever it had acknowledged is there."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from dispatcher.coordinator.journal.sqlite import SqliteJournal
from dispatcher.group.events import Event, Sent

# Opens and drops groups too, so that some kills fall into those. What it prints, it was told to be kept.
_WRITER = """
import itertools, pathlib, sys
from dispatcher.coordinator.journal import GroupRecord
from dispatcher.coordinator.journal.sqlite import SqliteJournal, Sync
from dispatcher.group.events import Member, Sent

journal = SqliteJournal(pathlib.Path(sys.argv[1]), sync=Sync(sys.argv[2]), tell=print)
first = int(sys.argv[3])
for name in () if journal.groups() else "ab":
    journal.open(GroupRecord(name, "run", (Member("1", "server"),), 0.0))
for number in itertools.count(first):
    journal.append("ab"[number % 2], Sent(str(number), "1", "x", (("key", "v" * (number % 300)),)))
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
    if number % 10 == 0:
        journal.open(GroupRecord(f"short{number}", "run", (Member("1", "server"),), 0.0))
        journal.append(f"short{number}", Sent("1", "1", "x"))
        journal.drop(f"short{number}")
"""


@pytest.mark.parametrize("sync", ["normal", "full"])
def test_every_acknowledged_event_survives(sync: str, tmp_path: Path) -> None:
    rng = random.Random(sync)
    path = tmp_path / "journal"
    acknowledged = -1
    for _ in range(6):
        # The writer is killed while it goes on, wherever it is.
        command = [sys.executable, "-c", _WRITER, path, sync, str(acknowledged + 1)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout
            lines = [writer.stdout.readline() for _ in range(rng.randrange(1, 400))]
            writer.kill()
            # What it printed before it died counts as well.
            lines += [line for line in writer.stdout if line.endswith("\n")]
            acknowledged = int(lines[-1])
        told: list[str] = []
        with SqliteJournal(path, tell=told.append) as journal:
            assert told == []
            kept = [event for name in "ab" for event in journal.read(name)]
        numbers = sorted(number(event) for event in kept)
        assert numbers == list(range(len(numbers)))
        # The last one may have been kept and not acknowledged yet.
        assert len(numbers) - 1 - acknowledged in {0, 1}
        acknowledged = len(numbers) - 1
    assert acknowledged > 500


def number(event: Event) -> int:
    assert isinstance(event, Sent)
    assert event.data == (("key", "v" * (int(event.request) % 300)),)
    return int(event.request)
