"""Members without a console, at a coordinator of its own."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher.errors import CallRefused, CoordinatorError
from dispatcher.integration.multinode import Multinode

PATIENCE = 240


@pytest.fixture
def port() -> Iterator[int]:
    command = [sys.executable, "-m", "dispatcher.cli.main", "coordinator", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline().rpartition(":")[2])
        process.terminate()


def test_two_programs_meet(port: int, tmp_path: Path) -> None:
    told: list[object] = []

    def client() -> None:
        with (
            Multinode(tmp_path) as bench,
            bench.join("a-group", "client", id="12", size=2, port=port, timeout=PATIENCE) as me,
        ):
            told.append(me.wait("ready", timeout=PATIENCE))
            me.send("done", {"free-space": "80 G", "count": 3})
            told.append(me.sync("end", timeout=PATIENCE))
            told.append(me.sync("end", timeout=PATIENCE))

    other = threading.Thread(target=client)
    other.start()
    with Multinode(tmp_path) as bench:
        me = bench.join("a-group", "server", id="11", size=2, port=port, timeout=PATIENCE)
        me.send("ready", {"server-ip": "10.0.0.1"}, port=80)
        assert me.wait_all("done", "client", timeout=PATIENCE) == {"12": {"free-space": "80 G", "count": "3"}}
        me.sync("end", timeout=PATIENCE)
        me.sync("end", timeout=PATIENCE)
        other.join()
        assert told == [{"11": {"server-ip": "10.0.0.1", "port": "80"}}, {}, {}]
        with pytest.raises(CallRefused, match=r"^11 \(server\): lava-wait-all done: no member has the role 'clients'"):
            me.wait_all("done", "clients")
        with pytest.raises(CallRefused, match=r"missing 12 \(client\), who has left: its test has ended"):
            me.wait_all("never")


def test_a_group_that_does_not_become_complete(port: int, tmp_path: Path) -> None:
    why = r"11 \(server\): the group was not complete after 0.1 s"
    with Multinode(tmp_path) as bench, pytest.raises(CallRefused, match=why):
        bench.join("a-group", "server", id="11", size=2, port=port, timeout=0.1)


def test_a_coordinator_that_is_not_there(tmp_path: Path) -> None:
    """A wrong port is told at once, before anybody waits for minutes."""
    with Multinode(tmp_path) as bench, pytest.raises(CoordinatorError, match="cannot be reached: Connection refused"):
        bench.join("a-group", "server", id="11", size=2, port=1, timeout=PATIENCE)
