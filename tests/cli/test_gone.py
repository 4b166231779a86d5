"""Members whose ``multinode attach`` is killed, or fails before there is a group: the others are told who it was."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from port_harness import lasting_port

from .conftest import Multinode, Running, Service, Write, job_text, marked, until

pytestmark = pytest.mark.slow

Attach = Callable[..., Running]


@pytest.fixture
def attach(start: Callable[..., Running], write: Write, tmp_path: Path) -> Attach:
    """Start one member on a shell whose files are in the test's own folder, as whoever is killed leaves them."""

    def attach(job: Path, running: Running, role: str, member: str, console: str = "sh") -> Running:
        place = f"{tmp_path}/on-%s"
        device = {"device_type": "board", "console": {"command": console}, "lava_test_results_dir": place}
        devices = write(f"{member}.yaml", yaml.safe_dump({"devices": {f"board-{member}": device}}))
        there = ["--coordinator", running.address, "--group", "g", "--role", role, "--job-id", member]
        return start("attach", job, "--devices", devices, *there, "--output", member)

    return attach


def reasons(folder: Path) -> list[str]:
    found = yaml.safe_load((folder / "results.yaml").read_text())
    return [str(case["metadata"]["reason"]) for case in found if "reason" in case.get("metadata", {})]


def test_who_waits_for_a_member_that_was_killed_is_told_who_it_was(
    service: Service, attach: Attach, write: Write, tmp_path: Path, mark: str
) -> None:
    running = service("--absence", "0.2", "--journal", "memory")
    job = write("job.yaml", job_text({"server": ["lava-wait ready"], "client": ["lava-wait never"]}))
    server, client = attach(job, running, "server", "11"), attach(job, running, "client", "12")
    server.line("lava-wait ready ...")
    client.line("lava-wait never ...")
    client.end(signal.SIGKILL)
    status, out, err = server.end()
    assert status == 1, out + err
    gone = "nobody has sent ready yet, and every other member has left: 12 (client): its dispatcher has gone"
    assert gone in "".join(reasons(tmp_path / "11"))
    # Beside the coordinator, what learns from the kernel that its terminal has gone.
    until(lambda: len(marked(mark)) == 1, "the killed member's shell is still there")
    log = running.end(signal.SIGTERM)[2]
    assert "absent: the dispatcher of 12 (client) has closed its connection, and is given up in 0.2 s" in log
    assert "left: 12 (client) has left: its dispatcher has gone" in log


def test_nobody_leaves_while_the_coordinator_is_started_again(
    service: Service, attach: Attach, multinode: Multinode, write: Write, tmp_path: Path
) -> None:
    journal, gate = tmp_path / "journal.sqlite", tmp_path / "gate"
    running = service("--absence", "0.2", "--journal", journal, port=lasting_port())
    os.mkfifo(gate)
    steps = {"server": ["lava-wait ready"], "client": ["lava-send here", f"read x <{gate}", "lava-send ready"]}
    job = write("job.yaml", job_text(steps))
    server, client = attach(job, running, "server", "11"), attach(job, running, "client", "12")
    server.line("lava-wait ready ...")
    client.line("lava-send here")
    assert "Traceback" not in running.end(signal.SIGTERM)[2]
    server.line("trying again")
    again = service("--absence", "0.2", "--journal", journal, port=running.port)
    members: list[dict[str, Any]] = [{"calls": []}]
    while not members[0]["calls"]:
        told = json.loads(multinode("status", "--json", "--coordinator", again.address).out)
        members = sorted(told["groups"][0]["members"], key=lambda member: str(member["id"]))
    assert [member["presence"] for member in members] == ["here", "here"]
    gate.write_text("\n")
    for member in (server, client):
        status, out, err = member.end()
        assert status == 0, out + err
    assert "its dispatcher has gone" not in again.end(signal.SIGTERM)[2]


def test_a_console_that_fails_before_the_group_is_complete_is_told_to_who_waits_for_it(
    service: Service, attach: Attach, write: Write
) -> None:
    running = service("--journal", "memory")
    job = write("job.yaml", job_text({"server": ["lava-sync end"], "client": ["lava-sync end"]}))
    server = attach(job, running, "server", "11")
    server.line("a shell answers")
    assert attach(job, running, "client", "12", console="false").end()[0] == 3
    _status, out, err = server.end()
    assert "the group cannot be complete, for a member has left: 12 (client): board-12: " in out + err
