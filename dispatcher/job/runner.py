"""Runs a whole group from one process: a console a member, and a coordinator for them to meet in."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dispatcher.console.transcript import LOG_LIMIT
from dispatcher.console.transport import Transport
from dispatcher.coordinator.live import GRACE, Notice
from dispatcher.errors import OutputError, UserError
from dispatcher.group.events import Member
from dispatcher.job.calls import Call
from dispatcher.job.definition import Job
from dispatcher.job.devices import Placement
from dispatcher.job.hidden import hider
from dispatcher.job.hosts import Hosts
from dispatcher.job.meeting import Elsewhere, EmbeddedMeeting, Meeting, RemoteMeeting
from dispatcher.job.member import MemberRun
from dispatcher.job.record import Observer, Record
from dispatcher.job.results import Case, write
from dispatcher.job.seat import Kept, Seat
from dispatcher.job.transports import new_transport

PASSED, FAILED, BROKEN = 0, 1, 3


@dataclass(frozen=True, slots=True)
class Options:
    """How to run a job.

    :param output: the directory for results, logs and events; made where it is missing.
    :param first_id: the first member's id; the others follow it.
    :param grace: seconds after which the waits of stuck members fail, None for never; a coordinator elsewhere has its
        own.
    :param log_limit: bytes of each console that are kept, None for all.
    :param elsewhere: the coordinator to meet at; None for one in this process.
    :param keep: leave the consoles of members that have failed to a person.
    """

    output: Path
    first_id: int = 1
    grace: float | None = GRACE
    log_limit: int | None = LOG_LIMIT
    elsewhere: Elsewhere | None = None
    keep: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    :param status: 0 all cases passed, 1 something failed, 3 a console failed.
    :param errors: what went wrong outside the tests, a message each.
    :param kept: the consoles that are left to a person.
    """

    status: int
    cases: Sequence[Case]
    members: Sequence[Member]
    errors: Sequence[str]
    kept: Sequence[Kept] = ()


def seats(placements: Sequence[Placement], transports: Mapping[str, type[Transport]], first_id: int) -> list[Seat]:
    """Give every member its id and its (closed) console.

    :raises UserError: a console's options make no sense, or two members would open the same line.
    """
    made = [
        Seat(
            Member(str(first_id + number), placement.role.name),
            placement.device,
            new_transport(placement.device, transports[placement.device.transport]),
            placement.role.environment,
            placement.role.essential,
        )
        for number, placement in enumerate(placements)
    ]
    lines: dict[str, str] = {}
    for seat in made:
        line = seat.transport.line()
        if line is not None and lines.setdefault(line, seat.device.name) != seat.device.name:
            raise UserError(
                f"{line} is the console of {lines[line]} already",
                where=seat.device.name,
                hint="give each device a line of its own in the device file",
            )
    return made


async def run(
    job: Job,
    members: Sequence[Seat],
    calls: Mapping[str, Call],
    options: Options,
    *observers: Observer,
    finished: Callable[[Outcome], None] | None = None,
) -> Outcome:
    """Run a job to its end; cancelled, it closes every console first.

    :param finished: told the outcome once it has been written, or could not be. Consoles that are kept and are programs
        of ours are then held until this is cancelled, which does no more than end that.
    :raises UserError: the output directory is none.
    :raises OutputError: it cannot be made, or not written to.
    :raises CoordinatorError: nobody answers where the coordinator should be.
    """
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(
            f"{options.output} is no directory, and none can be made there",
            hint="name one for the results and logs with --output DIR",
        ) from None
    except OSError as error:
        raise OutputError(f"cannot make {options.output}: {error.strerror}") from None
    record = Record(options.output / "events.jsonl", *observers, hide=hider(job.secrets.values()))
    nonce = secrets.token_hex(3)
    everybody = tuple(seat.member for seat in members)
    meeting = await _meet(job, nonce, everybody, options, record)
    hosts = Hosts(member.id for member in everybody)
    runs = [
        MemberRun(
            seat,
            job,
            meeting.client(seat.member),
            calls=calls,
            record=record,
            hosts=hosts,
            output=options.output,
            log_limit=options.log_limit,
            keep=options.keep,
            nonce=nonce,
        )
        for seat in members
    ]
    record.note("started", job_name=job.name, group=meeting.name, members=[str(member) for member in everybody])
    try:
        try:
            await _run_all(runs, job.timeouts.job)
            outcome = _outcome(runs, everybody, record)
            record.note("ended", status=outcome.status)
        finally:
            meeting.close()
            with contextlib.closing(record):
                unwritten = _write(options.output, runs, record)
        if unwritten is not None:
            outcome = replace(outcome, status=BROKEN, errors=[*outcome.errors, str(unwritten)])
        if finished is not None:
            finished(outcome)
        if any(kept.held for kept in outcome.kept):
            with contextlib.suppress(asyncio.CancelledError):  # so a person says that it is enough
                await asyncio.get_running_loop().create_future()
        return outcome
    finally:
        await asyncio.gather(*(run.finish() for run in runs if run.kept is not None and run.kept.held))


def _write(output: Path, runs: Sequence[MemberRun], record: Record) -> OutputError | None:
    """Write the results; why they could not be. What is known of them is shown all the same."""
    try:
        write(output, [case for run in runs for case in run.results.cases])
    except OutputError as error:
        record.note("error", reason=str(error))
        return error
    return None


async def _meet(job: Job, nonce: str, members: Sequence[Member], options: Options, record: Record) -> Meeting:
    def notice(notice: Notice) -> None:
        record.note(notice.kind, text=notice.text, members=list(notice.members))

    def tell(text: str) -> None:
        record.note("coordinator", text=text)

    if options.elsewhere is None:
        return EmbeddedMeeting(job.name, nonce, members, grace=options.grace, observe=notice)
    meeting = RemoteMeeting(job.name, secrets.token_hex(8), members, options.elsewhere, tell)
    try:
        await meeting.check()
    except BaseException:
        record.close()
        raise
    return meeting


async def _run_all(runs: Sequence[MemberRun], limit: float) -> None:
    """Run all members to their end, to the job's time limit, or until an essential one fails."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limit
    tasks = {asyncio.ensure_future(run.run()): run for run in runs}
    running = set(tasks)
    try:
        while running:
            left = max(0.0, deadline - loop.time())
            done, running = await asyncio.wait(running, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            reason = _why_to_end([tasks[task] for task in done], limit)
            if reason is not None:
                for task in running:
                    tasks[task].end(reason)
                break
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error


def _why_to_end(ended: Sequence[MemberRun], limit: float) -> str | None:
    """Why the members that still run are to end now, or None. ``ended`` is empty where the time limit has passed."""
    if not ended:
        return f"the job timed out after {limit:g} s"
    lost = [run for run in ended if run.seat.essential and run.failure is not None]
    return f"the essential member {lost[0].seat.member} has failed: {lost[0].failure}" if lost else None


def _outcome(runs: Sequence[MemberRun], members: Sequence[Member], record: Record) -> Outcome:
    cases = [case for run in runs for case in run.results.cases]
    record.flush()  # it may fail, too
    failures = [failure for failure in (*(run.failure for run in runs), record.failure) if failure is not None]
    # All that wait for one member fail with the same words.
    errors = list(dict.fromkeys(record.hide(str(failure)) for failure in failures))
    if any(failure.exit_status == BROKEN for failure in failures):
        status = BROKEN
    elif errors or any(case.result in {"fail", "unknown"} for case in cases):
        status = FAILED
    else:
        status = PASSED
    return Outcome(status, cases, members, errors, [run.kept for run in runs if run.kept is not None])
