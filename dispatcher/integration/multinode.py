"""Jobs and groups for a program that blocks, such as a test: what the ``multinode`` fixture hands out."""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import ssl as tls
import tempfile
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from dispatcher.cli.run import load_plugins, place, read_files
from dispatcher.console.transport import Transport
from dispatcher.coordinator import wire
from dispatcher.coordinator.background import Background
from dispatcher.coordinator.desk import Desk
from dispatcher.coordinator.hall import Hall
from dispatcher.coordinator.journal.memory import MemoryJournal
from dispatcher.coordinator.remote import DEFAULT_PORT, MARGIN, Address, Place, exchange
from dispatcher.coordinator.server import Server
from dispatcher.errors import JobEnded, UsageError
from dispatcher.group.events import Member
from dispatcher.integration.participant import Participant
from dispatcher.integration.results import Results, results_of
from dispatcher.job import helpers, runner
from dispatcher.job.definition import Job, Role, load_job, resolve_job
from dispatcher.job.devices import Device, Placement
from dispatcher.job.meeting import Elsewhere
from dispatcher.job.seat import Seat
from dispatcher.plugins import Plugins

Consoles = Mapping[str, Transport | Sequence[Transport]]
"""Role → the consoles of its members, each at a shell."""

Devices = str | os.PathLike[str] | Consoles | None
"""A device file, or consoles; None for ``devices.yaml`` beside the job."""


