"""What a run found out: test cases as LAVA names them, written as ``results.yaml`` and as JUnit's ``results.xml``.

Every case belongs to a suite. Each definition is one, named ``INDEX_NAME`` as in LAVA; the suite ``lava`` tells how
each definition ended, and whether the member's job got that far at all.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol
from xml.etree import ElementTree

import yaml

from dispatcher.errors import OutputError
from dispatcher.group.events import Member
from dispatcher.job.content import CASES, FIXUP
from dispatcher.job.hidden import Hide

JOB_SUITE: Final = "lava"
UNKNOWN_SUITE: Final = "unknown"
"""Where a case goes whose suite the line has lost: to no other definition's."""

CASES_BEGUN: Final = 1000
"""Test cases that have begun and not ended, of which the beginning is remembered; the oldest is forgotten first."""


_NOT_PLAIN: Final = re.compile("[^ -~]")


@dataclass(frozen=True, slots=True)
class Case:
    """One result, with the keys that ``lavacli results`` prints. ``duration`` in seconds; ``job`` the member's id."""

    job: str
    suite: str
    name: str
    result: str
    measurement: float | None
    unit: str
    duration: float | None
    logged: datetime
    metadata: dict[str, str] = field(default_factory=dict)


class Planned(Protocol):
    """What a suite comes from; see :class:`~dispatcher.job.testdef.Definition` for the meaning."""

    @property
    def pattern(self) -> str | None: ...

    @property
    def fixup(self) -> Mapping[str, str] | None: ...

    @property
    def expected(self) -> tuple[str, ...] | None: ...


