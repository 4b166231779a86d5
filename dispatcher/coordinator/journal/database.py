"""The file of a stored journal: made whole or not at all, looked through before it is trusted, or set aside.

One table holds everything: row 0 of a group is the group, rows 1, 2, 3 … are its events. Each row carries the count
of the journal's changes at which it was written, and a checksum over its place and its bytes; no number is missing;
and the mark (:mod:`.mark`) says how many changes and rows there are at least. What a changed, lost or resurrected
page does to the file shows in one of these.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from dispatcher.coordinator.journal.records import read_event, read_group
from dispatcher.errors import JournalError

SCHEMA: Final = 1
"""The version of the tables; the file's ``user_version``."""

APPLICATION: Final = 0x4D4E4A31
"""The file's ``application_id``, by which it is known as a journal of this program."""

COMPANIONS: Final = ("-wal", "-shm", "-journal")
"""What SQLite may keep beside a database."""

_HOST: Final = frozenset(
    (
        *(sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM),
        *(sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN),
    )
)
"""SQLite's primary result codes that blame the host, and not what stands in the file (sqlite.org/rescode.html)."""

_TABLES = """
CREATE TABLE journal (id BLOB NOT NULL, changes INTEGER NOT NULL);
CREATE TABLE rows (
    "group" INTEGER NOT NULL, number INTEGER NOT NULL, change INTEGER NOT NULL,
    record BLOB NOT NULL, sum INTEGER NOT NULL,
    PRIMARY KEY ("group", number)
) WITHOUT ROWID;
"""


class Damaged(Exception):
    """The file is no journal that can be trusted; the text completes "the journal …"."""


def is_host_failure(error: sqlite3.Error) -> bool:
    """Whether the host failed (a full disk, a lock), so that the file may be good."""
    return (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _HOST


def create(path: Path, journal: bytes) -> Path:
    """Write an empty journal beside ``path``, to be renamed to it, so that there is never half a one."""
    fresh = path.with_name(f"{path.name}-new")
    fresh.unlink(missing_ok=True)
    os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    database = sqlite3.connect(fresh, isolation_level=None)
    try:
        database.execute("PRAGMA synchronous = FULL")
        database.executescript(
            f"BEGIN; PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {SCHEMA}; {_TABLES} COMMIT;"
        )
        database.execute("INSERT INTO journal VALUES (?, 0)", (journal,))
    finally:
        database.close()
    return fresh


def put_in_place(fresh: Path, path: Path) -> None:
    """Give the new file its name, on the disk too."""
    fresh.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def check_place(path: Path) -> None:
    """Refuse a directory, a device or the like, which nobody wants renamed.

    :raises JournalError: it is one.
    """
    if path.exists() and not path.is_file():
        raise JournalError("is no file, so it cannot hold the journal", where=str(path))


def identify(path: Path) -> bool:
    """Look at the file's first bytes, before SQLite gets to write into it.

    The places are those of sqlite.org/fileformat2.html, section 1.3.

    :return: whether there is anything.
    :raises Damaged: another program's, a newer version's, or no database.
    """
    if not path.exists() or not path.stat().st_size:
        if any(path.with_name(path.name + suffix).exists() for suffix in COMPANIONS):
            raise Damaged("is empty, but not what stands beside it")
        return False
    with path.open("rb") as stream:
        header = stream.read(100)
    if len(header) < 100 or not header.startswith(b"SQLite format 3\0"):
        raise Damaged("is no SQLite database")
    version, application = struct.unpack_from(">I", header, 60)[0], struct.unpack_from(">I", header, 68)[0]
    if application != APPLICATION:
        raise Damaged("belongs to another program")
    if version != SCHEMA:
        raise Damaged(f"has version {version}, and this program knows only {SCHEMA}")
    if not {header[18], header[19]} <= {1, 2}:
        raise Damaged("is damaged: its header is wrong")
    return True


def connect(path: Path, *, full: bool) -> sqlite3.Connection:
    """Open an existing journal for this process alone. Writing to it starts nothing that outlives the call."""
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=0)
    try:
        # Alone, SQLite needs no shared memory and no lock for each transaction.
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")
    except BaseException:
        database.close()
        raise
    return database


@dataclass(frozen=True, slots=True)
class Contents:
    """What a journal holds, by itself.

    :param journal: its id.
    :param changes: how often it has changed.
    :param groups: name → number in the file and count of events, of each group in the order they were opened.
    """

    journal: bytes
    changes: int
    groups: dict[str, tuple[int, int]]

    @property
    def rows(self) -> int:
        """How many rows that is."""
        return sum(1 + events for _, events in self.groups.values())


def look_through(database: sqlite3.Connection) -> Contents:
    """Read everything once. :raises Damaged: SQLite or a row says that the file is not what was written."""
    match database.execute("PRAGMA quick_check(1)").fetchall():
        case [("ok",)]:
            pass
        case found:
            raise Damaged(f"is damaged: {found[0][0] if found else 'it cannot be checked'}")
    match database.execute("SELECT id, changes FROM journal").fetchall():
        case [(bytes(journal), int(changes))]:
            pass
        case _:
            raise Damaged("is damaged: it has no id")
    groups: dict[str, tuple[int, int]] = {}
    name = ""
    for row in read_rows(database, 'SELECT * FROM rows ORDER BY "group", number'):
        changes = max(changes, row.change)
        try:
            if row.number:
                read_event(row.record)
            else:
                name = read_group(row.record).name
        except ValueError as error:
            raise Damaged(f"is damaged: row {row.number} of group {row.group} holds {error}") from error
        if not row.number and name in groups:
            raise Damaged(f"is damaged: it holds the group {name!r} twice")
        groups[name] = (row.group, row.number)
    return Contents(journal, changes, groups)


class Row(NamedTuple):
    """One row. ``group`` is the change that opened the group, so that no number is ever used again."""

    group: int
    number: int
    change: int
    record: bytes

    @property
    def checksum(self) -> int:
        """CRC-32 over the row and its place."""
        return zlib.crc32(self.record, zlib.crc32(b"%d %d %d " % self[:3]))


def read_rows(database: sqlite3.Connection, query: str, parameters: tuple[int, ...] = ()) -> Iterator[Row]:
    """The rows that a query finds. :raises Damaged: a row is not what was written, or one is missing."""
    last: Row | None = None
    for *values, checksum in database.execute(query, parameters):
        row = Row(*values)
        expected = last.number + 1 if last and last.group == row.group else 0
        if row.number != expected:
            raise Damaged(f"is damaged: row {expected} of group {row.group} is missing")
        if not isinstance(row.record, bytes) or checksum != row.checksum:
            raise Damaged(f"is damaged: row {row.number} of group {row.group} does not check")
        last = row
        yield row


def write_row(database: sqlite3.Connection, row: Row) -> None:
    """Write one row with its checksum."""
    database.execute("INSERT INTO rows VALUES (?, ?, ?, ?, ?)", (*row, row.checksum))


def set_aside(path: Path) -> Path:
    """Rename the journal and what SQLite keeps beside it; the new path. SQLite finds its log there, too."""
    stamp = time.strftime("%Y%m%dT%H%M%S")
    names = (f"{path.name}.set-aside-{stamp}{'-' * bool(count)}{count or ''}" for count in range(1000))
    new = next(path.with_name(name) for name in names if not path.with_name(name).exists())
    for suffix in (*COMPANIONS, ""):
        old = path.with_name(path.name + suffix)
        if old.exists():
            old.rename(new.with_name(new.name + suffix))
    return new
