"""Every byte a device sends, kept in a file as it came and when it came, whatever happens to the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from dispatcher.errors import OutputError

_ENDS: Final = b"\n[multinode: this log has reached its limit and ends here]\n"

LOG_LIMIT: Final = 1024**3
"""Bytes of a console that are kept unless the user says otherwise: a day of 115200 baud without a pause."""


class Transcript:
    """One console's log, raw. It is the ``logfile_read`` of a pexpect object: written before anybody looks.

    :param limit: bytes to keep, None for all. What comes after is not kept; a line at the file's end says so.
    :param full: called once, when the limit is reached.
    :raises OutputError: the file cannot be made.
    """

    def __init__(self, path: Path, *, limit: int | None = LOG_LIMIT, full: Callable[[], None] | None = None) -> None:
        self._left = limit
        self._full = full
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: what was read is in the file even when this process dies in the next moment.
            self._file = path.open("wb", buffering=0)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}") from None
        self.path = path

    def write(self, data: bytes) -> None:
        """:raises OutputError: the disk is full, say."""
        if self._left is None:
            self._write(data)
        elif len(data) <= self._left:
            self._left -= len(data)
            self._write(data)
        elif self._left >= 0:
            self._write(data[: self._left] + _ENDS)
            self._left = -1
            if self._full is not None:
                self._full()

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            # A file without a buffer may take a part, as a disk does that is about to be full.
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror}") from None

    def flush(self) -> None:
        """Part of what pexpect asks of a log file; there is nothing to flush."""

    def close(self) -> None:
        self._file.close()
