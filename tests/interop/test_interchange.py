"""The parts interchanged: LAVA's scripts at our consoles, and one group of LAVA's dispatchers and ours."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from processes import MULTINODE, ended

from dispatcher import resources

pytestmark = pytest.mark.slow

PATIENCE = 280
HERE = Path(__file__).parent


def overlay(directory: Path, roles: dict[str, str], environment: dict[str, str], *scripts: Path) -> None:
    """Have LAVA's own overlay make the scripts of the member after which a directory is named."""
    arguments = [directory, directory.name, json.dumps(roles), *scripts]
    command = [sys.executable, HERE / "lava_overlay.py", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr


def mixed_scripts(lava: Path, directory: Path) -> Path:
    """LAVA's folder of scripts with ours in it, as an administrator of LAVA's may arrange it."""
    shutil.copytree(lava / "usr/lib/python3/dist-packages/lava_dispatcher/lava_test_shell/multi_node", directory)
    ours = resources.target_scripts()
    for name in ("lava-send", "lava-wait", "lava-wait-all", "lava-sync", resources.LIBRARY):
        (directory / name).write_bytes(ours[name])
    return directory


def write_job(path: Path, counts: dict[str, int], steps: dict[str, list[str]]) -> Path:
    """A job of local shells: how many play each role, and what they do."""
    roles = {role: {"device_type": "shell", "count": count} for role, count in counts.items()}
    actions = [{"test": {"role": role, "definitions": [definition(role, those)]}} for role, those in steps.items()]
    timeouts = {"job": {"seconds": PATIENCE}}
    job = {"job_name": "both", "timeouts": timeouts, "protocols": {"lava-multinode": {"roles": roles}}}
    path.write_text(yaml.safe_dump({**job, "actions": actions}, sort_keys=False))
    devices = {"local": {"device_type": "shell", "count": sum(counts.values()), "console": {"command": "sh"}}}
    (path.parent / "devices.yaml").write_text(yaml.safe_dump({"devices": devices}))
    return path


def definition(name: str, steps: list[str]) -> dict[str, Any]:
    metadata = {"format": "Lava-Test Test Definition 1.0", "name": name}
    repository = {"metadata": metadata, "run": {"steps": steps}}
    return {"from": "inline", "name": name, "path": f"inline/{name}.yaml", "repository": repository}


def results(output: Path) -> list[tuple[str, str, str]]:
    """Member, case and result of each."""
    return [
        (case["job"], case["name"], case["result"]) for case in yaml.safe_load((output / "results.yaml").read_text())
    ]


def test_lavas_scripts_meet_under_our_monitor(tmp_path: Path, lava_environment: dict[str, str]) -> None:
    roles = {"11": "server", "12": "client", "13": "client"}
    for job_id in roles:
        overlay(tmp_path / job_id, roles, lava_environment)
    here = [f"cd {tmp_path}/$LAVA_JOB_ID", "PATH=$PWD/bin:$PATH", "export PATH"]
    about = ["lava-self >self", "lava-role >role", "lava-group >group"]
    server = ["lava-send ready ip=10.0.0.1 port=80", "lava-wait-all done client", "mv cache done", "lava-sync end"]
    client = ["lava-wait ready", "mv cache ready", "lava-send done name=c-$LAVA_JOB_ID", "lava-sync end"]
    # A line that our own script sends is framing 2, between the others.
    mixed = ["lava-test-case told --result pass"]
    steps = {"server": here + about + server + mixed, "client": here + about + client + mixed}
    job = write_job(tmp_path / "job.yaml", {"server": 1, "client": 2}, steps)
    output = tmp_path / "output"
    done = subprocess.run(
        [*MULTINODE, "run", str(job), "--job-id", "11", "--output", str(output)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for job_id, role in roles.items():
        told = tmp_path / job_id
        assert (told / "self").read_text().split() == [job_id]
        assert (told / "role").read_text() == role
        assert dict(line.split() for line in lines(told / "group") if line) == roles
    assert (tmp_path / "11" / "done").read_text() == "12:name=c-12\n13:name=c-13\n"
    for job_id in ("12", "13"):
        # As LAVA's scripts write it, whatever its page says: with the sender before each pair.
        assert (tmp_path / job_id / "ready").read_text() == "11:ip=10.0.0.1\n11:port=80\n"
    assert [case for case in results(output) if case[0] == "11" and case[2] == "pass"] == [
        ("11", "multinode-send-ready", "pass"),
        ("11", "multinode-wait_all-done", "pass"),
        ("11", "multinode-sync-end", "pass"),
        ("11", "told", "pass"),
        ("11", "0_server", "pass"),
    ]


HOME = "cd {home}/$LAVA_JOB_ID; LAVA_MULTI_NODE_CACHE=$PWD/cache; export LAVA_MULTI_NODE_CACHE"
STEPS = {
    "server": [
        "lava-send ready-$LAVA_JOB_ID ip=10.0.0.$LAVA_JOB_ID",
        "lava-wait-all done client; mv cache done",
        "lava-sync end",
    ],
    "client": [
        "lava-wait ready-11; mv cache ready-11",
        "lava-wait ready-14; mv cache ready-14",
        "lava-send done name=c$(lava-self) role=$(lava-role)",
        "lava-sync end",
    ],
}


def lava_member(directory: Path, scripts: Path, place: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    """A member whose console LAVA's test action watches and for which LAVA's protocol speaks."""
    _port, job_id, role, *_rest = place
    script = directory / "script"
    head = f"PATH={scripts}:$PATH LAVA_JOB_ID={job_id}; export PATH LAVA_JOB_ID"
    steps = [head, HOME.format(home=directory.parent), *STEPS[role], "echo '<LAVA_TEST_RUNNER EXIT>'"]
    script.write_text("\n".join(steps) + "\n")
    command = [sys.executable, str(HERE / "lava_side.py"), f"sh -e {script}", *place]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True)


def attached(job: Path, role: str, job_id: str, port: int, output: Path) -> subprocess.Popen[str]:
    place = ["--group", "a-group", "--coordinator", f"127.0.0.1:{port}"]
    command = [*MULTINODE, "attach", str(job), "--role", role, "--job-id", job_id, *place, "--output", str(output)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_group_half_of_whose_members_lavas_code_drives(
    our_coordinator: int, tmp_path: Path, lava: Path, lava_environment: dict[str, str]
) -> None:
    """11 runs LAVA's scripts and 12 ours, both under LAVA's dispatcher; 13 and 14 run ours under ours."""
    roles = {"11": "server", "12": "client", "13": "client", "14": "server"}
    overlay(tmp_path / "11", roles, lava_environment)
    overlay(tmp_path / "12", roles, lava_environment, mixed_scripts(lava, tmp_path / "scripts"))
    for job_id in ("13", "14"):
        (tmp_path / job_id).mkdir()
    steps = {role: [HOME.format(home=tmp_path), *those] for role, those in STEPS.items()}
    job = write_job(tmp_path / "job.yaml", {"server": 2, "client": 2}, steps)
    with contextlib.ExitStack() as stack:
        members = {}
        for job_id in ("11", "12"):
            place = [str(our_coordinator), job_id, roles[job_id], "a-group", str(len(roles))]
            process = lava_member(tmp_path / job_id, tmp_path / job_id / "bin", place, lava_environment)
            members[job_id] = stack.enter_context(ended(process))
        for job_id in ("13", "14"):
            process = attached(job, roles[job_id], job_id, our_coordinator, tmp_path / f"output-{job_id}")
            members[job_id] = stack.enter_context(ended(process))
        for job_id, process in members.items():
            out, err = process.communicate(timeout=PATIENCE)
            assert process.returncode == 0, f"{job_id}: {out}{err}"
    done = ["12:name=c12", "12:role=client", "13:name=c13", "13:role=client"]
    assert {job_id: sorted(lines(tmp_path / job_id / "done")) for job_id in ("11", "14")} == {"11": done, "14": done}
    # Of a lava-wait our scripts leave the sender out, where they have not been told otherwise.
    assert lines(tmp_path / "12" / "ready-11") == lines(tmp_path / "13" / "ready-11") == ["ip=10.0.0.11"]
    assert lines(tmp_path / "12" / "ready-14") == lines(tmp_path / "13" / "ready-14") == ["ip=10.0.0.14"]


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()
