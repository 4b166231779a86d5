"""``test: monitors:`` on programs that print by themselves, each on a terminal of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from .conftest import Multinode, job_text

pytestmark = pytest.mark.slow

Write = Callable[[str, str], Path]

PATTERN = r"(?P<result>PASS|FAIL) - (?P<test_case_id>\w+)( in (?P<measurement>[0-9.]+) (?P<units>s))?\r?\n"
FIXUP = {"PASS": "pass", "FAIL": "fail"}


def monitor(name: str, start: str, end: str) -> dict[str, object]:
    return {"name": name, "start": start, "end": end, "pattern": PATTERN, "fixupdict": FIXUP}


def job(*before: dict[str, object], seconds: int = 180) -> str:
    """A board that is watched by two monitors, in a group with another member."""
    document = yaml.safe_load(job_text({"board": [], "other": ["lava-test-case met --shell lava-wait go"]}))
    document["actions"][0]["test"] = {
        "role": "board",
        "timeout": {"seconds": seconds},
        "monitors": [monitor("Boot", "booting", "booted"), monitor("self", "Running", "Done\\.")],
    }
    document["actions"] = [*before, *document["actions"]]
    document["protocols"]["lava-multinode"]["roles"]["board"]["device_type"] = "printer"
    return str(yaml.safe_dump(document, sort_keys=False))


def devices(program: str) -> str:
    printer = {"device_type": "printer", "console": {"command": f'sh -c "{program}"'}}
    return yaml.safe_dump(
        {"devices": {"printer": printer, "local": {"device_type": "board", "console": {"command": "sh"}}}}
    )


SELF_TEST = (
    "echo PASS - early; echo booting; echo PASS - memory in 1.5 s; echo booted; "
    "echo Running; echo FAIL - fork; printf Done.; cat"
)
SEND = {"action": "x", "request": "lava-send", "messageID": "go"}


def test_monitors_need_no_shell_and_give_results(multinode: Multinode, write: Write) -> None:
    text = job().replace(
        "    monitors:",
        f"    protocols: {{lava-multinode: [{yaml.safe_dump(SEND, default_flow_style=True).strip()}]}}\n    monitors:",
    )
    ran = multinode("run", write("job.yaml", text), "--devices", write("d.yaml", devices(SELF_TEST)), "--verbose")
    assert ran.status == 1, ran.out + ran.err
    found = {
        (c["suite"], c["name"]): (c["result"], c["measurement"], c["unit"]) for c in ran.results if c["job"] == "1"
    }
    assert found == {
        ("0_Boot", "memory"): ("pass", 1.5, "s"),
        ("lava", "0_Boot"): ("pass", None, ""),
        ("0_self", "fork"): ("fail", None, ""),
        ("lava", "0_self"): ("pass", None, ""),
    }
    assert ran.result(2, "0_other", "met") == "pass"
    assert "| PASS - memory in 1.5 s" in ran.out


def test_an_end_that_does_not_come(multinode: Multinode, write: Write) -> None:
    text = job(seconds=5).replace("lava-wait go", "true")
    ran = multinode(
        "run", write("job.yaml", text), "--devices", write("d.yaml", devices(SELF_TEST.replace("Done", "No")))
    )
    assert ran.status == 1
    assert ran.result(1, "0_self", "fork") == "fail"
    reason = "the test action timed out; it waited for the end of monitor 'self', 'Done\\\\.'"
    assert [ran.reason(1, "lava", name) for name in ("0_self", "job")] == [reason, f"printer: {reason}"]
    assert ran.result(2, "lava", "0_other") == "pass"


def test_a_console_that_ends_before_a_monitor_does(multinode: Multinode, write: Write) -> None:
    text = job().replace("lava-wait go", "true")
    ran = multinode("run", write("job.yaml", text), "--devices", write("d.yaml", devices("echo booting")))
    assert ran.status == 3
    assert ran.result(1, "lava", "0_Boot") == ran.result(1, "lava", "0_self") == "fail"


def test_a_boot_with_a_prompt_is_waited_for_and_its_rest_is_watched(multinode: Multinode, write: Write) -> None:
    boot = {"boot": {"role": "board", "method": "minimal", "prompts": ["=> "]}}
    old = SELF_TEST.replace("PASS", "FAIL").removesuffix("cat").replace("Done.", "'Done.=> '")
    text = job(boot).replace("lava-wait go", "true")
    ran = multinode("run", write("job.yaml", text), "--devices", write("d.yaml", devices(old + SELF_TEST)))
    assert ran.result(1, "0_Boot", "memory") == "pass", ran.out + ran.err
    assert [case["name"] for case in ran.results if case["job"] == "1"] == ["memory", "0_Boot", "fork", "0_self"]


def test_what_follows_the_last_end_is_the_next_actions(multinode: Multinode, write: Write) -> None:
    document = yaml.safe_load(job().replace("lava-wait go", "true"))
    first = document["actions"][0]["test"]
    monitors = first.pop("monitors")
    document["actions"][0:1] = [{"test": first | {"monitors": [each]}} for each in monitors]
    text = yaml.safe_dump(document, sort_keys=False)
    ran = multinode("run", write("job.yaml", text), "--devices", write("d.yaml", devices(SELF_TEST)))
    assert ran.result(1, "0_Boot", "memory") == "pass", ran.out + ran.err
    assert ran.result(1, "1_self", "fork") == "fail"


def test_two_monitors_of_one_name_have_words_of_their_own(multinode: Multinode, write: Write) -> None:
    document = yaml.safe_load(job().replace("lava-wait go", "true"))
    first, second = document["actions"][0]["test"]["monitors"]
    second |= {"name": first["name"], "fixupdict": {"PASS": "fail", "FAIL": "pass"}}
    text = write("job.yaml", yaml.safe_dump(document))
    ran = multinode("run", text, "--devices", write("d.yaml", devices(SELF_TEST)))
    assert ran.status == 0, ran.out + ran.err
    assert ran.result(1, "0_Boot", "memory") == ran.result(1, "0_Boot", "fork") == "pass"
