"""Results: LAVA's suites and cases from the test shell's signals, and the files they are written to."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from dispatcher.errors import OutputError
from dispatcher.group.events import Member
from dispatcher.job.results import CASES_BEGUN, Case, MemberResults, printable, write
from dispatcher.job.testdef import Definition

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def results(clock: Clock) -> MemberResults:
    return MemberResults(Member("7", "server"), "panda01", monotonic=clock, now=lambda: NOW, observe=lambda _case: None)


def told(results: MemberResults) -> list[tuple[str, str, str]]:
    return [(case.suite, case.name, case.result) for case in results.cases]


def test_a_definition_that_passes(results: MemberResults, clock: Clock) -> None:
    results.start_run("0_smoke")
    results.start_case("ping")
    clock.now += 2
    assert results.test_case("TEST_CASE_ID=ping RESULT=pass UNITS=ms MEASUREMENT=1.25") is None
    clock.now += 1
    results.end_run("0_smoke")
    assert results.cases == [
        Case("7", "0_smoke", "ping", "pass", 1.25, "ms", 2.0, NOW, {"role": "server", "device": "panda01"}),
        Case("7", "lava", "0_smoke", "pass", None, "", 3.0, NOW, {"role": "server", "device": "panda01"}),
    ]


def test_a_definition_whose_device_has_rebooted_goes_on(results: MemberResults, clock: Clock) -> None:
    results.start_run("0_a")
    results.test_set("START up")
    clock.now += 2
    results.resume_run("0_a")
    results.start_run("0_a")
    results.test_case("TEST_CASE_ID=x RESULT=pass")
    clock.now += 1
    results.end_run("0_a")
    assert [(case.name, case.result, case.duration) for case in results.cases] == [
        ("x", "pass", None),
        ("0_a", "pass", 3),
    ]
    assert results.cases[0].metadata["set"] == "up"


def test_a_definition_that_only_says_that_it_goes_on_has_not(results: MemberResults) -> None:
    results.start_run("0_a")
    results.start_run("0_a")
    assert told(results) == [("lava", "0_a", "fail")]


def test_a_definition_that_never_reaches_its_end_has_failed(results: MemberResults) -> None:
    results.start_run("0_a")
    results.start_run("1_b")
    results.end_run("1_b")
    results.expect_runs(["0_a", "1_b", "2_c"], "it was not run")
    assert told(results) == [("lava", "0_a", "fail"), ("lava", "1_b", "pass"), ("lava", "2_c", "fail")]
    assert [case.metadata.get("reason") for case in results.cases] == [
        "it did not reach its end",
        None,
        "it was not run",
    ]


def test_a_result_is_never_credited_to_another_suite(results: MemberResults) -> None:
    """The line lost 1_b's start: what came meanwhile is nobody's, and 1_b has not passed."""
    results.start_run("0_a")
    results.end_run("0_a")
    results.test_case("TEST_CASE_ID=x RESULT=pass")
    results.end_run("1_b")
    assert told(results) == [("lava", "0_a", "pass"), ("unknown", "x", "pass"), ("lava", "1_b", "fail")]


def test_an_end_that_belongs_to_another_definition_fails_both(results: MemberResults) -> None:
    results.start_run("0_a")
    results.end_run("1_b")
    assert told(results) == [("lava", "0_a", "fail"), ("lava", "1_b", "fail")]


def planned(results: MemberResults, **more: object) -> None:
    definition = Definition("a", "inline", (), (), {}, None, {}, "", "a", 1, "job.yaml:1", **more)  # type: ignore[arg-type]
    results.plan({"0_a": definition})
    results.start_run("0_a")


def test_a_set_and_a_reference_are_in_the_metadata(results: MemberResults) -> None:
    results.start_run("0_a")
    results.test_set("START net")
    results.test_case("TEST_CASE_ID=x RESULT=pass")
    assert results.test_reference("y fail http://host/a?b=c") is None
    results.test_set("STOP")
    results.test_case("TEST_CASE_ID=z RESULT=pass")
    results.test_set("START never-ended")
    results.end_run("0_a")
    results.start_run("1_b")
    results.test_case("TEST_CASE_ID=z RESULT=pass")
    own = [{k: v for k, v in case.metadata.items() if k in {"set", "reference"}} for case in results.cases]
    assert own == [{"set": "net"}, {"set": "net", "reference": "http://host/a?b=c"}, {}, {}, {}]


@pytest.mark.parametrize("params", ["x pass", "x passed u", "x pass u v", ""])
def test_a_reference_that_makes_no_sense_is_no_result(results: MemberResults, params: str) -> None:
    assert results.test_reference(params)
    assert results.cases == []


def test_results_in_the_output(results: MemberResults) -> None:
    pattern = r"^(?P<test_case_id>.+): (?P<result>OK|NOK|HM)( (?P<measurement>\S+) (?P<units>\w+))?$"
    planned(results, pattern=pattern, fixup={"OK": "pass", "NOK": "fail"})
    lines = ["ping: OK 1.5 ms", "route: NOK", "two words: OK", "dns: HM", "ping: OK x ms", "ping OK"]
    taken = [(line, results.output(line)) for line in lines if results.is_result(line)]
    assert [line for line, trouble in taken if trouble is None] == lines[:2]
    assert [line for line, trouble in taken if trouble] == lines[2:5]
    assert [(c.name, c.result, c.measurement, c.unit) for c in results.cases] == [
        ("ping", "pass", 1.5, "ms"),
        ("route", "fail", None, ""),
    ]
    results.end_run("0_a")
    assert not results.is_result("ping: OK")


def test_the_words_of_results_are_translated(results: MemberResults) -> None:
    results.test_case("TEST_CASE_ID=x RESULT=PASS")
    planned(results, fixup={"OK": "pass"})
    assert results.test_case("TEST_CASE_ID=y RESULT=OK") is None
    assert results.test_case("TEST_CASE_ID=z RESULT=PASS")
    assert told(results) == [("unknown", "x", "pass"), ("0_a", "y", "pass")]


@pytest.mark.parametrize("end", ["end_run", "expect_runs"])
def test_expected_cases_that_are_missing_have_failed(results: MemberResults, end: str) -> None:
    planned(results, expected=("b", "x", "a"))
    results.test_case("TEST_CASE_ID=x RESULT=skip")
    results.end_run("0_a") if end == "end_run" else results.expect_runs(["0_a"], "the console was lost")
    assert told(results)[:3] == [("0_a", "x", "skip"), ("0_a", "b", "fail"), ("0_a", "a", "fail")]
    assert results.cases[1].metadata["reason"] == "the definition expects it, and it was not reported"
    assert len(results.cases) == 4


@pytest.mark.parametrize(
    ("params", "trouble"),
    [
        ("RESULT=pass", "TEST_CASE_ID"),
        ("TEST_CASE_ID=x", "RESULT"),
        ("TEST_CASE_ID=x RESULT=passed", "'passed'"),
        ("TEST_CASE_ID=x RESULT=pass MEASUREMENT=fast", "'fast'"),
        ("TEST_CASE_ID=x RESULT=pass MEASUREMENT=nan", "'nan'"),
        ("", "TEST_CASE_ID"),
    ],
)
def test_a_signal_that_makes_no_sense_is_no_result(params: str, trouble: str, results: MemberResults) -> None:
    assert trouble in (results.test_case(params) or "")
    assert results.cases == []


def test_cases_that_only_begin_cost_bounded_memory(results: MemberResults, clock: Clock) -> None:
    for number in range(3 * CASES_BEGUN):
        results.start_case(f"case{number}")
    assert len(results._case_began) == CASES_BEGUN
    clock.now += 2
    results.test_case(f"TEST_CASE_ID=case{3 * CASES_BEGUN - 1} RESULT=pass")
    assert results.cases[-1].duration == 2.0


def test_the_files(results: MemberResults, tmp_path: Path) -> None:
    results.start_run("0_a")
    results.test_set("START s")
    results.add("0_a", "odd \udcff \x1b[31m ]]>", "fail", reason="a\nb")
    results.test_case("TEST_CASE_ID=s RESULT=skip")
    results.test_case("TEST_CASE_ID=u RESULT=unknown MEASUREMENT=2")
    results.test_reference("r pass u")
    results.end_run("0_a")
    write(tmp_path, results.cases)
    listed = yaml.safe_load((tmp_path / "results.yaml").read_text())
    assert list(listed[0]) == [
        *("job", "suite", "name", "result", "measurement", "unit", "duration", "logged", "metadata"),
    ]
    assert listed[0]["name"] == "odd \\xff \\x1b[31m ]]>"
    assert listed[0]["metadata"] == {"role": "server", "device": "panda01", "set": "s", "reason": "a\\nb"}
    suites = {suite.get("name"): suite for suite in ElementTree.parse(tmp_path / "results.xml").getroot()}
    own = suites["7.server.0_a"]
    assert (own.get("tests"), own.get("failures"), own.get("skipped")) == ("4", "1", "2")
    assert own[0].find("failure") is not None
    assert (own[0].get("classname"), own[3].findtext("system-out")) == ("7.server.0_a.s", "reference: u")
    assert own[2].findtext("system-out") == "measurement: 2"
    assert suites["7.server.lava"].get("failures") == "0"


def test_a_directory_that_cannot_be_written(results: MemberResults, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write the results in"):
        write(tmp_path / "missing", results.cases)


def test_one_file_that_cannot_be_written_leaves_the_other_whole(results: MemberResults, tmp_path: Path) -> None:
    results.add("0_a", "a", "pass")
    (tmp_path / "results.xml").mkdir()
    with pytest.raises(OutputError):
        write(tmp_path, results.cases)
    assert [case["name"] for case in yaml.safe_load((tmp_path / "results.yaml").read_text())] == ["a"]


@pytest.mark.parametrize("name", ["results.yaml", "results.xml"])
def test_no_file_is_left_that_was_cut_short(name: str, results: MemberResults, tmp_path: Path) -> None:
    results.add("0_a", "a", "pass")
    full = tmp_path / name
    full.symlink_to("/dev/full")
    with pytest.raises(OutputError, match="No space left on device"):
        write(tmp_path, results.cases)
    assert not full.is_symlink()


def test_printable_text_is_left_alone() -> None:
    assert printable("é 中 a\\b 'x'") == "é 中 a\\b 'x'"
    assert printable("a\tb\x00\udc80") == "a\\tb\\x00\\x80"
