"""LAVA's helpers in the steps of a test definition: which of them cannot work here, told before a console is opened."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from dispatcher.errors import FileError
from dispatcher.job.definition import Job, Test
from dispatcher.job.devices import Placement

NEEDS: Final = {
    "lava-target-ip": "TARGET_DEVICE_IP",
    "lava-target-mac": "TARGET_DEVICE_MAC",
    "lava-probe-ip": "PROBE_DEVICE_IP",
    "lava-probe-channel": "PROBE_DEVICE_CHANNEL",
}
"""What the environment of a device must say for a helper that prints it."""


def check(job: Job, placements: Iterable[Placement]) -> None:
    """Sees to it that the devices know what the helpers of their tests print.

    :raises FileError: naming the step and the device that does not.
    """
    for placement in placements:
        known = {**placement.device.environment, **placement.role.environment}
        for helper, where in _called(job, placement.role.name):
            variable = NEEDS.get(helper)
            if variable is not None and not known.get(variable):
                what = f"{helper} prints {variable}, which device {placement.device.name!r} does not know"
                raise FileError(what, where=where, hint=f"set it in the device file: environment: {{{variable}: ...}}")


def _called(job: Job, role: str) -> Iterator[tuple[str, str]]:
    for action in job.actions_of(role):
        if isinstance(action, Test):
            for definition in action.definitions:
                yield from definition.helpers.items()
