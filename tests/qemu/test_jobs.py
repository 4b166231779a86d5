"""Jobs on real guests: a kernel's driver of a 16550 or a PL011, that UART, and busybox's shell at the end of it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dispatcher.guest import recipe

FIXTURES = Path(__file__).parents[2] / "fixtures"
MEMBERS = {"example-1": 2, "example-2": 2, "example-3": 4, "example-4": 3, "flow-table": 4}
PATIENCE = 280

pytestmark = pytest.mark.slow


ROUNDS = 3
NOISE = "while :; do echo the kernel says something >/dev/kmsg; usleep 50000; done & noise=$!"
"""Prints a kernel line on the console about twenty times a second."""


def run(job: Path, devices: Path, output: Path) -> list[dict[str, Any]]:
    """Run a job, which must pass; its results."""
    ran = subprocess.run(
        [sys.executable, "-m", "dispatcher.cli.main", "run", job, "--devices", devices, "--output", output, "-v"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    results: list[dict[str, Any]] = yaml.safe_load((output / "results.yaml").read_text())
    assert {case["result"] for case in results} == {"pass"}
    return results


@pytest.mark.parametrize(
    ("example", "kind"),
    # On the slower kind those with two members: they keep two cores busy for half a minute.
    [*((each, "guest") for each in MEMBERS), ("example-1", "arm_guest"), ("example-2", "arm_guest")],
)
def test_an_example_of_the_page_passes(example: str, kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    guest: recipe.Guest = request.getfixturevalue(kind)
    devices = tmp_path / "guests.yaml"
    recipe.write_device_file(devices, guest, MEMBERS[example])
    output = tmp_path / "output"
    results = run(FIXTURES / "jobs" / example / "job.yaml", devices, output)
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


def rebooting_guest(guest: recipe.Guest, folder: Path, **more: Any) -> Path:
    """A device file with a guest that may reboot, and a shell."""
    command = recipe.qemu_command(guest, loglevel=7).replace(" -no-reboot", "")
    board = {"device_type": "board", "console": {"command": command}, "prompts": [recipe.PROMPT], **more}
    devices = {"guest": board, "local": {"device_type": "shell", "console": {"command": "sh"}}}
    (folder / "devices.yaml").write_text(yaml.safe_dump({"devices": devices}, width=1000))
    return folder / "devices.yaml"


def test_a_guest_that_reboots_in_the_middle_of_a_test_is_noticed(guest: recipe.Guest, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(REBOOT)
    devices = ["--devices", rebooting_guest(guest, tmp_path), "--output", tmp_path / "output"]
    ran = subprocess.run(
        [sys.executable, "-m", "dispatcher.cli.main", "run", tmp_path / "job.yaml", *devices],
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


GO_ON = """\
job_name: go on
timeouts: {job: {minutes: 5}, action: {minutes: 4}}
protocols: {lava-multinode: {roles: {a: {device_type: board, count: 1}, b: {device_type: shell, count: 1}}}}
actions:
- test:
    role: a
    definitions:
    - name: first
      from: inline
      repository:
        params: {WORD: kept}
        install: {steps: [lava-test-case install --result pass]}
        run:
          steps:
          - id=`cat /proc/sys/kernel/random/boot_id`
          - (lava-wait never; lava-test-case never --result fail) &
          - lava-send down id=$id
          - lava-sync going-down
          - lava-test-case level --shell grep -q ^5 /proc/sys/kernel/printk
          - lava-reboot reboot -f
          - lava-test-case level --shell grep -q ^5 /proc/sys/kernel/printk
          - lava-test-case $WORD --shell test -z "$id"
          - lava-send up id=`cat /proc/sys/kernel/random/boot_id`
    - {name: second, from: inline, repository: {run: {steps: [lava-sync end]}}}
- test:
    role: b
    definitions:
    - name: b
      from: inline
      repository:
        run:
          steps:
          - lava-wait down
          - old=`cat $LAVA_MULTI_NODE_CACHE`
          - lava-sync going-down
          - lava-wait up
          - lava-test-case another --shell test "$old" != "`cat $LAVA_MULTI_NODE_CACHE`"
          - lava-sync end
