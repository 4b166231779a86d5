"""Runs the scripts of an interactive test action: types, waits for answers, and makes calls for the device."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Sequence

from dispatcher.console.connection import Console
from dispatcher.console.shell import Shell
from dispatcher.errors import CallRefused, ConsoleError, ConsoleTimeout, JobEnded, MultinodeError
from dispatcher.job.definition import Test
from dispatcher.job.interactive import Command, Delay, Failure, GroupCall, Script, filled
from dispatcher.job.requests import Requester, request_of
from dispatcher.job.results import MemberResults, printable
from dispatcher.job.session import Note
from dispatcher.wording import quoted

_LINE_END = re.compile(rb"\n")


async def leave_shell(shell: Shell, prompts: Sequence[str], patience: float) -> None:
    """Have the shell that a device had before ours read its console again, and show one of its prompts.

    :param patience: seconds that it has for that; then it is taken to show none of these.
    """
    await shell.leave()
    shown = [re.compile(prompt.encode(), re.DOTALL) for prompt in prompts]
    if shown:
        with contextlib.suppress(ConsoleTimeout):
            await shell.console.expect(shown, asyncio.get_running_loop().time() + patience, plain=True)


class Dialogue:
    """One interactive test action of one member.

    :param values: ``KEY`` → what is known; what calls and answers bring is added, for later actions too.
    :ivar at_prompt: whether a prompt is the last thing that was waited for.
    """

    def __init__(
        self,
        console: Console,
        requester: Requester,
        values: dict[str, str],
        *,
        results: MemberResults,
        note: Note,
    ) -> None:
        self.at_prompt = False
        self._console = console
        self._requester = requester
        self._values = values
        self._results = results
        self._note = note
        self._typed = False
        self._awaited = ""

    async def run(self, test: Test, stage: int, *, call_timeout: float | None, deadline: float) -> None:
        """Run its scripts.

        :param stage: how many test actions the member has had before; it numbers the suites, as in LAVA.
        :param call_timeout: seconds that the job allows a call.
        :param deadline: on the event loop's clock.
        :raises JobEnded: it took too long, a command without a name failed, or a failure is said to be the job's.
        :raises MultinodeError: a call failed, the console ended, or a failure is said to be the lab's.
        """
        suites = [f"{stage}_{script.name}" for script in test.scripts]
        self._note("testing", suites=suites)
        failure: MultinodeError
        try:
            async with asyncio.timeout_at(deadline):
                for suite, script in zip(suites, test.scripts, strict=True):
                    self._results.start_run(suite)
                    await self._script(script, call_timeout, deadline)
                    self._results.end_run(suite)
            return
        except (TimeoutError, ConsoleTimeout):
            waited = f"; it waited for {self._awaited}" if self._awaited else ""
            said = self._console.last_line()
            hint = f"the console said last: {said!r}" if said else None
            failure = JobEnded(f"the test action timed out{waited}", where=self._console.name, hint=hint)
        except MultinodeError as error:
            failure = error
        self._results.never_ended(suites, failure.what)
        raise failure

    async def _script(self, script: Script, call_timeout: float | None, deadline: float) -> None:
        for entry in script.entries:
            self._awaited = ""
            match entry:
                case Delay():
                    await asyncio.sleep(entry.seconds)
                case GroupCall():
                    await self._call(entry, call_timeout)
                case Command():
                    await self._command(script, entry, deadline)

    async def _call(self, call: GroupCall, timeout: float | None) -> None:
        words = [filled(word, self._values) for word in call.words]
        try:
            request = request_of(call.call, words, call.where)
        except CallRefused as error:
            raise CallRefused(f"{call.call}: {error.what}", where=call.where) from None
        data = await self._requester.call(request, timeout)
        # Of a key that several members have sent, the first one's holds: later ones must not replace it.
        self._values.update({key: value for pairs in reversed(list(data.values())) for key, value in pairs.items()})

    async def _command(self, script: Script, command: Command, deadline: float) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        reason: str | None = "it was not answered"
        try:
            reason = await self._exchange(script, command, deadline)
        except MultinodeError as error:
            reason = error.what
            raise
        finally:
            if command.name is not None:
                result = "fail" if reason else "pass"
                took = loop.time() - began
                self._results.add(self._results.suite, command.name, result, duration=took, reason=reason)
        if reason and command.name is None:
            raise JobEnded(f"the command {quoted(command.text or '')} failed: {reason}", where=self._console.name)

    async def _exchange(self, script: Script, command: Command, deadline: float) -> str | None:
        """Type a command and wait for what comes of it. Why it failed, or None."""
        if command.text is not None:
            await self._type(filled(command.text, self._values))
            if script.discard_echo:
                self._awaited = "the echo of the command"
                await self._console.expect([_LINE_END], deadline)
        prompts, failures = script.prompts, command.failures
        messages = [*prompts, *(failure.message for failure in failures), *command.successes]
        index, match = await self._expect(messages, deadline)
        self.at_prompt = index < len(prompts)
        if self.at_prompt:
            return "a prompt came, and nothing that means success" if command.successes else None
        reason: str | None = None
        if index < len(prompts) + len(failures):
            reason = self._failed(failures[index - len(prompts)], match)
        else:
            groups = {key: value for key, value in match.groupdict().items() if value is not None}
            self._values.update((key, value.decode("utf-8", "surrogateescape")) for key, value in groups.items())
        if command.wait_for_prompt:
            await self._expect(prompts, deadline)
            self.at_prompt = True
        return reason

    async def _type(self, text: str) -> None:
        if not self._typed:
            self._typed = True
            self._console.forget()  # what was printed before is no answer
        self._note("typing", text=printable(text))
        await self._console.send(text.encode("utf-8", "surrogateescape") + b"\n")

    async def _expect(self, messages: Sequence[str], deadline: float) -> tuple[int, re.Match[bytes]]:
        self._awaited = ", ".join(map(quoted, messages))
        patterns = [re.compile(message.encode(), re.DOTALL) for message in messages]
        return await self._console.expect(patterns, deadline, plain=True)

    def _failed(self, failure: Failure, match: re.Match[bytes]) -> str:
        said = f"it answered {quoted(match[0].decode('utf-8', 'replace'))}"
        if failure.exception is None:
            return said
        error = ConsoleError if failure.exception == "InfrastructureError" else JobEnded
        raise error(failure.error or said, where=self._console.name)
