"""Shows a run to a person: a line for each thing that happens, then a table of what came of it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

from dispatcher.group.events import Member
from dispatcher.job.record import RunEvent
from dispatcher.job.results import JOB_SUITE
from dispatcher.job.runner import Outcome
from dispatcher.job.session import is_ours

_COLOURS = (36, 33, 35, 32, 34)
_RED, _GREEN, _DIM, _BOLD = 31, 32, 2, 1
_DATA_SHOWN = 100


class Live:
    """Prints events as they come. Colours only where the stream is a terminal and NO_COLOR is not set.

    :param verbose: print what the tests say, too, but for markers and the shell's own trace.
    """

    def __init__(self, stream: TextIO, members: Sequence[Member], *, verbose: bool) -> None:
        self._stream = stream
        self._verbose = verbose
        self._paint = _painter(stream)
        roles = list(dict.fromkeys(member.role for member in members))
        self._colour = {role: _COLOURS[index % len(_COLOURS)] for index, role in enumerate(roles)}
        self._width = max((len(f"{member.id} {member.role}") for member in members), default=0)

    def show(self, event: RunEvent) -> None:
        """Print one event, if it is one that a person wants to see."""
        describe = getattr(self, "_" + event.kind.replace("-", "_"), None)
        text = describe(event.data) if describe else None
        if text is None:
            return
        who = f"{event.member.id} {event.member.role}" if event.member else ""
        colour = self._colour.get(event.member.role, 0) if event.member else 0
        begin = f"{event.elapsed:8.2f}s  {self._paint(who.ljust(self._width), colour)}  "
        print("\n".join(begin + line for line in text.split("\n")), file=self._stream, flush=True)

    # Each method below is named after a kind of event and gives its text, or None for nothing to show.

    def _started(self, data: dict[str, Any]) -> str:
        return self._paint(f"{data['job_name']}: {len(data['members'])} members meet in {data['group']}", _BOLD)

    def _opening(self, _data: dict[str, Any]) -> str:
        return self._paint("opening the console", _DIM)

    def _power(self, data: dict[str, Any]) -> str:
        return self._paint(f"power: {data['what']}", _DIM)

    def _shell(self, _data: dict[str, Any]) -> str:
        return self._paint("a shell answers on the console", _DIM)

    def _login_command(self, data: dict[str, Any]) -> str:
        return self._paint(login_command_failed(data), _RED)

    def _installing(self, data: dict[str, Any]) -> str:
        size = f"{data['bytes'] / 1000:.0f} kB"
        return self._paint(f"installing {data['files']} files: {size} to type, about {data['seconds']} s", _DIM)

    def _shipped(self, _data: dict[str, Any]) -> str:
        return self._paint("the device has brought our scripts: none are sent", _DIM)

    def _loglevel(self, data: dict[str, Any]) -> str:
        return self._paint(data["reason"], _RED)

    def _testing(self, data: dict[str, Any]) -> str:
        return self._paint(f"testing: {', '.join(data['suites'])}", _DIM)

    def _typing(self, data: dict[str, Any]) -> str:
        return self._paint(f"typing: {data['text'][:_DATA_SHOWN]}", _DIM)

    def _stopping(self, _data: dict[str, Any]) -> str:
        return self._paint("stopping the test on the device", _DIM)

    def _unstopped(self, data: dict[str, Any]) -> str:
        return self._paint(f"{data['reason']}; it may still run on the device", _RED)

    def _lost(self, data: dict[str, Any]) -> str:
        return self._paint(f"the console was lost: {data['reason']}", _RED)

    def _back(self, data: dict[str, Any]) -> str:
        return f"the console is open again after {data['gap']:g} s"

    def _rebooting(self, data: dict[str, Any]) -> str:
        return f"rebooting, as step {data['step']} of {data['suite']} says; it may take {data['limit']:g} s"

    def _rebooted(self, data: dict[str, Any]) -> str:
        return f"back after {data['after']:g} s; the test goes on"

    def _not_rebooting(self, data: dict[str, Any]) -> str:
        return self._paint(data["reason"], _RED)

    def _call(self, data: dict[str, Any]) -> str | None:
        return None if data["name"] == "SEND" else self._paint(f"{_command(data)} ...", _DIM)

    def _answered(self, data: dict[str, Any]) -> str:
        if data["name"] == "SEND":
            return f"{_command(data)}"
        got = _pairs(data.get("data"))
        return f"{_command(data)}: waited {data['waited']:.2f} s{', got ' + got if got else ''}"

    def _failed(self, data: dict[str, Any]) -> str:
        return self._paint(f"{_command(data)}: failed after {data['waited']:.2f} s: {data['reason']}", _RED)

    def _case(self, data: dict[str, Any]) -> str | None:
        if data["suite"] == JOB_SUITE or data["name"].startswith("multinode-"):
            return None
        measured = (
            f" ({data['measurement']:g} {data['unit']})".replace(" )", ")") if data["measurement"] is not None else ""
        )
        colour = {"pass": _GREEN, "fail": _RED}.get(data["result"], 0)
        return f"{data['suite']} {data['name']}: {self._paint(data['result'], colour)}{measured}"

    def _output(self, data: dict[str, Any]) -> str | None:
        if not self._verbose:
            return None
        shown = [f"| {line}" for line in data["lines"] if not is_ours(line)]
        return "\n".join(shown) or None

    def _damage(self, data: dict[str, Any]) -> str:
        return self._paint(f"a damaged marker was not believed, {data['reason']}: {data['text']}", _RED)

    def _untaken(self, data: dict[str, Any]) -> str:
        return self._paint(data["reason"], _RED)

    def _install_failed(self, _data: dict[str, Any]) -> str:
        return self._paint("the install steps of a definition failed", _RED)

    def _error(self, data: dict[str, Any]) -> str:
        return self._paint(data["reason"].replace("\n", ";"), _RED)

    def _stuck(self, data: dict[str, Any]) -> str:
        return self._paint(f"stuck: {data['text']}", _RED)

    def _freed(self, data: dict[str, Any]) -> str:
        return str(data["text"])

    def _coordinator(self, data: dict[str, Any]) -> str:
        return self._paint(data["text"], _RED)

    def _left(self, data: dict[str, Any]) -> str:
        return self._paint(data["text"], _DIM)


Painter = Callable[[str, int], str]


def _painter(stream: TextIO) -> Painter:
    coloured = stream.isatty() and not os.environ.get("NO_COLOR")

    def paint(text: str, colour: int) -> str:
        return f"\033[{colour}m{text}\033[0m" if coloured and colour else text

    return paint


def _command(data: dict[str, Any]) -> str:
    words = " ".join(["lava-" + data["name"].lower().replace("_", "-"), *data["args"]])
    return words if len(words) <= _DATA_SHOWN else words[:_DATA_SHOWN] + "..."


def _pairs(data: dict[str, dict[str, str]] | None) -> str:
    text = " ".join(f"{member}:{key}={value}" for member, pairs in (data or {}).items() for key, value in pairs.items())
    return text if len(text) <= _DATA_SHOWN else text[:_DATA_SHOWN] + "..."


def summary(outcome: Outcome, devices: Sequence[str], output: Path | None, stream: TextIO) -> str:
    """A table of the members, then every case that did not pass, then where the rest is."""
    paint = _painter(stream)
    rows: list[tuple[str, ...]] = [("job", "role", "device", "cases", "pass", "fail", "other")]
    for member, device in zip(outcome.members, devices, strict=True):
        results = Counter(case.result for case in outcome.cases if case.job == member.id)
        other = results.total() - results["pass"] - results["fail"]
        counts = (results.total(), results["pass"], results["fail"], other)
        rows.append((member.id, member.role, device, *(str(count) for count in counts)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "",
        *("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows),
    ]
    lines += [
        paint(f"{case.result}: {case.job} {case.metadata['role']}: {case.suite} {case.name}", _RED)
        + (f": {case.metadata['reason'].splitlines()[0]}" if case.metadata.get("reason") else "")
        for case in outcome.cases
        if case.result not in {"pass", "skip"}
    ]
    verdict = {0: paint("all passed", _GREEN), 1: paint("something failed", _RED)}
    where = f"results and console logs in {output}" if output else "--output DIR keeps the results and console logs"
    lines += ["", f"{verdict.get(outcome.status, paint('a console failed', _RED))}; {where}"]
    return "\n".join(lines)


def login_command_failed(data: dict[str, Any]) -> str:
    """What a login command's failure means. Its arguments are not shown: a password may be among them."""
    ended = f"login command {data['number']} ({data['word']}) ended with status {data['status']}"
    return f"{ended}; the shell that answers may be that of another user"
