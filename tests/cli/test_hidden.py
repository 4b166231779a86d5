"""``secrets:`` reach the device, and nothing that a run writes or prints but the console's log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import LOCAL, Multinode, job_text

pytestmark = pytest.mark.slow

Write = Callable[[str, str], Path]


def test_a_secret_goes_to_the_device_alone(multinode: Multinode, write: Write) -> None:
    steps = [
        "lava-test-case mode --shell test $(stat -c %a ../../../secrets) = 600",
        "set +x; . ../../../secrets; set -x",
        'lava-test-case "is-$TOKEN" --result pass',
        'lava-send token value="$TOKEN"',
        "lava-wait token",
        'echo "the token is $TOKEN"',
        'lava-test-raise "no use for $TOKEN"',
    ]
    job = write("job.yaml", job_text({"a": steps}, secrets={"TOKEN": "sword-fish"}))
    ran = multinode("run", job, "--devices", LOCAL, "--verbose")
    assert ran.status == 1
    assert ran.result(1, "0_a", "mode") == ran.result(1, "0_a", "is-[hidden]") == "pass"
    assert "| the token is [hidden]" in ran.out
    assert "lava-test-raise: no use for [hidden]" in ran.err
    assert ran.reason(1, "lava", "job") == "local-1: lava-test-raise: no use for [hidden]"
    told = [ran.out, ran.err, *(path.read_text() for path in ran.output.iterdir() if path.is_file())]
    assert not any("sword-fish" in text for text in told)
    assert b"the token is sword-fish" in (ran.output / "consoles" / "1.log").read_bytes()
