"""The device file: which consoles there are and how to reach them, and which of them plays which role.

:func:`load_devices` reads and checks the file, :func:`assign` gives every member of a job a device. Both raise
:class:`~dispatcher.errors.FileError` with file and line, before anything is opened.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeVar

from dispatcher.console import kernel
from dispatcher.errors import FileError
from dispatcher.job import keys
from dispatcher.job.definition import Job, Role
from dispatcher.job.fields import AutoLogin, auto_login, character_delay, prompts, results_dir, variables
from dispatcher.job.yamlfile import Node, Skipped, read
from dispatcher.wording import nearest, quoted

COUNT_LIMIT: Final = 1000
"""Devices that one entry may stand for."""

DEFAULT_RESULTS_DIR: Final = "/tmp/lava-%s"  # noqa: S108 - on the device, and made unique by its id
OTHER_RESULTS_DIRS: Final = ("/run/lava-%s", "/dev/shm/lava-%s", "/var/tmp/lava-%s", "/root/lava-%s")  # noqa: S108
"""Where else files can go when nobody has said where, and the first is read-only or scripts cannot be run there."""

_SHELL = re.compile(r"/[^\s'\"`$\\;&|<>()*?\[\]#~]*")

Option = str | int | bool
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class UserCommand:
    """A command that a lab has for a device, LAVA's ``users:``. What it has done ``undo`` ends with the job."""

    do: str
    undo: str | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """One console and what is behind it.

    :ivar transport: the key under ``console:`` that names how to reach it.
    :ivar config: everything under ``console:``, that key included.
    :ivar prompts: regular expressions; empty where the console is a shell at once.
    :ivar commands: ``power_on``, ``power_off``, ``hard_reset`` → commands for the host's shell, in order.
    :ivar user_commands: the lab's own, by name.
    :ivar character_delay: seconds between two characters sent.
    :ivar environment: set in the test shell.
    :ivar lava_test_sh_cmd: the shell on the device that runs the tests; empty where that is the role's to say.
    :ivar results_dir: where our files go on the device; ``%s`` stands for the member's id.
    :ivar console_loglevel: the kernel's while tests run; None: what it is.
    :ivar file: where it stands, in line ``line``; None where no file has it.
    """

    name: str
    device_type: str
    transport: str
    config: Mapping[str, Option]
    line: int
    prompts: tuple[str, ...] = ()
    auto_login: AutoLogin | None = None
    commands: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    character_delay: float = 0.0
    environment: Mapping[str, str] = field(default_factory=dict)
    user_commands: Mapping[str, UserCommand] = field(default_factory=dict)
    lava_test_sh_cmd: str = ""
    results_dir: str = DEFAULT_RESULTS_DIR
    console_loglevel: int | None = None
    file: Path | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Devices:
    """The devices of a file, in its order. ``ignored`` is told like a job's."""

    path: Path
    devices: tuple[Device, ...]
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Placement:
    """One member: the role it plays, and on which device."""

    role: Role
    device: Device


def load_devices(path: Path, transports: Mapping[str, Mapping[str, str]]) -> Devices:
    """Reads a device file.

    :param transports: each transport's name → the keys that ``console:`` may hold for it, its name among them.
    """
    skipped = Skipped()
    top = read(path, skipped, unique_keys=True)
    entries = top.need(top.mapping(keys.DEVICE_FILE), "devices")
    devices: dict[str, Device] = {}
    for key, value in entries.items():
        for device in _devices(path, key, value, transports):
            if device.name in devices:
                line = devices[device.name].line
                raise key.error(f"two devices are named {quoted(device.name)}: in line {line} and in line {key.line}")
            devices[device.name] = device
    if not devices:
        raise entries.error("the file has no devices")
    return Devices(path, tuple(devices.values()), skipped.told())


def _devices(path: Path, key: Node, node: Node, transports: Mapping[str, Mapping[str, str]]) -> Iterable[Device]:
    """The devices that one entry stands for: one, or as many as it counts."""
    name = key.word()
    if not name.isprintable() or any(char.isspace() for char in name):
        raise key.error(f"a device cannot be named {quoted(name)}", "use any printable characters but white space")
    found = node.mapping(keys.DEVICE)
    names = [name]
    if "count" in found:
        names = [f"{name}-{number}" for number in range(1, found["count"].integer(1, COUNT_LIMIT) + 1)]
    transport, config = _console(node.need(found, "console"), found, transports)
    for each in names:
        yield Device(
            name=each,
            device_type=node.need(found, "device_type").line_of_text(200),
            transport=transport,
            config=config,
            line=key.line,
            file=path,
            prompts=_optional(found, "prompts", prompts, ()),
            auto_login=_optional(found, "auto_login", auto_login, None),
            commands=_optional(found, "commands", _commands, {}),
            user_commands=_optional(found, "commands", _user_commands, {}),
            character_delay=_optional(found, "character_delay", character_delay, 0.0),
            environment=_optional(found, "environment", variables, {}),
            lava_test_sh_cmd=_optional(found, "lava_test_sh_cmd", _shell, ""),
            results_dir=_optional(found, "lava_test_results_dir", results_dir, DEFAULT_RESULTS_DIR),
            console_loglevel=_optional(found, "console_loglevel", _loglevel, None),
        )