"""


def test_a_guest_goes_on_after_a_reboot_that_its_test_announced(guest: recipe.Guest, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(GO_ON)
    devices = rebooting_guest(guest, tmp_path, console_loglevel=5)
    results = run(tmp_path / "job.yaml", devices, tmp_path / "output")
    cases = [(case["suite"], case["name"]) for case in results if case["job"] == "1"]
    assert cases == [
        ("unknown", "install"),
        ("0_first", "multinode-send-down"),
        ("0_first", "multinode-sync-going-down"),
        ("0_first", "level"),
        ("0_first", "multinode-reboot"),
        ("0_first", "level"),
        ("0_first", "kept"),
        ("0_first", "multinode-send-up"),
        ("lava", "0_first"),
        ("1_second", "multinode-sync-end"),
        ("lava", "1_second"),
    ]
    assert [case["name"] for case in results if case["job"] == "2" and case["suite"] == "0_b"] == [
        *("multinode-wait-down", "multinode-sync-going-down", "multinode-wait-up", "another", "multinode-sync-end")
    ]
    log = (tmp_path / "output" / "consoles" / "1.log").read_bytes()
    assert log.count(b"Linux version 6.") == 2


COUNTING = """\
job_name: counting
timeouts: {job: {minutes: 4}, action: {minutes: 4}}
protocols: {lava-multinode: {roles: {a: {device_type: board, count: 1}}}}
actions:
- test:
    role: a
    definitions:
    - name: first
      from: inline
      repository:
        run:
          steps:
          - (n=0; while n=$((n+1)); do echo count $n. >/dev/kmsg; usleep 5000; done) </dev/null >/dev/null 2>&1 &
          - until dmesg | grep -q 'count 50[.]'; do :; done
          - lava-test-case first --result pass
- test:
    role: a
    definitions:
    - name: second
      from: inline
      repository:
        run:
          steps:
          - lava-test-case level --shell grep -q ^10 /proc/sys/kernel/printk
          - dmesg -c >/dev/null
          - until dmesg | grep -q count; do :; done
"""


def test_a_kernel_is_quiet_while_files_are_put_there_and_not_otherwise(guest: recipe.Guest, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(COUNTING)
    command = recipe.qemu_command(guest, loglevel=10, append="printk.devkmsg=on")
    board = {"device_type": "board", "console": {"command": command}, "prompts": [recipe.PROMPT]}
    (tmp_path / "devices.yaml").write_text(yaml.safe_dump({"devices": {"guest": board}}, width=1000))
    run(tmp_path / "job.yaml", tmp_path / "devices.yaml", tmp_path / "output")
    log = (tmp_path / "output" / "consoles" / "1.log").read_bytes()
    ended, started = log.index(b" ENDRUN 0_first"), log.index(b" STARTRUN 1_second")
    first, between, second = (
        [int(number) for number in re.findall(rb"count (\d+)\.", part)]
        for part in (log[:ended], log[ended:started], log[started:])
    )
    assert first[-1] - first[0] == len(first) - 1
    assert second[-1] - second[0] == len(second) - 1
    assert second[0] - first[-1] - 1 > len(between), "the kernel was told to be quiet for a while"


def test_two_architectures_meet_while_their_kernels_print(
    guest: recipe.Guest, arm_guest: recipe.Guest, tmp_path: Path
) -> None:
    kinds = {"pc": guest, "arm": arm_guest}
    devices = {
        name: {
            "device_type": name,
            "console": {"command": recipe.qemu_command(each, loglevel=8, append="printk.devkmsg=on")},
            "prompts": [recipe.PROMPT],
        }
        for name, each in kinds.items()
    }
    actions = []
    for name, other, machine in (("pc", "arm", "aarch64"), ("arm", "pc", "x86_64")):
        rounds = [
            step
            for number in range(ROUNDS)
            for step in (
                f"lava-send {name}-{number} machine=$(uname -m)",
                f"lava-wait {other}-{number}",
                f'test "$(cat $LAVA_MULTI_NODE_CACHE)" = machine={machine}',
                f"lava-sync round-{number}",
            )
        ]
        steps = [NOISE, *rounds, "kill $noise", "lava-test-case meets --result pass"]
        repository = {"metadata": {"format": "Lava-Test Test Definition 1.0", "name": name}, "run": {"steps": steps}}
        definition = {"name": name, "from": "inline", "path": f"inline/{name}.yaml", "repository": repository}
        actions.append({"test": {"role": name, "definitions": [definition]}})
    job = {
        "job_name": "two architectures",
        "timeouts": {"job": {"minutes": 4}, "action": {"minutes": 4}},
        "protocols": {"lava-multinode": {"roles": {name: {"device_type": name, "count": 1} for name in kinds}}},
        "actions": actions,
    }
    (tmp_path / "devices.yaml").write_text(yaml.safe_dump({"devices": devices}))
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job, sort_keys=False))
    results = run(tmp_path / "job.yaml", tmp_path / "devices.yaml", tmp_path / "output")
    assert [case["metadata"]["device"] for case in results if case["name"] == "meets"] == ["pc", "arm"]
    for member in (1, 2):
        log = (tmp_path / "output" / "consoles" / f"{member}.log").read_bytes()
        said = [found.start() for found in re.finditer(rb"\] the kernel says something", log)]
        call = log.index(b"SYNC/b round-0")  # beside the shell that makes the noise
        assert said[0] < call < said[-1], "it printed during calls"
