"""LAVA's dispatcher at our coordinator, our dispatcher at LAVA's coordinator, and both at one."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from port_harness import lasting_port
from processes import MULTINODE, ended

from dispatcher.coordinator.remote import Address, Place, RemoteClient
from dispatcher.errors import CallRefused
from dispatcher.group.events import Member
from dispatcher.group.needs import Kind

pytestmark = pytest.mark.slow

PATIENCE = 280
FIXTURES = Path(__file__).parents[2] / "fixtures"
STOCK_MEMBER = Path(__file__).with_name("stock_member.py")

GROUP = (Member("11", "server"), Member("12", "client"), Member("13", "client"))


@pytest.fixture
def lava_coordinator(lava: Path, lava_environment: dict[str, str], tmp_path: Path) -> Iterator[int]:
    """The port of LAVA's."""
    port = lasting_port()
    config = tmp_path / "lava-coordinator.conf"
    config.write_text(json.dumps({"port": port, "blocksize": 4096, "poll_delay": 1}))
    program = [sys.executable, str(lava / "usr" / "bin" / "lava-coordinator")]
    command = [*program, "--config", str(config), "--logfile", "-", "--loglevel", "INFO"]
    log = tmp_path / "lava-coordinator.log"
    with (
        log.open("w") as out,
        ended(subprocess.Popen(command, stdout=out, stderr=out, env=lava_environment, text=True)) as process,
    ):
        for line in follow(log, process):
            if "Ready to accept" in line:
                break
        yield port
        assert process.poll() is None, f"LAVA's coordinator has ended:\n{log.read_text()}"


def follow(log: Path, process: subprocess.Popen[str]) -> Iterator[str]:
    """The lines of a log as they are written."""
    with log.open() as lines:
        while True:
            line = lines.readline()
            if line:
                yield line
            elif process.poll() is not None:
                pytest.fail(f"LAVA's coordinator has ended:\n{log.read_text()}")


def stock_member(
    environment: dict[str, str], port: int, member: Member, calls: list[dict[str, Any]], size: int = len(GROUP)
) -> subprocess.Popen[str]:
    arguments = [str(port), member.id, member.role, "a-group", str(size), json.dumps(calls)]
    command = [sys.executable, str(STOCK_MEMBER), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True)


def replies(process: subprocess.Popen[str]) -> list[Any]:
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    return [json.loads(line) for line in out.splitlines()]


def call(request: str, message_id: str, **more: Any) -> dict[str, Any]:
    return {"request": request, "messageID": message_id, **more}


def test_lavas_dispatchers_meet_at_our_coordinator(our_coordinator: int, lava_environment: dict[str, str]) -> None:
    server = [
        call("lava-send", "ready", message={"ip": "10.0.0.1"}),
        call("lava-wait-all", "done", role="client"),
        call("lava-wait", "ready"),
        call("lava-sync", "end"),
        call("lava-wait-all", "x", role="nobody"),
    ]
    client = [call("lava-wait", "ready"), call("lava-send", "done", message={"ok": "yes"}), call("lava-sync", "end")]
    scripts = (server, client, client)
    processes = [
        stock_member(lava_environment, our_coordinator, member, calls)
        for member, calls in zip(GROUP, scripts, strict=True)
    ]
    ready, done = {"11": {"ip": "10.0.0.1"}}, {"12": {"ok": "yes"}, "13": {"ok": "yes"}}
    synced = {"11": {}, "12": {}, "13": {}}
    got = [replies(process) for process in processes]
    assert got[0] == ["ack", done, ready, synced, "nack"]
    assert got[1] == got[2] == [ready, "ack", synced]


def test_members_of_both_meet_at_our_coordinator(our_coordinator: int, lava_environment: dict[str, str]) -> None:
    stock = stock_member(
        lava_environment,
        our_coordinator,
        GROUP[0],
        [call("lava-wait", "hello"), call("lava-send", "re", message={"k": "v"}), call("lava-sync", "end")],
        size=2,
    )

    async def ours() -> None:
        client = RemoteClient(Address("127.0.0.1", our_coordinator), Place("a-group", GROUP[1], 2))
        assert sorted(await client.join("j"), key=str) == list(GROUP[:2])
        await client.send("s", "hello", [("from", "ours")])
        assert await client.wait("w", Kind.WAIT, "re", None, timeout=PATIENCE) == {"11": {"k": "v"}}
        await client.wait("y", Kind.SYNC, "end", None, timeout=PATIENCE)
        await client.leave("l", "done")

    asyncio.run(ours())
    assert replies(stock) == [{"12": {"from": "ours"}}, "ack", {"11": {}, "12": {}}]


def test_our_clients_meet_at_lavas_coordinator(lava_coordinator: int) -> None:
    async def play() -> None:
        address = Address("127.0.0.1", lava_coordinator)
        server, *clients = (
            RemoteClient(address, Place("a-group", member, 3, GROUP, "run"), poll=0.05) for member in GROUP
        )
        joined = await asyncio.gather(*(client.join(f"j{index}") for index, client in enumerate((server, *clients))))
        assert joined == [GROUP] * 3
        early = asyncio.ensure_future(server.wait("a", Kind.WAIT_ALL, "all", None, timeout=PATIENCE))
        await server.send("s", "ready", [("ip", "10.0.0.1")])
        for number, client in enumerate(clients):
            assert await client.wait(f"w{number}", Kind.WAIT, "ready", None, timeout=PATIENCE) == {
                "11": {"ip": "10.0.0.1"}
            }
        with pytest.raises(CallRefused, match="timed out after 0"):
            await server.wait("t", Kind.WAIT, "never", None, timeout=0.2)
        with pytest.raises(CallRefused, match="no member has the role 'nobody'"):
            await server.wait("r", Kind.WAIT_ALL, "all", "nobody", timeout=PATIENCE)
        for number, client in enumerate((server, *clients)):
            await client.send(f"d{number}", "all", [("n", str(number))])
        assert await early == {"11": {"n": "0"}, "12": {"n": "1"}, "13": {"n": "2"}}
        syncs = (
            client.wait(f"y{number}", Kind.SYNC, "end", None, timeout=PATIENCE)
            for number, client in enumerate((server, *clients))
        )
        assert await asyncio.gather(*syncs) == [{}, {}, {}]
        for number, client in enumerate((server, *clients)):
            await client.leave(f"l{number}", "done")

    asyncio.run(play())


def test_a_whole_job_at_lavas_coordinator(lava_coordinator: int, tmp_path: Path) -> None:
    job, devices = FIXTURES / "jobs" / "example-3" / "job.yaml", FIXTURES / "devices" / "local.yaml"
    there = ["--coordinator", f"127.0.0.1:{lava_coordinator}", "--output", str(tmp_path / "output")]
    done = subprocess.run(
        [*MULTINODE, "run", str(job), "--devices", str(devices), *there],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