class Multinode:
    """Runs jobs and joins groups, and closes all of them at its end.

    Everything here raises :class:`~dispatcher.errors.UserError` for what is written wrong, before anything is opened.

    :param directory: where the output of jobs goes.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._numbers = itertools.count(1)
        self._background: Background | None = None
        self._open: list[RunningJob | Participant] = []

    def run(self, job: str | os.PathLike[str], devices: Devices = None) -> Results:
        """Run a job, every member on a console, to its end."""
        ready = _Ready(Path(job), devices, ())
        output = self._output()
        outcome = asyncio.run(runner.run(ready.job, ready.seats, ready.plugins.calls, runner.Options(output)))
        return results_of(outcome, output)

    def start(self, job: str | os.PathLike[str], devices: Devices = None, *, play: Sequence[str]) -> RunningJob:
        """Begin a job some of whose members are the test's to play.

        :param play: the roles that have no console: those of the job, or ones that it does not define, which then have
            one member.
        """
        ready = _Ready(Path(job), devices, play)
        running = RunningJob(self._loop(), ready, self._output())
        self._open.append(running)
        return running

    def join(
        self,
        group: str,
        role: str,
        *,
        id: str,
        size: int,
        host: str = "localhost",
        port: int = DEFAULT_PORT,
        token: str | None = None,
        ssl: tls.SSLContext | None = None,
        timeout: float | None = None,
    ) -> Participant:
        """Join a group at a coordinator, whose other members are elsewhere, such as in ``multinode attach``.

        :param id: digits, another one for every member.
        :param size: how many members the group has.
        :param timeout: seconds that they may take to come.
        """
        address = Address(host, port)
        # One that is not there from the beginning is a mistake, not a restart to be borne.
        self._loop().run(exchange(address, wire.dump(wire.Status(token)), timeout=MARGIN, ssl=ssl))
        member = Participant(self._loop(), address, Place(group, Member(id, role), size, token=token), ssl=ssl)
        self._open.append(member)
        member.join(timeout)
        return member

    def close(self) -> None:
        """Leave all groups, end all jobs, close all consoles."""
        for opened in self._open:
            opened.leave()
        self._open.clear()
        if self._background is not None:
            self._background.close()

    def __enter__(self) -> Multinode:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _loop(self) -> Background:
        if self._background is None:
            self._background = Background()
        return self._background

    def _output(self) -> Path:
        return self._directory / f"multinode-{next(self._numbers)}"


class RunningJob:
    """A job that runs while the test does, from :meth:`Multinode.start` to :meth:`finish`, or to the end of a ``with``.

    :ivar output: the directory with its results and logs.
    """

    def __init__(self, background: Background, ready: _Ready, output: Path) -> None:
        self.output = output
        self._background = background
        self._players: dict[str, list[Participant]] = {}
        members = (*(seat.member for seat in ready.seats), *ready.players)
        self._server, elsewhere = background.run(_serve(members))
        options = runner.Options(output, elsewhere=elsewhere)
        for player in ready.players:
            where = Place(elsewhere.group or "", player, elsewhere.size, token=elsewhere.token)
            participant = Participant(background, elsewhere.address, where)
            self._players.setdefault(player.role, []).append(participant)
        run = runner.run(ready.job, ready.seats, ready.plugins.calls, options)
        self._task = background.run(_begin(run))

    def member(self, role: str, index: int = 0) -> Participant:
        """A member that the test plays: the ``index``-th of its role."""
        players = self._players.get(role, [])
        if not 0 <= index < len(players):
            roles = ", ".join(f"{len(those)} {role}" for role, those in self._players.items())
            raise UsageError(f"this test does not play {role!r} number {index}; it plays {roles or 'nobody'}")
        return players[index]

    def finish(self, timeout: float | None = None) -> Results:
        """Leave the group, and wait for the end of the others' tests.

        :param timeout: seconds; the job has limits of its own.
        :raises JobEnded: it has not ended by then, and was ended.
        """
        for player in itertools.chain.from_iterable(self._players.values()):
            player.leave()
        ended = self._background.run(_wait(self._task, timeout))
        if not ended:
            self.leave()
            raise JobEnded(f"the job had not ended after {timeout:g} s", hint=f"its logs are in {self.output}")
        outcome = self._task.result()
        self.leave()
        return results_of(outcome, self.output)

    def leave(self) -> None:
        """End it now, and close its consoles. Doing it twice does no harm."""
        self._background.run(self._end())

    async def _end(self) -> None:
        self._task.cancel()
        await asyncio.wait((self._task,))
        await self._server.stop()

    def __enter__(self) -> RunningJob:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()


async def _begin(run: Coroutine[Any, Any, runner.Outcome]) -> asyncio.Task[runner.Outcome]:
    return asyncio.get_running_loop().create_task(run)


async def _wait(task: asyncio.Task[runner.Outcome], timeout: float | None) -> bool:
    done, _running = await asyncio.wait((task,), timeout=timeout)
    return bool(done)


async def _serve(members: tuple[Member, ...]) -> tuple[Server, Elsewhere]:
    """A coordinator for one group of this process, which is told its members: who fails before it joins has left, too.

    Others on this host can reach its port, so there is a token.
    """
    token = secrets.token_hex(16)

    def gate(request: wire.Request) -> str | None:
        shown = request.token if isinstance(request, wire.Status) else request.caller.token
        return None if shown == token else "this coordinator serves one test only"

    run = secrets.token_hex(4)
    hall, group = Hall(MemoryJournal()), f"multinode-{run}"
    hall.open(group, run, members)
    server = Server(Desk(hall, gate))
    port = await server.start("127.0.0.1", 0)
    return server, Elsewhere(Address("127.0.0.1", port), len(members), group, token, run=run)


class _Ready:
    """What a job needs to run: read, checked, and nothing opened yet."""

    def __init__(self, path: Path, devices: Devices, play: Sequence[str]) -> None:
        self.plugins: Plugins = load_plugins()
        if isinstance(devices, Mapping):
            with tempfile.TemporaryDirectory(prefix="multinode-git-") as clones:
                job = resolve_job(load_job(path), Path(clones))
            played = _without(job, play)
            self.seats = _seats(played, devices)
        else:
            job, known = read_files(path, None if devices is None else Path(devices), self.plugins)
            played = _without(job, play)
            self.seats = runner.seats(place(played, known), self.plugins.transports, 1)
        self.job = job
        counts = {role.name: role.count for role in job.roles}
        roles = [role for role in play for _member in range(counts.get(role, 1))]
        first = len(self.seats) + 1
        self.players = [Member(str(number), role) for number, role in enumerate(roles, first)]


def _without(job: Job, play: Sequence[str]) -> Job:
    """The job as its consoles play it."""
    return replace(job, roles=tuple(replace(role, count=0) if role.name in play else role for role in job.roles))


def _seats(job: Job, consoles: Consoles) -> list[Seat]:
    """Give every member the console that was given for it. :raises UsageError: there are too few, or too many."""
    unknown = consoles.keys() - {role.name for role in job.roles}
    if unknown:
        raise UsageError(f"the job has no role {', '.join(sorted(unknown))}", where="devices")
    given = [(role, transport) for role in job.roles for transport in _of(role, consoles)]
    placements = [Placement(role, _device(role, transport)) for role, transport in given]
    helpers.check(job, placements)
    return [
        Seat(Member(str(number), role.name), placement.device, transport, role.environment, role.essential)
        for number, ((role, transport), placement) in enumerate(zip(given, placements, strict=True), 1)
    ]


def _of(role: Role, consoles: Consoles) -> Sequence[Transport]:
    given = consoles.get(role.name, ())
    those = [given] if isinstance(given, Transport) else list(given)
    if len(those) != role.count:
        raise UsageError(f"the role {role.name!r} has {role.count} members, and {len(those)} consoles", where="devices")
    return those


def _device(role: Role, transport: Transport) -> Device:
    kind = type(transport).__name__
    return Device(transport.device, role.device_type, kind, transport.options, role.line, lava_test_sh_cmd=role.shell)
