"""LAVA's ``test: monitors:``: results that a device prints by itself, between two texts, without a shell.

:func:`read_monitors` reads them from a job; :class:`Watcher` finds in what a console says what they ask for. It does no
I/O and knows no clock.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dispatcher.job import keys
from dispatcher.job.content import CASES, expected
from dispatcher.job.fields import pattern
from dispatcher.job.testdef import suite_name
from dispatcher.job.yamlfile import Node
from dispatcher.wording import quoted

SPAN: Final = 4096
"""Characters of output that a start, an end or a result may be made of; a pattern may span lines."""

SCAN: Final = 2048
"""Characters that may be waiting before they are looked through for results without being asked to. Looking through
all that a pattern may span for every few bytes that a UART gives would take too long."""

_UNNAMED: Final = re.compile(r"\W+")


@dataclass(frozen=True, slots=True)
class Monitor:
    """One of ``monitors:``. Start, end and pattern are regular expressions whose ``.`` is any character.

    :ivar fixup: a result's word in the output → LAVA's; LAVA's own words are known besides.
    :ivar expected: the test cases that have failed if they are not reported; None where it does not say.
    :ivar where: file and line of its entry in the job.
    """

    name: str
    start: str
    end: str
    pattern: str
    fixup: Mapping[str, str]
    expected: tuple[str, ...] | None
    where: str


def read_monitors(node: Node) -> tuple[Monitor, ...]:
    """The ``monitors:`` of one test action. :raises FileError: naming the line of what is wrong."""
    monitors = tuple(_monitor(entry) for entry in node.sequence("a monitor"))
    if not monitors:
        raise node.error("a test action needs at least one monitor")
    return monitors


def _monitor(entry: Node) -> Monitor:
    found = entry.mapping(keys.MONITOR)
    name = suite_name(entry.need(found, "name"), "a monitor")
    start, end, results = (pattern(entry.need(found, key)) for key in ("start", "end", "pattern"))
    groups = re.compile(results).groupindex
    if "test_case_id" not in groups or not groups.keys() & {"result", "measurement"}:
        # LAVA watches for the end all the same.
        wanted = "(?P<test_case_id>...) and (?P<result>...) or (?P<measurement>...)"
        found["pattern"].skip(f"the pattern of monitor {quoted(name)} records nothing: it has no {wanted}")
    fixup = found.get("fixupdict")
    return Monitor(
        name=name,
        start=start,
        end=end,
        pattern=results,
        fixup={} if fixup is None else _fixup(fixup),
        expected=expected(found),
        where=entry.where,
    )


def _fixup(node: Node) -> dict[str, str]:
    # A group that has matched nothing may be a result, too: the mark that a success shows is not there.
    return {key.word(empty=True): value.choice(CASES) for key, value in node.items(empty=True)}


@dataclass(frozen=True, slots=True)
class Began:
    """The start of a monitor was seen."""

    monitor: int


@dataclass(frozen=True, slots=True)
class Found:
    """A result of the monitor that has begun, as LAVA's groups say it; ``measurement`` is as it was printed."""

    name: str
    result: str
    measurement: str | None
    unit: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a monitor was seen."""

    monitor: int


class Watcher:
    """Looks for some monitors, one after the other; what stands behind the end of one is the next one's.

    The time it takes grows with the length of the output, and what it keeps is bounded.
    """

    def __init__(self, monitors: Sequence[Monitor]) -> None:
        self._monitors = monitors
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._at = 0
        self._begun = False
        self._text = ""
        self._taken = 0
        """Where in the text what nothing has been made of begins."""
        self._looked = self._scanned = 0
        """How far the text was looked through for the mark that is awaited, and for results."""

    @property
    def awaited(self) -> str | None:
        """What has to come next, for a message; None after the last monitor's end."""
        if self._at == len(self._monitors):
            return None
        monitor = self._monitors[self._at]
        mark, which = (monitor.end, "end") if self._begun else (monitor.start, "start")
        return f"the {which} of monitor {quoted(monitor.name)}, {quoted(mark)}"

    @property
    def rest(self) -> bytes:
        """What was heard behind the last end that was seen, as far as it is kept."""
        return self._text[self._taken :].encode("utf-8", "surrogateescape")

    def hear(self, data: bytes) -> Iterator[Began | Found | Ended]:
        """Take what the console said, and say what is seen in it."""
        self._text += self._decoder.decode(data)
        while self._at < len(self._monitors):
            monitor = self._monitors[self._at]
            mark = _compiled(monitor.end if self._begun else monitor.start)
            seen = mark.search(self._text, max(self._taken, self._looked - SPAN))
            if seen is None:
                break
            if self._begun:
                yield from self._results(seen.start())
                yield Ended(self._at)
                self._at += 1
            else:
                yield Began(self._at)
            self._begun = not self._begun
            self._taken = self._looked = self._scanned = seen.end()
        self._looked = len(self._text)
        if self._looked - self._scanned >= SCAN:
            yield from self.flush()
        self._let_go()

    def flush(self) -> Iterator[Began | Found | Ended]:
        """Look for results in all lines that are whole: the console has nothing more to say for a while."""
        end = self._text.rfind("\n") + 1
        if self._begun and end > self._scanned:
            yield from self._results(end)
            self._scanned = end

    def _results(self, end: int) -> Iterator[Found]:
        for match in _compiled(self._monitors[self._at].pattern).finditer(self._text, self._taken, end):
            if match.end() == match.start():
                continue  # what takes nothing would be found again and again
            self._taken = match.end()
            if (found := _found(match.groupdict())) is not None:
                yield found

    def _let_go(self) -> None:
        """Forget what nothing can be made of any more."""
        cut = len(self._text) - SPAN
        if self._begun and cut > 0:
            # Half a line could look like a result that was never printed.
            cut = self._text.find("\n", cut) + 1 or cut
        cut = max(cut, self._taken)
        self._text = self._text[cut:]
        self._taken = 0
        self._looked, self._scanned = self._looked - cut, max(0, self._scanned - cut)


def _found(groups: Mapping[str, str | None]) -> Found | None:
    """What LAVA makes of a match; None where it makes nothing of it."""
    name = _UNNAMED.sub("_", (groups.get("test_case_id") or "").strip().lower())
    result, measurement = groups.get("result"), groups.get("measurement")
    if not name or (result is None and not measurement):
        return None
    return Found(name, "pass" if result is None else result, measurement, groups.get("units") or "")


def _compiled(expression: str) -> re.Pattern[str]:
    return re.compile(expression, re.DOTALL)
