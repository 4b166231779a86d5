"""``multinode attach JOB``: one member of a group whose others run elsewhere."""

from __future__ import annotations

import argparse
from dataclasses import replace

from dispatcher.cli.elsewhere import tls
from dispatcher.cli.run import execute, load_plugins, options_of, place, read_files
from dispatcher.errors import UsageError
from dispatcher.job.meeting import Elsewhere


def command(arguments: argparse.Namespace) -> int:
    """Run the member and show how it went."""
    plugins = load_plugins()
    job, devices = read_files(arguments.job, arguments.devices, plugins)
    roles = [role for role in job.roles if role.name == arguments.role and role.count]
    if not roles:
        names = ", ".join(role.name for role in job.roles if role.count)
        raise UsageError(f"no member has the role {arguments.role!r}", where="--role", hint=f"the roles are {names}")
    placements = place(replace(job, roles=(replace(roles[0], count=1),)), devices)
    size = sum(role.count for role in job.roles)
    elsewhere = Elsewhere(arguments.coordinator, size, arguments.group, arguments.token, tls(arguments))
    return execute(job, placements, plugins, options_of(arguments, elsewhere), verbose=arguments.verbose)
