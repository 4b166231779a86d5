"""What a member has on its device: the scripts, what they must know, and the files of its tests."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from dispatcher import resources
from dispatcher.console.install import Entry, install, typed_size
from dispatcher.console.kernel import KernelMessages
from dispatcher.console.place import find_directory, link_shipped
from dispatcher.console.shell import Shell
from dispatcher.framing.reliable import new_seed
from dispatcher.group.events import Member
from dispatcher.job import hidden, overlay, reboots
from dispatcher.job.calls import Call
from dispatcher.job.definition import DEFAULT_SHELL, Test
from dispatcher.job.devices import DEFAULT_RESULTS_DIR, OTHER_RESULTS_DIRS
from dispatcher.job.hosts import Hosts
from dispatcher.job.seat import Seat

QUIETLY_TYPED = 5.0
"""Seconds of typing at a slow device that need not be told."""

LATENESS = 0.001
"""Seconds by which the pause after a character is longer than asked: timers count milliseconds, and none is early."""

NOT_ROOT = "console_loglevel cannot be set, as the shell is not root's, or a container's; the kernel prints as before"
THIS_HOST = "console_loglevel is not set, as the device is a shell of the machine that runs the job"


class Kit:
    """All of it, in one directory.

    The device's kernel is quiet while something is put there, unless it is that of this very host.

    :param hidden_values: the job's secrets.
    :param nonce: makes the directory's name the run's own.
    :ivar directory: where it is on the device.
    :ivar cache: the cache file of the waits, once :meth:`introduce` has chosen it.
    :ivar seed: what the sums of the scripts' frames begin with; the run's own too.
    :ivar boot_id: of the boot in which it was put there; empty where the device cannot tell.
    """

    def __init__(
        self,
        seat: Seat,
        hidden_values: Mapping[str, str],
        tests: Sequence[Test],
        calls: Mapping[str, Call],
        hosts: Hosts,
        nonce: str,
        note: Callable[..., None],
    ) -> None:
        self._seat = seat
        self._hosts = hosts
        self._secrets = hidden_values
        self._tests = tests
        self._calls = calls
        self._nonce = nonce
        self._note = note
        self.directory = self._own_directory(seat.device.results_dir)
        self.cache = overlay.DEFAULT_CACHE
        self.seed = new_seed()
        self.boot_id = ""
        self._kernel = KernelMessages(seat.device.console_loglevel, lambda: note("loglevel", reason=NOT_ROOT))

    @property
    def is_on_this_host(self) -> bool:
        """Whether the device is a shell of the host that runs the job."""
        return self._hosts.is_here(self.boot_id)

    async def put_scripts(self, shell: Shell, deadline: float) -> None:
        """Find a place, and put our scripts there."""
        self.boot_id = await reboots.boot_id_of(shell, deadline)
        if self.is_on_this_host and self._seat.device.console_loglevel is not None:
            self._note("loglevel", reason=THIS_HOST)
        async with self._quiet(shell, deadline):
            if self._seat.device.results_dir == DEFAULT_RESULTS_DIR:
                await self._find_directory(shell, deadline)
            await self._put(shell, await self._script_files(shell, deadline), deadline)

    async def introduce(self, shell: Shell, members: Sequence[Member], deadline: float, *, shared: bool) -> None:
        """Tell the scripts what they must know of the device and of the group.

        :param shared: another member is on the same host.
        """
        elsewhere = self._seat.device.results_dir == DEFAULT_RESULTS_DIR and self.directory != self._own_directory(
            DEFAULT_RESULTS_DIR
        )
        self.cache = f"{self.directory}/lava_multi_node_cache.txt" if shared or elsewhere else overlay.DEFAULT_CACHE
        async with self._quiet(shell, deadline):
            await self._put(shell, await self._setting_files(shell, members, deadline), deadline)
        self._note("installed", directory=self.directory, cache=self.cache)

    async def put_again(
        self, shell: Shell, members: Sequence[Member], files: Mapping[str, Entry], deadline: float
    ) -> None:
        """Put there what a reboot has cost, and some files besides."""
        async with self._quiet(shell, deadline):
            scripts = await self._script_files(shell, deadline)
            settings = await self._setting_files(shell, members, deadline)
            await self._put(shell, {**scripts, **settings, **files}, deadline, again=True)

    async def is_there(self, shell: Shell, deadline: float) -> bool:
        """Whether it is where it was put: another system may run there now."""
        return (await shell.run(f"[ -e {self.directory}/environment ]", deadline=deadline, check=False)).status == 0

    async def put(self, shell: Shell, files: Mapping[str, Entry], deadline: float) -> None:
        """Put files there.

        :raises dispatcher.errors.ConsoleError: they could not be put there.
        """
        async with self._quiet(shell, deadline):
            await self._put(shell, files, deadline)

    @asynccontextmanager
    async def _quiet(self, shell: Shell, deadline: float) -> AsyncIterator[None]:
        if self.is_on_this_host:
            yield
            return
        async with self._kernel.quiet(shell, deadline):
            yield

    async def _put(self, shell: Shell, files: Mapping[str, Entry], deadline: float, *, again: bool = False) -> None:
        size, delay = typed_size(files), self._seat.device.character_delay
        seconds = size * (delay + LATENESS)
        if delay and seconds > QUIETLY_TYPED:
            self._note("installing", files=len(files), bytes=size, seconds=round(seconds))
        await install(shell, self.directory, files, deadline=deadline, again=again)

    async def _setting_files(self, shell: Shell, members: Sequence[Member], deadline: float) -> dict[str, Entry]:
        device, member = self._seat.device, self._seat.member
        console = await shell.run("R=$(tty)||R=$(readlink /proc/self/fd/0)||R=", deadline=deadline, check=False)
        settings = overlay.settings(
            job_id=member.id,
            role=member.role,
            group=[(m.id, m.role) for m in members],
            console=console.value if console.value.startswith("/") else "",
            cache=self.cache,
            test_shell=device.lava_test_sh_cmd,
            nonce=secrets.token_hex(2),
            seed=self.seed,
        )
        environment = overlay.environment(
            device.environment,
            self._seat.environment,
            {"LAVA_MULTI_NODE_CACHE": self.cache, "LAVA_JOB_ID": member.id},
        )
        files = {f"bin/{resources.SETTINGS}": Entry(settings), "environment": Entry(environment)}
        if self._secrets:
            files[hidden.FILE] = Entry(hidden.content(self._secrets), private=True)
        return files

    def _own_directory(self, results_dir: str) -> str:
        return f"{results_dir.replace('%s', self._seat.member.id)}-{self._nonce}"

    async def _find_directory(self, shell: Shell, deadline: float) -> None:
        """Go elsewhere where the usual place will not do; if no place does, whoever writes there is told why."""
        candidates = [self._own_directory(each) for each in (DEFAULT_RESULTS_DIR, *OTHER_RESULTS_DIRS)]
        interpreter = self._seat.device.lava_test_sh_cmd
        self.directory = (await find_directory(shell, candidates, interpreter, deadline=deadline)) or self.directory

    async def _script_files(self, shell: Shell, deadline: float) -> dict[str, Entry]:
        interpreter = self._seat.device.lava_test_sh_cmd
        return {
            f"bin/{name}": Entry(_for_shell(content, interpreter), executable=name != resources.LIBRARY)
            for name, content in (await self._missing_scripts(shell, deadline)).items()
        }

    async def _missing_scripts(self, shell: Shell, deadline: float) -> dict[str, bytes]:
        """The scripts that have to be sent: those of ours that the device's image has brought are linked instead."""
        scripts = self._scripts()
        ours = {name for name, content in resources.target_scripts().items() if scripts.get(name) == content}
        if self._seat.device.lava_test_sh_cmd != DEFAULT_SHELL or not await link_shipped(
            shell,
            f"{self.directory}/bin",
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


def _for_shell(script: bytes, shell: str) -> bytes:
    """A script whose first line names the device's shell, as LAVA's overlay does."""
    first, newline, rest = script.partition(b"\n")
    return b"#!" + shell.encode() + newline + rest if first == b"#!/bin/sh" else script
