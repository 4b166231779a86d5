"""LAVA's helpers in the steps of a test definition: which of them cannot work here, told before a console is opened."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from dispatcher.errors import FileError
from dispatcher.job.content import REBOOT
from dispatcher.job.definition import Boot, Job, Test
from dispatcher.job.devices import Placement

NEEDS: Final = {
    "lava-target-ip": "TARGET_DEVICE_IP",
    "lava-target-mac": "TARGET_DEVICE_MAC",
    "lava-probe-ip": "PROBE_DEVICE_IP",
    "lava-probe-channel": "PROBE_DEVICE_CHANNEL",
}
"""What the environment of a device must say for a helper that prints it."""


def check(job: Job, placements: Iterable[Placement]) -> None:
    """Sees to it that the devices know what the helpers of their tests print, and are known to those of ours.

    :raises FileError: naming the step and the device that does not.
    """
    for placement in placements:
        known = {**placement.device.environment, **placement.role.environment}
        for helper, where in _called(job, placement.role.name):
            variable = NEEDS.get(helper)
            if variable is not None and not known.get(variable):
                what = f"{helper} prints {variable}, which device {placement.device.name!r} does not know"
                raise FileError(what, where=where, hint=f"set it in the device file: environment: {{{variable}: ...}}")
            if helper == REBOOT and not _is_known_when_up(job, placement):
                what = f"{REBOOT} needs to know what device {placement.device.name!r} shows when it is up again"
                raise FileError(
                    what, where=where, hint="say it with prompts or auto_login, in the device file or a boot action"
                )


def _is_known_when_up(job: Job, placement: Placement) -> bool:
    boots = [action for action in job.actions_of(placement.role.name) if isinstance(action, Boot)]
    shown = any(boot.prompts or boot.auto_login for boot in boots[-1:])
    return bool(shown or placement.device.prompts or placement.device.auto_login)


def _called(job: Job, role: str) -> Iterator[tuple[str, str]]:
    for action in job.actions_of(role):
        if isinstance(action, Test):
            for definition in action.definitions:
                yield from definition.helpers.items()
