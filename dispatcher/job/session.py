"""The test shell of one member: what its console says while a test action runs, and what it is answered.

The console's bytes go through the framing; a request becomes a task, so that reading goes on while a call waits.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dispatcher.console.connection import Console
from dispatcher.console.typist import Typist
from dispatcher.coordinator.client import GroupClient
from dispatcher.errors import CallRefused, JobEnded, MultinodeError
from dispatcher.framing import lava
from dispatcher.framing.conversation import Answer, Conversation, Done
from dispatcher.framing.events import Abandoned, Damage, Event, InstallFailed, Request, RunnerExit, Signal
from dispatcher.framing.reliable import UNSEEDED, Seed
from dispatcher.group.events import Member
from dispatcher.job import reboots
from dispatcher.job.calls import Call, Session
from dispatcher.job.reboots import Announced, Reboots
from dispatcher.job.results import MemberResults, printable

CALLS_AT_ONCE = 64
"""Calls of one device that may wait at the same time; a device that asks for more is refused."""

KEPT_LIMIT = 100_000
"""Calls and results of one test action that are kept; each takes about 1 KB. What a device makes beyond is refused."""

OUTPUT_LINE_LIMIT = 1000
"""Characters of one line of a console's output that are shown; the transcript has all of them."""

DAMAGE_LIMIT = 1000
"""Damaged markers of one test action that are told one by one; a line that is worse than that is told by a number."""

ABANDONED = "the process that made it has been ended on its device"
"""Why a call failed that its device waits for no more."""

_UNHEARD_LIMIT = 4096
"""Bytes that may wait for the end of a line or a marker before they are looked at."""

_PLAIN: Final = bytes(range(0x20, 0x7F)) + b"\n"
"""What stands in plain text, but for the carriage return before a line feed."""

Note = Callable[..., None]
"""Records an event of this member: its kind, then data by name."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A call that was made: its number in the run, the suite that it was made in, and when, by the loop's clock."""

    request: Request
    number: int
    suite: str
    began: float


