"""``multinode demo``: the API page's client and server example, on local shells or on QEMU guests."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dispatcher import resources
from dispatcher.cli.run import execute, load_plugins, read
from dispatcher.job.runner import Options

_LOCAL = """\
devices:
  local: {device_type: board, count: 2, console: {command: sh}}
"""

_ABOUT = """\
Two boards meet over their serial consoles: the server measures its free disk space and sends it, the client waits for
the message and reads it. This is example 1 of LAVA's MultiNode API; the boards are {boards}.
"""


def command(arguments: argparse.Namespace) -> int:
    """Run the example and show what happens. The files it leaves are kept only with ``--output``."""
    with _output(arguments.output) as output, tempfile.TemporaryDirectory(prefix="multinode-demo-") as folder:
        devices = Path(folder) / "devices.yaml"
        boards = _guests(devices) if arguments.qemu else _shells(devices)
        print(_ABOUT.format(boards=boards))
        plugins = load_plugins()
        job, placements = read(resources.example_jobs() / "example-1" / "job.yaml", devices, plugins, notes=False)
        options = Options(output, first_id=12345, grace=0.0)
        return execute(job, placements, plugins, options, verbose=True, kept=arguments.output is not None)


def _shells(devices: Path) -> str:
    devices.write_text(_LOCAL, encoding="utf-8")
    return "two shells on this machine"


def _guests(devices: Path) -> str:
    from dispatcher.guest import recipe

    recipe.write_device_file(devices, recipe.prepare(), count=2)
    return "two QEMU guests, each with an emulated 16550 UART"


@contextlib.contextmanager
def _output(kept: Path | None) -> Iterator[Path]:
    if kept is not None:
        yield kept
        return
    with tempfile.TemporaryDirectory(prefix="multinode-demo-output-") as folder:
        yield Path(folder)
