"""The command line: every subcommand and option, with the words that ``--help`` shows."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from dispatcher.cli import attach, check, coordinator, demo, elsewhere, plugins, replay, run, service, status
from dispatcher.console.transcript import LOG_LIMIT
from dispatcher.coordinator.live import GRACE
from dispatcher.coordinator.remote import Address


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments; ``command`` is what to call with them. Exits with 2 where they are wrong."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show a traceback where an error is told")
    parser = argparse.ArgumentParser(prog="multinode", description="LAVA's MultiNode calls over serial consoles.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {metadata.version('multinode-dispatcher')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    command = commands.add_parser("run", parents=[common], help="run a whole group, one console a member")
    command.add_argument("job", type=Path, metavar="JOB", help="the job file")
    _add_devices(command)
    _add_run_options(command, default_output="multinode-output")
    command.add_argument("--job-id", type=_job_id, metavar="N", default=1, help="the first member's id (default: 1)")
    _add_grace(command)
    elsewhere.add_options(command, default=None, note="one in this process")
    command.set_defaults(command=run.command)

    command = commands.add_parser("attach", parents=[common], help="run one member; the others run elsewhere")
    command.add_argument("job", type=Path, metavar="JOB", help="the job file, the same for every member")
    command.add_argument("--role", required=True, help="the role that it plays")
    command.add_argument("--group", required=True, metavar="NAME", help="the group's name, the same for every member")
    command.add_argument("--job-id", required=True, type=_job_id, metavar="N", help="its id, another for every member")
    _add_devices(command)
    _add_run_options(command, default_output="multinode-output")
    elsewhere.add_options(command, default=Address("localhost"))
    command.set_defaults(command=attach.command)

    command = commands.add_parser("coordinator", parents=[common], help="the group coordinator as a service")
    service.add_options(command)
    command.set_defaults(command=coordinator.command)

    command = commands.add_parser("status", parents=[common], help="groups, members, who waits for what and how long")
    command.add_argument("--json", action="store_true", help="as JSON")
    elsewhere.add_options(command, default=Address("localhost"))
    command.set_defaults(command=status.command)

    command = commands.add_parser("check", parents=[common], help="validate a job without opening a console")
    command.add_argument("job", type=Path, metavar="JOB", help="the job file")
    _add_devices(command)
    command.set_defaults(command=check.command)

    command = commands.add_parser("demo", parents=[common], help="the API page's example on two local shells")
    command.add_argument("--qemu", action="store_true", help="on two QEMU guests instead")
    command.add_argument("--output", type=Path, metavar="DIR", help="keep the results and logs here")
    command.set_defaults(command=demo.command)

    command = commands.add_parser("replay", parents=[common], help="decode a recorded console: frames, damage, results")
    command.add_argument("file", type=Path, metavar="FILE", help="a console's log, such as consoles/1.log")
    command.set_defaults(command=replay.command)

    command = commands.add_parser("plugins", parents=[common], help="what is loaded, from which distribution")
    command.set_defaults(command=plugins.command)
    return parser.parse_args(argv)


def _add_devices(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--devices", type=Path, metavar="FILE", help="the device file (default: devices.yaml beside the job)"
    )


def _add_run_options(command: argparse.ArgumentParser, default_output: str) -> None:
    command.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        default=Path(default_output),
        help="results and logs (default: %(default)s)",
    )
    command.add_argument("-v", "--verbose", action="store_true", help="show what the tests print, too")
    command.add_argument(
        "--keep", action="store_true", help="leave the shells of members that fail open, and say where"
    )
    command.add_argument(
        "--log-limit",
        type=_size,
        metavar="SIZE|none",
        default=LOG_LIMIT,
        help="how much of each console is kept, such as 200M (default: 1G)",
    )


def _add_grace(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--stuck-grace",
        type=service.reader("stuck_grace"),
        metavar="SECONDS|never",
        default=GRACE,
        help="when the waits of members that can only wait for each other fail (default: %(default)g)",
    )


def _job_id(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise argparse.ArgumentTypeError(f"{text!r} is no job id: digits only")
    return int(text)


def _size(text: str) -> int | None:
    if text == "none":
        return None
    found = re.fullmatch(r"([0-9]{1,15})([kMGT]?)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a size such as 200M or 4G nor 'none'")
    return int(found.group(1)) << 10 * " kMGT".index(found.group(2) or " ")
