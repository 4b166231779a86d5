"""A signal at any moment closes every console and leaves no process behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from .conftest import LOCAL, PATIENCE, job_text, marked

pytestmark = pytest.mark.slow

Write = Callable[[str, str], Path]

STUBBORN = """\
devices:
  stubborn: {device_type: board, count: 2, console: {command: "sh -c 'trap \\"\\" HUP INT TERM; exec sh'"}}
"""
SILENT = "devices:\n  silent: {device_type: board, count: 2, console: {command: cat}, prompts: ['never# ']}\n"

WAITING = job_text({"a": ["sleep 1000 & lava-wait x"], "b": ["setsid sleep 1000 & sleep 1000"]})


def interrupt(
    command: list[str], environment: dict[str, str], folder: Path, devices: Path, moment: str, number: signal.Signals
) -> tuple[int, str]:
    """Run a job until a line of its output holds ``moment``, send the signal; the exit status and stderr."""
    (folder / "job.yaml").write_text(WAITING)
    arguments = ["run", str(folder / "job.yaml"), "--devices", str(devices), "--output", str(folder / "output"), "-v"]
    with subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if moment in line:
                break
        else:
            pytest.fail(f"{moment!r} never came: {process.stderr.read() if process.stderr else ''}")
        process.send_signal(number)
        _out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, err


MOMENTS = ["members meet", "opening", "a shell answers", "testing:", "lava-wait x ..."]


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c(moment: str, command: list[str], environment: dict[str, str], tmp_path: Path, mark: str) -> None:
    status, err = interrupt(command, environment, tmp_path, LOCAL, moment, signal.SIGINT)
    assert (status, err.splitlines()[-1:]) == (130, ["multinode: interrupted; every console is closed"])
    assert not [line for line in marked(mark) if "sleep" not in line]
    assert isinstance(yaml.safe_load((tmp_path / "output" / "results.yaml").read_text()), list)


def test_ctrl_c_while_python_loads_modules(
    command: list[str], environment: dict[str, str], write: Write, tmp_path: Path
) -> None:
    write("argparse.py", "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\nfinally:\n    import re\n")
    ended = subprocess.run(
        [*command, "plugins"],
        env={**environment, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])},
        capture_output=True,
        timeout=PATIENCE,
        check=False,
        text=True,
    )
    assert (ended.returncode, ended.stderr) == (130, "multinode: interrupted\n")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGQUIT, 131)])
def test_other_signals(
    number: signal.Signals, status: int, command: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    ended, _err = interrupt(command, environment, tmp_path, LOCAL, "lava-wait x ...", number)
    assert ended == status


@pytest.mark.parametrize("devices", [STUBBORN, SILENT])
def test_devices_that_do_not_let_go(
    devices: str, command: list[str], environment: dict[str, str], tmp_path: Path, write: Write
) -> None:
    moment = "opening" if devices == SILENT else "lava-wait x ..."
    status, _err = interrupt(command, environment, tmp_path, write("devices.yaml", devices), moment, signal.SIGINT)
    assert status == 130


def test_an_install_that_takes_long_is_told_and_what_is_there_is_removed(
    command: list[str], environment: dict[str, str], tmp_path: Path, write: Write
) -> None:
    place = tmp_path / "device"
    devices = write(
        "d.yaml",
        "devices:\n  slow: {device_type: board, count: 2, console: {command: sh}, character_delay: 0.5,"
        f" lava_test_results_dir: '{place}/%s'}}\n",
    )
    status, _err = interrupt(command, environment, tmp_path, devices, "kB to type, about ", signal.SIGINT)
    assert status == 130
    events = [json.loads(line) for line in (tmp_path / "output" / "events.jsonl").read_text().splitlines()]
    told = next(event for event in events if event["event"] == "installing")
    assert told["seconds"] == round(told["bytes"] * 0.0015) > 5
    assert not list(place.glob("*"))


def test_the_directories_of_an_interrupted_run_are_removed(
    command: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    interrupt(command, environment, tmp_path, LOCAL, "lava-wait x ...", signal.SIGINT)
    installed = [
        line for line in (tmp_path / "output" / "events.jsonl").read_text().splitlines() if "installed" in line
    ]
    assert len(installed) == 2
    places = [line.partition('"directory": "')[2].partition('"')[0] for line in installed]
    assert not any(Path(place).exists() for place in places)
