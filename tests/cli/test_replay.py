"""``multinode replay``: what a log of a console holds, whichever run it is of."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dispatcher.cli.replay import replay
from dispatcher.errors import UsageError
from dispatcher.framing.reliable import UNSEEDED, Seed, encode_up

ONE, OTHER = (12345, 54321), (1, 2)


def frame(number: int, text: bytes, seed: Seed = ONE) -> bytes:
    return encode_up(f"{number:012x}", 1, 1, text, seed)


CASE = b"SIGNAL TESTCASE TEST_CASE_ID=%d%%20RESULT=pass"


def replayed(folder: Path, *parts: bytes) -> list[list[str]]:
    (folder / "log").write_bytes(b"".join(parts))
    return [line.split(maxsplit=2) for line in replay(folder / "log")]


@pytest.mark.parametrize("seed", [UNSEEDED, ONE])
def test_frames_markers_and_what_was_sent_again(seed: Seed, tmp_path: Path) -> None:
    call, result = frame(1, b"SEND ready k=v", seed), frame(2, CASE % 1, seed)
    *lines, summary = replayed(tmp_path, b"boot\n", call, call, result, b"<LAVA_TEST_RUNNER EXIT>\n")
    assert [line[1] for line in lines] == ["frame", "again", "frame", "marker"]
    assert [int(line[0]) for line in lines] == [5, 5 + len(call), 5 + 2 * len(call), 5 + 2 * len(call) + len(result)]
    assert lines[0][2] == "000000000001 1/1  SEND ready k=v"
    assert " ".join(summary) == "frames 3, sent again 1, markers 1, damaged 0, results 1"


def test_a_damaged_frame_has_the_seed_of_no_other(tmp_path: Path) -> None:
    damaged = frame(3, CASE % 3).replace(b"pass", b"fail")
    *lines, summary = replayed(tmp_path, *(frame(number, CASE % number) for number in (1, 2)), damaged)
    assert [line[1] for line in lines] == ["frame", "frame", "damage"]
    assert " ".join(summary).endswith("damaged 1, results 2")


def test_a_log_may_hold_several_runs(tmp_path: Path) -> None:
    of_two = [frame(number, CASE % number, seed) for seed in (ONE, OTHER) for number in (1, 2)]
    *lines, _summary = replayed(tmp_path, *of_two)
    assert [line[1] for line in lines] == ["frame", "frame", "again", "again"]


def test_a_frame_by_itself_is_taken_for_whole(tmp_path: Path) -> None:
    assert replayed(tmp_path, frame(1, CASE % 1))[0][1] == "frame"


def test_a_pipe_is_read_as_a_file_is() -> None:
    """``multinode replay <(zcat 1.log.gz)``."""
    reads, writes = os.pipe()
    with open(writes, "wb") as pipe:
        pipe.write(frame(1, CASE % 1))
    with open(reads, "rb"):
        lines = list(replay(Path(f"/dev/fd/{reads}")))
    assert [line.split()[1] for line in lines] == ["frame", "1,"]


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read it: No such file"):
        list(replay(tmp_path / "log"))
