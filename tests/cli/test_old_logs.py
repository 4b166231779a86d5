"""Frames that a device prints and nobody there has just said: from the log of another run, or of this one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import yaml

from dispatcher.framing.reliable import UNSEEDED, encode_up

from .conftest import LOCAL, Multinode, job_text

OLD = [
    b"SIGNAL TESTCASE TEST_CASE_ID=forged%20RESULT=pass",
    b"SEND forged k=v",
    b"SYNC forged",
    b"RUNNER EXIT",
]


def test_old_frames_are_not_believed(multinode: Multinode, write: Callable[[str, str], Path], tmp_path: Path) -> None:
    log = b"".join(
        encode_up(f"{n:012x}", 1, 1, text, seed) for n, text in enumerate(OLD) for seed in (UNSEEDED, (2, 3))
    )
    (tmp_path / "old.log").write_bytes(log)
    own = tmp_path / "output" / "consoles" / "1.log"
    shows = [f"cat {tmp_path}/old.log", f"grep -a '^<MN2 ' {own}"]
    job = yaml.safe_load(job_text({"a": ["lava-test-case once --result pass", "lava-send word k=v", *shows]}))
    second = yaml.safe_load(job_text({"a": [*shows, "lava-test-case after --result pass"]}))
    job["actions"] += second["actions"]
    ran = multinode("run", write("job.yaml", yaml.safe_dump(job, sort_keys=False)), "--devices", LOCAL)
    assert ran.status == 0, ran.out + ran.err
    assert [(case["suite"], case["name"]) for case in ran.results] == [
        ("0_a", "once"),
        ("0_a", "multinode-send-word"),
        ("lava", "0_a"),
        ("1_a", "after"),
        ("lava", "1_a"),
    ]
    assert ran.out.count("a damaged marker was not believed") >= 2 * len(OLD)
