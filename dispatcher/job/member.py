"""One member of a run: its console from opening to closing, and what happens there in between."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import astuple, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dispatcher.console import login as console_login
from dispatcher.console import power
from dispatcher.console import shell as console_shell
from dispatcher.console.connection import Console
from dispatcher.console.door import Door
from dispatcher.console.install import Entry
from dispatcher.console.reboot import RebootWatch
from dispatcher.console.shell import Shell
from dispatcher.console.transcript import Transcript
from dispatcher.coordinator.client import GroupClient
from dispatcher.errors import ConsoleError, ConsoleTimeout, JobEnded, MultinodeError
from dispatcher.framing.conversation import Done
from dispatcher.group.events import Member
from dispatcher.job import overlay, reboots
from dispatcher.job.calls import Call
from dispatcher.job.commands import POWER, POWER_UP, Commands, course
from dispatcher.job.definition import AutoLogin, Boot, Deploy, HostCommand, Job, Test
from dispatcher.job.devices import Device
from dispatcher.job.dialogue import Dialogue, leave_shell
from dispatcher.job.hosts import Hosts
from dispatcher.job.kit import Kit
from dispatcher.job.overlay import Overlay
from dispatcher.job.reboots import Announced, Reboots
from dispatcher.job.record import Record
from dispatcher.job.requests import Requester
from dispatcher.job.results import JOB_SUITE, Case, MemberResults
from dispatcher.job.seat import Kept, Seat
from dispatcher.job.session import TestSession
from dispatcher.job.transports import new_transport
from dispatcher.job.watch import watch
from dispatcher.job.whole import whole

DEFAULT_BOOT_TIMEOUT = 300.0
"""Seconds for getting to a shell where the job sets neither a boot nor an action timeout."""

STOP_TIMEOUT = 10.0
"""Seconds that a test which is stopped may take to end; then it is left as it is."""

LEAVING_TIMEOUT = 5.0
"""Seconds that a device may take to clean up after its tests; then it is left as it is."""


class MemberRun:
    """Runs one member's actions. :meth:`run` raises nothing but cancellation: what went wrong is in the results."""

    def __init__(
        self,
        seat: Seat,
        job: Job,
        client: GroupClient,
        *,
        calls: Mapping[str, Call],
        record: Record,
        hosts: Hosts,
        output: Path,
        log_limit: int | None,
        keep: bool,
        nonce: str,
    ) -> None:
        self.seat = seat
        self.failure: MultinodeError | None = None
        self.kept: Kept | None = None
        self._keep = keep
        self._shell: Shell | None = None
        self._door: Door | None = None
        self._powered = self._booted = False
        self._job = job
        self._client = client
        self._members: tuple[Member, ...] = ()
        self._calls = calls
        self._record = record
        self._hosts = hosts
        self._requests = itertools.count(1)
        self._done = Done()
        self.results = MemberResults(
            seat.member,
            seat.device.name,
            monotonic=time.monotonic,
            now=lambda: datetime.now(UTC),
            observe=self._note_case,
            hide=record.hide,
        )
        self._consoles = output / "consoles"
        self._log_limit = log_limit
        self._transport = seat.transport
        self._console = self._new_console()
        self._tests = [a for a in job.actions if isinstance(a, Test) and seat.member.role in a.roles]
        self._kit = Kit(seat, job.secrets, self._tests, calls, hosts, nonce, self._note)
        self._early, self._boots, self._course = course(job.actions_of(seat.member.role))
        self._commands = Commands(seat.device, self._note)
        self._requester = Requester(client, self._request, self._note)
        self._values = {"JOB_ID": seat.member.id}
        self._at_prompt = self._installed = False
        self._joined = False

    def _new_console(self) -> Console:
        device, limit = self.seat.device, self._log_limit
        transcript = Transcript(
            self._consoles / f"{self.seat.member.id}.log",
            recording=self._consoles / f"{self.seat.member.id}.cast",
            limit=limit,
            full=lambda path: self._note("log-full", path=str(path), limit=limit),
        )
        delay = device.character_delay
        return Console(device.name, self._transport, transcript, character_delay=delay, observe=self._note)

    def _note(self, kind: str, **data: Any) -> None:
        self._record.note(kind, self.seat.member, self.seat.device.name, **data)

    def _note_case(self, case: Case) -> None:
        self._note(
            "case",
            suite=case.suite,
            name=case.name,
            result=case.result,
            duration=case.duration,
            measurement=case.measurement,
            unit=case.unit,
            reason=case.metadata.get("reason"),
        )

    def end(self, reason: str) -> None:
        """Record why the run of this member is about to be cancelled."""
        self.failure = JobEnded(reason.splitlines()[0], where=self.seat.device.name)
        self._give_up(reason)

    def _give_up(self, reason: str) -> None:
        """Record why this member goes no further, for each definition that it has not ended too."""
        self.results.never_ended(overlay.runs(self._tests), reason)
        self.results.add(JOB_SUITE, "job", "fail", reason=reason)

    # --- the whole ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Open, boot, install, meet the others, test, leave, close."""
        reason = "the run was interrupted"
        interrupted = True
        try:
            await self._run()
            reason = "its tests have ended"
            interrupted = False
        except asyncio.CancelledError:
            if self.failure is not None:
                reason = self.failure.what
            raise
        except MultinodeError as error:
            interrupted = False
            self.failure = error
            reason = error.what if error.where is None else f"{error.where}: {error.what}"
            self._give_up(reason)
            self._note("error", reason=str(error))
        finally:
            self._hosts.withdraw(self.seat.member.id)
            with contextlib.suppress(MultinodeError):
                await self._client.leave(self._request(), reason)
            if self._keep and not (interrupted and self.failure is None) and self._has_failed():
                await whole(self._leave_open())
            if self.kept is None:
                await self.finish()

    async def _run(self) -> None:
        await self._client.come(self._request())
        await self._before_opening()
        await self._start()
        stage = index = 0
        for action in self._course:
            if isinstance(action, HostCommand):
                await self._command(action)
            elif isinstance(action, Boot):
                self._boot_again(action)
            else:
                await self._test(stage, action, index)
                stage += 1
                index += len(action.definitions)

    def _boot_again(self, boot: Boot) -> None:
        """From now on it is this boot's prompts that count; the next test switches the device on, if it is to be."""
        self._boots.append(boot)
        if boot.reset and any(word in self.seat.device.commands for word in POWER_UP):
            self._shell = None
            self._at_prompt = self._booted = False

    async def _command(self, action: HostCommand) -> None:
        await self._requester.make(action.requests, self._job.call_timeout(None, self.seat.member.role))
        await self._commands.run(action)
        if action.name in POWER:
            self._shell = None
            self._at_prompt = False
            self._powered = True

    async def _start(self) -> None:
        """Open the console and get to where the first test begins: a shell, where it is one of definitions."""
        for command in self._early:
            await self._command(command)
        first = self._tests[0] if self._tests else None
        if first is not None and not first.definitions:
            # The others may not wait for a shell that comes later, or never.
            self._hosts.withdraw(self.seat.member.id)
        if first is not None and first.monitors:
            await self._join()  # first, since what the device prints while it waits for the others would be missed
        self._note("opening")
        self._console.open()
        if first is None or first.definitions:
            await self._ready_shell()
            return
        await self._boot_without_shell(first)
        await self._join()

    async def _ready_shell(self) -> Shell:
        """The shell that definitions run in, with what they need beside it."""
        if self._shell is not None:
            return self._shell
        if self._at_prompt:
            self._at_prompt = False
            await self._console.send(b"\n")  # what was waited for last was the prompt that is waited for now
        self._shell = await self._reach_shell()
        self._note("shell")
        deadline = asyncio.get_running_loop().time() + DEFAULT_BOOT_TIMEOUT
        if not self._installed or not await self._kit.is_there(self._shell, deadline):
            await self._kit.put_scripts(self._shell, self._preparing_deadline())
            await self._join()
            await self._introduce(self._shell)
            self._installed = True
        return self._shell

    async def _join(self) -> None:
        if not self._joined:
            self._joined = True
            self._members = await self._client.join(self._request())

    async def _before_opening(self) -> None:
        """Wait for a delayed start, and make the requests of the actions that come before there is a shell."""
        role = self._job.role(self.seat.member.role)
        before = [a for a in self._job.actions_of(role.name) if isinstance(a, Deploy | Boot)]
        requests = [request for action in before for request in action.requests]
        if role.starts_after is None and not requests:
            return
        # The others may not wait for a host that is not open while this member waits for them.
        self._hosts.withdraw(self.seat.member.id)
        timeout = self._job.call_timeout(None, role.name)
        await self._join()
        if role.starts_after is not None:
            await self._requester.start_after(role.starts_after, timeout)
        await self._requester.make(requests, timeout)
        config = self._requester.filled_config(self.seat.device.config)
        if config != self.seat.device.config:
            await self._console.close()
            device = replace(self.seat.device, config=config)
            self._transport = new_transport(device, type(self.seat.transport))
            self._console = self._new_console()

    def _request(self) -> str:
        return f"{self.seat.member.id}.{next(self._requests)}"

    async def finish(self) -> None:
        """Close what is open, and leave the device as it was unless a person was to find it as it is."""
        try:
            await whole(self._close())
        finally:
            self._note("closed")
            # Only now: what still ran there might have written on.
            if self._kit.is_on_this_host and self.kept is None:
                shutil.rmtree(self._kit.directory, ignore_errors=True)

    async def _close(self) -> None:
        try:
            if self._door is not None:
                await self._door.close()
            if self.kept is None:
                await self._clean_up()
                await self._power_down()
                self._report(await self._commands.undo())
        finally:
            await self._console.close()

    # --- leaving it to a person --------------------------------------------------------------------------------

    def _has_failed(self) -> bool:
        return self.failure is not None or any(case.result in {"fail", "unknown"} for case in self.results.cases)

    async def _leave_open(self) -> None:
        """Leave the console at its shell: the line is released, and a program of ours gets a door."""
        access = self._transport.access()
        if access is None and self._console.has_ended:
            return
        if self._shell is not None and not self._shell.busy:
            with contextlib.suppress(MultinodeError):
                await self._shell.leave()
        directory = self._kit.directory if self._installed or self._shell is not None else None
        self.kept = Kept(self.seat.member, self.seat.device.name, access or "", directory, access is None)
        if access is not None:
            await self.finish()
            return
        self._door = Door(self._console)
        await self._door.open()
        self.kept = replace(self.kept, command=self._door.command)

    # --- getting ready -----------------------------------------------------------------------------------------

    async def _reach_shell(self) -> Shell:
        deadline = self._boot_deadline()
        await self._switch_on()
        connection = self._job.timeouts.connection
        silence = None if self._powered else connection
        await self._log_in(deadline, self._prompts(), booting=self._powered, silence=silence)
        until = deadline if connection is None else min(deadline, asyncio.get_running_loop().time() + connection)
        return await self._start_shell(until)

    async def _boot_without_shell(self, first: Test) -> None:
        """Switch the device on and wait for a prompt, if anybody has said which. What monitors watch for may come long
        before the device file's prompts, so for them only the job's own count."""
        boot = self._boot
        deadline = self._boot_deadline()
        await self._switch_on()
        own = boot is not None and (boot.prompts or boot.auto_login)
        prompts = self._prompts() or (first.scripts[0].awaited if first.scripts else ())
        if own or (first.scripts and prompts):
            await self._log_in(deadline, prompts, booting=self._powered, believe=True)

    @property
    def _boot(self) -> Boot | None:
        """The boot that counts now."""
        return self._boots[-1] if self._boots else None

    def _boot_deadline(self) -> float:
        timeout = (self._boot.timeout if self._boot else None) or self._job.timeouts.action or DEFAULT_BOOT_TIMEOUT
        return asyncio.get_running_loop().time() + timeout

    async def _log_in(
        self,
        deadline: float,
        prompts: Sequence[str],
        *,
        booting: bool,
        silence: float | None = None,
        believe: bool = False,
    ) -> None:
        await console_login.login(
            self._console,
            prompts=prompts,
            credentials=_credentials(self._auto_login()),
            deadline=deadline,
            booting=booting,
            silence=silence,
            believe=believe,
            failed=lambda number, word, status: self._note("login-command", number=number, word=word, status=status),
            seed=self._kit.seed,
        )

    async def _start_shell(self, deadline: float) -> Shell:
        return await console_shell.start(self._console, self.seat.device.lava_test_sh_cmd, deadline=deadline)

    async def _switch_on(self) -> None:
        if self._boot is not None and self._boot.reset and not self._booted:
            await self._power_up(self.seat.device)
        self._booted = True

    def _prompts(self) -> Sequence[str]:
        return (self._boot.prompts if self._boot else ()) or self.seat.device.prompts

    def _auto_login(self) -> AutoLogin | None:
        return (self._boot.auto_login if self._boot else None) or self.seat.device.auto_login

    async def _power_up(self, device: Device) -> None:
        """Reset a device whose file says how; one that can only be switched on is switched on."""
        what = next((word for word in POWER_UP if word in device.commands), None)
        if what is not None:
            self._note("power", what=what)
            self._powered = True
            self._console.forget()
            await power.switch(device.name, what, device.commands[what])

    async def _power_down(self) -> None:
        """Switch off what was switched on, as LAVA does at the end of a job."""
        device = self.seat.device
        if self._powered and "power_off" in device.commands:
            try:
                await power.switch(device.name, "power_off", device.commands["power_off"])
            except MultinodeError as error:
                self._report(error)

    def _report(self, error: MultinodeError | None) -> None:
        """Tell what has gone wrong after all tests."""
        if error is not None:
            self.failure = self.failure or error
            self._note("error", reason=str(error))

    async def _introduce(self, shell: Shell) -> None:
        """Tell the scripts on the device what they must know of it and of the group, which is complete now."""
        deadline = self._preparing_deadline()
        shared = await self._hosts.shared(self.seat.member.id, self._kit.boot_id)
        await self._kit.introduce(shell, self._members, deadline, shared=shared)

    def _preparing_deadline(self) -> float:
        return self._deadline(self._tests[0].timeout if self._tests else None)

    def _deadline(self, timeout: float | None) -> float:
        timeout = timeout or self._job.timeouts.action or self._job.timeouts.job
        return asyncio.get_running_loop().time() + timeout

    # --- testing -----------------------------------------------------------------------------------------------

    async def _test(self, stage: int, test: Test, index: int) -> None:
        shell = await self._ready_shell() if test.definitions else None
        deadline = self._deadline(test.timeout)
        call_timeout = self._job.call_timeout(test, self.seat.member.role)
        await self._requester.make(test.requests, call_timeout)
        if shell is None and not self._booted:
            await self._boot_without_shell(test)
        if test.scripts:
            if self._shell is not None:
                shell, self._shell = self._shell, None
                await leave_shell(shell, test.scripts[0].prompts, LEAVING_TIMEOUT)
            dialogue = Dialogue(self._console, self._requester, self._values, results=self.results, note=self._note)
            try:
                await dialogue.run(test, stage, call_timeout=call_timeout, deadline=deadline)
            finally:
                self._at_prompt = dialogue.at_prompt
        elif shell is None:
            await watch(self._console, test, stage, results=self.results, note=self._note, deadline=deadline)
        else:
            await self._test_in_shell(stage, test, index, deadline, call_timeout)

    async def _test_in_shell(
        self, stage: int, test: Test, index: int, deadline: float, call_timeout: float | None
    ) -> None:
        test = replace(test, definitions=tuple(map(self._requester.filled_definition, test.definitions)))
        files = Overlay(
            stage,
            test,
            directory=self._kit.directory,
            first_index=index,
            uuid_for=lambda _name: f"{self.seat.member.id}_{uuid.uuid4().hex}",
            cache=self._kit.cache,
        )
        suites = list(files.definitions)
        await self._kit.put(self._open_shell(), files.files(), deadline)
        self.results.plan(files.definitions)
        planned = self._reboots(files, deadline)
        self._note("testing", suites=suites)
        folder = str(stage)
        try:
            async with asyncio.timeout_at(deadline):
                while announced := await self._run_tests(folder, suites, planned, call_timeout):
                    folder = f"{stage}-{announced.suite}-{announced.step}"
                    rest = files.rest(folder, announced.suite, announced.step)
                    await self._go_on(planned, announced, rest, deadline)
        except TimeoutError:
            meanwhile = ", while the device rebooted" if planned.announced else ""
            what = f"the test action timed out{meanwhile}"
            raise self._unfinished(suites, planned, JobEnded(what, where=self.seat.device.name)) from None
        except ConsoleError as error:
            raise self._unfinished(suites, planned, planned.failure(error)) from None
        except MultinodeError as error:
            raise self._unfinished(suites, planned, error) from None

    def _open_shell(self) -> Shell:
        assert self._shell is not None  # noqa: S101 - tests begin once there is one, and end without
        return self._shell

    def _reboots(self, files: Overlay, deadline: float) -> Reboots:
        auto_login = self._auto_login()
        shown = [*self._prompts(), *([auto_login.login_prompt] if auto_login else [])]
        return Reboots(
            RebootWatch(self._console, shown),
            {suite: len(definition.steps) for suite, definition in files.definitions.items()},
            limit=self._boot.timeout if self._boot else None,
            deadline=deadline,
            noticed=bool(shown),
        )

    async def _run_tests(
        self, folder: str, suites: list[str], planned: Reboots, call_timeout: float | None
    ) -> Announced | None:
        """Run what a folder on the device lists, to its end or to a reboot that was announced."""
        shell = self._open_shell()
        session = TestSession(
            self._console,
            self.seat.member,
            self._members,
            self._client,
            calls=self._calls,
            results=self.results,
            note=self._note,
            requests=self._requests,
            timeout=call_timeout,
            planned=planned,
            seed=self._kit.seed,
            done=self._done,
        )
        directory = self._kit.directory
        runner = f"exec {directory}/bin/lava-test-runner {directory}/{folder}"
        try:
            announced = await session.follow(shell.run_test(f". {directory}/environment;{runner}", session.hear))
            if announced is None:
                await session.finish(suites)
            return announced
        finally:
            if planned.announced is not None:
                self._shell = None  # whatever still runs there goes down
            elif shell.busy:
                await whole(self._stop(shell, session))
            session.cancel()

    async def _go_on(self, planned: Reboots, announced: Announced, files: Mapping[str, Entry], deadline: float) -> None:
        """Wait for the device that reboots, and put there what it has lost and what is left to run."""
        shell, self._kit.boot_id = await reboots.come_back(
            self._console,
            announced,
            lambda until: self._log_in(until, self._prompts(), booting=True),
            self._start_shell,
        )
        self._shell = shell
        planned.settle(done=True)
        duration = asyncio.get_running_loop().time() - announced.began
        self._note("rebooted", after=round(duration, 1))
        self.results.add(announced.suite, reboots.CASE, "pass", duration=duration)
        await self._kit.put_again(shell, self._members, files, deadline)
        self.results.resume_run(announced.suite)

    def _unfinished(self, suites: list[str], planned: Reboots, error: MultinodeError) -> MultinodeError:
        """Record why the definitions of a test action that have not ended never will."""
        if planned.announced is not None:
            self.results.add(planned.announced.suite, reboots.CASE, "fail", reason=error.what)
        self.results.never_ended(suites, error.what)
        return error

    async def _stop(self, shell: Shell, session: TestSession) -> None:
        """Have a test that was not waited for end on its device."""
        self._note("stopping")
        session.dismiss("the test is being stopped")
        try:
            await shell.stop(deadline=asyncio.get_running_loop().time() + STOP_TIMEOUT)
        except ConsoleTimeout as error:
            self._note("unstopped", reason=error.what)
        except MultinodeError:
            return  # the console has ended, and whoever ran the test was told

    async def _clean_up(self) -> None:
        """Remove what was put on the device and end the loop that ran there, as far as the console still lets us."""
        shell = self._shell
        deadline = asyncio.get_running_loop().time() + LEAVING_TIMEOUT
        with contextlib.suppress(MultinodeError):
            if shell is None and self._installed and self._at_prompt:
                shell = await console_shell.start(self._console, self.seat.device.lava_test_sh_cmd, deadline=deadline)
            if shell is None or shell.busy:
                return
            await shell.run(f"rm -rf {self._kit.directory}", deadline=deadline, check=False)
            await shell.leave()


def _credentials(auto_login: AutoLogin | None) -> console_login.Credentials | None:
    if auto_login is None:
        return None
    return console_login.Credentials(*astuple(auto_login))
