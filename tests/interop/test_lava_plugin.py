"""Our protocol in LAVA's dispatcher: installed as its page says, selected by LAVA's parser, at our coordinator."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from packaging_harness import ROOT, Environment, build, clean_environment

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


def job(worker: Path, lava: Path, port: int, member: tuple[str, str], calls: list[dict[str, Any]]) -> Any:
    environment = {**clean_environment(), "PYTHONPATH": str(lava / "usr" / "lib" / "python3" / "dist-packages")}
    command = [worker, LAVA_JOB, str(port), *member, "2", json.dumps(calls)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def call(request: str, message_id: str, **more: object) -> dict[str, object]:
    return {"request": request, "messageID": message_id, **more}


def test_lavas_jobs_use_our_protocol(worker: Path, lava: Path, our_coordinator: int) -> None:
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
        job(worker, lava, our_coordinator, member, calls)
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
