"""What the coordinator costs: a sync after its last arrival, sends a second, and memory; beside LAVA's own.

LAVA's coordinator is measured where MULTINODE_LAVA_ROOT names a tree into which Debian's packages ``lava-common`` and
``lava-coordinator`` are unpacked. Its clients poll; ours are held. Everything runs on this machine's loopback; the
clients are raw sockets of this process, so that the coordinator, a process of its own, is what is slow.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SIZES = (2, 8, 32, 256)
CLIENTS = 64
GROUPS, MEMBERS = 1000, 10
PACKAGED_POLL_DELAY = 3.0
SYNC_LIMIT = 60.0
"""Seconds that all rounds of a group may take. LAVA's listen queue is one long, so that large groups hardly get in."""


@dataclass
class Coordinator:
    """One that runs."""

    name: str
    pid: int
    port: int
    ours: bool

    def cpu(self) -> float:
        """Seconds of processor that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> float:
        """Kilobytes that it has resident."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith("VmRSS:")))


@contextlib.contextmanager
def ours(folder: Path, journal: str) -> Iterator[Coordinator]:
    place = journal if journal == "memory" else str(folder / "journal.sqlite")
    command = [sys.executable, "-m", "dispatcher.cli.main", "coordinator", "--port", "0", "--journal", place]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().rpartition(":")[2])
        yield Coordinator(f"ours, {journal}", process.pid, port, ours=True)
        process.terminate()


@contextlib.contextmanager
def lavas(root: Path, folder: Path, *, log: bool) -> Iterator[Coordinator]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = folder / "lava-coordinator.conf"
    config.write_text(json.dumps({"port": port, "blocksize": 4096}))
    # DEBUG is what the unit of Debian's package says.
    level = ["--loglevel", "DEBUG" if log else "ERROR"]
    command = [sys.executable, str(root / "usr/bin/lava-coordinator"), "--config", str(config), *level]
    packages = str(root / "usr/lib/python3/dist-packages")
    with subprocess.Popen(
        [*command, "--logfile", str(folder / "lava.log")], env={**os.environ, "PYTHONPATH": packages}
    ) as process:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                asyncio.run(ask(port, {"request": "none"}))
                break
        yield Coordinator(f"LAVA's, {'as shipped' if log else 'log off'}", process.pid, port, ours=False)
        process.terminate()


# --- asking ------------------------------------------------------------------------------------------------------


def request(member: str, name: str, group: str = "bench", size: int = 1, **fields: Any) -> dict[str, Any]:
    base = {"client_name": member, "group_name": group, "role": "r", "hostname": "h", "request": name}
    return base | ({"group_size": size} if name == "group_data" else {}) | fields


def framed(fields: dict[str, Any]) -> bytes:
    body = json.dumps(fields).encode()
    return b"%08X%b" % (len(body), body)


class _Asking(asyncio.Protocol):
    def __init__(self, data: bytes, answer: asyncio.Future[dict[str, Any]]) -> None:
        self._data, self._answer, self._got = data, answer, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._data)

    def data_received(self, data: bytes) -> None:
        self._got += data

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer.done():
            return
        if self._got:
            self._answer.set_result(json.loads(self._got[8:]))
        else:
            self._answer.set_exception(error or ConnectionResetError())


async def ask(port: int, fields: dict[str, Any]) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[dict[str, Any]] = loop.create_future()
    await loop.create_connection(lambda: _Asking(framed(fields), answer), "127.0.0.1", port)
    return await answer


async def insist(port: int, fields: dict[str, Any], poll: float) -> dict[str, Any]:
    """Ask as LAVA's clients do, until there is another answer than ``wait``."""
    while True:
        with contextlib.suppress(OSError):
            reply = await ask(port, fields)
            if reply["response"] != "wait":
                return reply
        await asyncio.sleep(poll)


# --- a sync ------------------------------------------------------------------------------------------------------


async def sync(coordinator: Coordinator, size: int, rounds: int, poll: float) -> float:
    """Milliseconds from the last arrival to the moment when everybody knows (the median of some rounds)."""
    async with asyncio.timeout(SYNC_LIMIT):
        return await _sync(coordinator, size, rounds, poll)


async def _sync(coordinator: Coordinator, size: int, rounds: int, poll: float) -> float:
    port, group = coordinator.port, f"sync-{size}-{poll}"
    members = [str(number) for number in range(size)]

    def fields(member: str, name: str, act: str, **more: Any) -> dict[str, Any]:
        joined = {} if name == "group_data" else {"join": f"j.{member}"}
        held = {"multinode": {"id": f"{act}.{member}", "hold": 600, **joined}} if coordinator.ours else {}
        return request(member, name, group, size, **more, **held)

    await asyncio.gather(*(insist(port, fields(member, "group_data", "j"), 0.05) for member in members))
    took = []
    for number in range(rounds):
        calls = {m: fields(m, "lava_sync", f"s{number}", messageID=f"s{number}") for m in members}
        early = [asyncio.ensure_future(insist(port, calls[member], poll)) for member in members[:-1]]
        await settled(coordinator, size - 1)
        began = time.perf_counter()
        await asyncio.gather(insist(port, calls[members[-1]], poll), *early)
        took.append(1000 * (time.perf_counter() - began))
    return statistics.median(took)


