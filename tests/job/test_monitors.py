"""``test: monitors:``: what a job may say, and what is found in a console's output."""

from __future__ import annotations

from pathlib import Path

import pytest
from jobtext import DEFINITION, edited, job_of, refused

from dispatcher.job import definition
from dispatcher.job.monitors import SPAN, Began, Ended, Found, Monitor, Watcher

PATTERN = r"\[(?P<result>[A-Z]+)\] (?P<test_case_id>[^:\r\n]+)(: (?P<measurement>[0-9.]+) (?P<units>\w+))?\r?\n"

MONITORS = edited(
    DEFINITION,
    {
        6: "    monitors:",
        7: "    - name: m",
        8: "      start: BEGIN",
        9: "      end: END",
        10: f"      pattern: '{PATTERN}'",
    }
    | {11: "      fixupdict: {OK: pass}"},
)


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def monitor(name: str = "m", start: str = "BEGIN", end: str = "END", pattern: str = PATTERN) -> Monitor:
    return Monitor(name, start, end, pattern, {}, None, "job.yaml:1")


def heard(watcher: Watcher, *data: bytes) -> list[Began | Found | Ended]:
    return [event for each in data for event in watcher.hear(each)]


# --- the job -----------------------------------------------------------------------------------------------------


def test_monitors_are_read_and_need_no_steps() -> None:
    job = job_of(MONITORS)
    (test,) = job.actions
    assert isinstance(test, definition.Test)
    assert test.definitions == ()
    assert test.monitors == (Monitor("m", "BEGIN", "END", PATTERN, {"OK": "pass"}, None, "job.yaml:7"),)
    assert (job.ignored, job.notes) == ((), ())


def test_nothing_may_be_the_word_for_a_result() -> None:
    (test,) = job_of(edited(MONITORS, {11: "      fixupdict: {'!': pass, '': fail}"})).actions
    assert isinstance(test, definition.Test)
    assert test.monitors[0].fixup == {"!": "pass", "": "fail"}


def test_a_pattern_that_records_nothing_is_told() -> None:
    job = job_of(edited(MONITORS, {10: "      pattern: hello", 11: "      expected: [a]"}))
    assert job.ignored == (
        "the pattern of monitor 'm' records nothing: it has no (?P<test_case_id>...) and (?P<result>...) or "
        "(?P<measurement>...) (line 10)",
    )


@pytest.mark.parametrize(
    ("edits", "line", "what"),
    [
        ({7: "    - name: m m"}, 7, "a monitor cannot be named 'm m'"),
        ({8: "      begin: x"}, 8, "unknown key 'begin'; did you mean 'end'?"),
        ({8: None}, 7, "a monitor needs the key 'start'"),
        ({9: "      end: ''"}, 9, "'end' is empty"),
        ({9: "      end: (x"}, 9, "'end': '(x' is not a regular expression: missing ), unterminated subpattern at"),
        ({10: "      pattern: .*"}, 10, "'pattern': '.*' matches before anything is printed"),
        ({11: "      fixupdict: {OK: good}"}, 11, "'OK' has the unknown value 'good'; did you mean 'unknown'?"),
        ({6: "    monitors: []", **dict.fromkeys(range(7, 12))}, 6, "a test action needs at least one monitor"),
        (
            {6: "    definitions: []\n    monitors:"},
            7,
            "a test action has either 'definitions' or 'monitors', not both",
        ),
        (
            {6: None, **dict.fromkeys(range(7, 12))},
            4,
            "'test' needs one of the keys 'definitions', 'monitors', 'interactive'",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_line(edits: dict[int, str | None], line: int, what: str) -> None:
    error = refused(edited(MONITORS, edits))
    assert (error.where, error.what[: len(what)]) == (f"job.yaml:{line}", what)


# --- the output --------------------------------------------------------------------------------------------------

OUTPUT = b"""[PASS] too early
x BEGIN
[PASS] Two  Words!
[FAIL] b: 1.5 ms
noise
[SKIP] c
END
[PASS] late
""".replace(b"\n", b"\r\n")
EVENTS = [
    Began(0),
    Found("two_words_", "PASS", None, ""),
    Found("b", "FAIL", "1.5", "ms"),
    Found("c", "SKIP", None, ""),
    Ended(0),
]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_results_between_start_and_end_whatever_the_reads(size: int) -> None:
    watcher = Watcher([monitor()])
    assert heard(watcher, *(OUTPUT[at : at + size] for at in range(0, len(OUTPUT), size))) == EVENTS
    assert watcher.awaited is None
    assert watcher.rest == b"\r\n[PASS] late\r\n"


def test_what_follows_an_end_is_the_next_monitors() -> None:
    watcher = Watcher([monitor("one"), monitor("two", "END", "over")])
    text = b"BEGIN [PASS] a\n END END [PASS] b\n over"
    assert heard(watcher, text) == [
        Began(0),
        Found("a", "PASS", None, ""),
        Ended(0),
        Began(1),
        Found("b", "PASS", None, ""),
        Ended(1),
    ]


def test_a_result_may_span_lines_and_an_unfinished_line_is_none() -> None:
    watcher = Watcher([monitor(pattern=r"UT: (?P<test_case_id>\w+).+?RESULT: (?P<result>\w+)")])
    assert heard(watcher, b"BEGIN\nUT: a\nwork\nRESULT: PAS", b"S") == [Began(0)]
    assert list(watcher.flush()) == []
    assert heard(watcher, b"ED\nUT: b\n") == []
    assert list(watcher.flush()) == [Found("a", "PASSED", None, "")]
    assert list(watcher.flush()) == []
    assert heard(watcher, b"RESULT: FAILED\nEND")[:1] == [Found("b", "FAILED", None, "")]


def test_a_measurement_alone_has_passed() -> None:
    watcher = Watcher([monitor(pattern=r"(?P<test_case_id>\w+) took (?P<measurement>\w+)")])
    assert heard(watcher, b"BEGIN boot took 12\nEND")[1] == Found("boot", "pass", "12", "")


def test_a_pattern_that_takes_nothing_records_nothing() -> None:
    watcher = Watcher([monitor(pattern=r"(?=(?P<test_case_id>\w+) (?P<result>pass))")])
    assert heard(watcher, b"BEGIN a pass\n", b"END") == [Began(0), Ended(0)]


def test_bytes_that_are_no_text() -> None:
    watcher = Watcher([monitor(start="ä")])
    assert heard(watcher, b"\xff\xc3", b"\xa4 [PASS] \xfe\n", b"\xffEND") == [
        Began(0),
        Found("_", "PASS", None, ""),
        Ended(0),
    ]


def test_what_is_awaited_is_named() -> None:
    watcher = Watcher([monitor()])
    assert watcher.awaited == "the start of monitor 'm', 'BEGIN'"
    heard(watcher, b"BEGIN")
    assert watcher.awaited == "the end of monitor 'm', 'END'"


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("noise", [b"x", b"\n", b"[PASS] ", b"BEGI EN\n"])
def test_endless_output_is_forgotten(begun: bool, noise: bytes) -> None:
    watcher = Watcher([monitor()])
    if begun:
        heard(watcher, b"BEGIN")
    for _ in range(100):
        assert heard(watcher, noise * (4096 // len(noise))) == []
    assert len(watcher._text) <= SPAN
    assert [type(event) for event in heard(watcher, b"\nBEGIN\n[PASS] a\nEND")][-2:] == [Found, Ended]
