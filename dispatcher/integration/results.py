"""What a job has shown, for a test that asks about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dispatcher.group.events import Member
from dispatcher.job.results import Case
from dispatcher.job.runner import Outcome

_BAD = frozenset({"fail", "unknown"})


@dataclass(frozen=True, slots=True)
class Results:
    """The cases of a job.

    :ivar passed: nothing failed: no case, no console.
    :ivar cases: all of them; each has ``job`` (its member's id), ``suite``, ``name``, ``result``, ``measurement``,
        ``unit``, ``duration``, ``logged`` and ``metadata`` with ``role``, ``device`` and, of a failed one, ``reason``.
    :ivar members: who ran, in the order of their ids.
    :ivar errors: what went wrong outside the tests, a message each.
    :ivar output: the directory with results.yaml, results.xml, events.jsonl and the consoles' logs.
    """

    passed: bool
    cases: Sequence[Case]
    members: Sequence[Member]
    errors: Sequence[str]
    output: Path

    @property
    def failures(self) -> list[Case]:
        """The cases that did not pass; skipped ones have."""
        return [case for case in self.cases if case.result in _BAD]

    def of(self, who: str) -> list[Case]:
        """The cases of a member, by its id, or of all members of a role.

        :raises LookupError: there is no such member.
        """
        ids = {member.id for member in self.members if who in (member.id, member.role)}
        if not ids:
            raise LookupError(f"no member is or plays {who!r}; there are {', '.join(map(str, self.members))}")
        return [case for case in self.cases if case.job in ids]

    def case(self, name: str, *, of: str | None = None, suite: str | None = None) -> Case:
        """The one case of this name.

        :param of: of this member or role; needed where more than one have it.
        :param suite: in this suite, such as ``0_smoke``.
        :raises LookupError: there is none, or more than one.
        """
        cases = self.cases if of is None else self.of(of)
        found = [case for case in cases if case.name == name and suite in (None, case.suite)]
        if len(found) == 1:
            return found[0]
        if found:
            places = ", ".join(f"{case.job} {case.suite}" for case in found)
            raise LookupError(f"there are {len(found)} cases {name!r}: {places}; name one with of= and suite=")
        there = ", ".join(dict.fromkeys(case.name for case in cases)) or "none at all"
        raise LookupError(f"there is no case {name!r}; there are {there}")

    def check(self) -> None:
        """Fail the test that asks unless everything passed. :raises AssertionError: what did not, and why."""
        __tracebackhide__ = True
        if not self.passed:
            bad = [f"{case.job} {case.suite} {case.name}: {case.result}{_reason(case)}" for case in self.failures]
            raise AssertionError("\n  ".join([f"the job did not pass; see {self.output}", *bad, *self.errors]))


def _reason(case: Case) -> str:
    reason = case.metadata.get("reason")
    return f" ({reason})" if reason else ""


def results_of(outcome: Outcome, output: Path) -> Results:
    """The results of a run."""
    return Results(outcome.status == 0, outcome.cases, outcome.members, outcome.errors, output)
