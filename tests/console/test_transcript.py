"""The transcript: every byte, at once, and an error that names the file where it cannot be kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from dispatcher.console.transcript import Transcript
from dispatcher.errors import OutputError


def test_bytes_are_in_the_file_before_it_is_closed(tmp_path: Path) -> None:
    transcript = Transcript(tmp_path / "consoles" / "1.log")
    transcript.write(b"\x00\xff\r\n")
    transcript.write(b"more")
    assert transcript.path.read_bytes() == b"\x00\xff\r\nmore"
    transcript.close()


def test_an_old_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "1.log"
    path.write_bytes(b"of an earlier run")
    Transcript(path).close()
    assert path.read_bytes() == b""


def test_a_file_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "consoles").write_text("a file where the directory should be")
    with pytest.raises(OutputError, match=r"cannot write .*/consoles/1\.log: ") as raised:
        Transcript(tmp_path / "consoles" / "1.log")
    assert raised.value.exit_status == 3


def test_a_full_disk_is_told() -> None:
    transcript = Transcript(Path("/dev/full"))
    with pytest.raises(OutputError, match="cannot write /dev/full: No space left on device"):
        transcript.write(b"x")
    transcript.close()


def test_what_the_file_takes_in_parts_is_written_whole(tmp_path: Path) -> None:
    transcript = Transcript(tmp_path / "1.log")
    whole = transcript._log._file

    class Reluctant:
        def write(self, data: memoryview) -> int:
            return whole.write(data[:3])

    transcript._log._file = Reluctant()  # type: ignore[assignment]
    transcript.write(b"0123456789")
    whole.close()
    assert transcript.path.read_bytes() == b"0123456789"


@pytest.mark.parametrize("sizes", [(30,), (10, 20), (20, 5, 5), (29, 1)])
def test_what_comes_after_the_limit_is_not_kept_and_told_once(sizes: tuple[int, ...], tmp_path: Path) -> None:
    told: list[Path] = []
    transcript = Transcript(tmp_path / "log", limit=20, full=told.append)
    for size in sizes:
        transcript.write(b"x" * size)
    transcript.write(b"more")
    transcript.close()
    end = b"\n[multinode: this log has reached its limit and ends here]\n"
    assert (tmp_path / "log").read_bytes() == b"x" * 20 + end
    assert told == [tmp_path / "log"]


def test_a_log_that_just_fits_its_limit_is_whole(tmp_path: Path) -> None:
    transcript = Transcript(tmp_path / "log", limit=20)
    transcript.write(b"x" * 20)
    transcript.close()
    assert (tmp_path / "log").read_bytes() == b"x" * 20
