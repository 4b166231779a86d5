"""One device on a bad line, in a group with members that are simulated here: the host's whole stack, the real scripts.

The target scripts lie in a directory on this disk, where the device's shell runs them; only calls cross the line.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from badline import BadLine, Faults

from dispatcher import resources
from dispatcher.console.connection import Console
from dispatcher.console.transcript import Transcript
from dispatcher.console.transport import Transport
from dispatcher.coordinator.client import EmbeddedClient
from dispatcher.coordinator.journal.memory import MemoryJournal
from dispatcher.coordinator.live import LiveGroup
from dispatcher.framing.reliable import UNSEEDED
from dispatcher.group.events import Member, Sent
from dispatcher.job import overlay
from dispatcher.job.calls import Send, Sync, Wait, WaitAll
from dispatcher.job.results import Case, MemberResults
from dispatcher.job.session import TestSession

SHELLS = {"dash": "dash", "bash": "bash", "mksh": "mksh", "ksh93": "ksh93", "ash": "busybox"}
"""Name → program. busybox is its ash where it is called so."""

DEVICE = Member("1", "device")
PARTNER = Member("2", "partner")


def install_shell(name: str, directory: Path) -> Path | None:
    """A shell's path, None where it is not installed."""
    program = shutil.which(SHELLS[name])
    if program is None:
        return None
    if name == SHELLS[name]:
        return Path(program)
    link = directory / name
    if not link.is_symlink():
        link.symlink_to(program)
    return link


def quoted(text: bytes) -> bytes:
    """Any bytes but NUL as one word of a shell."""
    return b"'" + text.replace(b"'", b"'\\''") + b"'"


