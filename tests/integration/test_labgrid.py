"""labgrid's consoles as ours, with labgrid from the package index: a program's, and a QEMU guest's."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging_harness import ROOT, Environment, build, clean_environment, skip_or_fail

from dispatcher.guest import recipe

pytestmark = pytest.mark.slow

PATIENCE = 300
SUITE = Path(__file__).with_name("labgrid_suite.py")
CACHE = '"${LAVA_MULTI_NODE_CACHE:-/tmp/lava_multi_node_cache.txt}"'
STEPS = {
    "left": ["lava-wait go", "lava-send ready ip=10.0.0.1", "lava-sync end"],
    "right": [
        "lava-wait ready",
        f"lava-test-case left-is-known --shell grep -q ip=10.0.0.1 {CACHE}",
        "lava-sync end",
    ],
}
SHELL = {"login_prompt": "login:", "username": "root"}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with the extra ``labgrid``. Not this one: labgrid replaces pyserial by a fork of its own."""
    work = tmp_path_factory.mktemp("labgrid")
    [wheel] = build(ROOT, work / "project", "--wheel").glob("*.whl")
    Environment(work / "environment").install(Path(f"{wheel}[labgrid]"))
    return work / "environment" / "bin" / "python"


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A directory with the job of both targets."""
    roles = {role: {"device_type": role, "count": 1} for role in STEPS}
    actions = [{"test": {"role": role, "definitions": [definition(role)]}} for role in STEPS]
    parts = {
        "job_name": "labgrid",
        "timeouts": {"job": {"minutes": 4}},
        "protocols": {"lava-multinode": {"roles": roles}},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump({**parts, "actions": actions}, sort_keys=False))
    return tmp_path


def definition(role: str) -> dict[str, Any]:
    metadata = {"format": "Lava-Test Test Definition 1.0", "name": role}
    repository = {"metadata": metadata, "run": {"steps": STEPS[role]}}
    return {"from": "inline", "name": role, "path": f"inline/{role}.yaml", "repository": repository}


def run(python: Path, directory: Path, drivers: dict[str, Any], test: str, **more: Any) -> None:
    targets = {name: {"drivers": [{driver: of} for driver, of in drivers.items()]} for name in STEPS}
    environment = {"imports": ["dispatcher.integration.labgrid"], "targets": targets, **more}
    (directory / "env.yaml").write_text(yaml.safe_dump(environment, sort_keys=False))
    shutil.copy(SUITE, directory / "test_it.py")
    done = subprocess.run(
        [python, "-m", "pytest", "-W", "error", "--lg-env", "env.yaml", f"test_it.py::{test}"],
        cwd=directory,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("test", ["test_targets_meet", "test_a_console_that_is_lost_says_why"])
def test_consoles_of_programs(python: Path, job: Path, test: str) -> None:
    program = {"cmd": 'script -qfc "env PS1=ready: sh" /dev/null'}  # labgrid's driver has pipes, and a test needs a tty
    drivers = {"ExternalConsoleDriver": program, "ShellDriver": {"prompt": "ready:", **SHELL}, "MultinodeDriver": {}}
    run(python, job, drivers, test)


def test_consoles_of_qemu(python: Path, job: Path) -> None:
    if missing := recipe.missing():
        skip_or_fail("not on this host: " + ", ".join(missing))
    guest = recipe.prepare()
    machine = {
        "qemu_bin": "qemu",
        "machine": "pc",
        "cpu": "qemu64",
        "memory": "96M",
        "kernel": "kernel",
        "boot_args": "console=ttyS0 quiet no_timer_check",
        "extra_args": f"-no-reboot -net none -initrd {guest.initrd}",
    }
    drivers = {"QEMUDriver": machine, "ShellDriver": {"prompt": "/ # ", "login_timeout": 240, **SHELL}}
    more = {"tools": {"qemu": shutil.which(recipe.AMD64.qemu)}, "images": {"kernel": str(guest.kernel)}}
    run(python, job, {**drivers, "MultinodeDriver": {}}, "test_targets_meet", **more)