class MemberResults:
    """The cases of one member, from the signals of its test shell.

    :param monotonic: a clock for durations, seconds.
    :param now: the time of day, for ``logged``.
    :param observe: told of each case.
    :param hide: takes out of every text what is not to be told.
    """

    def __init__(
        self,
        member: Member,
        device: str,
        *,
        monotonic: Callable[[], float],
        now: Callable[[], datetime],
        observe: Callable[[Case], None],
        hide: Hide = str,
    ) -> None:
        self._hide = hide
        self.cases: list[Case] = []
        self._member = member
        self._metadata = {"role": member.role, "device": device}
        self._monotonic = monotonic
        self._now = now
        self._observe = observe
        self._suite: str | None = None
        self._resumed: str | None = None
        self._began = 0.0
        self._case_began: dict[str, float] = {}
        self._ended: set[str] = set()
        self._definitions: dict[str, Planned] = {}
        self._patterns: dict[str, re.Pattern[str]] = {}
        self._set: str | None = None

    def plan(self, definitions: Mapping[str, Planned]) -> None:
        """Say what the next suites come from: what their results look like, and which cases they must have."""
        self._definitions.update(definitions)
        self._patterns.update(
            (suite, re.compile(definition.pattern))
            for suite, definition in definitions.items()
            if definition.pattern is not None
        )

    @property
    def suite(self) -> str:
        """The suite that a result belongs to now."""
        return self._suite or UNKNOWN_SUITE

    def add(
        self,
        suite: str,
        name: str,
        result: str,
        *,
        measurement: float | None = None,
        unit: str = "",
        duration: float | None = None,
        reason: str | None = None,
        reference: str | None = None,
    ) -> Case:
        """Add one case. ``reason`` says in one line why it did not pass, ``reference`` is a URL that says more."""
        test_set = self._set if suite == self._suite else None
        more = {"set": test_set, "reference": reference, "reason": reason}
        case = Case(
            job=self._member.id,
            suite=suite,
            name=self._hide(name),
            result=result,
            measurement=measurement,
            unit=self._hide(unit),
            duration=None if duration is None else round(duration, 3),
            logged=self._now(),
            metadata=self._metadata | {key: self._hide(value) for key, value in more.items() if value},
        )
        self.cases.append(case)
        self._observe(case)
        return case

    # --- the test shell's signals --------------------------------------------------------------------------

    def start_run(self, suite: str) -> None:
        """``STARTRUN``: a definition begins, or goes on. One that had not ended before has failed."""
        resumed, self._resumed = self._resumed, None
        if suite == self._suite == resumed:
            return
        self.abandon_run("it did not reach its end")
        self._suite = suite
        self._began = self._monotonic()
        self._set = None

    def resume_run(self, suite: str) -> None:
        """The definition that runs will say again that it begins: its device has rebooted, and it goes on."""
        self._resumed = suite

    def end_run(self, suite: str) -> None:
        """``ENDRUN``: all steps of a definition have passed."""
        begun = self._suite == suite
        if begun:
            self._end(suite, "pass", self._monotonic() - self._began)
        else:
            # Its start was lost, and with it which results were its own.
            self.abandon_run("another definition ended in its place")
            self._end(suite, "fail", None, reason="its start was lost on the line")
        self._suite = None

    def abandon_run(self, reason: str) -> None:
        """The definition that runs, if any, has failed: a step failed, or the run ended."""
        if self._suite is not None:
            self._end(self._suite, "fail", self._monotonic() - self._began, reason=reason)
            self._suite = None

    def fail_install(self, reason: str) -> None:
        """``INSTALL_FAIL``: the runner has passed over the definition that would have been next."""
        self.abandon_run("a step failed")
        suite = next((suite for suite in self._definitions if suite not in self._ended), None)
        if suite is not None:
            self._end(suite, "fail", None, reason=reason)

    def expect_runs(self, suites: Iterable[str], reason: str) -> None:
        """Every definition that should have run by now and has not ended has failed."""
        for suite in suites:
            if suite not in self._ended:
                self._end(suite, "fail", None, reason=reason)

    def never_ended(self, suites: Iterable[str], reason: str) -> None:
        """Those suites of a test action that have not ended never will."""
        self.abandon_run(reason)
        self.expect_runs(suites, reason)

    def _end(self, suite: str, result: str, duration: float | None, reason: str | None = None) -> None:
        self._ended.add(suite)
        self._set = None
        if suite in self._definitions:
            reported = {case.name for case in self.cases if case.suite == suite}
            for name in self._definitions[suite].expected or ():
                if name not in reported:
                    self.add(suite, name, "fail", reason="the definition expects it, and it was not reported")
        self.add(JOB_SUITE, suite, result, duration=duration, reason=reason)

    def start_case(self, name: str) -> None:
        """``STARTTC``."""
        self._case_began[name] = self._monotonic()
        if len(self._case_began) > CASES_BEGUN:
            del self._case_began[next(iter(self._case_began))]

    def test_case(self, params: str) -> str | None:
        """``TESTCASE``: record a result. What is wrong with its parameters, or None.

        :param params: ``TEST_CASE_ID=… RESULT=… [UNITS=…] [MEASUREMENT=…]``, blanks between them.
        """
        given = dict(word.partition("=")[::2] for word in params.split())
        name, word = given.get("TEST_CASE_ID", ""), given.get("RESULT", "")
        if not name:
            return "it names no TEST_CASE_ID"
        return self.take(name, word, given.get("MEASUREMENT"), given.get("UNITS", ""))

    def take(self, name: str, word: str, measured: str | None, unit: str) -> str | None:
        """Record a case as a test tells it. What is wrong with it, or None."""
        result = self._fixup().get(word, word)
        if result not in CASES:
            return f"its RESULT is {word!r}, none of {', '.join(CASES)}"
        measurement: float | None = None
        if measured is not None:
            try:
                measurement = float(measured)
            except ValueError:
                return f"its MEASUREMENT {measured!r} is no number"
            if not math.isfinite(measurement):
                return f"its MEASUREMENT {measured!r} is no finite number"
        began = self._case_began.pop(name, None)
        duration = None if began is None else self._monotonic() - began
        self.add(self.suite, name, result, measurement=measurement, unit=unit, duration=duration)
        return None

    def _fixup(self) -> Mapping[str, str]:
        definition = self._definitions.get(self.suite)
        return FIXUP if definition is None or definition.fixup is None else definition.fixup

    def test_set(self, params: str) -> None:
        """``TESTSET``: the cases that follow belong to a set of that name, or to none."""
        self._set = params.removeprefix("START ") if params.startswith("START ") else None

    def test_reference(self, params: str) -> str | None:
        """``TESTREFERENCE``: record a result that refers to a URL. What is wrong with its parameters, or None."""
        words = params.split()
        if len(words) != 3:
            return "it is no name, result and URL"
        name, result, reference = words
        if result not in CASES:
            return f"its result is {result!r}, none of {', '.join(CASES)}"
        self.add(self.suite, name, result, reference=reference)
        return None

    @property
    def reads_output(self) -> bool:
        """Whether results are looked for in what the test prints now."""
        return self.suite in self._patterns

    def is_result(self, line: str) -> bool:
        """Whether a line of the test's output is a result to its definition's ``parse: pattern``."""
        return self.reads_output and self._patterns[self.suite].search(line) is not None

    def output(self, line: str) -> str | None:
        """Record what such a line tells. What is wrong with it, or None."""
        found = self._patterns[self.suite].search(line)
        told = {} if found is None else {key: value for key, value in found.groupdict().items() if value is not None}
        name = told.get("test_case_id", "").strip()
        if not name or " " in name:
            return f"its name {name!r} is not one word"
        return self.take(name, told.get("result", ""), told.get("measurement"), told.get("units", ""))


