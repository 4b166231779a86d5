"""``multinode run JOB``."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from dispatcher.cli.elsewhere import tls
from dispatcher.cli.render import Live, login_command_failed, summary
from dispatcher.cli.signals import until_signal
from dispatcher.coordinator.live import GRACE
from dispatcher.errors import FileError
from dispatcher.job import commands, helpers, runner
from dispatcher.job.definition import Job, load_job, resolve_job
from dispatcher.job.devices import Devices, Placement, assign, load_devices
from dispatcher.job.meeting import Elsewhere
from dispatcher.job.record import RunEvent
from dispatcher.job.seat import Kept
from dispatcher.plugins import Plugins, load


def command(arguments: argparse.Namespace) -> int:
    """Run a job and show how it went."""
    plugins = load_plugins()
    job, placements = read(arguments.job, arguments.devices, plugins)
    there = arguments.coordinator
    elsewhere = there and Elsewhere(there, len(placements), token=arguments.token, tls=tls(arguments))
    options = options_of(arguments, elsewhere, grace=arguments.stuck_grace)
    return execute(job, placements, plugins, options, verbose=arguments.verbose)


def options_of(
    arguments: argparse.Namespace, elsewhere: Elsewhere | None, *, grace: float | None = GRACE
) -> runner.Options:
    """The options of a run, as whoever runs members of a group has them on the command line."""
    return runner.Options(
        arguments.output,
        arguments.job_id,
        grace,
        arguments.log_limit,
        elsewhere=elsewhere,
        keep=arguments.keep,
    )


def load_plugins() -> Plugins:
    """All plugins; the broken ones are named on stderr."""
    plugins = load()
    for broken in plugins.problems:
        print(
            f"multinode: plugin {broken.name!r} of {broken.distribution} is skipped: {broken.problem}", file=sys.stderr
        )
    return plugins


def read(
    job_path: Path, devices_path: Path | None, plugins: Plugins, *, notes: bool = True
) -> tuple[Job, Sequence[Placement]]:
    """Read and check the job and device files, and give every member a device.

    :param notes: say on stderr what in them is not used.
    :raises FileError: one of them is wrong.
    """
    job, devices = read_files(job_path, devices_path, plugins, notes=notes)
    return job, place(job, devices)


def place(job: Job, devices: Devices) -> Sequence[Placement]:
    """Give every member a device that has what its tests ask for. :raises FileError: there is none."""
    placements = assign(job, devices)
    helpers.check(job, placements)
    commands.check(job, placements)
    return placements


def read_files(
    job_path: Path, devices_path: Path | None, plugins: Plugins, *, notes: bool = True
) -> tuple[Job, Devices]:
    """Read and check the job and device files. :raises FileError: one of them is wrong."""
    with tempfile.TemporaryDirectory(prefix="multinode-git-") as clones:
        job = resolve_job(load_job(job_path), Path(clones))
    beside = job_path.parent / "devices.yaml"
    if devices_path is None and not beside.is_file():
        raise FileError("no device file", where=str(job_path), hint=f"name one with --devices FILE, or write {beside}")
    transports = {name: transport.OPTIONS for name, transport in plugins.transports.items()}
    devices = load_devices(devices_path or beside, transports)
    if notes:
        for note in (*job.ignored, *job.notes, *devices.ignored):
            print(f"multinode: {note}", file=sys.stderr)
    return job, devices


def execute(
    job: Job,
    placements: Sequence[Placement],
    plugins: Plugins,
    options: runner.Options,
    *,
    verbose: bool,
    kept: bool = True,
) -> int:
    """Run what was read, showing it as it goes; the exit status.

    :param kept: whether the output directory will still be there for the user to look at.
    """
    members = runner.seats(placements, plugins.transports, options.first_id)
    live = Live(sys.stdout, [seat.member for seat in members], verbose=verbose)
    devices = [seat.device.name for seat in members]

    def finished(outcome: runner.Outcome) -> None:
        print(summary(outcome, devices, options.output if kept else None, sys.stdout), flush=True)
        for error in outcome.errors:
            print(f"multinode: {error}", file=sys.stderr)
        _tell_kept(outcome.kept)

    run = runner.run(job, members, plugins.calls, options, live.show, _warn, finished=finished)
    return asyncio.run(until_signal(run)).status


def _tell_kept(kept: Sequence[Kept]) -> None:
    """Say how the consoles that were left to a person are reached."""
    for console in kept:
        files = f", with its files in {console.directory}" if console.directory else ""
        print(f"multinode: {console.member} is left on {console.device}{files}\n  {console.command}", file=sys.stderr)
    if any(console.held for console in kept):
        print("multinode: Ctrl-] leaves such a console, and Ctrl-C here closes it", file=sys.stderr, flush=True)


def _warn(event: RunEvent) -> None:
    """Say on stderr what somebody who does not look on must hear of before the run has ended."""
    if event.kind == "log-full":
        what = f"{event.data['path']} has reached its limit of {event.data['limit']} bytes"
        print(f"multinode: {event.device}: {what}, and ends there; see --log-limit", file=sys.stderr, flush=True)
    elif event.kind == "login-command":
        print(f"multinode: {event.device}: {login_command_failed(event.data)}", file=sys.stderr, flush=True)
    elif event.kind == "lost":
        what = f"the console was lost: {event.data['reason']}; opening it again"
        print(f"multinode: {event.device}: {what}", file=sys.stderr, flush=True)
    elif event.kind == "back":
        what = f"the console is open again after {event.data['gap']:g} s"
        print(f"multinode: {event.device}: {what}", file=sys.stderr, flush=True)
