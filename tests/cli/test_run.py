"""``multinode run`` on local shells: the examples of the API page, and what a run leaves behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from .conftest import FIXTURES, LOCAL, Multinode, job_text

pytestmark = pytest.mark.slow

Write = Callable[[str, str], Path]

EXAMPLES = {
    "example-1": {(1, "multinode-send-server-ready"), (2, "multinode-wait-server-ready")},
    "example-2": {(1, "multinode-wait-client-done"), (2, "multinode-send-client-done")},
    "example-3": {(1, "multinode-sync-ready"), (1, "multinode-sync-done"), (2, "multinode-sync-done")},
    "example-4": {(1, "multinode-sync-running"), (3, "multinode-sync-running")},
    "flow-table": {(1, "multinode-send-ready"), (2, "multinode-wait_all-ready"), (3, "multinode-sync-fin")},
}


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_of_the_page_passes(example: str, multinode: Multinode) -> None:
    ran = multinode("run", FIXTURES / "jobs" / example / "job.yaml", "--devices", LOCAL)
    assert ran.status == 0, ran.out + ran.err
    assert {case["result"] for case in ran.results} == {"pass"}
    calls = {(int(case["job"]), case["name"]) for case in ran.results}
    assert EXAMPLES[example] <= calls
    own = [c for c in ran.results if c["suite"] != "lava" and not c["name"].startswith("multinode-")]
    assert own, "the tests recorded results of their own, of what they found in the cache"
    for member in {case["job"] for case in ran.results}:
        assert (ran.output / "consoles" / f"{member}.log").stat().st_size > 0


def test_what_the_calls_print_and_leave_in_the_cache(multinode: Multinode, write: Write) -> None:
    cache = "/tmp/lava_multi_node_cache.txt"
    job = job_text(
        {
            "server": [
                'test "$(lava-self)" = 1 -a "$(lava-role)" = server',
                "test \"$(lava-role list | tr '\\n' ' ')\" = 'server client client '",
                "test \"$(lava-group client | tr '\\n' ' ')\" = '2 3 '",
                "lava-send ready server-ip=10.0.0.1 note='a b 12:30' empty=",
                "lava-wait-all done client",
                f'test "$(cat {cache})" = "$(printf \'2:n=2\\n3:n=3\')"',
                "lava-wait ready",
                f"test \"$(sort {cache} | tr '\\n' '|')\" = 'empty=|note=a b 12:30|server-ip=10.0.0.1|'",
                "for i in 1 2 3; do lava-sync again; done",
                f"test ! -e {cache}",
            ],
            "client": [
                "address=$(lava-wait ready; cut -d = -f 2 /tmp/lava_multi_node_cache.txt | head -n 1)",
                'test "$address" = 10.0.0.1',
                "lava-send done n=$(lava-self)",
                "for i in 1 2 3; do lava-sync again; done",
                "lava-test-case measured --result pass --measurement 1.5 --units s",
                "lava-test-case fails --shell false",
            ],
        },
        counts={"client": 2},
    )
    ran = multinode("run", write("job.yaml", job), "--devices", LOCAL)
    assert ran.status == 1, ran.out + ran.err
    failed = [(c["job"], c["suite"], c["name"]) for c in ran.results if c["result"] != "pass"]
    assert failed == [("2", "0_client", "fails"), ("3", "0_client", "fails")]
    measured = next(c for c in ran.results if c["name"] == "measured")
    assert (measured["measurement"], measured["unit"]) == (1.5, "s")
    assert measured["metadata"] == {"role": "client", "device": "local-2"}


def test_the_output_directory(multinode: Multinode, write: Write) -> None:
    job = write("job.yaml", job_text({"a": ["lava-sync s", "lava-test-case x --shell true"], "b": ["lava-sync s"]}))
    ran = multinode("run", job, "--devices", LOCAL, "--job-id", "70")
    assert ran.status == 0, ran.err
    assert [set(case) for case in ran.results] == [
        {"job", "suite", "name", "result", "measurement", "unit", "duration", "logged", "metadata"}
    ] * len(ran.results)
    suites = {suite.get("name") for suite in ElementTree.parse(ran.output / "results.xml").getroot()}
    assert suites == {"70.a.0_a", "70.a.lava", "71.b.0_b", "71.b.lava"}
    assert sorted(path.name for path in (ran.output / "consoles").iterdir()) == [
        "70.cast",
        "70.log",
        "71.cast",
        "71.log",
    ]
    events = [json.loads(line) for line in (ran.output / "events.jsonl").read_text().splitlines()]
    assert events[0]["event"] == "started"
    assert events[-1] | {"time": "", "elapsed": 0} == {"time": "", "elapsed": 0, "event": "ended", "status": 0}
    assert [e["job"] for e in events if e["event"] == "answered" and e["name"] == "SYNC"] in (
        ["70", "71"],
        ["71", "70"],
    )


def test_the_directories_on_a_shared_host_are_apart_and_removed(multinode: Multinode, write: Write) -> None:
    steps = ["pwd", 'test "${LAVA_MULTI_NODE_CACHE%/*}" != /tmp', "lava-sync s"]
    ran = multinode("run", write("job.yaml", job_text({"a": steps}, counts={"a": 3})), "--devices", LOCAL, "-v")
    assert ran.status == 0, ran.out + ran.err
    places = {line.rpartition("| ")[2] for line in ran.out.splitlines() if "| /tmp/lava-" in line}
    assert len(places) == 3
    assert not any(Path(place).exists() for place in places)


def test_sixty_four_shells_meet_in_one_sync(multinode: Multinode, write: Write) -> None:
    devices = write("devices.yaml", "devices:\n  local: {device_type: board, count: 64, console: {command: sh}}\n")
    job = write(
        "job.yaml",
        job_text(
            {
                "peer": [
                    "lava-sync all",
                    "lava-send x n=$(lava-self)",
                    "lava-wait-all x",
                    'test "$(wc -l </tmp/lava_multi_node_cache.txt)" -eq 64',
                ]
            },
            counts={"peer": 64},
        ),
    )
    ran = multinode("run", job, "--devices", devices)
    assert ran.status == 0, ran.out + ran.err
    assert [c["result"] for c in ran.results if c["name"] == "multinode-sync-all"] == ["pass"] * 64


def test_a_failing_step_ends_its_definition_and_the_next_one_runs(multinode: Multinode, write: Write) -> None:
    job = job_text({"a": ["false", "lava-test-case never --result pass"], "b": ["lava-test-case runs --result pass"]})
    job = job.replace("role: b", "role: [a, b]")
    ran = multinode("run", write("job.yaml", job), "--devices", LOCAL)
    assert ran.status == 1
    assert ran.result(1, "lava", "0_a") == "fail"
    assert ran.result(1, "1_b", "runs") == "pass"
    assert ran.result(2, "0_b", "runs") == "pass"
    assert not [case for case in ran.results if case["name"] == "never"]


def test_what_the_device_prints_is_not_lost_while_a_call_waits(multinode: Multinode, write: Write) -> None:
    """A megabyte is printed by a background job while lava-wait waits, and all of it is in the console's log."""
    talker = "(i=0; while [ $i -lt 2000 ]; do printf 'line %06d %0500d\\n' $i 0; i=$((i+1)); done) & lava-wait go; wait"
    ran = multinode("run", write("job.yaml", job_text({"a": [talker], "b": ["lava-send go"]})), "--devices", LOCAL)
    assert ran.status == 0, ran.out + ran.err
    log = (ran.output / "consoles" / "1.log").read_bytes()
    assert all(b"line %06d" % number in log for number in range(2000))


def test_a_console_that_floods_fills_its_log_to_the_limit_only(multinode: Multinode, write: Write) -> None:
    job = write("job.yaml", job_text({"a": ["yes | head -n 100000", "lava-test-case after --result pass"]}))
    ran = multinode("run", job, "--devices", LOCAL, "--log-limit", "100k")
    assert ran.status == 0
    assert ran.result(1, "0_a", "after") == "pass"
    log = ran.output / "consoles" / "1.log"
    assert sorted(ran.err.splitlines()) == [
        f"multinode: local-1: {path} has reached its limit of 102400 bytes, and ends there; see --log-limit"
        for path in (log.with_suffix(".cast"), log)
    ]
    assert 102_400 < log.stat().st_size < 102_500


@pytest.mark.parametrize("size", ["", "1.5G", "-1", "1 G", "10X", "many"])
def test_a_limit_that_is_no_size_is_refused(size: str, multinode: Multinode, write: Write) -> None:
    ran = multinode("run", write("job.yaml", job_text({"a": ["true"]})), "--devices", LOCAL, f"--log-limit={size}")
    assert ran.status == 2
    assert f"{size!r} is neither a size such as 200M or 4G nor 'none'" in ran.err
