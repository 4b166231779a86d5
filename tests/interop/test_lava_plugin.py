"""Our protocol in LAVA's dispatcher: installed as its page says, selected by LAVA's parser, at our coordinator."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging_harness import ROOT, Environment, build, clean_environment

from dispatcher.coordinator.background import Background
from dispatcher.coordinator.desk import Desk
from dispatcher.coordinator.hall import Hall
from dispatcher.coordinator.journal.memory import MemoryJournal
from dispatcher.coordinator.server import Server

pytestmark = pytest.mark.slow

PATIENCE = 120
LAVA_JOB = Path(__file__).with_name("lava_job.py")


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a worker on which the package is installed."""
    work = tmp_path_factory.mktemp("worker")
    wheels = [*build(ROOT, work / "project", "--wheel").glob("*.whl")]
    wheels += build(ROOT / "lava-plugin", work / "plugin", "--wheel").glob("*.whl")
    environment = Environment(work / "environment")
    environment.install(*wheels)
    return work / "environment" / "bin" / "python"


@pytest.fixture
def coordinator() -> Iterator[tuple[Server, int]]:
    """A coordinator of ours whose counters can be seen, and its port."""
    background = Background()

    async def start() -> tuple[Server, int]:
        server = Server(Desk(Hall(MemoryJournal())))
        return server, await server.start("127.0.0.1", 0)

    server, port = background.run(start())
    yield server, port
    background.run(server.stop())
    background.close()


def job(worker: Path, lava: Path, port: int, member: tuple[str, str], calls: list[dict[str, Any]]) -> Any:
    environment = {**clean_environment(), "PYTHONPATH": str(lava / "usr" / "lib" / "python3" / "dist-packages")}
    command = [worker, LAVA_JOB, str(port), *member, "2", json.dumps(calls)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def call(request: str, message_id: str, **more: object) -> dict[str, object]:
    return {"request": request, "messageID": message_id, **more}


def test_lavas_jobs_use_our_protocol(worker: Path, lava: Path, coordinator: tuple[Server, int]) -> None:
    server_of_ours, port = coordinator
    server = [
        call("lava-wait", "hello"),
        call("lava-send", "ready", message={"ip": "10.0.0.1", "none": None}),
        call("lava-wait-all", "done", role="client"),
        call("lava-wait", "never", timeout=1),
        call("lava-sync", "end", timeout=60),
        call("lava-wait-all", "done", role="nobody"),
    ]
    client = [
        call("lava-send", "hello"),
        call("lava-wait", "ready"),
        call("lava-send", "done", message={"ok": "yes"}),
        call("lava-sync", "end"),
    ]
    processes = [
        job(worker, lava, port, member, calls)
        for member, calls in ((("11", "server"), server), (("12", "client"), client))
    ]
    told = []
    for process in processes:
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
        protocol, *answers = out.splitlines()
        assert protocol == "multinode_lava.protocol.HeldMultinode"
        told.append([json.loads(answer) for answer in answers])
    never = "failed: lava_wait never failed: timed out after 1 s; nobody has sent never yet"
    nobody = "failed: lava_wait_all done failed: no member has the role 'nobody'; the roles are "
    ready = {"11": {"ip": "10.0.0.1", "none": ""}}
    assert told[0][:-1] == [{}, "ack", {"12": {"ok": "yes"}}, never, {}]
    assert told[0][-1].startswith(nobody)
    assert told[1] == ["ack", ready, "ack", {}]
    # Each was asked once, and held: five that were answered, and one that was given up at its time limit.
    asked = server_of_ours.counters.requests
    assert (asked["join"], asked["send"], asked["leave"]) == (2, 3, 2)
    assert 7 <= asked["wait"] <= 8


def test_the_client_needs_no_packages() -> None:
    """So that on a worker pip need not replace those which LAVA's dispatcher has from Debian."""
    program = "import sys, dispatcher.coordinator.background, dispatcher.coordinator.remote; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"pexpect", "yaml", "serial"} & set(done.stdout.split())
