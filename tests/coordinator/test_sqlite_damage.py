"""A stored journal that something has happened to: all of what was acknowledged is read, or the file is set aside."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from dispatcher.coordinator.journal import GroupRecord
from dispatcher.coordinator.journal.sqlite import SqliteJournal
from dispatcher.group.events import Event, Joined, Member, Sent

GROUPS = [GroupRecord(name, f"run-{name}", (Member("1", "server"), Member("2", "client")), 1.0) for name in "abc"]
EVENTS: dict[str, list[Event]] = {
    group.name: [
        Joined(f"{group.name}1", "1"),
        Joined(f"{group.name}2", "2"),
        *(Sent(f"{group.name}{n}", "1", f"m{n}", (("key", "v" * 5 * n),)) for n in range(3, 40)),
    ]
    for group in GROUPS
}


def fill(path: Path) -> SqliteJournal:
    journal = SqliteJournal(path, tell=print)
    for group in [GroupRecord("ended", "run", (Member("1", "server"),), 0.0), *GROUPS]:
        journal.open(group)
    for position in range(39):
        journal.append("ended", Sent(str(position), "1", "old", (("key", "w" * 100),)))
        for name, events in EVENTS.items():
            journal.append(name, events[position])
    journal.drop("ended")
    return journal


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal whose process has closed it."""
    folder = tmp_path_factory.mktemp("closed")
    fill(folder / "journal").close()
    return folder


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal as a kill leaves it: most of it in the write-ahead log."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "open").mkdir()
    journal = fill(folder / "open" / "journal")
    shutil.copytree(folder / "open", folder / "copy")
    journal.close()
    assert (folder / "copy" / "journal-wal").stat().st_size > 50_000
    return folder / "copy"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith("-mark")}


class Case:
    """A copy of a journal, to be damaged and opened."""

    def __init__(self, good: Path, folder: Path) -> None:
        shutil.copytree(good, folder)
        self.folder = folder
        self.path = folder / "journal"
        self.told: list[str] = []

    def is_read_or_set_aside(self) -> bool:
        """Open it. :return: whether it was set aside, which was told then, and nothing is lost for an expert."""
        before = contents(self.folder)
        with SqliteJournal(self.path, tell=self.told.append) as journal:
            groups = list(journal.groups())
            events = {group.name: list(journal.read(group.name)) for group in groups}
        if groups:
            assert (groups, events, self.told) == (GROUPS, EVENTS, [])
            return False
        [line] = self.told
        assert line.startswith(f"{self.path}: the journal ")
        assert "set aside as journal.set-aside-" in line
        assert events == {}
        kept = [path.read_bytes() for path in self.folder.iterdir() if "set-aside" in path.name]
        # Opening it may have begun a write-ahead log, which is empty.
        assert sorted(data for data in kept if data) == sorted(data for data in before.values() if data)
        return True