class TestSession:
    """Answers one member's calls and collects its results, from :meth:`hear` to :meth:`finish`.

    :param requests: numbers that no other request of this member in this run has.
    :param timeout: seconds that the job allows a call.
    :param planned: the device's reboots; None where nobody is to notice them.
    :param seed: what the sums of the device's frames begin with.
    :param done: what was done in the device's earlier tests.
    """

    __test__ = False  # not a test class for pytest, in spite of its name

    def __init__(
        self,
        console: Console,
        member: Member,
        members: Sequence[Member],
        client: GroupClient,
        *,
        calls: Mapping[str, Call],
        results: MemberResults,
        note: Note,
        requests: itertools.count[int],
        timeout: float | None,
        planned: Reboots | None = None,
        seed: Seed = UNSEEDED,
        done: Done | None = None,
    ) -> None:
        self._console = console
        self._planned = planned
        self._member = member
        self._members = members
        self._client = client
        self._calls = calls
        self._results = results
        self._note = note
        self._requests = requests
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._conversation = Conversation(DAMAGE_LIMIT, seed=seed, done=done)
        self._unheard = bytearray()
        self._output = b""
        self._last_words = ""
        self._ordering = asyncio.Lock()
        self._waiting: dict[asyncio.Task[None], _Asked] = {}
        self._withdrawn: list[_Asked] = []
        self._in_order: set[asyncio.Task[None]] = set()
        self._typist = Typist(console)
        self._timer: asyncio.TimerHandle | None = None
        self._late: asyncio.TimerHandle | None = None
        self._kept = self._damaged = 0
        self._over: str | None = None
        self._device = console.name
        self._raised: asyncio.Future[str] = self._loop.create_future()
        self._rebooted: asyncio.Future[None] = self._loop.create_future()
        self._after = bytearray()

    async def follow(self, test: Coroutine[Any, Any, object]) -> Announced | None:
        """Wait for the end of a test that this session hears; the reboot that it has ended in, None for none.

        :raises JobEnded: a ``lava-test-raise`` has ended it.
        """
        running = asyncio.ensure_future(test)
        try:
            await asyncio.wait((running, self._raised, self._rebooted), return_when=asyncio.FIRST_COMPLETED)
            if self._raised.done():
                raise JobEnded(f"lava-test-raise: {printable(self._raised.result())}", where=self._device)
            if running.done():
                await running
                if self._announced is not None:
                    await self._go_down()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        self._console.give_back(bytes(self._after))
        return self._announced

    async def _go_down(self) -> None:
        """The reboot has ended the test before the system was down: hear the rest of it."""
        self._console.listen(self.hear)
        ending = asyncio.ensure_future(self._console.ended())
        try:
            await asyncio.wait((self._rebooted, ending), return_when=asyncio.FIRST_COMPLETED)
        finally:
            ending.cancel()
            self._console.listen(None)
        if not self._rebooted.done():
            raise self._console.failure()

    def hear(self, data: bytes) -> None:
        """Take what the console said. Never waits."""
        if self._rebooted.done():
            self._after += data
            return
        if self._planned is not None:
            self._planned.watch.hear(data)
        # A UART gives a few bytes at a time, and most of them end nothing.
        if b"\n" not in data and b">" not in data and len(self._unheard) < _UNHEARD_LIMIT:
            self._unheard += data
            return
        if self._unheard:
            data = bytes(self._unheard) + data
            self._unheard.clear()
        self._hear(data)

    def _hear(self, data: bytes) -> None:
        self._show(data)
        heard, repeats = self._conversation.heard, self._conversation.repeats
        events = self._conversation.hear(data, self._loop.time())
        if not events and self._conversation.heard == heard:
            return  # most of what a test prints
        for event in events:
            self._act(event)
        repeated = self._conversation.repeats - repeats
        for _ in range(repeated):
            self._typist.pace.judge(arrived=False)
        for _ in range(self._conversation.heard - heard - repeated):
            self._typist.pace.judge(arrived=True)
        self._type_soon()

    async def finish(self, expected: Sequence[str]) -> None:
        """The runner has ended: settle what is open.

        :param expected: the suites that this test action should have run.
        """
        self._hear(bytes(self._unheard))
        self._unheard.clear()
        for event in self._conversation.finish(self._loop.time()):
            self._act(event)
        damaged = self._damaged + self._conversation.untold
        if damaged > DAMAGE_LIMIT:
            self._note("damage", reason=f"{damaged} in all, and so were others", text="", offset=0)
        if self._in_order:
            await asyncio.wait(self._in_order)
        for task in self._waiting:
            task.cancel()
        said = self._said()
        self._results.abandon_run(f"a step failed{said}")
        self._results.expect_runs(expected, f"it was not run{said}")

    def _said(self) -> str:
        return f"; its last words: {self._last_words}" if self._last_words else ""

    def dismiss(self, reason: str) -> None:
        """Take nothing more from a test that is to end, but fail the calls that it waits in and those that it makes.

        A call that waits has turned the tty's signals off: it must end before ^C can end the test.
        """
        self._over = reason
        for task in (*self._waiting, *self._in_order):
            task.cancel()

    def cancel(self) -> None:
        """Drop every call that is open, and type nothing more."""
        for task in (*self._waiting, *self._in_order):
            task.cancel()
        if self._planned is not None:
            self._planned.watch.cancel()
        self._typist.cancel()
        for timer in (self._timer, self._late):
            if timer is not None:
                timer.cancel()

    # --- typing --------------------------------------------------------------------------------------------

    def _type_soon(self) -> None:
        """Type what the conversation has to say, and come back when it has more."""
        self._typist.say(self._conversation.typed)
        self._conversation.typed.clear()
        due = self._conversation.due()
        if self._timer is not None:
            self._timer.cancel()
        # To a device that goes down nothing is typed unasked: a boot loader stops at any character.
        self._timer = None if due is None or self._announced else self._loop.call_at(due, self._tick)

    def _tick(self) -> None:
        self._conversation.tick(self._loop.time())
        self._type_soon()

    # --- output --------------------------------------------------------------------------------------------

    def _show(self, data: bytes) -> None:
        whole, newline, rest = data.rpartition(b"\n")
        if newline:
            whole, self._output = self._output + whole, b""
            if lines := shown(whole):
                self._note("output", lines=lines)
                self._last_words = next((line for line in reversed(lines) if not is_ours(line)), self._last_words)
                if self._results.reads_output and self._announced is None:
                    self._results_of(lines)
        self._output += rest[: OUTPUT_LINE_LIMIT - len(self._output)]

    def _results_of(self, lines: Iterable[str]) -> None:
        for line in lines:
            if not is_ours(line) and self._results.is_result(line) and self._keep():
                self._complain("result in the output", self._results.output(line))

    def _complain(self, what: str, trouble: str | None) -> None:
        if trouble:
            self._note("untaken", reason=f"a {what} was not taken: {trouble}")

    # --- events --------------------------------------------------------------------------------------------

    def _act(self, event: Event | Abandoned) -> None:
        if self._over is not None:
            if isinstance(event, Request):
                self._conversation.fail(event, self._over, self._loop.time())
            return
        match event:
            case Request(name=reboots.CALL, id=str()):
                self._reboot(event)
            case Request():
                self._request(event)
            case Abandoned():
                self._abandon(event.id)
            case Signal():
                self._signal(event)
            case InstallFailed() if self._announced is not None:
                pass
            case InstallFailed():
                self._note("install-failed")
                self._results.fail_install(f"it could not be installed{self._said()}")
            case RunnerExit():
                self._note("runner-exit")
            case Damage():
                self._damaged += 1
                if self._damaged <= DAMAGE_LIMIT:
                    self._note("damage", reason=event.reason, text=printable(event.text), offset=event.offset)

    def _signal(self, signal: Signal) -> None:
        self._note("signal", name=signal.name, params=printable(signal.params))
        first, _blank, rest = signal.params.partition(" ")
        match signal.name:
            case "STARTRUN" | "ENDRUN" if self._announced is not None:
                pass  # the reboot has ended a definition, and its runner with it
            case "STARTRUN" if first and rest:
                self._results.start_run(first)
            case "ENDRUN" if first and rest:
                self._results.end_run(first)
            case "STARTTC" if first:
                self._results.start_case(first)
            case "TESTCASE" if self._keep():
                self._complain("TESTCASE signal", self._results.test_case(signal.params))
            case "TESTREFERENCE" if self._keep():
                self._complain("TESTREFERENCE signal", self._results.test_reference(signal.params))
            case "TESTSET":
                self._results.test_set(signal.params)
            case "TESTRAISE":
                if not self._raised.done():
                    self._raised.set_result(signal.params)
            case _:
                pass

    def _keep(self) -> bool:
        """Count a call or a result. Whether it may be kept."""
        self._kept += 1
        if self._kept == KEPT_LIMIT + 1:
            reason = f"this device has made {KEPT_LIMIT} calls and results, and no more are taken"
            self._note("damage", reason=reason, text="", offset=0)
        return self._kept <= KEPT_LIMIT

    def _request(self, request: Request) -> None:
        if not self._keep():
            reason = f"a device may make {KEPT_LIMIT} calls in a test action"
            self._conversation.fail(request, reason, self._loop.time())
            return
        number = next(self._requests)
        if not request.again:
            self._note("call", name=request.name, args=[printable(arg) for arg in request.args], request=number)
        self._begin(_Asked(request, number, self._results.suite, self._loop.time()))

    def _begin(self, asked: _Asked) -> None:
        task = self._loop.create_task(self._answer(asked))
        call = self._calls.get(asked.request.name)
        if call is not None and not call.waits:
            self._in_order.add(task)
            task.add_done_callback(self._in_order.discard)
        else:
            self._waiting[task] = asked
            task.add_done_callback(lambda done: self._waiting.pop(done, None))

    def _abandon(self, request: str) -> None:
        """Wait no more in a call for which nobody waits. What is not waited for is done all the same."""
        self._withdrawn = [asked for asked in self._withdrawn if asked.request.id != request]
        for task, asked in list(self._waiting.items()):
            if asked.request.id == request and task.cancel():
                del self._waiting[task]
                if self._announced is None:  # else the system that goes down has ended it
                    self._record(asked, None, ABANDONED)

    # --- reboots -------------------------------------------------------------------------------------------

    @property
    def _announced(self) -> Announced | None:
        return None if self._planned is None else self._planned.announced

    def _reboot(self, request: Request) -> None:
        """``REBOOT RUN STEP [BOOT]``: one comes now. ``REBOOT``: it does not, its command has failed."""
        now = self._loop.time()
        try:
            if self._planned is None:
                raise CallRefused("there is no test that a reboot could be a part of")
            if request.args:
                self._expect_reboot(self._planned, self._planned.announce(request.args, self._results.suite, now))
            elif self._planned.announced is not None:
                self._stay(self._planned, self._planned.announced, now)
        except CallRefused as error:
            self._conversation.fail(request, error.what, now)
            return
        self._conversation.succeed(request, None, now)

    def _expect_reboot(self, planned: Reboots, announced: Announced) -> None:
        self._note("rebooting", suite=announced.suite, step=announced.step, limit=round(announced.limit, 1))
        planned.watch.expect(self._believe)
        self._late = self._loop.call_at(announced.deadline, self._believe, b"")
        # Nobody will be there for their answers.
        self._withdrawn = list(self._waiting.values())
        for task in self._waiting:
            task.cancel()
        self._waiting.clear()

    def _believe(self, said: bytes) -> None:
        """The device is down, and another system has said this; or it is too late."""
        if not self._rebooted.done():
            self._after += said
            self._rebooted.set_result(None)

    def _stay(self, planned: Reboots, announced: Announced, now: float) -> None:
        reason = f"the command of step {announced.step} that was to reboot the device has failed"
        self._note("not-rebooting", reason=reason)
        self._results.add(announced.suite, reboots.CASE, "fail", duration=now - announced.began, reason=reason)
        planned.settle(done=False)
        if self._late is not None:
            self._late.cancel()
        withdrawn, self._withdrawn = self._withdrawn, []
        for asked in withdrawn:
            self._begin(asked)

    async def _answer(self, asked: _Asked) -> None:
        """Do what a request asks, answer it, and record how it went."""
        request = asked.request
        call = self._calls.get(request.name)
        answer: Answer = None
        failure: str | None = None
        try:
            answer = await self._ask(call, request, asked.number)
            self._conversation.succeed(request, answer, self._loop.time())
        except MultinodeError as error:
            failure = str(error)
        except asyncio.CancelledError:
            if self._over is not None:
                self._conversation.fail(request, self._over, self._loop.time())
                self._type_soon()
            raise
        except Exception as error:  # a plugin's mistake must not leave its device waiting
            failure = f"{type(call).__module__}.{type(call).__qualname__}: {type(error).__name__}: {error}"
        if failure is not None:
            self._conversation.fail(request, failure, self._loop.time())
        self._type_soon()
        self._record(asked, answer, failure)

    async def _ask(self, call: Call | None, request: Request, number: int) -> Answer:
        if call is None:
            known = ", ".join(sorted(self._calls))
            raise CallRefused(f"there is no call {request.name}; there are {known}")
        if len(self._waiting) > CALLS_AT_ONCE:
            raise CallRefused(f"a device may wait in {CALLS_AT_ONCE} calls at once")
        session = Session(
            self._member,
            self._members,
            self._client,
            request=f"{self._member.id}.{request.id or number}",
            timeout=self._timeout,
            own_timeout=_seconds(request.options.get("t")),
            background="b" in request.options,
        )
        if call.waits:
            return await call.answer(request.args, session)
        async with self._ordering:  # in the order that the device made them
            return await call.answer(request.args, session)

    def _record(self, asked: _Asked, answer: Answer, failure: str | None) -> None:
        request = asked.request
        if request.again:
            return
        waited = self._loop.time() - asked.began
        call = self._calls.get(request.name)
        case = call.case(request.name, request.args) if call else None
        if case is not None:
            result = "fail" if failure else "pass"
            self._results.add(asked.suite, printable(case), result, duration=waited, reason=failure)
        data = None
        if isinstance(answer, Mapping):
            data = {m: {k: printable(v) for k, v in pairs.items()} for m, pairs in answer.items()}
        self._note(
            "failed" if failure else "answered",
            name=request.name,
            args=[printable(arg) for arg in request.args],
            request=asked.number,
            waited=round(waited, 6),
            **({"reason": failure} if failure else {"data": data}),
        )


def is_ours(line: str) -> bool:
    """Whether a line of output is a marker, a frame, or the trace of a test's steps, and not what a test says."""
    return "<LAVA_" in line or "<MN2 " in line or line.startswith("+ ")


def shown(text: bytes) -> list[str]:
    """The lines of some output that are not blank, as they are shown. ``text`` ends before a line feed."""
    text = text.rstrip(b"\r")
    lines = [
        line
        for each in lava.text(text).split("\n")
        if (line := each[:OUTPUT_LINE_LIMIT].strip("\r")) and not line.isspace()
    ]
    # Nearly all that is printed is plain: to see that of all of it takes a fraction of seeing it line by line.
    is_plain = text.translate(None, _PLAIN) == b"\r" * text.count(b"\r\n")
    return lines if is_plain else [printable(line) for line in lines]


def _seconds(option: str | None) -> float | None:
    """A call's own time limit. :raises CallRefused: it is no number of seconds."""
    if option is None:
        return None
    try:
        return float(option)
    except ValueError:
        raise CallRefused(f"{option!r} is no number of seconds") from None
