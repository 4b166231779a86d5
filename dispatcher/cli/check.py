"""``multinode check JOB``."""

from __future__ import annotations

import argparse

from dispatcher.cli.run import load_plugins, read
from dispatcher.job import runner


def command(arguments: argparse.Namespace) -> int:
    """Validate a job and its devices, and say who would play which role."""
    plugins = load_plugins()
    job, placements = read(arguments.job, arguments.devices, plugins)
    members = runner.seats(placements, plugins.transports, 1)
    print(f"{arguments.job}: {job.name}: {len(members)} members")
    for seat in members:
        print(f"  {seat.member.role}: {seat.device.name} ({seat.device.device_type})")
    return 0
