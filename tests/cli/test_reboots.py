"""Tests that go on after a reboot that they have announced, on a board that is a program of ours."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import Multinode, Ran, job_text

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).with_name("rebooting_board.py")

REBOOT = "lava-reboot kill -USR1 $BOARD"


@pytest.fixture
def run(multinode: Multinode, write: Callable[[str, str], Path], tmp_path: Path) -> Callable[..., Ran]:
    def run(actions: dict[str, list[str]], *, volatile: bool = False, boot: int = 60, **top: Any) -> Ran:
        files = tmp_path / "files"
        command = f"{sys.executable} {PROGRAM} {files if volatile else ''}"
        boots = [{"boot": {"role": "board", "timeout": {"seconds": boot}, "prompts": ["board# $"]}}]
        job = yaml.safe_load(job_text(actions, **top))
        job["actions"] = boots + job["actions"]
        job["protocols"]["lava-multinode"]["roles"].update(other={"device_type": "shell", "count": 1})
        devices = {
            "b": {
                "device_type": "board",
                "console": {"command": command},
                "auto_login": {"login_prompt": "login:", "username": "root"},
                "lava_test_results_dir": f"{files}/lava-%s",
                # The board's boots all have this machine's id. Where it cannot be read, a shell is believed without.
                "environment": {"LAVA_PROC": "/nonexistent"},
            },
            "local": {"device_type": "shell", "console": {"command": "sh"}},
        }
        path = write("devices.yaml", yaml.safe_dump({"devices": devices}, width=1000))
        return multinode("run", write("job.yaml", yaml.safe_dump(job, sort_keys=False)), "--devices", path)

    return run


def events(ran: Ran, *kinds: str) -> list[dict[str, Any]]:
    told = [json.loads(line) for line in (ran.output / "events.jsonl").read_text().splitlines()]
    return [event for event in told if event["event"] in kinds]


def cases(ran: Ran, suite: str) -> list[tuple[str, str]]:
    return [(case["name"], case["result"]) for case in ran.results if case["suite"] == suite]


@pytest.mark.parametrize("volatile", [True, False])
def test_the_rest_of_a_test_runs_after_the_reboot(run: Callable[..., Ran], volatile: bool) -> None:
    ran = run(
        {
            "board": [
                "lava-test-set start up",
                "touch -d @1000 `command -v lava-self`",
                "echo kept >kept",
                "(lava-wait never; lava-test-case never --result fail) &",
                "lava-sync begin",
                f"{REBOOT}; lava-test-case never --result fail",
                "lava-test-case `test -e kept && echo kept || echo lost` --result pass",
                'lava-test-case files-`test "$(stat -c %Y $(command -v lava-self))" = 1000 && echo kept || echo lost`'
                " --result pass",
                "lava-send up",
                REBOOT,
            ],
            "other": ["lava-sync begin", "lava-wait up"],
        },
        volatile=volatile,
    )
    assert ran.status == 0, ran.out + ran.err
    what = "lost" if volatile else "kept"
    assert cases(ran, "0_board") == [
        ("multinode-sync-begin", "pass"),
        ("multinode-reboot", "pass"),
        (what, "pass"),
        (f"files-{what}", "pass"),
        ("multinode-send-up", "pass"),
        ("multinode-reboot", "pass"),
    ]
    assert {case["metadata"].get("set") for case in ran.results if case["suite"] == "0_board"} == {"up"}
    assert sorted(cases(ran, "lava")) == [("0_board", "pass"), ("0_other", "pass")]
    told = events(ran, "rebooting", "rebooted")
    assert [event["event"] for event in told] == ["rebooting", "rebooted"] * 2
    assert [event["step"] for event in told[::2]] == [6, 10]
    assert "rebooting, as step 6 of 0_board says; it may take 60 s" in ran.out
    assert "; the test goes on" in ran.out


def test_a_reboot_that_does_not_come_is_taken_back(run: Callable[..., Ran]) -> None:
    ran = run(
        {
            "board": [
                "(lava-wait there && lava-test-case waited --result pass; echo >done) &",
                "lava-reboot sh -c 'lava-test-case asked --result pass; exit 3' || status=$?",
                'test "$status" = 3',
                "lava-send here",
                "until test -e done; do sleep 0.1; done",
            ],
            "other": ["lava-wait here", "lava-send there"],
        }
    )
    assert ran.status == 1, ran.out + ran.err
    assert sorted(cases(ran, "0_board")) == [
        ("asked", "pass"),
        ("multinode-reboot", "fail"),
        ("multinode-send-here", "pass"),
        ("multinode-wait-there", "pass"),
        ("waited", "pass"),
    ]
    reason = "the command of step 2 that was to reboot the device has failed"
    assert ran.reason(1, "0_board", "multinode-reboot") == reason
    assert ran.result(1, "lava", "0_board") == "pass"


def test_a_shutdown_that_ends_the_test_first_is_a_part_of_the_reboot(run: Callable[..., Ran]) -> None:
    kill = "lava-reboot sh -c '(sleep 1; kill -USR1 $BOARD) & kill -TERM $PPID'"
    steps = ["lava-wait never & " + kill, "lava-test-case after --result pass"]
    ran = run({"board": steps, "other": ["lava-wait-all up --timeout 1 || true"]})
    assert cases(ran, "0_board") == [("multinode-reboot", "pass"), ("after", "pass")], ran.out + ran.err
    assert ran.result(1, "lava", "0_board") == "pass"


@pytest.mark.slow
def test_a_board_that_does_not_come_back_fails_and_so_do_waits_for_it(run: Callable[..., Ran]) -> None:
    actions = {
        "board": ["lava-sync begin", "lava-reboot kill -USR2 $BOARD"],
        "other": ["lava-sync begin", "lava-wait up"],
    }
    ran = run(actions, boot=12)
    assert ran.status == 3, ran.out + ran.err
    why = "the device has not come back from the reboot in step 2 of 0_board within 12 s: no prompt came; waited for "
    assert ran.reason(1, "0_board", "multinode-reboot").startswith(why)
    assert ran.reason(1, "lava", "0_board").startswith(why)
    assert why in ran.reason(2, "0_other", "multinode-wait-up")
