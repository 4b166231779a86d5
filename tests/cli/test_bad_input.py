"""What is wrong is told once, in a line or two, with the right exit status, and nothing is left running."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from .conftest import LOCAL, Multinode, job_text

pytestmark = pytest.mark.slow

Write = Callable[[str, str], Path]

GOOD = job_text({"server": ["lava-sync s"], "client": ["lava-sync s"]})

WRONG_JOBS = {
    "an unknown role in an action": (GOOD.replace("role: client", "role: clinet"), "clinet", "did you mean 'client'"),
    "too few devices": (job_text({"a": ["true"]}, counts={"a": 9}), "9", "8"),
    "a YAML error": ("job_name: [\n", "job.yaml:", ""),
    "a definition without steps": (GOOD.replace("          - lava-sync s\n", ""), "steps", "server"),
    "an unknown key": (GOOD.replace("timeouts:", "timeuots:"), "timeuots", "timeouts"),
    "an empty file": ("", "job.yaml", ""),
}


@pytest.mark.parametrize("name", WRONG_JOBS)
@pytest.mark.parametrize("subcommand", ["run", "check"])
def test_a_wrong_job_opens_nothing(name: str, subcommand: str, multinode: Multinode, write: Write) -> None:
    text, *expected = WRONG_JOBS[name]
    ran = multinode(subcommand, write("job.yaml", text), "--devices", LOCAL)
    assert ran.status == 2
    assert not ran.output.exists()
    assert ran.out == ""
    lines = ran.err.splitlines()
    assert len(lines) <= 2, ran.err
    assert lines[0].startswith("multinode: ")
    assert all(text in ran.err for text in expected), ran.err


@pytest.mark.parametrize(
    ("console", "expected"),
    [
        ("{comand: sh}", "did you mean 'command'"),
        ("{carrier-pigeon: x}", "carrier-pigeon"),
        ("{command: ''}", "empty"),
        ('{command: "sh \'x"}', "quotation"),
        ("{serial: /dev/ttyS0, baudrate: fast}", "baudrate"),
    ],
)
def test_a_wrong_device_opens_nothing(console: str, expected: str, multinode: Multinode, write: Write) -> None:
    devices = write("devices.yaml", f"devices:\n  d: {{device_type: board, count: 2, console: {console}}}\n")
    ran = multinode("run", write("job.yaml", GOOD), "--devices", devices)
    assert ran.status == 2, ran.err
    assert expected in ran.err
    assert len(ran.err.splitlines()) <= 2
    assert not ran.output.exists()


@pytest.mark.parametrize(
    "arguments", [("run",), ("fly",), ("run", "nowhere.yaml"), ("check", "/"), ("run", "j", "--job-id", "x")]
)
def test_a_wrong_command_line(arguments: tuple[str, ...], multinode: Multinode) -> None:
    ran = multinode(*arguments)
    assert ran.status == 2
    assert "Traceback" not in ran.err


def broken_device(console: str, more: str = "") -> str:
    return f"""\
devices:
  bad: {{device_type: board, console: {{command: {console}}}{more}}}
  good: {{device_type: board, console: {{command: sh}}}}