class Board:
    """A device's directory as the dispatcher lays it out."""

    def __init__(self, root: Path, shell: Path) -> None:
        self.root = root
        self.shell = shell
        self.bin = root / "bin"
        self.cache = root / "cache.txt"
        self.kept = root / "kept"
        for directory in (self.bin, self.kept):
            directory.mkdir(parents=True)
        for name, content in resources.target_scripts().items():
            (self.bin / name).write_bytes(content.replace(b"#!/bin/sh\n", b"#!%s\n" % bytes(shell), 1))
            (self.bin / name).chmod(0o755)
        library = self.bin / resources.LIBRARY
        if b"LAVA_QUIET" not in library.read_bytes():
            library.write_bytes(library.read_bytes().replace(b"min 0 time 5", b"min 0 time 1"))

    def settle(self, members: Sequence[Member], console: str, *, quiet: int | None = 1) -> None:
        """Write the settings. ``quiet``: tenths of a second that end a wait for bytes, None for the usual."""
        settings = overlay.settings(
            job_id=DEVICE.id,
            role=DEVICE.role,
            group=[(member.id, member.role) for member in members],
            console=console,
            cache=str(self.cache),
            test_shell=str(self.shell),
            nonce="beef",
            seed=UNSEEDED,
        )
        if quiet is not None:
            settings += b"LAVA_QUIET=%d\n" % quiet
        (self.bin / resources.SETTINGS).write_bytes(settings)

    def add_stage(self, suites: Mapping[str, bytes], stage: int = 0) -> list[str]:
        """Put test definitions there, name → steps; what the device is to run."""
        base = self.root / str(stage)
        for suite, steps in suites.items():
            directory = base / "tests" / suite
            directory.mkdir(parents=True)
            (directory / "uuid").write_text("0123456789abcdef\n")
            (directory / "run.sh").write_bytes(steps)
        (base / "lava-test-runner.conf").write_text("".join(f"{base}/tests/{suite}\n" for suite in suites))
        return [str(self.bin / "lava-test-runner"), str(base)]

    def environment(self) -> dict[str, str]:
        return {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": str(self.root), "TERM": "dumb"}


class Seat:
    """One member's console and session.

    :ivar notes: what the session told, (kind, data) each.
    :ivar cases: the results.
    """

    def __init__(
        self, member: Member, members: Sequence[Member], client: EmbeddedClient, transport: Transport, log: Path
    ) -> None:
        self.log = log
        self.notes: list[tuple[str, dict[str, Any]]] = []
        self.cases: list[Case] = []
        self._watchers: list[Callable[[str, dict[str, Any]], None]] = []
        self.console = Console(member.role, transport, Transcript(log))
        self.console.open()
        results = MemberResults(
            member,
            member.role,
            monotonic=time.monotonic,
            now=lambda: datetime.now(UTC),
            observe=self.cases.append,
        )
        self.session = TestSession(
            self.console,
            member,
            members,
            client,
            calls={"SEND": Send(), "WAIT": Wait(), "WAIT_ALL": WaitAll(), "SYNC": Sync()},
            results=results,
            note=self._note,
            requests=itertools.count(1),
            timeout=None,
        )
        self.console.listen(self.session.hear)

    async def close(self) -> None:
        self.session.cancel()
        await self.console.close()

    def shown(self) -> bytes:
        """All that the console has shown."""
        return self.log.read_bytes()

    def _note(self, kind: str, **data: Any) -> None:
        self.notes.append((kind, data))
        for watcher in self._watchers:
            watcher(kind, data)

    async def noted(self, kind: str, **data: Any) -> dict[str, Any]:
        """Wait for a note with these data at least, or find it among the old ones."""

        def fits(of: str, given: dict[str, Any]) -> bool:
            return of == kind and given.items() >= data.items()

        for old in self.notes:
            if fits(*old):
                return old[1]
        found: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

        def watch(of: str, given: dict[str, Any]) -> None:
            if fits(of, given) and not found.done():
                found.set_result(given)

        self._watchers.append(watch)
        try:
            return await found
        finally:
            self._watchers.remove(watch)


class Lab:
    """A group whose first member is a board on a bad line; use it with ``async with``. The others are the test's."""

    def __init__(
        self,
        root: Path,
        shell: Path,
        faults: Faults,
        seed: int,
        *,
        members: Sequence[Member] = (DEVICE, PARTNER),
        quiet: int | None = 1,
    ) -> None:
        self.members = members
        self.line = BadLine(faults, seed)
        self.board = Board(root / "board", shell)
        self.journal = MemoryJournal()
        self.group = LiveGroup("lab", members, self.journal, grace=None)
        self.clients = {member.id: EmbeddedClient(self.group, member.id) for member in members}
        self._root = root
        self._quiet = quiet
        self._seats: list[Seat] = []
        self._began = 0.0
        self._forgotten = 0

    async def __aenter__(self) -> Self:
        await asyncio.gather(*(client.join(f"join {member}") for member, client in self.clients.items()))
        self.device = self.seat(DEVICE, self.line)
        self.board.settle(self.members, self.line.tty, quiet=self._quiet)
        self._began = time.monotonic()
        return self

    async def __aexit__(self, *_error: object) -> None:
        for seat in self._seats:
            await seat.close()
        self.group.close()

    def seat(self, member: Member, transport: Transport) -> Seat:
        """Give a member a console; it is closed with the lab."""
        seat = Seat(member, self.members, self.clients[member.id], transport, self._root / f"{member.id}.log")
        self._seats.append(seat)
        return seat

    async def start(self, argv: Sequence[str]) -> None:
        """Run something on the device."""
        await self.line.power_on(argv, cwd=self.board.root, env=self.board.environment())

    async def finish(self, suites: Iterable[str]) -> None:
        """Wait until the device's program has ended by itself; settle its results."""
        assert self.line.process is not None
        status = await self.line.process.wait()
        assert status == 0, f"status {status}: {self.device.shown()[-2000:]!r}"
        await self.device.session.finish(list(suites))

    def sent(self, member: Member = DEVICE) -> list[Sent]:
        """What is in the group's log of a member's messages."""
        events = self.journal.read("lab")[self._forgotten :]
        return [event for event in events if isinstance(event, Sent) and event.member == member.id]

    def forget(self) -> None:
        """Begin anew with what the device's notes and cases and :meth:`sent` tell."""
        self.device.notes.clear()
        self.device.cases.clear()
        self._forgotten = len(self.journal.read("lab"))

    def report(self) -> str:
        """How the line was, one line."""
        calls, damage = (sum(of == kind for of, _ in self.device.notes) for kind in ("call", "damage"))
        line, seconds = self.line, time.monotonic() - self._began
        repeats = self.device.session._conversation.repeats
        return (
            f"{self.board.shell.name}: {calls} calls and {len(self.device.cases) - calls} results in {seconds:.1f} s; "
            f"{line.frames} frames of the device, {line.split} split, {damage} damaged, {repeats} repeats; "
            f"{line.up.carried} bytes up, {line.down.carried} down"
        )
