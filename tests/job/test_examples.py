"""The jobs and device files under fixtures/ are sound, and say what the API page says."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from dispatcher.console.command import CommandTransport
from dispatcher.console.serial import SerialTransport
from dispatcher.job import definition
from dispatcher.job.definition import load_job
from dispatcher.job.devices import assign, load_devices

FIXTURES = Path(__file__).parents[2] / "fixtures"
JOBS = sorted(path.parent.name for path in FIXTURES.glob("jobs/*/job.yaml"))
TRANSPORTS = {"serial": SerialTransport.OPTIONS, "command": CommandTransport.OPTIONS}

GROUPS = {
    "example-1": ["server", "client"],
    "example-2": ["server", "client"],
    "example-3": ["server", "client", "client", "client"],
    "example-4": ["peer", "peer", "peer"],
    "flow-table": ["server", "client", "client", "observer"],
}


def test_there_are_the_pages_four_examples_and_its_flow_table() -> None:
    assert set(GROUPS) <= set(JOBS)


@pytest.mark.parametrize("name", JOBS)
def test_an_example_fits_the_local_devices(name: str) -> None:
    job = load_job(FIXTURES / "jobs" / name / "job.yaml")
    devices = load_devices(FIXTURES / "devices" / "local.yaml", TRANSPORTS)
    placements = assign(job, devices)
    assert [placement.role.name for placement in placements] == GROUPS.get(name, [p.role.name for p in placements])
    assert job.notes == ()


@pytest.mark.parametrize("name", JOBS)
def test_what_an_example_calls_is_there_and_can_be_run(name: str) -> None:
    for action in load_job(FIXTURES / "jobs" / name / "job.yaml").actions:
        if not isinstance(action, definition.Test):
            continue
        for each in action.definitions:
            scripts = {path for path, entry in each.files.items() if entry.content.startswith(b"#!")}
            assert {path for path, entry in each.files.items() if entry.executable} == scripts
            called = {step[2:].split()[0] for step in each.steps if step.startswith("./")}
            for role in action.roles:
                assert {path.replace("`lava-role`", role) for path in called} <= scripts


@pytest.mark.parametrize("shell", ["dash", "bash", "mksh", "busybox"])
def test_every_shell_can_read_the_examples_scripts(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    command = ["busybox", "sh"] if shell == "busybox" else [shell]
    scripts = [path for path in FIXTURES.glob("jobs/*/*/*") if path.read_bytes().startswith(b"#!")]
    assert scripts
    for path in scripts:
        done = subprocess.run([*command, "-n", str(path)], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("devices/*.yaml")), ids=lambda path: path.name)
def test_every_device_file_is_sound(path: Path) -> None:
    for device in load_devices(path, TRANSPORTS).devices:
        {"serial": SerialTransport, "command": CommandTransport}[device.transport](device.name, device.config)
