"""The example jobs on real guests: a kernel's 16550 driver, a UART, and busybox's shell at the end of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dispatcher.guest import recipe

FIXTURES = Path(__file__).parents[2] / "fixtures"
MEMBERS = {"example-1": 2, "example-2": 2, "example-3": 4, "example-4": 3, "flow-table": 4}
PATIENCE = 240

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def guest() -> recipe.Guest:
    missing = recipe.missing()
    if missing:
        text = "not on this host: " + ", ".join(missing)
        if os.environ.get("CI"):
            pytest.fail(text)
        pytest.skip(text)
    return recipe.prepare()


@pytest.mark.parametrize("example", MEMBERS)
def test_an_example_of_the_page_passes(example: str, guest: recipe.Guest, tmp_path: Path) -> None:
    devices = tmp_path / "guests.yaml"
    recipe.write_device_file(devices, guest, MEMBERS[example])
    output = tmp_path / "output"
    job = FIXTURES / "jobs" / example / "job.yaml"
    ran = subprocess.run(
        [sys.executable, "-m", "dispatcher.cli.main", "run", job, "--devices", devices, "--output", output, "-v"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    results = yaml.safe_load((output / "results.yaml").read_text())
    assert {case["result"] for case in results} == {"pass"}
    assert {case["metadata"]["device"] for case in results} == {f"guest-{n + 1}" for n in range(MEMBERS[example])}
    log = (output / "consoles" / "1.log").read_bytes()
    assert re.search(rb"<MN2 [0-9a-f]{12} 1/1 RUNNER EXIT [0-9.]+>\r\n", log), "the bytes of the UART, as they came"


REBOOT = """\
job_name: reboot
timeouts: {job: {minutes: 5}, action: {minutes: 4}}
protocols: {lava-multinode: {roles: {a: {device_type: board, count: 1}, b: {device_type: shell, count: 1}}}}
actions:
- test:
    role: a
    definitions: [{name: a, from: inline, repository: {run: {steps: [lava-sync start, reboot -f]}}}]
- test:
    role: b
    definitions: [{name: b, from: inline, repository: {run: {steps: [lava-sync start, lava-wait never]}}}]
"""


def test_a_guest_that_reboots_in_the_middle_of_a_test_is_noticed(guest: recipe.Guest, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(REBOOT)
    command = recipe.qemu_command(guest, loglevel=7).replace(" -no-reboot", "")
    board = {"device_type": "board", "console": {"command": command}, "prompts": [recipe.PROMPT]}
    devices = {"guest": board, "local": {"device_type": "shell", "console": {"command": "sh"}}}
    (tmp_path / "devices.yaml").write_text(yaml.safe_dump({"devices": devices}, width=1000))
    ran = subprocess.run(
        [sys.executable, "-m", "dispatcher.cli.main", "run", tmp_path / "job.yaml", "--output", tmp_path / "output"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert ran.returncode == 3, ran.stdout + ran.stderr
    why = "guest: the device has rebooted in the middle of a test: it answers with '/ #'"
    assert why in ran.stderr
    (wait,) = [
        case
        for case in yaml.safe_load((tmp_path / "output/results.yaml").read_text())
        if case["name"] == "multinode-wait-never"
    ]
    assert wait["result"] == "fail"
    assert why in wait["metadata"]["reason"]