async def settled(coordinator: Coordinator, waiting: int) -> None:
    """Until all but the last have arrived; LAVA's cannot tell, so there it is a moment, more for large groups."""
    if not coordinator.ours:
        await asyncio.sleep(0.5 + waiting / 100)
        return
    have = -1
    while have < waiting:
        status = (await ask(coordinator.port, {"request": "status"}))["message"]
        have = sum(len(member["calls"]) for group in status["groups"] for member in group["members"])


# --- sends -------------------------------------------------------------------------------------------------------


def sends(coordinator: Coordinator, seconds: float) -> tuple[float, int, float]:
    """Sends acknowledged a second, connections refused or reset, and the coordinator's microseconds a send."""

    async def join() -> None:
        for member in range(CLIENTS):
            with contextlib.suppress(OSError):
                await ask(coordinator.port, request(str(member), "group_data", size=CLIENTS))

    asyncio.run(join())
    selector = selectors.DefaultSelector()
    data = [framed(request(str(n), "lava_send", messageID="m", message={"key": "value"})) for n in range(CLIENTS)]
    for member in range(CLIENTS):
        _connect(selector, coordinator.port, member)
    done = refused = 0
    cpu, began = coordinator.cpu(), time.perf_counter()
    while time.perf_counter() - began < seconds:
        for key, events in selector.select(1.0):
            connection, member = key.fileobj, key.data
            assert isinstance(connection, socket.socket)
            try:
                if events & selectors.EVENT_WRITE:
                    connection.send(data[member])
                    selector.modify(connection, selectors.EVENT_READ, member)
                    continue
                acknowledged = b'"ack"' in connection.recv(4096)
            except OSError:
                acknowledged = False
            done += acknowledged
            refused += not acknowledged
            selector.unregister(connection)
            connection.close()
            _connect(selector, coordinator.port, member)
    took = time.perf_counter() - began
    cpu = coordinator.cpu() - cpu
    for key in list(selector.get_map().values()):
        assert isinstance(key.fileobj, socket.socket)
        key.fileobj.close()
    return done / took, refused, 1e6 * cpu / max(1, done)


def _connect(selector: selectors.BaseSelector, port: int, member: int) -> None:
    connection = socket.socket()
    connection.setblocking(False)
    connection.connect_ex(("127.0.0.1", port))
    selector.register(connection, selectors.EVENT_WRITE, member)


# --- memory ------------------------------------------------------------------------------------------------------


async def memory(coordinator: Coordinator) -> tuple[float, float, float]:
    """Kilobytes: at the start, then more for each group of ten, then more for each member that waits."""
    port = coordinator.port
    empty = coordinator.memory()
    everybody = [(f"g{group}", str(member)) for group in range(GROUPS) for member in range(MEMBERS)]
    for group, member in everybody:
        await ask(port, request(member, "group_data", group, MEMBERS))
    full = coordinator.memory()
    held = {"hold": 3600}
    calls = []
    for number, (group, member) in enumerate(everybody):
        fields = request(member, "lava_wait", group, messageID="m", multinode={"id": f"w{number}", **held})
        calls.append(asyncio.ensure_future(ask(port, fields)))
        if number % 100 == 0:
            await asyncio.sleep(0)
    status: dict[str, Any] = {"groups": []}
    while sum(len(m["calls"]) for g in status["groups"] for m in g["members"]) < len(everybody):
        status = (await ask(port, {"request": "status"}))["message"]
    waiting = coordinator.memory()
    for call in calls:
        call.cancel()
    return empty, (full - empty) / GROUPS, (waiting - full) / len(everybody)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    root = os.environ.get("MULTINODE_LAVA_ROOT")

    def each() -> Iterator[Coordinator]:
        for journal in ("memory", "sqlite"):
            with tempfile.TemporaryDirectory() as folder, ours(Path(folder), journal) as coordinator:
                yield coordinator
        for log in (True, False) if root else ():
            with tempfile.TemporaryDirectory() as folder, lavas(Path(root or ""), Path(folder), log=log) as coordinator:
                yield coordinator

    print(f"{CLIENTS} clients that send     {'sends a second':>15}{'refused':>10}{'us of CPU a send':>18}")
    for coordinator in each():
        rate, refused, cost = sends(coordinator, arguments.seconds)
        print(f"{coordinator.name:26}{rate:>15.0f}{refused:>10}{cost:>18.0f}", flush=True)

    print(f"\na sync, ms (median)       {''.join(f'{size:>10}' for size in SIZES)}   members")
    for coordinator in each():
        rounds, poll = (arguments.rounds, 0.0) if coordinator.ours else (1, PACKAGED_POLL_DELAY)
        print(f"{coordinator.name:26}", end="", flush=True)
        for size in SIZES:
            try:
                print(f"{asyncio.run(sync(coordinator, size, rounds, poll)):>10.1f}", end="", flush=True)
            except TimeoutError:
                print(f"{'too long':>10}", end="", flush=True)
                break
        print()

    print(f"\n{GROUPS} groups of {MEMBERS}, all waiting")
    for coordinator in each():
        if coordinator.ours:
            empty, group, waiter = asyncio.run(memory(coordinator))
            text = f"{empty / 1024:.0f} MB empty, {group:.1f} KB a group, {waiter:.1f} KB a member that waits"
            print(f"{coordinator.name:26}{text}", flush=True)


if __name__ == "__main__":
    main()
