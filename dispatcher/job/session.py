"""The test shell of one member: what its console says while a test action runs, and what it is answered.

The console's bytes go through the framing; a request becomes a task, so that reading goes on while a call waits.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence

from dispatcher.console.connection import Console
from dispatcher.coordinator.client import GroupClient
from dispatcher.errors import CallRefused, ConsoleClosed, MultinodeError
from dispatcher.framing import lava
from dispatcher.framing.events import Damage, Event, InstallFailed, Request, RunnerExit, Signal
from dispatcher.group.events import Member
from dispatcher.job.calls import Answer, Call, Session
from dispatcher.job.results import MemberResults, printable

CALLS_AT_ONCE = 64
"""Calls of one device that may wait at the same time; a device that asks for more is refused."""

OUTPUT_LINE_LIMIT = 1000
"""Bytes of one line of a console's output that are shown; the transcript has all of them."""

Note = Callable[..., None]
"""Records an event of this member: its kind, then data by name."""


class TestSession:
    """Answers one member's calls and collects its results, from :meth:`hear` to :meth:`finish`.

    :param requests: numbers that no other request of this member in this run has.
    :param timeout: seconds that the job allows a call.
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
    ) -> None:
        self._console = console
        self._member = member
        self._members = members
        self._client = client
        self._calls = calls
        self._results = results
        self._note = note
        self._requests = requests
        self._timeout = timeout
        self._decoder = lava.Decoder()
        self._output = bytearray()
        self._sending = asyncio.Lock()
        self._waiting: set[asyncio.Task[None]] = set()
        self._sends: set[asyncio.Task[None]] = set()

    def hear(self, data: bytes) -> None:
        """Take what the console said. Never waits."""
        self._show(data)
        for event in self._decoder.feed(data):
            self._act(event)

    async def finish(self, expected: Sequence[str]) -> None:
        """The runner has ended: settle what is open.

        :param expected: the suites that this test action should have run.
        """
        for event in self._decoder.finish():
            self._act(event)
        if self._sends:
            await asyncio.wait(self._sends)
        for task in self._waiting:
            task.cancel()
        self._results.abandon_run("a step failed")
        self._results.expect_runs(expected, "it was not run")

    def cancel(self) -> None:
        """Drop every call that is open; for a console that is gone."""
        for task in (*self._waiting, *self._sends):
            task.cancel()

    # --- output --------------------------------------------------------------------------------------------

    def _show(self, data: bytes) -> None:
        self._output += data
        *lines, rest = self._output.split(b"\n")
        self._output = rest[:OUTPUT_LINE_LIMIT]
        for line in lines:
            if text := line[:OUTPUT_LINE_LIMIT].strip(b"\r"):
                self._note("output", text=printable(lava.text(bytes(text))))

    # --- events --------------------------------------------------------------------------------------------

    def _act(self, event: Event) -> None:
        match event:
            case Request():
                self._request(event)
            case Signal():
                self._signal(event)
            case InstallFailed():
                self._note("install-failed")
            case RunnerExit():
                self._note("runner-exit")
            case Damage():
                self._note("damage", reason=event.reason, text=printable(event.text), offset=event.offset)

    def _signal(self, signal: Signal) -> None:
        self._note("signal", name=signal.name, params=printable(signal.params))
        first, _blank, rest = signal.params.partition(" ")
        match signal.name:
            case "STARTRUN" if first and rest:
                self._results.start_run(first)
            case "ENDRUN" if first and rest:
                self._results.end_run(first)
            case "STARTTC" if first:
                self._results.start_case(first)
            case "TESTCASE":
                if trouble := self._results.test_case(signal.params):
                    self._note("damage", reason=f"a TESTCASE signal was not taken: {trouble}", text="", offset=0)
            case _:
                pass

    def _request(self, request: Request) -> None:
        number = next(self._requests)
        self._note("call", name=request.name, args=[printable(arg) for arg in request.args], request=number)
        answering = self._answer(request, f"{self._member.id}.{number}", number, self._results.suite)
        task = asyncio.get_running_loop().create_task(answering)
        call = self._calls.get(request.name)
        mine = self._waiting if call is None or call.answers else self._sends
        mine.add(task)
        task.add_done_callback(mine.discard)

    async def _answer(self, request: Request, request_id: str, number: int, suite: str) -> None:
        """Do what a request asks, record how it went, and type the reply."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        call = self._calls.get(request.name)
        answer: Answer = None
        failure: str | None = None
        reply = b""
        try:
            answer = await self._ask(call, request, request_id)
            reply = self._encode(request.name, answer)
        except MultinodeError as error:
            failure = str(error)
            reply = lava.encode_nack(request.name)
        waited = loop.time() - began
        self._record(request, number, suite, answer, failure, waited)
        if call is None or call.answers:
            try:
                await self._console.send(reply)
            except ConsoleClosed:
                return  # whoever runs the test hears of it from the console itself

    async def _ask(self, call: Call | None, request: Request, request_id: str) -> Answer:
        if call is None:
            known = ", ".join(sorted(self._calls))
            raise CallRefused(f"there is no call {request.name}; there are {known}")
        if len(self._waiting) > CALLS_AT_ONCE:
            raise CallRefused(f"a device may wait in {CALLS_AT_ONCE} calls at once")
        session = Session(self._member, self._members, self._client, request_id, self._timeout)
        if call.answers:
            return await call.answer(request.args, session)
        async with self._sending:  # in the order that the device sent them
            return await call.answer(request.args, session)

    @staticmethod
    def _encode(name: str, answer: Answer) -> bytes:
        if isinstance(answer, Mapping):
            return lava.encode_reply(name, answer)
        return lava.encode_words(name, answer or ())

    def _record(
        self, request: Request, number: int, suite: str, answer: Answer, failure: str | None, waited: float
    ) -> None:
        call = self._calls.get(request.name)
        case = call.case(request.name, request.args) if call else None
        if case is not None:
            result = "fail" if failure else "pass"
            self._results.add(suite, printable(case), result, duration=waited, reason=failure)
        data = None
        if isinstance(answer, Mapping):
            data = {m: {k: printable(v) for k, v in pairs.items()} for m, pairs in answer.items()}
        self._note(
            "failed" if failure else "answered",
            name=request.name,
            args=[printable(arg) for arg in request.args],
            request=number,
            waited=round(waited, 6),
            **({"reason": failure} if failure else {"data": data}),
        )
