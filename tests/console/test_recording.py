"""The recording: an asciicast v2 that a player takes, whole lines at any moment, within its limit."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dispatcher.console.recording import Recorder
from dispatcher.console.transcript import Transcript
from dispatcher.errors import OutputError


def parsed(path: Path) -> tuple[dict[str, Any], list[list[Any]]]:
    """A recording's header and events, checked against the format's description."""
    first, *rest = path.read_text(encoding="utf-8").splitlines()
    header, events = json.loads(first), [json.loads(line) for line in rest]
    assert header["version"] == 2
    assert header["width"] > 0 < header["height"]
    assert [event[0] for event in events] == sorted(event[0] for event in events)
    assert all(len(event) == 3 and event[1] in {"o", "m"} and isinstance(event[2], str) for event in events)
    return header, events


def test_what_was_read_is_shown_when_it_came() -> None:
    times = iter([100.0, 100.5, 102.25])
    recorder = Recorder(lambda: next(times), lambda: 1700000000.9)
    assert json.loads(recorder.header()) == {"version": 2, "width": 80, "height": 24, "timestamp": 1700000000}
    assert json.loads(recorder.output(b"\x1b[1mlogin: ")) == [0.5, "o", "\x1b[1mlogin: "]
    assert json.loads(recorder.output(b"root\r\n")) == [2.25, "o", "root\r\n"]


def test_characters_that_reads_cut_are_whole_and_other_bytes_are_shown(tmp_path: Path) -> None:
    transcript = Transcript(tmp_path / "1.log", recording=tmp_path / "1.cast")
    for byte in "Grüße €".encode() + b"\xff\0":
        transcript.write(bytes([byte]))
    transcript.close()
    _header, events = parsed(tmp_path / "1.cast")
    assert "".join(event[2] for event in events) == "Grüße €�\0"


def test_a_remark_is_a_marker_and_is_seen(tmp_path: Path) -> None:
    transcript = Transcript(tmp_path / "1.log", recording=tmp_path / "1.cast")
    transcript.remark("the console was lost: pulled")
    transcript.close()
    _header, events = parsed(tmp_path / "1.cast")
    text = "the console was lost: pulled"
    assert [event[1:] for event in events] == [["m", text], ["o", f"\r\n[multinode: {text}]\r\n"]]
    assert (tmp_path / "1.log").read_text() == f"\n[multinode: {text}]\n"


def test_a_recording_that_is_full_is_one_all_the_same(tmp_path: Path) -> None:
    told: list[Path] = []
    log, cast = tmp_path / "1.log", tmp_path / "1.cast"
    transcript = Transcript(log, recording=cast, limit=200, full=told.append)
    for _ in range(30):
        transcript.write(b"0123456789")
    transcript.close()
    _header, events = parsed(cast)
    assert events[-1][2] == "\r\n[multinode: this log has reached its limit and ends here]\r\n"
    assert 0 < sum(event[2] == "0123456789" for event in events) < 10
    assert log.read_bytes().startswith(b"0123456789" * 20 + b"\n[multinode")
    assert told == [cast, log]


def test_a_disk_that_is_full_cuts_no_line_of_a_recording(tmp_path: Path) -> None:
    transcript = Transcript(tmp_path / "1.log", recording=tmp_path / "1.cast")
    transcript.write(b"kept")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:  # Python ignores SIGXFSZ, so that the write is refused as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "1.cast").stat().st_size + 10, hard))
        with pytest.raises(OutputError, match=r"cannot write .*/1\.cast"):
            transcript.write(b"x" * 50)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        transcript.close()
    _header, events = parsed(tmp_path / "1.cast")
    assert [event[2] for event in events] == ["kept"]


_WRITER = """
import sys
from pathlib import Path
from dispatcher.console.transcript import Transcript
transcript = Transcript(Path("1.log"), recording=Path("1.cast"))
for number in range(1000):
    transcript.write(b"line %d\\r\\n" % number)
print(flush=True)
sys.stdin.read()
"""


def test_nothing_is_missing_when_the_run_is_killed(tmp_path: Path) -> None:
    run = subprocess.Popen([sys.executable, "-c", _WRITER], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert run.stdout is not None
    run.stdout.readline()
    run.send_signal(signal.SIGKILL)
    run.communicate()
    _header, events = parsed(tmp_path / "1.cast")
    assert "".join(event[2] for event in events).encode() == (tmp_path / "1.log").read_bytes()
    assert events[-1][2] == "line 999\r\n"
