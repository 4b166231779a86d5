"""What LAVA's test definitions may say, run on local shells: helpers, results in every form, installation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from .conftest import LOCAL, Multinode, job_text

pytestmark = pytest.mark.slow

Write = Callable[[str, str], Path]


def with_definition(job: str, role: str, **more: Any) -> str:
    """The same job, with more keys in the definition that a role runs."""
    text = yaml.safe_load(job)
    for action in text["actions"]:
        if action["test"]["role"] == role:
            action["test"]["definitions"][0]["repository"].update(more)
    return yaml.safe_dump(text, sort_keys=False)


def test_results_in_every_form_of_lavas(multinode: Multinode, write: Write) -> None:
    steps = [
        'test "$LAVA_JOB_ID" = 1 && test "$(cut -d _ -f 1 uuid)" = 1',
        "lava-test-set start net",
        "lava-test-case ping --result OK",
        "lava-test-reference log --result fail --reference http://host/log?x=1",
        "lava-test-set stop net",
        "lava-test-event half",
        "printf '<LAVA_SIGNAL_%s>\\n' 'TESTSET START raw' 'TESTCASE TEST_CASE_ID=printed RESULT=OK' 'TESTSET STOP'",
        "lava-test-case wrapped --shell lava-sync s",
        "printf 'route: NOK\\n%s\\n' 'dns: OK 3'",
    ]
    more = {
        "parse": {
            "pattern": r"^(?P<test_case_id>\w+): (?P<result>\w+)( (?P<measurement>\d+))?$",
            "fixupdict": {"OK": "pass", "NOK": "fail"},
        },
        "expected": ["ping", "missing"],
    }
    job = with_definition(job_text({"a": steps, "b": ["lava-sync s"]}), "a", **more)
    ran = multinode("run", write("job.yaml", job), "--devices", LOCAL)
    assert ran.status == 1, ran.err
    mine = [case for case in ran.results if case["job"] == "1"]
    assert [(c["suite"], c["name"], c["result"], c["measurement"]) for c in mine] == [
        ("0_a", "ping", "pass", None),
        ("0_a", "log", "fail", None),
        ("0_a", "printed", "pass", None),
        ("0_a", "multinode-sync-s", "pass", None),
        ("0_a", "wrapped", "pass", None),
        ("0_a", "route", "fail", None),
        ("0_a", "dns", "pass", 3.0),
        ("0_a", "missing", "fail", None),
        ("lava", "0_a", "pass", None),
    ]
    assert [case["metadata"].get("set") for case in mine] == ["net", "net", "raw", *[None] * 6]
    assert mine[1]["metadata"]["reference"] == "http://host/log?x=1"
    junit = {case.get("name"): case for case in ElementTree.parse(ran.output / "results.xml").iter("testcase")}
    assert junit["log"].get("classname") == "1.a.0_a.net"
    events = [json.loads(line) for line in (ran.output / "events.jsonl").read_text().splitlines()]
    assert [e["params"] for e in events if e["event"] == "signal" and e["name"] == "TESTEVENT"] == ["half"]


def test_a_raise_ends_its_member_and_an_essential_one_ends_all(multinode: Multinode, write: Write) -> None:
    job = yaml.safe_load(
        job_text(
            {
                "a": [
                    "lava-test-case fails --shell false",
                    "lava-wait failed",
                    "lava-test-case x --shell lava-test-raise no network || true",
                    "lava-sync never",
                ],
                "b": ["lava-test-case fails --shell false", "lava-send failed", "sleep 1000"],
            }
        )
    )
    job["protocols"]["lava-multinode"]["roles"]["a"]["essential"] = True
    ran = multinode("run", write("job.yaml", yaml.safe_dump(job)), "--devices", LOCAL)
    assert ran.status == 1, ran.out + ran.err
    assert ran.reason(1, "lava", "0_a") == "lava-test-raise: no network"
    assert ran.reason(1, "lava", "job") == "local-1: lava-test-raise: no network"
    assert "the essential member 1 (a) has failed" in ran.reason(2, "lava", "job")
    assert ran.result(1, "0_a", "fails") == ran.result(2, "0_b", "fails") == "fail", "which is no reason to end"


def test_what_is_installed_and_what_runs_in_the_background(multinode: Multinode, write: Write, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("apt-get", "add-apt-repository"):
        (programs / name).write_text('#!/bin/sh\necho "${0##*/} $*" >>called\n')
        (programs / name).chmod(0o755)
    install = {"deps": ["a", "b"], "sources": ["s"], "steps": ["test -s called"]}
    steps = [
        "test \"$(tr '\\n' , <called)\" = 'add-apt-repository -y s,apt-get update -q,apt-get install -y -q a b,'",
        "lava-background-process-start server --cmd 'exec >served; while :; do echo x; sleep 0.1; done'",
        "while ! test -s served; do sleep 0.1; done",
        "lava-background-process-stop server",
        'test -n "$(lava-os-build)" && test $(lava-target-ip) = 10.0.0.7',
        'test "$(lava-echo-config relay)" = "port 4"',
    ]
    device = {
        "device_type": "board",
        "console": {"command": "sh"},
        "environment": {
            "PATH": f"{programs}:/usr/bin:/bin",
            "TARGET_DEVICE_IP": "10.0.0.7",
            "LAVA_SHARED_CONFIG": "relay port 4\nother x",
        },
    }
    job = with_definition(job_text({"a": steps}), "a", install=install)
    devices = write("devices.yaml", yaml.safe_dump({"devices": {"one": device}}))
    ran = multinode("run", write("job.yaml", job), "--devices", devices)
    assert ran.status == 0, ran.out + ran.err


def test_a_helper_that_the_device_file_does_not_provide_for_is_told_before_anything_is_opened(
    multinode: Multinode, write: Write
) -> None:
    job = write("job.yaml", job_text({"a": ["true", "lava-send x ip=$(lava-target-ip)"]}))
    line = next(n for n, text in enumerate(job.read_text().splitlines(), 1) if "lava-target-ip" in text)
    ran = multinode("run", job, "--devices", LOCAL)
    assert ran.status == 2
    assert ran.err.splitlines()[-2:] == [
        f"multinode: {job}:{line}: lava-target-ip prints TARGET_DEVICE_IP, which device 'local-1' does not know",
        "  set it in the device file: environment: {TARGET_DEVICE_IP: ...}",
    ]
    assert not ran.output.exists()


def test_a_device_that_would_not_be_known_after_its_reboot(multinode: Multinode, write: Write) -> None:
    job = write("job.yaml", job_text({"a": ["lava-reboot reboot -f"]}))
    ran = multinode("check", job, "--devices", LOCAL)
    line = next(number for number, line in enumerate(job.read_text().splitlines(), 1) if "lava-reboot" in line)
    assert (ran.status, ran.err.splitlines()) == (
        2,
        [
            f"multinode: {job}:{line}: lava-reboot needs to know what device 'local-1' shows when it is up again",
            "  say it with prompts or auto_login, in the device file or a boot action",
        ],
    )
    known = write("devices.yaml", "devices: {b: {device_type: board, console: {command: sh}, prompts: ['# ']}}")
    assert multinode("check", job, "--devices", known).status == 0
