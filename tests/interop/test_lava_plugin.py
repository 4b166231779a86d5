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
from pki_harness import Pki

from dispatcher.coordinator.access import Tokens, server_tls
from dispatcher.coordinator.background import Background
from dispatcher.coordinator.desk import Desk
from dispatcher.coordinator.hall import Hall
from dispatcher.coordinator.journal.memory import MemoryJournal
from dispatcher.coordinator.server import Server

pytestmark = pytest.mark.slow

PATIENCE = 280
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


def conf(folder: Path, name: str, port: int, **more: str) -> Path:
    """A worker's ``lava-coordinator.conf``."""
    settings = {"port": port, "coordinator_hostname": "localhost", "blocksize": 4096, "poll_delay": 1, **more}
    path = folder / name
    path.write_text(json.dumps(settings))
    return path


def job(worker: Path, lava: Path, settings: Path, member: tuple[str, str], calls: list[dict[str, Any]]) -> Any:
    environment = {**clean_environment(), "PYTHONPATH": str(lava / "usr" / "lib" / "python3" / "dist-packages")}
    command = [worker, LAVA_JOB, str(settings), *member, "2", json.dumps(calls)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def call(request: str, message_id: str, **more: object) -> dict[str, object]:
    return {"request": request, "messageID": message_id, **more}


def test_lavas_jobs_use_our_protocol(worker: Path, lava: Path, coordinator: tuple[Server, int], tmp_path: Path) -> None:
    server_of_ours, port = coordinator
    settings = conf(tmp_path, "conf", port)
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
        job(worker, lava, settings, member, calls)
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
    # Each was asked once, and held: five that were answered, and one that was given up at its time limit. But who came
    # first joined twice: it learnt from the first answer that it can be held and can stay.
    asked = server_of_ours.counters.requests
    assert (asked["join"], asked["stay"], asked["send"], asked["leave"]) == (3, 2, 3, 2)
    assert 7 <= asked["wait"] <= 8


def test_a_worker_speaks_tls_and_shows_a_token(worker: Path, lava: Path, tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    tokens = tmp_path / "tokens"
    tokens.write_text("a-* a-token-of-16-bytes\n")
    tokens.chmod(0o600)
    (tmp_path / "token").write_text("a-token-of-16-bytes\n")
    background = Background()

    async def start() -> tuple[Server, int, int]:
        server = Server(Desk(Hall(MemoryJournal()), Tokens(tokens).gate))
        tls = server_tls(pki.server, pki.key("server"), pki.ca)
        return server, await server.start("127.0.0.1", 0, ssl=tls), await server.start("127.0.0.1", 0)

    server, port, plain = background.run(start())
    mine = {"coordinator_tls_cert": str(pki.client), "coordinator_tls_key": str(pki.key("client"))}
    ca, token = {"coordinator_tls_ca": "ca.pem"}, {"coordinator_token_file": "token"}
    try:
        guarded = conf(tmp_path, "guarded", port, **ca, **mine, **token)
        local = conf(tmp_path, "local", plain, **token)
        processes = [
            job(worker, lava, settings, member, calls)
            for settings, member, calls in (
                (guarded, ("11", "server"), [call("lava-send", "ready", message={"k": "v"}), call("lava-sync", "end")]),
                (local, ("12", "client"), [call("lava-wait", "ready"), call("lava-sync", "end")]),
            )
        ]
        told = [process.communicate(timeout=PATIENCE) for process in processes]
        assert [process.returncode for process in processes] == [0, 0], "".join(err for _, err in told)
        assert [json.loads(line) for line in told[1][0].splitlines()[1:]] == [{"11": {"k": "v"}}, {}]
        for name, more, reason in (
            ("elsewhere", {"coordinator_tls_ca": "other.pem", **mine, **token}, "TLS with the coordinator failed"),
            ("silent", {**ca, **mine}, "asks for a token, and there is none"),
            ("useless", mine, "coordinator_tls_cert and coordinator_tls_key are of no use without coordinator_tls_ca"),
            ("missing", {"coordinator_token_file": "no-such-file"}, "cannot be read"),
        ):
            process = job(worker, lava, conf(tmp_path, name, port, **more), ("13", "server"), [])
            _, err = process.communicate(timeout=PATIENCE)
            assert process.returncode != 0
            assert reason in err, err
    finally:
        background.run(server.stop())
        background.close()


def test_the_client_needs_no_packages() -> None:
    """So that on a worker pip need not replace those which LAVA's dispatcher has from Debian."""
    program = "import sys, dispatcher.coordinator.background, dispatcher.coordinator.remote; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"pexpect", "yaml", "serial"} & set(done.stdout.split())