def flipped(path: Path, offset: int, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1 << bit
    path.write_bytes(data)


@pytest.mark.parametrize("which", ["closed", "killed"])
def test_a_good_one_is_read(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    assert not Case(request.getfixturevalue(which), tmp_path / "case").is_read_or_set_aside()


@pytest.mark.parametrize(("which", "name"), [("closed", "journal"), ("killed", "journal"), ("killed", "journal-wal")])
def test_flipped_bits(which: str, name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    good = request.getfixturevalue(which)
    rng = random.Random(f"{which} {name}")
    size = (good / name).stat().st_size
    header = [(offset, rng.randrange(8)) for offset in range(0, 100, 2)]
    anywhere = [(rng.randrange(size), rng.randrange(8)) for _ in range(70)]
    noticed = 0
    for number, (offset, bit) in enumerate(header + anywhere):
        case = Case(good, tmp_path / str(number))
        flipped(case.path.with_name(name), offset, bit)
        noticed += case.is_read_or_set_aside()
        shutil.rmtree(case.folder)
    # What stands in the log is not read from the file, so damage to that page hurts nobody.
    assert noticed > (10 if (which, name) == ("killed", "journal") else 40)


@pytest.mark.parametrize(("which", "name"), [("closed", "journal"), ("killed", "journal-wal")])
def test_a_lost_end(which: str, name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    good = request.getfixturevalue(which)
    data = (good / name).read_bytes()
    rng = random.Random(f"{which} {name}")
    frame = 4096 + 24
    whole_frames = [32 + frame * rng.randrange(len(data) // frame) for _ in range(10)]
    for number, length in enumerate([0, 1, 99, *whole_frames, *(rng.randrange(len(data)) for _ in range(20))]):
        case = Case(good, tmp_path / str(number))
        case.path.with_name(name).write_bytes(data[:length])
        assert case.is_read_or_set_aside()


def test_a_zeroed_page(closed: Path, tmp_path: Path) -> None:
    pages = (closed / "journal").stat().st_size // 4096
    noticed = 0
    for page in range(pages):
        case = Case(closed, tmp_path / str(page))
        with case.path.open("r+b") as stream:
            stream.seek(page * 4096)
            stream.write(bytes(4096))
        noticed += case.is_read_or_set_aside()
    assert noticed > pages // 2


def run_sql(statement: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        database = sqlite3.connect(path)
        with database:
            database.execute(statement)
        database.close()

    return damage


def written(data: bytes) -> Callable[[Path], None]:
    return lambda path: [path.write_bytes(data), None][1]


def mark_of(path: Path) -> Path:
    return path.with_name("journal-mark")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (written(b"# a file of somebody's\n" * 100), "is no SQLite database"),
        (run_sql("PRAGMA application_id = 7"), "belongs to another program"),
        (run_sql("PRAGMA user_version = 2"), "has version 2, and this program knows only 1"),
        (run_sql("DROP TABLE rows"), "is damaged: no such table: rows"),
        (run_sql("DELETE FROM journal"), "is damaged: it has no id"),
        (run_sql('DELETE FROM rows WHERE "group" = 3 AND number = 5'), "is damaged: row 5 of group 3 is missing"),
        (run_sql('DELETE FROM rows WHERE "group" = 3 AND number = 0'), "is damaged: row 0 of group 3 is missing"),
        (run_sql('DELETE FROM rows WHERE "group" = 3'), "is damaged: 40 of its 120 rows are missing"),
        (run_sql("DELETE FROM rows WHERE number = 39"), "is damaged: 3 of its 120 rows are missing"),
        (run_sql("UPDATE journal SET changes = 0"), "is torn: the last 1 of the 161 changes that it acknowledged are"),
        (run_sql("UPDATE rows SET record = 'x' WHERE number = 4"), "is damaged: row 4 of group 2 does not check"),
        (Path.unlink, "is gone, and 120 rows with it"),
        (lambda path: mark_of(path).unlink(), "does not belong to journal-mark"),
        (lambda path: mark_of(path).write_bytes(b"1" * 52), "does not belong to journal-mark"),
    ],
)
def test_what_is_told(damage: Callable[[Path], None], reason: str, closed: Path, tmp_path: Path) -> None:
    case = Case(closed, tmp_path / "case")
    damage(case.path)
    assert case.is_read_or_set_aside()
    assert f"the journal {reason}" in case.told[0]


def test_two_in_one_second_get_names_of_their_own(closed: Path, tmp_path: Path) -> None:
    case = Case(closed, tmp_path / "case")
    for data in (b"one", b"two", b"three"):
        case.path.write_bytes(data)
        SqliteJournal(case.path, tell=case.told.append).close()
    kept = [path.read_bytes() for path in case.folder.glob("journal.set-aside-*")]
    assert sorted(kept) == [b"one", b"three", b"two"]


def test_a_half_made_one_is_made_anew(tmp_path: Path) -> None:
    # Killed between writing it and giving it its name.
    (tmp_path / "journal-new").write_bytes(b"SQLite format 3\0")
    (tmp_path / "journal").touch()
    told: list[str] = []
    with SqliteJournal(tmp_path / "journal", tell=told.append) as journal:
        assert journal.groups() == []
    assert told == []
