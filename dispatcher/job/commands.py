"""The ``command`` actions of a job: what the device file says is to be run on this host for one of its devices."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from dispatcher.console import power
from dispatcher.errors import FileError, MultinodeError
from dispatcher.job.definition import Action, Boot, Deploy, HostCommand, Job, Test
from dispatcher.job.devices import Device, Placement
from dispatcher.job.keys import COMMANDS
from dispatcher.wording import nearest, quoted

POWER: Final = COMMANDS.used - {"users"}
"""LAVA's own commands; those that a lab has besides stand under ``commands: users:``."""

POWER_UP: Final = ("hard_reset", "power_on")
"""What a boot switches a device on by: the first that it has."""


def check(job: Job, placements: Iterable[Placement]) -> None:
    """Sees to it that devices have the commands that the actions of their roles run.

    :raises FileError: naming the action's line and the device that has not.
    """
    for placement in placements:
        for action in job.actions_of(placement.role.name):
            if not isinstance(action, HostCommand):
                continue
            known = {*placement.device.commands, *placement.device.user_commands}
            if action.name not in known:
                what = f"device {quoted(placement.device.name)} has no command {quoted(action.name)}"
                kind = "" if action.name in POWER else "users: "
                hint = f"set it in the device file: commands: {kind}{{{action.name}: ...}}"
                raise FileError(what + nearest(action.name, known), where=action.where, hint=hint)


def course(actions: Iterable[Action]) -> tuple[list[HostCommand], list[Boot], list[HostCommand | Boot | Test]]:
    """What a member goes through: the commands before its console is opened, its boots until then, and all the rest.

    The console is opened where the first boot stands, or the first test where none stands before it.
    """
    early: list[HostCommand] = []
    boots: list[Boot] = []
    rest: list[HostCommand | Boot | Test] = []
    tested = False
    for action in actions:
        tested = tested or isinstance(action, Test)
        if isinstance(action, HostCommand) and not boots and not tested:
            early.append(action)
        elif isinstance(action, Boot) and not tested:
            boots.append(action)
        elif not isinstance(action, Deploy):
            rest.append(action)
    return early, boots, rest


@dataclass(frozen=True, slots=True)
class _Undo:
    name: str
    command: str
    limit: float


class Commands:
    """Runs the commands of one device. ``note`` records an event of its member: its kind, then data by name."""

    def __init__(self, device: Device, note: Callable[..., None]) -> None:
        self._device = device
        self._note = note
        self._undos: list[_Undo] = []

    async def run(self, action: HostCommand) -> None:
        """Run one. :raises ConsoleError: it failed, or took too long."""
        name, limit = action.name, action.timeout or power.COMMAND_TIMEOUT
        self._note("power", what=name)
        if name in self._device.commands:
            await power.switch(self._device.name, name, self._device.commands[name], limit=limit)
            return
        user = self._device.user_commands[name]
        if user.undo is not None:
            self._undos.append(_Undo(name, user.undo, limit))
        await power.switch(self._device.name, name, [user.do], limit=limit)

    async def undo(self) -> MultinodeError | None:
        """Undo what was done, the last first, whatever becomes of it; why the first that failed did."""
        failure: MultinodeError | None = None
        while self._undos:
            undo = self._undos.pop()
            self._note("power", what=f"undo {undo.name}")
            try:
                await power.switch(self._device.name, f"undo of {undo.name}", [undo.command], limit=undo.limit)
            except MultinodeError as error:
                failure = failure or error
        return failure
