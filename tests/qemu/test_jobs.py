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
