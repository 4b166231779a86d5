"""``multinode coordinator``, ``status``, ``attach`` and ``run --coordinator``, each in a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from port_harness import lasting_port

from dispatcher.cli.parser import parse

from .conftest import FIXTURES, LOCAL, Multinode, Running, Service, Write, job_text

pytestmark = pytest.mark.slow

TWO = job_text(
    {"server": ["lava-wait go", "lava-send ready ip=10.0.0.1"], "client": ["lava-send go", "lava-wait ready"]}
)


def test_a_job_at_a_coordinator_of_its_own(service: Service, multinode: Multinode) -> None:
    running = service()
    job = FIXTURES / "jobs" / "flow-table" / "job.yaml"
    ran = multinode("run", job, "--devices", LOCAL, "--coordinator", running.address)
    assert ran.status == 0, ran.out + ran.err
    assert {case["result"] for case in ran.results} == {"pass"}
    status, _out, err = running.end(signal.SIGTERM)
    assert status == 0
    assert "ended: everybody has left" in err
    assert "Traceback" not in err


def test_two_members_of_two_processes_meet_and_are_shown(
    service: Service, start: Callable[..., Running], multinode: Multinode, write: Write
) -> None:
    running, job = service(), write("job.yaml", TWO)
    there = ["--devices", LOCAL, "--group", "g1", "--coordinator", running.address]
    assert multinode("status", "--coordinator", running.address).out == "no groups\n"
    server = start("attach", job, *there, "--role", "server", "--job-id", "11", "--output", "server")
    server.line("a shell answers")
    waiting = ""
    while "forming" not in waiting:
        waiting = multinode("status", "--coordinator", running.address).out
    assert waiting == "g1: forming, 1 of 2 have come: 11 (server)\n"
    client = start("attach", job, *there, "--role", "client", "--job-id", "7", "--output", "client")
    for member in (server, client):
        status, out, err = member.end()
        assert status == 0, out + err
    assert "lava-wait ready: waited" in out


def test_who_waits_for_what_is_shown_as_a_table_and_as_json(
    service: Service, start: Callable[..., Running], multinode: Multinode, write: Write
) -> None:
    running = service()
    job = write("job.yaml", job_text({"a": ["lava-wait-all never"], "b": ["sleep 1000"]}))
    run = start("run", job, "--devices", LOCAL, "--coordinator", running.address)
    run.line("lava-wait-all never ...")
    calls = [{"call": ""}]
    while calls[0]["call"] != "lava-wait-all never":
        told = json.loads(multinode("status", "--json", "--coordinator", running.address).out)
        calls = told["groups"][0]["members"][0]["calls"] or calls
    assert calls[0]["progress"] == "have 0 of 2, missing 1 (a), 2 (b)"
    table = multinode("status", "--coordinator", running.address).out
    assert re.search(
        r"^  1  a  here      lava-wait-all never for \d+\.\d s: have 0 of 2, missing 1", table, re.MULTILINE
    )
    assert re.search(r"^  2  b  here      -$", table, re.MULTILINE)
    assert run.end(signal.SIGINT)[0] == 130
    assert multinode("status", "--coordinator", running.address).out == "no groups\n"


def test_a_coordinator_that_is_killed_and_started_again_is_borne(
    service: Service, start: Callable[..., Running], tmp_path: Path, write: Write
) -> None:
    journal = tmp_path / "journal.sqlite"
    running = service("--journal", journal, port=lasting_port())
    gate = tmp_path / "gate"
    steps = {
        "a": ["lava-send early k=v", "lava-wait go", "lava-sync end"],
        "b": [f"read x <{gate}", "lava-send go", "lava-wait early", "lava-sync end"],
    }
    os.mkfifo(gate)
    run = start("run", write("job.yaml", job_text(steps)), "--devices", LOCAL, "--coordinator", running.address)
    run.line("lava-wait go ...")
    running.end(signal.SIGKILL)
    run.line("trying again")
    service("--journal", journal, port=running.port)
    gate.write_text("\n")
    status, out, err = run.end()
    assert status == 0, out + err
    assert "the coordinator is back" in out


def test_a_coordinator_that_is_not_there_ends_a_run_before_a_console_is_opened(multinode: Multinode) -> None:
    port = lasting_port()
    job = FIXTURES / "jobs" / "example-1" / "job.yaml"
    ran = multinode("run", job, "--devices", LOCAL, "--coordinator", f"127.0.0.1:{port}")
    assert ran.status == 3
    assert f"multinode: 127.0.0.1:{port}: the coordinator cannot be reached: Connection refused" in ran.err
    assert "opening" not in ran.out


def test_a_port_that_is_taken(multinode: Multinode) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = multinode("coordinator", "--port", str(port))
    assert ran.status == 3
    assert f"multinode: 127.0.0.1:{port}: cannot listen there" in ran.err


@pytest.mark.parametrize("address", ["", ":3079", "host:", "host:http", "::1:3079", "[::1]:70000"])
def test_what_is_no_address(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse(["status", "--coordinator", address])
    assert exit_.value.code == 2
    assert "argument --coordinator: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "host", "port"), [("lab", "lab", 3079), ("lab:1", "lab", 1), ("[::1]", "::1", 3079), ("[::1]:2", "::1", 2)]
)
def test_what_is_an_address(text: str, host: str, port: int) -> None:
    address = parse(["status", "--coordinator", text]).coordinator
    assert (address.host, address.port) == (host, port)


def test_a_role_that_the_job_does_not_have(multinode: Multinode, write: Write) -> None:
    job = write("job.yaml", TWO)
    ran = multinode("attach", job, "--devices", LOCAL, "--role", "srever", "--group", "g", "--job-id", "1")
    assert ran.status == 2
    assert "no member has the role 'srever'\n  the roles are server, client" in ran.err
