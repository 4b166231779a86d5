"""Devices whose /tmp is of no use, that have next to no programs, or whose image has brought our scripts."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import Multinode, job_text

pytestmark = pytest.mark.slow

Write = Callable[[str, str], Path]
SCRIPTS = Path(__file__).parents[2] / "target-scripts"
LEAST = ("mkdir", "chmod", "mv", "rm")
STEPS = {
    "a": ["lava-send hello from=a", "lava-sync end", "lava-test-case done --result pass"],
    "b": ["lava-wait hello", "lava-sync end", "lava-test-case done --result pass"],
}


def devices(write: Write, command: str, **more: Any) -> Path:
    board = {"device_type": "board", "count": 2, "console": {"command": command}, **more}
    return write("devices.yaml", yaml.safe_dump({"devices": {"board": board}}))


def events(output: Path, kind: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (output / "events.jsonl").read_text().splitlines()]
    return [event for event in found if event["event"] == kind]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The directory of programs of an image that has brought our scripts."""
    subprocess.run(["make", "-s", "-C", SCRIPTS, "install", f"DESTDIR={tmp_path}", "PREFIX=/usr"], check=True)
    return tmp_path / "usr" / "bin"


def test_scripts_that_the_image_has_brought_are_not_sent(image: Path, multinode: Multinode, write: Write) -> None:
    for linked, path in (("!", "$PATH"), ("", f"{image}:$PATH")):
        steps = {role: [f'test {linked} -h "$(command -v lava-sync)"', *given] for role, given in STEPS.items()}
        ran = multinode(
            *("run", write("job.yaml", job_text(steps))), *("--devices", devices(write, f"sh -c 'PATH={path} exec sh'"))
        )
        assert ran.status == 0, ran.out + ran.err
        assert len(events(ran.output, "shipped")) == (0 if linked else 2)
        shutil.rmtree(ran.output)
    assert (image / "lava-sync").exists()


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_the_least_that_a_device_needs(shell: str, tmp_path: Path, multinode: Multinode, write: Write) -> None:
    for name in LEAST:
        (tmp_path / "least").mkdir(exist_ok=True)
        (tmp_path / "least" / name).symlink_to(str(shutil.which(name)))
    path = str(shutil.which(shell))
    console = f"{path} -c 'PATH={tmp_path}/least exec {path}'"
    ran = multinode(
        *("run", write("job.yaml", job_text(STEPS))),
        *("--devices", devices(write, console, lava_test_sh_cmd=path)),
    )
    assert ran.status == 0, ran.out + ran.err
    assert {case["result"] for case in ran.results} == {"pass"}


def test_a_read_only_root_with_a_tmpfs(multinode: Multinode, write: Write) -> None:
    mounts = "mount -t tmpfs -o ro tmpfs /tmp && mount -t tmpfs tmpfs /run"
    alone = ["unshare", "-rm", "sh", "-c"]
    if subprocess.run([*alone, mounts], stderr=subprocess.DEVNULL, check=False).returncode != 0:
        pytest.skip("file systems cannot be mounted here")
    console = f"{' '.join(alone)} '{mounts} && exec sh'"
    ran = multinode("run", write("job.yaml", job_text(STEPS)), "--devices", devices(write, console))
    assert ran.status == 0, ran.out + ran.err
    (first, second) = events(ran.output, "installed")
    for event in (first, second):
        assert event["directory"].startswith("/run/lava-")
        assert event["cache"] == event["directory"] + "/lava_multi_node_cache.txt"


def test_the_kernel_of_this_machine_is_left_alone(multinode: Multinode, write: Write) -> None:
    before = Path("/proc/sys/kernel/printk").read_text().split()[0]
    other = 3 if before == "2" else 2
    steps = {"a": [f"lava-test-case same --shell grep -q ^{before} /proc/sys/kernel/printk"]}
    ran = multinode(
        *("run", write("job.yaml", job_text(steps))), *("--devices", devices(write, "sh", console_loglevel=other))
    )
    assert (ran.status, ran.result(1, "0_a", "same")) == (0, "pass"), ran.out + ran.err
    assert "console_loglevel is not set, as the device is a shell of the machine that runs the job" in ran.out