"""


BROKEN_CONSOLES = {
    "does not exist": (broken_device("no-such-program"), "bad: the program 'no-such-program' is not found"),
    "closes at once": (broken_device("sh -c 'exit 7'"), "bad: 'sh' ended with status 7"),
    "is killed": (broken_device("sh -c 'kill -9 $$'"), "bad: 'sh' was ended by SIGKILL"),
    "prints rubbish for ever": (
        broken_device('"sh -c \'while :; do printf \\"rubbish\\\\377 \\"; done\'"', ", prompts: ['never# ']"),
        "bad: no prompt came; waited for 'never# '",
    ),
    "never gives a prompt": (broken_device("cat", ", prompts: ['never# ']"), "bad: no prompt came"),
    "has no shell": (broken_device('"sh -c \'trap \\"\\" INT; exec cat\'"'), "bad: no shell answered"),
}


@pytest.mark.parametrize("name", BROKEN_CONSOLES)
def test_a_console_that_is_no_use(name: str, multinode: Multinode, write: Write) -> None:
    devices, expected = BROKEN_CONSOLES[name]
    # The other member's time must not be over first.
    boot = "- boot: {role: server, method: minimal, timeout: {seconds: 4}}"
    job = GOOD.replace("actions:\n", f"actions:\n{boot}\n")
    ran = multinode("run", write("job.yaml", job), "--devices", write("devices.yaml", devices))
    assert ran.status == 3, ran.out + ran.err
    assert f"multinode: {expected}" in ran.err
    assert "Traceback" not in ran.err
    assert ran.result(1, "lava", "job") == "fail"
    assert "1 (server): bad: " in ran.reason(2, "lava", "job"), "the other member is told why"


def test_an_option_that_makes_no_sense_is_told_with_its_line(multinode: Multinode, write: Write) -> None:
    text = "devices:\n  good: {device_type: board, console: {command: sh}}\n"
    text += "  bad: {device_type: board, console: {serial: /dev/ttyS9, baudrate: fast}}\n"
    file = write("devices.yaml", text)
    ran = multinode("check", write("job.yaml", GOOD), "--devices", file)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err == f"multinode: {file}:3: bad: baudrate 'fast' is not a number of bits a second\n"


# --- calls that cannot be right -----------------------------------------------------------------------------------


def test_calls_that_the_device_refuses(multinode: Multinode, write: Write) -> None:
    newline = "lava-send x \"k=a$(printf '\\nb')\""
    job = job_text(
        {"a": ["lava-send || echo status $?", f"{newline} || echo status $?", "lava-wait || echo status $?"]}
    )
    ran = multinode("run", write("job.yaml", job), "--devices", LOCAL, "-v")
    assert ran.status == 0, ran.out + ran.err
    assert ran.out.count("| status 1") == 3
    assert "usage: lava-send ID" in ran.out
    assert "lava-send: " in ran.out.replace("usage: lava-send", ""), "the newline is told"
    assert not [case for case in ran.results if case["name"].startswith("multinode-")]


def test_a_wait_that_nobody_can_satisfy_ends_at_once(multinode: Multinode, write: Write) -> None:
    job = job_text({"server": ["lava-send other"], "client": ["lava-wait ready"], "third": ["lava-wait-all x server"]})
    ran = multinode("run", write("job.yaml", job), "--devices", LOCAL)
    assert ran.status == 1
    assert "missing 1 (server), who has left: its tests have ended" in ran.reason(3, "0_third", "multinode-wait_all-x")
    reason = ran.reason(2, "0_client", "multinode-wait-ready")
    assert "nobody has sent ready yet" in reason
    assert "1 (server): its tests have ended" in reason


def test_an_unknown_role_fails_the_call_at_once(multinode: Multinode, write: Write) -> None:
    ran = multinode("run", write("job.yaml", job_text({"a": ["lava-wait-all x ghost"]})), "--devices", LOCAL)
    assert ran.status == 1
    assert "no member has the role 'ghost'; the roles are a" in ran.reason(1, "0_a", "multinode-wait_all-x")


def test_members_that_wait_for_each_other_are_told_and_fail_after_the_grace(multinode: Multinode, write: Write) -> None:
    job = write("job.yaml", job_text({"a": ["lava-wait x", "lava-send y"], "b": ["lava-wait y", "lava-send x"]}))
    ran = multinode("run", job, "--devices", LOCAL, "--stuck-grace", "0")
    assert ran.status == 1
    reason = ran.reason(1, "0_a", "multinode-wait-x")
    assert "1 (a) waits in lava-wait x: nobody has sent x yet" in reason
    assert "2 (b) waits in lava-wait y: nobody has sent y yet" in reason


def test_a_call_that_times_out_says_how_far_it_got(multinode: Multinode, write: Write, tmp_path: Path) -> None:
    calls = {role: [f"lava-sync s || {{ : >{tmp_path}/{role}-ended; false; }}"] for role in "ab"}
    both = f"[ -e {tmp_path}/a-ended ] && [ -e {tmp_path}/b-ended ]"
    job = job_text({**calls, "c": [f"until {both}; do sleep 0.1; done"]})
    job = job.replace("    roles:\n", "    timeout: {seconds: 1}\n    roles:\n")
    ran = multinode("run", write("job.yaml", job), "--devices", LOCAL)
    assert ran.status == 1
    reasons = [ran.reason(1, "0_a", "multinode-sync-s"), ran.reason(2, "0_b", "multinode-sync-s")]
    # Whoever called last has seen both.
    assert any("timed out after 1 s; have 2 of 3, missing 3 (c)" in reason for reason in reasons), reasons


def test_a_console_that_is_lost_in_a_test_fails_the_others_waits(multinode: Multinode, write: Write) -> None:
    job = job_text(
        {"a": ["lava-sync s", "kill -9 $PPID $(cut -d ' ' -f 6 /proc/$$/stat)"], "b": ["lava-sync s", "lava-wait x"]}
    )
    ran = multinode("run", write("job.yaml", job), "--devices", LOCAL)
    assert ran.status == 3, ran.out + ran.err
    assert ran.result(1, "lava", "0_a") == "fail"
    assert "1 (a): local-1: " in ran.reason(2, "0_b", "multinode-wait-x")


def test_a_test_action_that_takes_too_long(multinode: Multinode, write: Write) -> None:
    job = yaml.safe_load(job_text({"a": ["sleep 1000"], "b": ["true"]}))
    job["actions"][0]["test"]["timeout"] = {"seconds": 10}
    ran = multinode("run", write("job.yaml", yaml.safe_dump(job)), "--devices", LOCAL)
    assert ran.status == 1, ran.err
    assert "local-1: the test action timed out" in ran.err
    assert ran.result(1, "lava", "0_a") == "fail"
    assert ran.result(2, "lava", "0_b") == "pass"


def test_an_output_directory_that_cannot_be_made(multinode: Multinode, write: Write) -> None:
    ran = multinode("run", write("job.yaml", GOOD), "--devices", LOCAL, "--output", "/proc/output")
    assert ran.status == 3
    assert ran.err.startswith("multinode: cannot make /proc/output: ")
    assert len(ran.err.splitlines()) == 1


@pytest.mark.parametrize("below", ["", "/results"])
def test_an_output_directory_that_is_a_file_opens_nothing(
    below: str, multinode: Multinode, write: Write, tmp_path: Path
) -> None:
    opened = tmp_path / "opened"
    devices = write(
        "d.yaml", f"devices:\n  d: {{device_type: board, count: 2, console: {{command: touch {opened}}}}}\n"
    )
    write("output", "precious")
    ran = multinode("run", write("job.yaml", GOOD), "--devices", devices, "--output", f"{tmp_path}/output{below}")
    assert ran.status == 2
    assert ran.err.startswith(f"multinode: {tmp_path}/output{below} is no directory")
    assert len(ran.err.splitlines()) == 2
    assert not opened.exists()
    assert ran.output.read_text() == "precious"


def test_events_that_cannot_be_written_are_told_once(multinode: Multinode, write: Write, tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "events.jsonl").symlink_to("/dev/full")
    ran = multinode("run", write("job.yaml", GOOD), "--devices", LOCAL)
    assert ran.status == 3
    assert ran.err == f"multinode: cannot write {tmp_path}/output/events.jsonl: No space left on device\n"
    assert {case["result"] for case in ran.results} == {"pass"}


def test_results_that_cannot_be_written_are_shown_all_the_same(
    multinode: Multinode, write: Write, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    job = job_text({"a": [f"rm -r {output}", "lava-test-case x --shell true"]})
    ran = multinode("run", write("job.yaml", job), "--devices", LOCAL)
    assert ran.status == 3
    assert ran.err == f"multinode: cannot write the results in {output}: No such file or directory\n"
    assert re.search(r"^1 +a +\S+ +2 +2 +0 +0$", ran.out, re.MULTILINE), ran.out
