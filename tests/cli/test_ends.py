"""What ends a run early, and the power commands at its ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import LOCAL, Multinode, job_text

pytestmark = pytest.mark.slow

Write = Callable[[str, str], Path]


def test_an_essential_member_that_fails_ends_the_others_at_once(multinode: Multinode, write: Write) -> None:
    job = job_text({"a": ["kill -9 $(cut -d ' ' -f 6 /proc/$$/stat); sleep 1000"], "b": ["sleep 1000"]})
    job = job.replace("a:\n        device_type: board\n", "a:\n        device_type: board\n        essential: true\n")
    ran = multinode("run", write("job.yaml", job), "--devices", LOCAL)
    assert ran.status == 3
    assert "the essential member 1 (a) has failed: local-1: " in ran.reason(2, "lava", "job")
    assert "2 (b) has left: the essential member 1 (a) has failed: local-1: " in ran.out


def test_a_failed_case_of_an_essential_member_ends_nobody(multinode: Multinode, write: Write) -> None:
    job = job_text({"a": ["false"], "b": ["lava-test-case runs --result pass"]})
    job = job.replace("a:\n        device_type: board\n", "a:\n        device_type: board\n        essential: true\n")
    ran = multinode("run", write("job.yaml", job), "--devices", LOCAL)
    assert ran.status == 1
    assert ran.result(2, "lava", "0_b") == "pass"


def test_a_member_without_a_console_is_told_once_and_so_is_what_that_does_to_the_others(
    multinode: Multinode, write: Write
) -> None:
    devices = "devices:\n  local: {device_type: board, count: 3, console: {command: sh}}\n"
    devices += "  absent: {device_type: gone, console: {command: 'false'}}\n"
    job = "gone".join(job_text({name: ["lava-sync end"] for name in "abcd"}).rsplit("board", 1))
    ran = multinode("run", write("job.yaml", job), "--devices", write("devices.yaml", devices))
    assert ran.status == 3
    told = [line for line in ran.err.splitlines() if line.startswith("multinode: ")]
    assert len(told) == 2


def test_a_job_that_takes_too_long(multinode: Multinode, write: Write) -> None:
    job = job_text({"a": ["sleep 1000"]}, timeouts={"job": {"seconds": 2}})
    ran = multinode("run", write("job.yaml", job), "--devices", LOCAL)
    assert ran.status == 1
    assert "local-1: the job timed out after 2 s" in ran.err
    assert ran.result(1, "lava", "0_a") == "fail"


def powered(commands: str) -> str:
    return f"devices:\n  d: {{device_type: board, console: {{command: sh}}, commands: {commands}}}\n"


def booted(steps: list[str]) -> str:
    return job_text({"a": steps}).replace("actions:\n", "actions:\n- boot: {role: a, method: minimal}\n")


def test_power_commands_at_both_ends(multinode: Multinode, write: Write, tmp_path: Path) -> None:
    said = tmp_path / "said"
    devices = powered(f"{{hard_reset: ['echo off >>{said}', 'echo on >>{said}'], power_off: 'echo end >>{said}'}}")
    ran = multinode("run", write("job.yaml", booted([f"echo test >>{said}"])), "--devices", write("d.yaml", devices))
    assert ran.status == 0, ran.err
    assert said.read_text().split() == ["off", "on", "test", "end"]


def test_a_power_command_that_fails(multinode: Multinode, write: Write) -> None:
    devices = powered("{hard_reset: 'echo no such outlet >&2; exit 4'}")
    ran = multinode("run", write("job.yaml", booted(["true"])), "--devices", write("d.yaml", devices))
    assert ran.status == 3
    assert "d: hard_reset: 'echo no such outlet >&2; exit 4' ended with status 4: no such outlet" in ran.err


def test_definitions_from_git(multinode: Multinode, write: Write, tmp_path: Path) -> None:
    import subprocess

    repository = tmp_path / "tests"
    repository.mkdir()
    (repository / "smoke.yaml").write_text(
        "metadata: {format: Lava-Test Test Definition 1.0, name: smoke}\nrun: {steps: [./check.sh]}\n"
    )
    (repository / "check.sh").write_text("#!/bin/sh\nlava-test-case from-git --result pass\n")
    (repository / "check.sh").chmod(0o755)
    for arguments in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "x"],
    ):
        subprocess.run(["git", *arguments], cwd=repository, check=True)
    job = job_text({"a": ["true"]})
    definition = f"""\
    - name: smoke
      from: git
      repository: {repository}
      path: smoke.yaml
"""
    ran = multinode("run", write("job.yaml", job[: job.index("    - name: a")] + definition), "--devices", LOCAL)
    assert ran.status == 0, ran.out + ran.err
    assert ran.result(1, "0_smoke", "from-git") == "pass"


def test_a_member_that_gets_no_files_says_why_of_each_of_its_definitions(multinode: Multinode, write: Write) -> None:
    device = "b: {device_type: board, console: {command: sh}, lava_test_results_dir: /proc/nothing/%s}"
    job = write("job.yaml", job_text({"a": ["true"]}))
    ran = multinode("run", job, "--devices", write("devices.yaml", f"devices: {{{device}}}"))
    assert ran.status == 3
    why = "cannot make /proc/nothing/1"
    assert {ran.reason(1, "lava", name)[: len(why) + 3] for name in ("0_a", "job")} == {f"b: {why}"}


def test_a_console_that_says_nothing_ends_at_the_connections_limit(multinode: Multinode, write: Write) -> None:
    timeouts = {"job": {"minutes": 2}, "action": {"minutes": 1}, "connection": {"seconds": 1}}
    job = write("job.yaml", job_text({"a": ["true"]}, timeouts=timeouts))
    device = "b: {device_type: board, console: {command: sleep 1000}, prompts: ['# ']}"
    ran = multinode("run", job, "--devices", write("devices.yaml", f"devices: {{{device}}}"))
    assert ran.status == 3
    assert ran.reason(1, "lava", "0_a") == "b: nothing came in 1 s"
