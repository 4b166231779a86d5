"""Which process holds a stored journal, and how much it has acknowledged.

A write-ahead log that lost its end looks whole: SQLite reads it up to the last record that checks, and says nothing.
So how often a journal has changed is kept in a file beside it, written after each change and before anybody is told.
A journal that has changed less often has lost something. The same file is locked for as long as a process holds the
journal.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dispatcher.errors import JournalError

ID_LENGTH: Final = 16
"""Bytes of the random id that tells whether a mark is this journal's."""

_MAGIC = b"mn-mark1"
_LAYOUT = struct.Struct(f">8s{ID_LENGTH}sQQQ")
_CHECK = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """What a journal owes.

    :param journal: its id.
    :param changes: how often it has changed at least.
    :param rows: how many rows it holds at least.
    """

    journal: bytes
    changes: int
    rows: int


class Mark:
    """The file, locked.

    :raises JournalError: it cannot be written, or another process holds it.
    """

    def __init__(self, path: Path, journal: Path) -> None:
        self._path = path
        self._journal = journal
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise unwritable(journal, error) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = self._content()
            os.close(self._file)
            by = f"process {holder[1]}" if holder else "another process"
            hint = "end the other coordinator, or give this one a journal of its own"
            raise JournalError(f"the journal is held by {by}", where=str(journal), hint=hint) from error
        if owed := self.read():
            self.write(owed)

    def read(self) -> Acknowledged | None:
        """What was written last; None if that cannot be told."""
        content = self._content()
        return content[0] if content else None

    def _content(self) -> tuple[Acknowledged, int] | None:
        size = _LAYOUT.size + _CHECK.size
        data = os.pread(self._file, size, 0)
        if len(data) != size or _CHECK.unpack_from(data, _LAYOUT.size)[0] != zlib.crc32(data[: _LAYOUT.size]):
            return None
        magic, journal, changes, rows, process = _LAYOUT.unpack_from(data)
        return (Acknowledged(journal, changes, rows), process) if magic == _MAGIC else None

    def write(self, owed: Acknowledged, *, sync: bool = False) -> None:
        """Write it in one piece: a process that is killed has written all of it or nothing.

        :param sync: wait until it is on the disk.
        """
        data = _LAYOUT.pack(_MAGIC, owed.journal, owed.changes, owed.rows, os.getpid())
        try:
            os.pwrite(self._file, data + _CHECK.pack(zlib.crc32(data)), 0)
            if sync:
                os.fsync(self._file)
        except OSError as error:
            raise unwritable(self._journal, error) from error

    def release(self) -> None:
        """Let another process have the journal. The file stays: removing it would race with whoever opens it."""
        os.close(self._file)


def unwritable(journal: Path, error: OSError) -> JournalError:
    """The host's refusal, as it is told."""
    hint = "--journal names a file in a directory that exists and that this user may write in"
    return JournalError(f"the journal cannot be written: {error.strerror or error}", where=str(journal), hint=hint)