def _optional(found: Mapping[str, Node], key: str, reader: Callable[[Node], _Value], default: _Value) -> _Value:
    return reader(found[key]) if key in found and not found[key].is_null else default


def _commands(node: Node) -> dict[str, tuple[str, ...]]:
    found = node.mapping(keys.COMMANDS)
    return {
        word: tuple(command.string() for command in value.one_or_more())
        for word, value in found.items()
        if word != "users"
    }


def _user_commands(node: Node) -> dict[str, UserCommand]:
    commands: dict[str, UserCommand] = {}
    users = node.mapping(keys.COMMANDS).get("users")
    for key, value in users.items() if users is not None and not users.is_null else ():
        name, found = key.word(), value.mapping(keys.USER_COMMAND)
        if name in keys.COMMANDS.known:
            raise key.error(f"{quoted(name)} is one of LAVA's own commands", f"it stands under commands: {name}:")
        undo = found["undo"].string() if "undo" in found else None
        commands[name] = UserCommand(value.need(found, "do").string(), undo)
    return commands


def _shell(node: Node) -> str:
    path = node.line_of_text(200)
    if not _SHELL.fullmatch(path):
        raise node.error(f"{quoted(path)} is not the path of a shell", "write it like /bin/sh, without arguments")
    return path


def _loglevel(node: Node) -> int:
    return node.integer(kernel.QUIET, kernel.LOUDEST)


def _console(
    node: Node, beside: Mapping[str, Node], transports: Mapping[str, Mapping[str, str]]
) -> tuple[str, dict[str, Option]]:
    """The transport that ``console:`` names, and its options, those that stand beside ``console:`` among them."""
    present = {key.word(): (key, value) for key, value in node.items()}
    named = [word for word in present if word in transports]
    if len(named) > 1:
        what = f"'console' names two transports, {quoted(named[0])} and {quoted(named[1])}"
        raise present[named[1]][0].error(what, "a console is reached in one way")
    if not named:
        raise _no_transport(node, present, transports)
    [transport] = named
    known = frozenset(transports[transport]) | {transport}
    config: dict[str, Option] = {}
    for word, (key, value) in present.items():
        if word not in known:
            raise key.error(f"unknown option {quoted(word)} of {quoted(transport)}{nearest(word, known)}")
        config[word] = value.line_of_text() if word == transport else _option(value)
    for word in keys.LINE_KEYS:
        if word not in beside:
            continue
        if word not in known:
            raise beside[word].error(f"a console with the transport {quoted(transport)} has no {word!r}")
        if word in config:
            raise beside[word].error(f"{word!r} stands inside 'console' and beside it", "remove one of the two")
        config[word] = _option(beside[word])
    return transport, config


def _option(node: Node) -> Option:
    if node.is_null:
        raise node.error(f"{node.name} is empty")
    return node.raw()


def _no_transport(
    node: Node, present: Mapping[str, tuple[Node, Node]], transports: Mapping[str, Mapping[str, str]]
) -> FileError:
    options = {option for known in transports.values() for option in known}
    for word, (key, _) in present.items():
        if word not in options:
            return key.error(
                f"unknown transport {quoted(word)}{nearest(word, transports)}",
                f"installed are: {', '.join(sorted(transports))}",
            )
    return node.error("'console' names no transport", f"name one of: {', '.join(sorted(transports))}")


def assign(job: Job, devices: Devices) -> tuple[Placement, ...]:
    """Gives each member a device: roles in the job's order take devices of their type in the device file's order.

    :raises FileError: there are too few of a type.
    """
    free: dict[str, list[Device]] = {}
    for device in devices.devices:
        free.setdefault(device.device_type, []).append(device)
    total = {device_type: len(those) for device_type, those in free.items()}
    placements: list[Placement] = []
    for role in job.roles:
        those = free.get(role.device_type, [])
        if len(those) < role.count:
            raise _too_few(job, devices, role, len(those), total)
        placements += (Placement(role, _in_context(device, role)) for device in those[: role.count])
        del those[: role.count]
    return tuple(placements)


def _in_context(device: Device, role: Role) -> Device:
    """The device as a role's ``context`` changes it, which is how LAVA lets a job change a device, with its shell."""
    return replace(
        device,
        character_delay=device.character_delay if role.character_delay is None else role.character_delay,
        results_dir=role.results_dir or device.results_dir,
        lava_test_sh_cmd=device.lava_test_sh_cmd or role.shell,
    )


def _too_few(job: Job, devices: Devices, role: Role, left: int, total: Mapping[str, int]) -> FileError:
    where = f"{job.path}:{role.line}"
    if role.device_type not in total:
        what = f"role {quoted(role.name)} needs a device of the unknown type {quoted(role.device_type)}"
        return FileError(
            what + nearest(role.device_type, total), where=where, hint=f"the devices are in {devices.path}"
        )
    what = f"role {quoted(role.name)} needs {role.count} of type {quoted(role.device_type)}, and there are only {left}"
    taken = total[role.device_type] - left
    hint = f"{devices.path} has {total[role.device_type]} of that type"
    if taken:
        hint += f", of which other roles take {taken}"
    return FileError(what, where=where, hint=hint)