# --- files -------------------------------------------------------------------------------------------------------


def write(directory: Path, cases: Sequence[Case]) -> None:
    """Write ``results.yaml`` and ``results.xml``. :raises OutputError: they cannot be written."""
    listed = [_as_dict(case) for case in cases]
    document = yaml.safe_dump(listed, sort_keys=False, allow_unicode=True)
    with _whole(directory / "results.yaml") as path:
        path.write_text(document, encoding="utf-8")
    with _whole(directory / "results.xml") as path:
        _junit(cases).write(path, encoding="utf-8", xml_declaration=True)


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A file that is written whole, or is not there: cut short it would read as a run with fewer cases."""
    try:
        yield path
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        raise OutputError(f"cannot write the results in {path.parent}: {error.strerror}") from None


def _as_dict(case: Case) -> dict[str, Any]:
    return {
        "job": case.job,
        "suite": case.suite,
        "name": printable(case.name),
        "result": case.result,
        "measurement": case.measurement,
        "unit": printable(case.unit),
        "duration": case.duration,
        "logged": case.logged.isoformat(),
        "metadata": {key: printable(value) for key, value in case.metadata.items()},
    }


def _junit(cases: Sequence[Case]) -> ElementTree.ElementTree[ElementTree.Element]:
    """JUnit as CI systems read it: a ``testsuite`` for each suite of each member."""
    root = ElementTree.Element("testsuites")
    suites: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        suites.setdefault((case.job, case.suite), []).append(case)
    for (job, suite), members in suites.items():
        role = members[0].metadata.get("role", "")
        name = printable(f"{job}.{role}.{suite}")
        element = ElementTree.SubElement(
            root,
            "testsuite",
            name=name,
            tests=str(len(members)),
            failures=str(sum(case.result == "fail" for case in members)),
            skipped=str(sum(case.result in {"skip", "unknown"} for case in members)),
            timestamp=members[0].logged.isoformat(),
            time=f"{sum(case.duration or 0.0 for case in members):.3f}",
        )
        for case in members:
            _junit_case(element, name, case)
    ElementTree.indent(root)
    return ElementTree.ElementTree(root)


def _junit_case(suite: ElementTree.Element, class_name: str, case: Case) -> None:
    if "set" in case.metadata:
        class_name += f".{printable(case.metadata['set'])}"
    element = ElementTree.SubElement(
        suite, "testcase", classname=class_name, name=printable(case.name), time=f"{case.duration or 0.0:.3f}"
    )
    reason = printable(case.metadata.get("reason", ""))
    if case.result == "fail":
        ElementTree.SubElement(element, "failure", message=reason)
    elif case.result != "pass":
        ElementTree.SubElement(element, "skipped", message=reason or case.result)
    said = [] if case.measurement is None else [f"measurement: {case.measurement:g} {case.unit}".rstrip()]
    said += [f"reference: {case.metadata['reference']}"] if "reference" in case.metadata else []
    if said:
        ElementTree.SubElement(element, "system-out").text = "\n".join(printable(line) for line in said)


def printable(string: str) -> str:
    """Text that any file may hold: bytes that were no UTF-8, and control characters, as backslash escapes."""
    if string.isprintable():
        return string
    readable = string.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return _NOT_PLAIN.sub(_escaped, readable)


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
