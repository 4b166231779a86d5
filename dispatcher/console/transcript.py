"""Every byte a device sends, kept in a file as it came and when it came, whatever happens to the run."""

from __future__ import annotations

from pathlib import Path

from dispatcher.errors import OutputError


class Transcript:
    """One console's log, raw. It is the ``logfile_read`` of a pexpect object: written before anybody looks."""

    def __init__(self, path: Path) -> None:
        """:raises OutputError: the file cannot be made."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: what was read is in the file even when this process dies in the next moment.
            self._file = path.open("wb", buffering=0)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}") from None
        self.path = path

    def write(self, data: bytes) -> None:
        """:raises OutputError: the disk is full, say."""
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
