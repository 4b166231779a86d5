"""``multinode coordinator`` as an admin runs it: started, asked, killed, started again, and stopped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pki_harness import Pki
from port_harness import lasting_port

from dispatcher.cli.coordinator import serve
from dispatcher.cli.main import main
from dispatcher.coordinator.journal.memory import MemoryJournal
from dispatcher.coordinator.journal.sqlite import SqliteJournal
from dispatcher.coordinator.logs import LOGGER
from dispatcher.coordinator.remote import Address, Place, RemoteClient
from dispatcher.coordinator.settings import Settings
from dispatcher.errors import CallRefused, CoordinatorError, JournalError
from dispatcher.group.events import Event, Member, Sent
from dispatcher.group.needs import Kind

from .conftest import LOCAL, Multinode, job_text

pytestmark = pytest.mark.slow

PATIENCE = 240
SERVER, CLIENT = MEMBERS = (Member("1", "server"), Member("2", "client"))


class Service:
    """A coordinator in a process of its own, with the user's state directory in a folder of the test's."""

    def __init__(self, home: Path, *options: str | Path) -> None:
        environment = {**os.environ, "XDG_STATE_HOME": str(home)}
        command = [sys.executable, "-W", "error", "-m", "dispatcher.cli.main", "coordinator", *options]
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        ready = self.process.stdout.readline()
        assert ready.startswith("ready on "), self.process.communicate()
        self.port = int(ready.rpartition(":")[2])

    def client(self, member: Member, group: str = "g") -> RemoteClient:
        place = Place(group, member, len(MEMBERS), MEMBERS, "run")
        return RemoteClient(Address("127.0.0.1", self.port), place)

    def stop(self) -> str:
        """Stop it as systemd does; what it had logged."""
        self.process.terminate()
        _, log = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0
        return log


@contextlib.contextmanager
def service(home: Path, *options: str | Path) -> Iterator[Service]:
    running = Service(home, *options)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.communicate()


@pytest.fixture
def refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., tuple[int, str]]]:
    """The status and the complaint of a coordinator that does not start."""

    def start(*options: str | Path) -> tuple[int, str]:
        try:
            status = main(["coordinator", *map(str, options)])
        except SystemExit as error:
            status = int(error.code or 0)
        captured = capsys.readouterr()
        assert captured.out == ""
        return status, captured.err

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    yield start
    for name in (LOGGER, "asyncio"):
        logging.getLogger(name).handlers.clear()


def test_its_file_its_options_and_its_log(tmp_path: Path) -> None:
    config = tmp_path / "lava-coordinator.conf"
    config.write_text('{"port": 1, "coordinator_hostname": "lab", "log_format": "json", "metrics_port": 0}')
    with service(tmp_path, "--config", config, "--port", "0") as running:
        assert running.port != 1

        async def join() -> None:
            await asyncio.gather(*(running.client(member).join(f"j{member.id}") for member in MEMBERS))

        asyncio.run(join())
        assert running.process.stderr
        lines = [json.loads(running.process.stderr.readline()) for _ in range(3)]
        assert "(coordinator_hostname), but only this machine can reach 127.0.0.1" in lines[0]["message"]
        assert lines[2]["group"] == "g"
        url = lines[1]["message"].partition("http://")[2]
        with urllib.request.urlopen(f"http://{url}") as answer:
            assert b"multinode_coordinator_groups 1\n" in answer.read()
        running.stop()
    assert (tmp_path / "multinode" / "journal.sqlite3").exists()


def test_what_it_refuses_to_start_with(tmp_path: Path, refused: Callable[..., tuple[int, str]]) -> None:
    config = tmp_path / "conf"
    config.write_text('{\n"prot": 1}')
    assert refused("--config", config) == (
        2,
        f"multinode: {config}:2: unknown key 'prot'; did you mean 'port'?\n",
    )
    status, told = refused("--host", "0.0.0.0")
    assert (status, told.splitlines()[0]) == (
        2,
        "multinode: '0.0.0.0' can be reached from other machines, and without TLS",
    )
    status, told = refused("--tls-key", tmp_path / "key")
    assert (status, told) == (2, "multinode: --tls-cert: a key or a client CA is of no use without a certificate\n")
    status, told = refused("--local-port", "0")
    assert status == 2
    assert told.startswith("multinode: --local-port: a port without TLS is of no use where no other has it\n")
    status, told = refused("--port", "x")
    assert status == 2
    assert told.endswith("port must be a whole number from 0 to 65535, not 'x'\n")
    status, told = refused("--journal", tmp_path / "none" / "journal")
    assert (status, told.splitlines()[0]) == (
        3,
        f"multinode: {tmp_path}/none/journal: the journal cannot be written: No such file or directory",
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        status, told = refused("--port", str(taken.getsockname()[1]))
        assert (status, told.count("\n")) == (3, 1)
        assert "cannot listen there: " in told
    with service(tmp_path, "--port", "0") as running:
        status, told = refused("--port", "0")
        assert status == 3
        assert f"the journal is held by process {running.process.pid}" in told


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(PATIENCE)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with service(tmp_path, "--port", "0") as running:
            assert systemd.recv(1000).decode() == (
                f"READY=1\nSTATUS=127.0.0.1:{running.port}, 0 groups from the journal\n"
            )
            running.stop()
            assert systemd.recv(1000) == b"STOPPING=1\n"


async def send_until_it_dies(running: Service, first: int, kill_after: int) -> list[str]:
    """Send from many tasks at once, kill -9 after some answers; the requests that were acknowledged."""
    acknowledged: list[str] = []
    numbers = iter(range(first, first + 10_000))

    async def send() -> None:
        client = running.client(SERVER)
        client._patience = 0.0
        with contextlib.suppress(CoordinatorError):
            # The same dispatcher, on one more connection: the same join.
            await client.join("j1")
            for number in numbers:
                await client.send(f"s{number}", f"m{number}", [("number", str(number))])
                acknowledged.append(f"s{number}")
                if len(acknowledged) == kill_after:
                    running.process.kill()

    await asyncio.gather(*(send() for _ in range(16)))
    return acknowledged


def requests(events: object) -> list[str]:
    assert isinstance(events, list)
    return [event.request for event in events if isinstance(event, Sent)]


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_acknowledged_is_lost_when_it_is_killed(seed: int, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    options = ("--journal", journal, "--stuck-grace", "never")

    async def scenario() -> None:
        with service(tmp_path, "--port", str(port := lasting_port()), *options) as running:
            one, two = (running.client(member) for member in MEMBERS)
            await asyncio.gather(one.join("j1"), two.join("j2"))
            waiting = asyncio.ensure_future(two.wait("w", Kind.WAIT, "after", None, timeout=None))
            acknowledged = await send_until_it_dies(running, 0, random.Random(seed).randrange(50, 300))
            running.process.communicate()
        with SqliteJournal(journal, tell=pytest.fail) as kept:
            stored = requests(list(kept.read("g")))
        assert set(acknowledged) <= set(stored)
        with service(tmp_path, "--port", str(port), *options):
            # Repeated, since the answer may have been lost: done once. The waiter comes back by itself.
            repeated = acknowledged[-1]
            await one.send(repeated, f"m{repeated[1:]}", [("number", repeated[1:])])
            await one.send("after", "after", [("key", "value")])
            assert await waiting == {"1": {"key": "value"}}
            data = await two.wait("w2", Kind.WAIT, f"m{acknowledged[0][1:]}", None, timeout=None)
            assert data == {"1": {"number": acknowledged[0][1:]}}
        with SqliteJournal(journal, tell=pytest.fail) as kept:
            assert requests(list(kept.read("g"))) == [*stored, "after"]

    async def in_time() -> None:
        async with asyncio.timeout(PATIENCE):
            await scenario()

    asyncio.run(in_time())


def test_a_journal_that_is_set_aside_is_told_and_the_service_runs(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("a letter\n")
    with service(tmp_path, "--port", "0", "--journal", tmp_path / "journal") as running:
        log = running.stop()
    assert "ERROR" in log
    assert f"{tmp_path}/journal: the journal is no SQLite database; set aside as journal.set-aside-" in log


def test_a_run_over_tls_with_a_token(tmp_path: Path, multinode: Multinode, write: Callable[[str, str], Path]) -> None:
    pki = Pki(tmp_path)
    write("tokens", "t-* a-token-of-16-bytes\n").chmod(0o600)
    write("token", "a-token-of-16-bytes\n")
    job = write("job.yaml", job_text({"server": ["lava-send ready"], "client": ["lava-wait ready"]}))
    guards = ("--tls-cert", pki.server, "--tls-key", pki.key("server"), "--tls-client-ca", pki.ca)
    with service(tmp_path, "--port", "0", *guards, "--tokens", tmp_path / "tokens") as running:
        there = ("run", job, "--devices", LOCAL, "--coordinator", f"localhost:{running.port}")
        mine = ("--tls-cert", pki.client, "--tls-key", pki.key("client"))
        ran = multinode(*there, "--tls-ca", pki.ca, *mine, "--token-file", tmp_path / "token")
        assert ran.status == 0, ran.out + ran.err
        # Without one of the three, it says which.
        stranger = multinode(*there, "--tls-ca", pki.other_ca, *mine, "--token-file", tmp_path / "token")
        assert f"localhost:{running.port}: TLS with the coordinator failed: self-signed certificate" in stranger.err
        nobody = multinode(*there, "--tls-ca", pki.ca, "--token-file", tmp_path / "token")
        plain = multinode(*there, "--token-file", tmp_path / "token")
        for refused in (stranger, nobody, plain):
            assert (refused.status, refused.err.count("\n")) == (3, 1)
            assert refused.err.startswith(f"multinode: localhost:{running.port}: ")
        silent = multinode(*there, "--tls-ca", pki.ca, *mine)
        assert "asks for a token, and there is none" in silent.out + silent.err
        assert silent.status != 0


def test_lavas_clients_of_this_machine_need_no_tls(tmp_path: Path, write: Callable[[str, str], Path]) -> None:
    pki = Pki(tmp_path)
    guards = ("--tls-cert", pki.server, "--tls-key", pki.key("server"))
    with service(tmp_path, "--host", "0.0.0.0", "--port", "0", *guards, "--local-port", "0") as running:
        assert running.process.stdout
        words = running.process.stdout.readline().split(maxsplit=3)
        assert words[:2] + words[3:] == ["ready", "on", "without TLS\n"]
        host, _, port = words[2].partition(":")
        assert (host, port == str(running.port)) == ("127.0.0.1", False)
        job = write("job.yaml", job_text({"server": ["lava-send ready"], "client": ["lava-wait ready"]}))
        there = ("attach", job, "--devices", LOCAL, "--group", "g", "--job-id")

        def attach(number: int, role: str, *more: str | Path) -> subprocess.Popen[str]:
            output = ("--output", tmp_path / role)
            command = [*there, str(number), "--role", role, *more, *output]
            return subprocess.Popen([sys.executable, "-m", "dispatcher.cli.main", *command], text=True)

        members = [
            attach(1, "server", "--coordinator", f"localhost:{running.port}", "--tls-ca", pki.ca),
            attach(2, "client", "--coordinator", f"127.0.0.1:{port}"),
        ]
        assert [member.wait(PATIENCE) for member in members] == [0, 0]


class FullDisk(MemoryJournal):
    """Keeps no message that is called so."""

    def append(self, group: str, event: Event) -> None:
        if isinstance(event, Sent) and event.message_id == "too much":
            raise JournalError("the journal cannot be used: database or disk is full", where="journal")
        super().append(group, event)


def test_what_the_journal_did_not_keep_stands_in_no_answer(capsys: pytest.CaptureFixture[str]) -> None:
    async def run() -> None:
        settings = Settings(port=0, journal=None)
        service = asyncio.ensure_future(serve(settings, FullDisk(), None, None))
        out: list[str] = []
        async with asyncio.timeout(PATIENCE):
            while not out or not out[-1]:
                await asyncio.sleep(0)
                out.append(capsys.readouterr().out)
        place = Place("g", SERVER, 1, (SERVER,), "run")
        address = Address("127.0.0.1", int(out[-1].rpartition(":")[2]))
        client = RemoteClient(address, place, patience=0.0)
        await client.join("j")
        sending = client.send("s", "too much", [])
        waiting = client.wait("w", Kind.WAIT, "too much", None, timeout=None)
        answers = await asyncio.gather(sending, waiting, return_exceptions=True)
        assert all(isinstance(answer, CoordinatorError) and not isinstance(answer, CallRefused) for answer in answers)
        with pytest.raises(JournalError, match="disk is full"):
            await service

    asyncio.run(run())
