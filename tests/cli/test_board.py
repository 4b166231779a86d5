"""Two members that would share a line, and what is told of a failed step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .conftest import LOCAL, Multinode, job_text

Write = Callable[[str, str], Path]


def devices(*paths: str) -> str:
    lines = (f"  b{n}: {{device_type: board, console: {{serial: {path}}}}}\n" for n, path in enumerate(paths))
    return "devices:\n" + "".join(lines)


def test_two_members_cannot_have_one_line(multinode: Multinode, write: Write) -> None:
    file = write("d.yaml", devices("/dev/ttyS9", "/dev/ttyS9"))
    for subcommand in ("check", "run"):
        ran = multinode(subcommand, write("job.yaml", job_text({"a": ["true"], "b": ["true"]})), "--devices", file)
        assert ran.status == 2
        assert "b1: /dev/ttyS9 is the console of b0 already" in ran.err


def test_a_failed_step_is_told_with_what_the_device_said(multinode: Multinode, write: Write) -> None:
    ran = multinode("run", write("job.yaml", job_text({"a": ["lava-send"]})), "--devices", LOCAL)
    assert ran.status == 1
    assert "usage: lava-send ID [KEY=VALUE ...]" in ran.reason(1, "lava", "0_a")
