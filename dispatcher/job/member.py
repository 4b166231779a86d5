"""One member of a run: its console from opening to closing, and what happens there in between."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import shutil
import time
import uuid
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dispatcher import resources
from dispatcher.console import login as console_login
from dispatcher.console import power
from dispatcher.console import shell as console_shell
from dispatcher.console.connection import Console
from dispatcher.console.door import Door
from dispatcher.console.install import Entry, install, typed_size
from dispatcher.console.place import find_directory, link_shipped
from dispatcher.console.reboot import RebootWatch
from dispatcher.console.shell import Shell
from dispatcher.console.transcript import Transcript
from dispatcher.console.transport import Transport
from dispatcher.coordinator.client import GroupClient
from dispatcher.errors import ConsoleTimeout, JobEnded, MultinodeError
from dispatcher.group.events import Member
from dispatcher.job import overlay
from dispatcher.job.calls import Call
from dispatcher.job.definition import DEFAULT_SHELL, AutoLogin, Boot, Job, Test
from dispatcher.job.devices import DEFAULT_RESULTS_DIR, OTHER_RESULTS_DIRS, Device
from dispatcher.job.hosts import Hosts
from dispatcher.job.record import Record
from dispatcher.job.requests import Requester
from dispatcher.job.results import JOB_SUITE, Case, MemberResults
from dispatcher.job.session import TestSession
from dispatcher.job.transports import new_transport

DEFAULT_BOOT_TIMEOUT = 300.0
"""Seconds for getting to a shell where the job sets neither a boot nor an action timeout."""

STOP_TIMEOUT = 10.0
"""Seconds that a test which is stopped may take to end; then it is left as it is."""

QUIETLY_TYPED = 5.0
"""Seconds of typing at a slow device that need not be told."""

LATENESS = 0.001
"""Seconds by which the pause after a character is longer than asked: timers count milliseconds, and none is early."""

LEAVING_TIMEOUT = 5.0
"""Seconds that a device may take to clean up after its tests; then it is left as it is."""


@dataclass(frozen=True, slots=True)
class Seat:
    """What a member is made of: who it is in the group, and which device plays it."""

    member: Member
    device: Device
    transport: Transport
    environment: Mapping[str, str]
    essential: bool = False


@dataclass(frozen=True, slots=True)
class Kept:
    """A console that is left as a failure found it.

    :ivar command: how a person reaches it.
    :ivar directory: where on the device the member's files are, None where none were put there.
    :ivar held: it is there only as long as this process holds it.
    """

    member: Member
    device: str
    command: str
    directory: str | None
    held: bool


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
        self._directory_is_here = False
        self._powered = False
        self._job = job
        self._client = client
        self._members: tuple[Member, ...] = ()
        self._calls = calls
        self._record = record
        self._hosts = hosts
        self._nonce = nonce
        self._directory = self._own_directory(seat.device.results_dir)
        self._requests = itertools.count(1)
        self.results = MemberResults(
            seat.member,
            seat.device.name,
            monotonic=time.monotonic,
            now=lambda: datetime.now(UTC),
            observe=self._note_case,
        )
        self._consoles = output / "consoles"
        self._log_limit = log_limit
        self._transport = seat.transport
        self._console = self._new_console()
        self._tests = [a for a in job.actions if isinstance(a, Test) and seat.member.role in a.roles]
        self._boots = [a for a in job.actions if isinstance(a, Boot) and seat.member.role in a.roles]
        self._requester = Requester(client, self._request, self._note)
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
        self.results.abandon_run(reason)
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
            self.results.abandon_run(reason)
            self.results.add(JOB_SUITE, "job", "fail", reason=reason)
            self._note("error", reason=str(error))
        finally:
            self._hosts.withdraw(self.seat.member.id)
            with contextlib.suppress(MultinodeError):
                await self._client.leave(self._request(), reason)
            if self._keep and not (interrupted and self.failure is None) and self._has_failed():
                await _whole(self._leave_open())
            if self.kept is None:
                await self.finish()

    async def _run(self) -> None:
        await self._client.come(self._request())
        await self._before_opening()
        self._note("opening")
        self._console.open()
        shell = await self._reach_shell()
        self._note("shell")
        self._shell = shell
        await self._prepare(shell)
        await self._join()
        await self._introduce(shell)
        index = 0
        for stage, test in enumerate(self._tests):
            await self._test(shell, stage, test, index)
            index += len(test.definitions)

    async def _join(self) -> None:
        if not self._joined:
            self._joined = True
            self._members = await self._client.join(self._request())

    async def _before_opening(self) -> None:
        """Wait for a delayed start, and make the requests of the actions that come before there is a shell."""
        role = self._job.role(self.seat.member.role)
        before = [a for a in self._job.actions_of(role.name) if not isinstance(a, Test)]
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
            await _whole(self._close())
        finally:
            self._note("closed")
            # Only now: what still ran there might have written on.
            if self._directory_is_here and self.kept is None:
                shutil.rmtree(self._directory, ignore_errors=True)

    async def _close(self) -> None:
        try:
            if self._door is not None:
                await self._door.close()
            if self.kept is None:
                await self._clean_up()
                await self._power_down()
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
        directory = None if self._shell is None else self._directory
        self.kept = Kept(self.seat.member, self.seat.device.name, access or "", directory, access is None)
        if access is not None:
            await self.finish()
            return
        self._door = Door(self._console)
        await self._door.open()
        self.kept = replace(self.kept, command=self._door.command)

    # --- getting ready -----------------------------------------------------------------------------------------

    async def _reach_shell(self) -> Shell:
        device = self.seat.device
        boot = self._boots[-1] if self._boots else None
        timeout = (boot.timeout if boot else None) or self._job.timeouts.action or DEFAULT_BOOT_TIMEOUT
        deadline = asyncio.get_running_loop().time() + timeout
        if boot is not None and boot.reset:
            await self._power_up(device)
        await console_login.login(
            self._console,
            prompts=self._prompts(),
            credentials=_credentials(self._auto_login()),
            deadline=deadline,
            booting=self._powered,
        )
        return await console_shell.start(self._console, device.lava_test_sh_cmd, deadline=deadline)

    def _prompts(self) -> Sequence[str]:
        return (self._boots[-1].prompts if self._boots else ()) or self.seat.device.prompts

    def _auto_login(self) -> AutoLogin | None:
        return (self._boots[-1].auto_login if self._boots else None) or self.seat.device.auto_login

    async def _power_up(self, device: Device) -> None:
        """Reset a device whose file says how; one that can only be switched on is switched on."""
        what = "hard_reset" if "hard_reset" in device.commands else "power_on"
        if what in device.commands:
            self._note("power", what=what)
            self._powered = True
            await power.switch(device.name, what, device.commands[what])

    async def _power_down(self) -> None:
        """Switch off what was switched on, as LAVA does at the end of a job."""
        device = self.seat.device
        if self._powered and "power_off" in device.commands:
            try:
                await power.switch(device.name, "power_off", device.commands["power_off"])
            except MultinodeError as error:
                self.failure = self.failure or error
                self._note("error", reason=str(error))

    async def _prepare(self, shell: Shell) -> None:
        """Put our scripts on the device."""
        device = self.seat.device
        deadline = self._deadline(self._tests[0].timeout if self._tests else None)
        if device.results_dir == DEFAULT_RESULTS_DIR:
            await self._find_directory(shell, deadline)
        files = {
            f"bin/{name}": Entry(_for_shell(content, device.lava_test_sh_cmd), executable=name != resources.LIBRARY)
            for name, content in (await self._missing_scripts(shell, deadline)).items()
        }
        await self._install(shell, files, deadline)
        boot_id = await shell.run(
            "{ read -r R </proc/sys/kernel/random/boot_id;} 2>/dev/null", deadline=deadline, check=False
        )
        self._boot_id = boot_id.value
        self._directory_is_here = self._hosts.is_here(boot_id.value)

    async def _introduce(self, shell: Shell) -> None:
        """Tell the scripts on the device what they must know of it and of the group, which is complete now."""
        device, member = self.seat.device, self.seat.member
        deadline = self._deadline(self._tests[0].timeout if self._tests else None)
        shared = await self._hosts.shared(member.id, self._boot_id)
        console = await shell.run("R=$(tty)||R=$(readlink /proc/self/fd/0)||R=", deadline=deadline, check=False)
        elsewhere = device.results_dir == DEFAULT_RESULTS_DIR and self._directory != self._own_directory(
            DEFAULT_RESULTS_DIR
        )
        self._cache = f"{self._directory}/lava_multi_node_cache.txt" if shared or elsewhere else overlay.DEFAULT_CACHE
        settings = overlay.settings(
            job_id=member.id,
            role=member.role,
            group=[(m.id, m.role) for m in self._members],
            console=console.value if console.value.startswith("/") else "",
            cache=self._cache,
            test_shell=device.lava_test_sh_cmd,
            nonce=secrets.token_hex(2),
        )
        environment = overlay.environment(
            device.environment,
            self.seat.environment,
            {"LAVA_MULTI_NODE_CACHE": self._cache, "LAVA_JOB_ID": member.id},
        )
        beside = {f"bin/{resources.SETTINGS}": Entry(settings), "environment": Entry(environment)}
        await self._install(shell, beside, deadline)
        self._note("installed", directory=self._directory, cache=self._cache)

    async def _install(self, shell: Shell, files: Mapping[str, Entry], deadline: float) -> None:
        size, delay = typed_size(files), self.seat.device.character_delay
        seconds = size * (delay + LATENESS)
        if delay and seconds > QUIETLY_TYPED:
            self._note("installing", files=len(files), bytes=size, seconds=round(seconds))
        await install(shell, self._directory, files, deadline=deadline)

    def _own_directory(self, results_dir: str) -> str:
        return f"{results_dir.replace('%s', self.seat.member.id)}-{self._nonce}"

    async def _find_directory(self, shell: Shell, deadline: float) -> None:
        """Go elsewhere where the usual place will not do; if no place does, whoever writes there is told why."""
        candidates = [self._own_directory(each) for each in (DEFAULT_RESULTS_DIR, *OTHER_RESULTS_DIRS)]
        interpreter = self.seat.device.lava_test_sh_cmd
        self._directory = (await find_directory(shell, candidates, interpreter, deadline=deadline)) or self._directory

    async def _missing_scripts(self, shell: Shell, deadline: float) -> dict[str, bytes]:
        """The scripts that have to be sent: those of ours that the device's image has brought are linked instead."""
        scripts = self._scripts()
        ours = {name for name, content in resources.target_scripts().items() if scripts.get(name) == content}
        if self.seat.device.lava_test_sh_cmd != DEFAULT_SHELL or not await link_shipped(
            shell,
            f"{self._directory}/bin",
            ours,
            resources.version(),
            ("lava-self", resources.VERSION),
            deadline=deadline,
        ):
            return scripts
        self._note("shipped", scripts=len(ours))
        return {name: content for name, content in scripts.items() if name not in ours}

    def _scripts(self) -> dict[str, bytes]:
        known = resources.target_scripts()
        wanted = resources.ALWAYS | overlay.named(self._tests, known)
        scripts = {name: content for name, content in known.items() if name in wanted}
        for call in self._calls.values():
            scripts.update(call.SCRIPTS)
        return scripts

    def _deadline(self, timeout: float | None) -> float:
        timeout = timeout or self._job.timeouts.action or self._job.timeouts.job
        return asyncio.get_running_loop().time() + timeout

    # --- testing -----------------------------------------------------------------------------------------------

    async def _test(self, shell: Shell, stage: int, test: Test, index: int) -> None:
        deadline = self._deadline(test.timeout)
        await self._requester.make(test.requests, self._job.call_timeout(test, self.seat.member.role))
        test = replace(test, definitions=tuple(map(self._requester.filled_definition, test.definitions)))
        files = overlay.build(
            stage,
            test,
            directory=self._directory,
            first_index=index,
            uuid_for=lambda _name: f"{self.seat.member.id}_{uuid.uuid4().hex}",
            cache=self._cache,
        )
        await self._install(shell, files, deadline)
        suites = [f"{index + offset}_{definition.name}" for offset, definition in enumerate(test.definitions)]
        self.results.plan(dict(zip(suites, test.definitions, strict=True)))
        session = TestSession(
            self._console,
            self.seat.member,
            self._members,
            self._client,
            calls=self._calls,
            results=self.results,
            note=self._note,
            requests=self._requests,
            timeout=self._job.call_timeout(test, self.seat.member.role),
        )
        auto_login = self._auto_login()
        watch = RebootWatch(self._console, [*self._prompts(), *([auto_login.login_prompt] if auto_login else [])])

        def listen(data: bytes) -> None:
            session.hear(data)
            watch.hear(data)

        self._note("testing", suites=suites)
        runner = f"exec {self._directory}/bin/lava-test-runner {self._directory}/{stage}"
        try:
            async with asyncio.timeout_at(deadline):
                test_run = shell.run_test(f". {self._directory}/environment;{runner}", listen)
                await session.follow(test_run)
            await session.finish(suites)
        except TimeoutError:
            raise self._unfinished(suites, JobEnded("the test action timed out", where=self.seat.device.name)) from None
        except MultinodeError as error:
            raise self._unfinished(suites, error) from None
        finally:
            watch.cancel()
            if shell.busy:
                await _whole(self._stop(shell, session))
            session.cancel()

    def _unfinished(self, suites: list[str], error: MultinodeError) -> MultinodeError:
        """Record why the definitions of a test action that have not ended never will."""
        self.results.abandon_run(error.what)
        self.results.expect_runs(suites, error.what)
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
        if shell is None or shell.busy:
            return
        deadline = asyncio.get_running_loop().time() + LEAVING_TIMEOUT
        with contextlib.suppress(MultinodeError):
            await shell.run(f"rm -rf {self._directory}", deadline=deadline, check=False)
            await shell.leave()


async def _whole(work: Coroutine[Any, Any, None]) -> None:
    """Do some work to its end though this task is cancelled meanwhile, and only then be cancelled.

    An interrupt must leave neither a program behind nor a test on a board.
    """
    doing = asyncio.ensure_future(work)
    cancelled = False
    while not doing.done():
        try:
            await asyncio.shield(doing)
        except asyncio.CancelledError:
            cancelled = True
    doing.result()
    if cancelled:
        raise asyncio.CancelledError


def _credentials(auto_login: AutoLogin | None) -> console_login.Credentials | None:
    if auto_login is None:
        return None
    return console_login.Credentials(
        auto_login.login_prompt,
        auto_login.username,
        auto_login.password_prompt,
        auto_login.password,
        auto_login.commands,
    )


def _for_shell(script: bytes, shell: str) -> bytes:
    """A script whose first line names the device's shell, as LAVA's overlay does."""
    first, newline, rest = script.partition(b"\n")
    return b"#!" + shell.encode() + newline + rest if first == b"#!/bin/sh" else script
