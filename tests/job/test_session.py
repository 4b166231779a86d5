"""What a session makes of a console's bytes: the same however they are cut, and never more than it may."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dispatcher.console.command import CommandTransport
from dispatcher.console.connection import Console
from dispatcher.console.transcript import Transcript
from dispatcher.coordinator.client import EmbeddedClient
from dispatcher.coordinator.journal.memory import MemoryJournal
from dispatcher.coordinator.live import LiveGroup
from dispatcher.framing.reliable import encode_up
from dispatcher.group.events import Member
from dispatcher.job import session
from dispatcher.job.calls import Send, Wait
from dispatcher.job.results import MemberResults
from dispatcher.job.session import TestSession
from dispatcher.job.testdef import Definition

OUTPUT = (
    b"hello\r\n\r\n<LAVA_SIGNAL_STARTRUN 0_demo 1_2>\r\r\n+ true\n\xc3\xa4 and \x1b[1m\n"
    b"<LAVA_SIGNAL_TESTCASE TEST_CASE_ID=a RESULT=pass>\n<MN2 half\nthe last words\n   \r\nno line feed"
)
SHOWN = [
    *("hello", "<LAVA_SIGNAL_STARTRUN 0_demo 1_2>", "+ true", "ä and \\x1b[1m"),
    *("<LAVA_SIGNAL_TESTCASE TEST_CASE_ID=a RESULT=pass>", "<MN2 half", "the last words"),
]

Notes = list[tuple[str, dict[str, Any]]]


def hear(tmp_path: Path, data: bytes, size: int, *suites: str) -> tuple[Notes, MemberResults]:
    """Let a session hear some bytes in pieces, in a test of these suites; what it notes, and the results."""
    notes: Notes = []
    member = Member("1", "board")
    results = MemberResults(
        member, "board", monotonic=lambda: 0.0, now=lambda: datetime.now(UTC), observe=lambda _case: None
    )

    results.plan(
        {suite: Definition(suite, "inline", ("true",), (), {}, None, {}, "", suite, 1, "") for suite in suites}
    )

    async def listen() -> None:
        console = Console("board", CommandTransport("board", {"command": "cat"}), Transcript(tmp_path / "log"))
        client = EmbeddedClient(LiveGroup("group", [member], MemoryJournal(), grace=None), "1")
        await client.join("join")
        test = TestSession(
            console,
            member,
            [member],
            client,
            calls={"SEND": Send(), "WAIT": Wait()},
            results=results,
            note=lambda kind, **data: notes.append((kind, data)),
            requests=itertools.count(1),
            timeout=None,
        )
        for start in range(0, len(data), size):
            test.hear(data[start : start + size])
        await test.finish(suites)
        await console.close()

    asyncio.run(listen())
    return notes, results


@pytest.mark.parametrize("size", [1, 16, 1000])
def test_the_same_however_it_is_cut(tmp_path: Path, size: int) -> None:
    notes, results = hear(tmp_path, OUTPUT, size)
    assert [line for kind, data in notes if kind == "output" for line in data["lines"]] == SHOWN
    assert [data["name"] for kind, data in notes if kind == "signal"] == ["STARTRUN", "TESTCASE"]
    assert [(case.suite, case.name, case.result) for case in results.cases] == [
        ("0_demo", "a", "pass"),
        ("lava", "0_demo", "fail"),
    ]
    assert results.cases[-1].metadata["reason"] == "a step failed; its last words: the last words"


def test_a_call_that_the_console_ends_in(tmp_path: Path) -> None:
    notes, _results = hear(tmp_path, b"<LAVA_TEST_RUNNER EXIT>", 4)
    assert [kind for kind, _data in notes] == ["runner-exit"]


@pytest.mark.parametrize("size", [16, 4095])
def test_a_long_line_is_shown_in_part(tmp_path: Path, size: int) -> None:
    notes, _results = hear(tmp_path, b"x" * 10_000 + b"\nand on\n", size)
    shown = [line for kind, data in notes if kind == "output" for line in data["lines"]]
    assert shown == ["x" * session.OUTPUT_LINE_LIMIT, "and on"]


def test_damage_without_end_is_told_by_its_number(tmp_path: Path) -> None:
    notes, _results = hear(tmp_path, b"<MN2 0123456789ab 1/1 " * (session.DAMAGE_LIMIT + 500), 4095)
    damage = [data["reason"] for kind, data in notes if kind == "damage"]
    assert len(damage) == session.DAMAGE_LIMIT + 1
    assert damage[-1] == f"{session.DAMAGE_LIMIT + 500} in all, and so were others"


def test_why_a_definition_was_not_run(tmp_path: Path) -> None:
    _notes, results = hear(tmp_path, b"sh: lava-test-runner: Permission denied\n", 1000, "0_a", "1_b")
    assert [(case.name, case.metadata["reason"]) for case in results.cases] == [
        (suite, "it was not run; its last words: sh: lava-test-runner: Permission denied") for suite in ("0_a", "1_b")
    ]


def test_a_definition_that_could_not_be_installed_is_told_apart(tmp_path: Path) -> None:
    run = b"<LAVA_SIGNAL_STARTRUN %s x>\n<LAVA_SIGNAL_ENDRUN %s x>\n"
    said = run % (b"0_a", b"0_a") + b"no network\n<LAVA_TEST_RUNNER INSTALL_FAIL>\n" + run % (b"2_c", b"2_c")
    _notes, results = hear(tmp_path, said + b"<LAVA_TEST_RUNNER EXIT>\n", 1000, "0_a", "1_b", "2_c")
    assert [(case.name, case.result, case.metadata.get("reason")) for case in results.cases] == [
        ("0_a", "pass", None),
        ("1_b", "fail", "it could not be installed; its last words: no network"),
        ("2_c", "pass", None),
    ]


def test_a_call_whose_process_was_ended_waits_no_more(tmp_path: Path) -> None:
    ids = ["00000000000a", "00000000000b"]
    said = [encode_up(ids[0], 1, 1, b"WAIT x"), encode_up(ids[1], 1, 1, b"SEND y")]
    ended = [encode_up(each, 1, 1, b"+BYE") for each in ids]
    notes, results = hear(tmp_path, b"".join([*said, ended[0], ended[0], ended[1]]), 1000)
    assert [(case.name, case.result, case.metadata.get("reason")) for case in results.cases] == [
        ("multinode-wait-x", "fail", session.ABANDONED),
        ("multinode-send-y", "pass", None),
    ]
    assert [data["reason"] for kind, data in notes if kind == "failed"] == [session.ABANDONED]
