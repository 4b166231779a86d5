"""``test: interactive:`` on a boot loader of our own, which knows no shell, and between definitions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import Multinode, job_text

pytestmark = pytest.mark.slow

Write = Callable[[str, str], Path]

LOADER = """\
trap : USR1
echo $$ >$1
while echo 'Loader 1.0'; do
  while printf '=> ' && read -r command file; do
    case $command in
    load) echo "loading $file"; echo "loaded 4096 bytes";;
    dhcp) echo TIMEOUT;;
    boot) echo bye; exec cat;;
    *) echo "unknown command $command";;
    esac
  done
done
"""

BOOT = {"boot": {"role": "board", "method": "bootloader", "prompts": ["=> "]}}


def job(script: list[dict[str, Any]], steps: list[str], *, seconds: int = 180, **more: Any) -> str:
    """A board on which a script runs, and a server with steps."""
    document = yaml.safe_load(job_text({"board": [], "server": steps}))
    interactive = {"name": "loader", "prompts": ["=> "], "echo": "discard", "script": script, **more}
    document["actions"][0]["test"] = {"role": "board", "timeout": {"seconds": seconds}, "interactive": [interactive]}
    document["actions"].insert(0, BOOT)
    document["protocols"]["lava-multinode"]["roles"]["board"]["device_type"] = "loader"
    return str(yaml.safe_dump(document, sort_keys=False))


@pytest.fixture
def devices(write: Write, tmp_path: Path) -> Path:
    loader, pid = write("loader", LOADER), tmp_path / "pid"
    reset = f"until kill -USR1 $(cat {pid}); do sleep .1; done 2>/dev/null"
    boards = {
        "loader": {
            "device_type": "loader",
            "console": {"command": f"sh {loader} {pid}"},
            "commands": {"hard_reset": reset},
        },
        "local": {"device_type": "board", "console": {"command": "sh"}},
    }
    return write("devices.yaml", yaml.safe_dump({"devices": boards}))


def test_a_script_meets_the_group_and_types_what_came(multinode: Multinode, write: Write, devices: Path) -> None:
    script = [
        {"lava-wait": "image"},
        {"command": "load {name}-{JOB_ID}", "name": "load", "successes": [{"message": "loaded (?P<SIZE>[0-9]+)"}]},
        {"command": "version", "name": "version"},
        {"command": "dhcp", "name": "dhcp", "successes": [{"message": "bound"}], "failures": [{"message": "TIME"}]},
        {"command": "help", "name": "help", "successes": [{"message": "bound"}]},
        {"lava-send": "loaded size={SIZE}"},
        {"lava-sync": "all"},
        {"lava-wait-all": "checked role=server"},
    ]
    steps = [
        "lava-send image name=kernel",
        "lava-wait loaded",
        "lava-test-case size --shell grep -qx size=4096 /tmp/lava_multi_node_cache.txt",
        "lava-sync all",
        "lava-send checked",
    ]
    ran = multinode("run", write("job.yaml", job(script, steps)), "--devices", devices)
    assert ran.status == 1, ran.out + ran.err
    found = {
        (c["suite"], c["name"]): (c["result"], c["metadata"].get("reason")) for c in ran.results if c["job"] == "1"
    }
    assert found == {
        ("0_loader", "load"): ("pass", None),
        ("0_loader", "version"): ("pass", None),
        ("0_loader", "dhcp"): ("fail", "it answered 'TIME'"),
        ("0_loader", "help"): ("fail", "a prompt came, and nothing that means success"),
        ("lava", "0_loader"): ("pass", None),
    }
    assert ran.result(2, "0_server", "size") == "pass"
    assert b"loading kernel-1" in (ran.output / "consoles" / "1.log").read_bytes()
    events = [json.loads(line) for line in (ran.output / "events.jsonl").read_text().splitlines()]
    typed = [event["text"] for event in events if event["event"] == "typing"]
    assert typed == ["load kernel-1", "version", "dhcp", "help"]


@pytest.mark.parametrize(
    ("entry", "status", "reason"),
    [
        (
            {"command": "dhcp", "failures": [{"message": "TIMEOUT"}]},
            1,
            "the command 'dhcp' failed: it answered 'TIMEOUT'",
        ),
        (
            {"command": "dhcp", "failures": [{"message": "TIMEOUT", "exception": "JobError"}]},
            1,
            "it answered 'TIMEOUT'",
        ),
        (
            {
                "command": "dhcp",
                "failures": [{"message": "T.*T", "exception": "InfrastructureError", "error": "no net"}],
            },
            3,
            "no net",
        ),
    ],
)
def test_a_failure_that_ends_the_member(
    entry: dict[str, Any], status: int, reason: str, multinode: Multinode, write: Write, devices: Path
) -> None:
    ran = multinode("run", write("job.yaml", job([entry], ["lava-wait never || true"])), "--devices", devices)
    assert ran.status == status
    assert ran.reason(1, "lava", "0_loader") == reason
    assert ran.reason(1, "lava", "job") == f"loader: {reason}"
    assert f"1 (board) has left: loader: {reason}" in ran.out


def test_what_spans_lines_is_not_sent(multinode: Multinode, write: Write, devices: Path) -> None:
    script = [
        {"command": "load x", "successes": [{"message": "loading(?P<ALL>.*)4096"}]},
        {"lava-send": "loaded all={ALL}"},
    ]
    ran = multinode("run", write("job.yaml", job(script, ["true"])), "--devices", devices)
    assert ran.status == 1
    why = "lava-send: 'all= x\\r\\nloaded ' holds a newline or another control character"
    assert ran.reason(1, "lava", "0_loader") == why
    assert re.search(r"job\.yaml:[0-9]+: lava-send: 'all=", ran.out)


def test_what_a_device_says_reaches_no_terminal_as_it_is(multinode: Multinode, write: Write, devices: Path) -> None:
    program = "printf '=> '; head -n 1; printf 'a \\377 b=> '; cat"
    script = [
        {"command": "x", "successes": [{"message": "a (?P<BYTE>.) b"}]},
        {"lava-send": "byte b={BYTE}"},
        {"lava-wait": "byte"},
    ]
    loader = {"device_type": "loader", "console": {"command": f"sh {write('program', program)}"}}
    known = yaml.safe_load(devices.read_text())["devices"] | {"loader": loader}
    text = write("devices.yaml", yaml.safe_dump({"devices": known}))
    ran = multinode("run", write("job.yaml", job(script, ["lava-send byte"])), "--devices", text)
    assert ran.status == 0, ran.out + ran.err
    assert "lava-send byte b=\\xff" in ran.out


def test_a_script_begins_at_its_own_prompt_where_nobody_names_another(
    multinode: Multinode, write: Write, devices: Path
) -> None:
    script = [
        {"command": "load x", "name": "load", "successes": [{"message": "loaded"}]},
        {"command": "dhcp", "name": "dhcp", "successes": [{"message": "TIMEOUT"}]},
    ]
    document = yaml.safe_load(job(script, ["true"]))
    del document["actions"][0]
    ran = multinode("run", write("job.yaml", yaml.safe_dump(document)), "--devices", devices)
    assert ran.status == 0, ran.out + ran.err


def test_every_boot_before_a_test_resets_the_device(multinode: Multinode, write: Write, devices: Path) -> None:
    document = yaml.safe_load(job([{"command": "version", "name": "version"}], ["true"]))
    boot, interactive, server = document["actions"]
    monitor = {"name": "banner", "start": "Loader ", "end": "=> ", "pattern": "(?P<test_case_id>1.0)(?P<result>)\\r\\n"}
    watched = {"test": {"role": "board", "monitors": [monitor | {"fixupdict": {"": "pass"}}]}}
    silent = {"boot": {"role": "board", "method": "minimal"}}
    document["actions"] = [boot, interactive, silent, watched, boot, interactive, server]
    ran = multinode("run", write("job.yaml", yaml.safe_dump(document)), "--devices", devices)
    assert ran.status == 0, ran.out + ran.err
    names = [(case["suite"], case["name"]) for case in ran.results if case["job"] == "1" and case["suite"] != "lava"]
    assert names == [("0_loader", "version"), ("1_banner", "1_0"), ("2_loader", "version")]
    assert ran.out.count("power: hard_reset") == 3


def test_an_answer_that_does_not_come(multinode: Multinode, write: Write, devices: Path) -> None:
    script = [{"command": "boot", "name": "boot", "successes": [{"message": "login:"}]}]
    ran = multinode("run", write("job.yaml", job(script, ["true"], seconds=5)), "--devices", devices)
    assert ran.status == 1
    assert ran.reason(1, "0_loader", "boot") == "it was not answered"
    assert ran.reason(1, "lava", "0_loader") == "the test action timed out; it waited for '=> ', 'login:'"
    assert "the console said last: 'bye'" in ran.err


def test_a_call_that_fails_names_its_line(multinode: Multinode, write: Write, devices: Path) -> None:
    text = job([{"lava-wait": "never"}], ["true"])
    line = next(number for number, line in enumerate(text.splitlines(), 1) if "never" in line)
    ran = multinode("run", write("job.yaml", text), "--devices", devices)
    assert ran.status == 1
    assert ran.reason(1, "lava", "job").startswith(f"{write('job.yaml', text)}:{line}: ")
    assert ran.result(1, "lava", "0_loader") == "fail"


def test_a_script_between_definitions_has_the_shell_that_the_device_had(multinode: Multinode, write: Write) -> None:
    document = yaml.safe_load(job_text({"board": ["echo one >kept"]}))
    more = yaml.safe_load(job_text({"board": ["lava-send x", "cat ../../../0/tests/0_board/kept"]}))["actions"][0]
    prompts = ["board# "]
    script = {
        "name": "typed",
        "prompts": prompts,
        "script": [
            {"command": "read -r x; echo got-$x", "successes": [{"message": "ready"}, {"message": "\\n"}]}
            | {"wait_for_prompt": False},
            {"command": "it", "name": "got", "successes": [{"message": "got-it"}]},
        ],
    }
    document["actions"] += [{"test": {"role": "board", "interactive": [script]}}, more]
    boards = {"d": {"device_type": "board", "prompts": prompts, "console": {"command": "env PS1='board# ' sh"}}}
    devices = write("devices.yaml", yaml.safe_dump({"devices": boards}))
    ran = multinode("run", write("job.yaml", yaml.safe_dump(document)), "--devices", devices)
    assert ran.status == 0, ran.out + ran.err
    found = {(case["suite"], case["name"]): case["result"] for case in ran.results}
    assert found == {
        ("lava", "0_board"): "pass",
        ("1_typed", "got"): "pass",
        ("lava", "1_typed"): "pass",
        ("1_board", "multinode-send-x"): "pass",
        ("lava", "1_board"): "pass",
    }
