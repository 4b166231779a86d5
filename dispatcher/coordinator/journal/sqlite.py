"""The journal of a service: an SQLite file that outlives its process.

What :meth:`SqliteJournal.append` returned for is there after ``kill -9`` at any moment: it has been handed to the
kernel. A power cut or a crash of the kernel may cost what the kernel had not yet written: the last seconds
(``vm.dirty_expire_centisecs``: 30 s) with :attr:`Sync.NORMAL`, nothing with :attr:`Sync.FULL`, which waits for the
disk at every event (sqlite.org/pragma.html, synchronous). A log without its end would let a sync through too early,
so where the mark tells that the end is missing, the whole file is set aside.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from types import TracebackType

from dispatcher.coordinator.journal import GroupRecord
from dispatcher.coordinator.journal import database as file
from dispatcher.coordinator.journal.database import Contents, Damaged, Row
from dispatcher.coordinator.journal.mark import ID_LENGTH, Acknowledged, Mark, unwritable
from dispatcher.coordinator.journal.records import read_event, read_group, write_event, write_group
from dispatcher.errors import JournalError
from dispatcher.group.events import Event


class Sync(Enum):
    """When an event is kept: once the kernel has it, or once the disk has it."""

    NORMAL = "normal"
    FULL = "full"


class SqliteJournal:
    """A :class:`~dispatcher.coordinator.journal.Journal` in a file, which it holds until it is closed.

    A file that is damaged, of another program or of a newer version is renamed, and a new one begun.

    :param path: the file, which need not exist; its directory must.
    :param tell: told, in one line, that a file was set aside and why.
    :raises JournalError: another process holds the journal, or the host refuses the file.
    """

    def __init__(self, path: Path, *, sync: Sync = Sync.NORMAL, tell: Callable[[str], None]) -> None:
        self._path = path
        self._full = sync is Sync.FULL
        file.check_place(path)
        self._mark = Mark(path.with_name(f"{path.name}-mark"), path)
        try:
            with self._told():
                self._database, contents = self._existing(tell) or self._new()
                self._id, self._changes, self._rows = contents.journal, contents.changes, contents.rows
                self._groups = contents.groups
                self._mark.write(Acknowledged(self._id, self._changes, self._rows), sync=True)
        except BaseException:
            self._mark.release()
            raise

    # --- opening -------------------------------------------------------------------------------------------

    def _existing(self, tell: Callable[[str], None]) -> tuple[sqlite3.Connection, Contents] | None:
        owed = self._mark.read()
        database = None
        try:
            if not file.identify(self._path):
                if owed and owed.rows:
                    raise Damaged(f"is gone, and {owed.rows} rows with it")
                return None
            try:
                database = file.connect(self._path, full=self._full)
                return database, self._trusted(database, owed)
            except sqlite3.Error as error:
                if file.is_host_failure(error):
                    raise
                raise Damaged(f"is damaged: {error}") from error
        except Damaged as damage:
            # SQLite leaves a file alone whose name has changed; closed before, it would write into it.
            aside = file.set_aside(self._path)
            if database:
                database.close()
            tell(
                f"{self._path}: the journal {damage}; set aside as {aside.name}, and a new one begun: no group is known"
            )
            return None
        except BaseException:
            if database:
                database.close()
            raise

    def _trusted(self, database: sqlite3.Connection, owed: Acknowledged | None) -> Contents:
        contents = file.look_through(database)
        if owed is None or owed.journal != contents.journal:
            raise Damaged(f"does not belong to {self._path.name}-mark, which says how much it must hold")
        if owed.changes > contents.changes:
            lost = owed.changes - contents.changes
            raise Damaged(f"is torn: the last {lost} of the {owed.changes} changes that it acknowledged are missing")
        if owed.rows > contents.rows:
            raise Damaged(f"is damaged: {owed.rows - contents.rows} of its {owed.rows} rows are missing")
        return contents

    def _new(self) -> tuple[sqlite3.Connection, Contents]:
        journal = os.urandom(ID_LENGTH)
        fresh = file.create(self._path, journal)
        self._mark.write(Acknowledged(journal, 0, 0), sync=True)
        file.put_in_place(fresh, self._path)
        return file.connect(self._path, full=self._full), Contents(journal, 0, {})

    # --- use -----------------------------------------------------------------------------------------------

    def open(self, group: GroupRecord) -> None:
        if group.name in self._groups:
            raise ValueError(f"the group {group.name!r} is kept already")
        number = self._changes + 1
        with self._told():
            file.write_row(self._database, Row(number, 0, number, write_group(group)))
        self._groups[group.name] = number, 0
        self._changed(1)

    def groups(self) -> Sequence[GroupRecord]:
        with self._told():
            rows = file.read_rows(self._database, 'SELECT * FROM rows WHERE number = 0 ORDER BY "group"')
            return [read_group(row.record) for row in rows]

    def append(self, group: str, event: Event) -> None:
        number, events = self._groups[group]
        with self._told():
            file.write_row(self._database, Row(number, events + 1, self._changes + 1, write_event(event)))
        self._groups[group] = number, events + 1
        self._changed(1)

    def read(self, group: str) -> Sequence[Event]:
        if group not in self._groups:
            return ()
        with self._told():
            query = 'SELECT * FROM rows WHERE "group" = ? ORDER BY number'
            rows = file.read_rows(self._database, query, (self._groups[group][0],))
            return [read_event(row.record) for row in rows if row.number]

    def drop(self, group: str) -> None:
        if group not in self._groups:
            return
        number, events = self._groups[group]
        # Before, so that the journal never owes rows that it has dropped.
        self._mark.write(Acknowledged(self._id, self._changes, self._rows - 1 - events))
        with self._told(), self._database:
            self._database.execute("BEGIN")
            self._database.execute('DELETE FROM rows WHERE "group" = ?', (number,))
            self._database.execute("UPDATE journal SET changes = ?", (self._changes + 1,))
        del self._groups[group]
        self._changed(-1 - events)

    def close(self) -> None:
        """Let another process have the journal."""
        with self._told():
            self._database.close()
        self._mark.release()

    def __enter__(self) -> SqliteJournal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _changed(self, rows: int) -> None:
        self._changes += 1
        self._rows += rows
        self._mark.write(Acknowledged(self._id, self._changes, self._rows))

    @contextmanager
    def _told(self) -> Iterator[None]:
        """The errors of SQLite and of the host, as :class:`JournalError`."""
        try:
            yield
        except Damaged as error:
            hint = "end the coordinator and start it again: it sets the file aside"
            raise JournalError(f"the journal {error}", where=str(self._path), hint=hint) from error
        except OSError as error:
            raise unwritable(self._path, error) from error
        except sqlite3.Error as error:
            hint = "look at the disk's space and the directory's permissions, then start the coordinator again"
            raise JournalError(f"the journal cannot be used: {error}", where=str(self._path), hint=hint) from error
