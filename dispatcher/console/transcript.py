"""Every byte a device sends, kept in a file as it came and when it came, whatever happens to the run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from dispatcher.console.recording import Recorder
from dispatcher.errors import OutputError

_ENDS: Final = "this log has reached its limit and ends here"

LOG_LIMIT: Final = 1024**3
"""Bytes of a console that are kept unless the user says otherwise: a day of 115200 baud without a pause."""


class Transcript:
    """One console's log, raw, and its recording beside it, written before anybody looks.

    :param recording: the file for the recording (:mod:`dispatcher.console.recording`), None for none.
    :param limit: bytes to keep of each file, None for all. What comes after is not kept; a remark at its end says so.
    :param full: called once for a file, when its limit is reached.
    :raises OutputError: a file cannot be made.
    """

    def __init__(
        self,
        path: Path,
        *,
        recording: Path | None = None,
        limit: int | None = LOG_LIMIT,
        full: Callable[[Path], None] | None = None,
    ) -> None:
        self.path = path
        self._log = _File(path, limit, full)
        self._recording: _File | None = None
        self._recorder = Recorder()
        if recording is not None:
            try:
                self._recording = _File(recording, limit, full)
            except OutputError:
                self._log.close()
                raise
            self._record(self._recorder.header())

    def write(self, data: bytes) -> None:
        """:raises OutputError: the disk is full, say."""
        if not self._log.write(data):
            self._log.end(_in_log(_ENDS))
        if self._recording is not None:
            self._record(self._recorder.output(data))

    def remark(self, text: str) -> None:
        """Keep something that the device has not said, told apart from what it has. :raises OutputError: as above."""
        if not self._log.write(_in_log(text)):
            self._log.end(_in_log(_ENDS))
        if self._recording is not None:
            self._record(self._recorder.remark(text))

    def _record(self, lines: bytes) -> None:
        if self._recording is not None and not self._recording.write(lines, whole=True):
            self._recording.end(self._recorder.remark(_ENDS))

    def close(self) -> None:
        self._log.close()
        if self._recording is not None:
            self._recording.close()


class _File:
    """A file that takes what fits its limit, and then an end."""

    def __init__(self, path: Path, limit: int | None, full: Callable[[Path], None] | None) -> None:
        self._path = path
        self._left = limit
        self._full = full
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: what was read is in the file even when this process dies in the next moment.
            self._file = path.open("wb", buffering=0)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}") from None

    def write(self, data: bytes, *, whole: bool = False) -> bool:
        """Keep as much of some data as fits, or none of what is to stay whole; False where the file is to end now."""
        if self._left is None:
            self._write(data, whole=whole)
        elif len(data) <= self._left:
            self._left -= len(data)
            self._write(data, whole=whole)
        elif self._left >= 0:
            if not whole:
                self._write(data[: self._left], whole=False)
            self._left = -1
            return False
        return True

    def end(self, data: bytes) -> None:
        """Write what tells that there is no more."""
        self._write(data, whole=True)
        if self._full is not None:
            self._full(self._path)

    def _write(self, data: bytes, *, whole: bool) -> None:
        left = data
        try:
            # A file without a buffer may take a part, as a disk does that is about to be full.
            while (written := self._file.write(left)) < len(left):
                left = left[written:]
        except OSError as error:
            if whole and len(left) < len(data):
                self._take_back(len(data) - len(left))
            raise OutputError(f"cannot write {self._path}: {error.strerror}") from None

    def _take_back(self, count: int) -> None:
        """Cut off the last bytes: a player refuses a recording that ends in the middle of a line."""
        with contextlib.suppress(OSError):
            self._file.seek(-count, os.SEEK_CUR)
            self._file.truncate()

    def close(self) -> None:
        self._file.close()


def _in_log(remark: str) -> bytes:
    return f"\n[multinode: {remark}]\n".encode()
