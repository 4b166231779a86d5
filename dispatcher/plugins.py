"""Finds transports and calls through entry points, the built-in ones too, and names the culprit when one is broken.

A distribution adds a transport with an entry point in the group ``multinode.transports`` (its name is the key under
``console:``) and a call in ``multinode.calls`` (its name is the one in the marker: ``LAVA_NAME``). What cannot be
loaded, is not what its group asks for, or takes a name that is taken, is skipped and told. ``docs/plugins.md`` tells
how to write one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import metadata
from typing import Final

from dispatcher import resources
from dispatcher.console.transport import Transport
from dispatcher.framing import grammar
from dispatcher.job.calls import Call

TRANSPORTS: Final = "multinode.transports"
CALLS: Final = "multinode.calls"
OWN: Final = "multinode-dispatcher"

_RESERVED: Final = frozenset({"SIGNAL", "RUNNER", "REBOOT"})
"""Names under which framing 2 carries what the test shell tells; a call would never hear of its requests."""

_SCRIPT_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Found:
    """One entry point, and what came of it. ``problem`` is None where it was loaded, else one line."""

    group: str
    name: str
    distribution: str
    problem: str | None = None


@dataclass(slots=True)
class Plugins:
    """What was loaded, by name, and every entry point that was found."""

    transports: dict[str, type[Transport]] = field(default_factory=dict)
    calls: dict[str, Call] = field(default_factory=dict)
    found: list[Found] = field(default_factory=list)

    @property
    def problems(self) -> list[Found]:
        """What was skipped."""
        return [found for found in self.found if found.problem is not None]


class _Unusable(Exception):
    """An entry point names something that cannot be used; why, one line."""


def load(entry_points: Iterable[metadata.EntryPoint] | None = None) -> Plugins:
    """Load everything that is installed. Never raises for a plugin that is broken.

    :param entry_points: instead of those of the installed distributions.
    """
    if entry_points is None:
        entry_points = [*metadata.entry_points(group=TRANSPORTS), *metadata.entry_points(group=CALLS)]
    plugins = Plugins()
    for entry_point in sorted(entry_points, key=_own_first):
        problem = _load(entry_point, plugins)
        plugins.found.append(Found(entry_point.group, entry_point.name, _distribution(entry_point), problem))
    return plugins


def _own_first(entry_point: metadata.EntryPoint) -> tuple[bool, str, str, str]:
    distribution = _distribution(entry_point)
    return distribution != OWN, entry_point.group, entry_point.name, distribution


def _distribution(entry_point: metadata.EntryPoint) -> str:
    return entry_point.dist.name if entry_point.dist is not None else "an unknown distribution"


def _load(entry_point: metadata.EntryPoint, plugins: Plugins) -> str | None:
    """Add what an entry point names; what is wrong with it, or None."""
    try:
        _refuse_taken(entry_point, plugins)
        loaded = entry_point.load()
        if entry_point.group == TRANSPORTS:
            _add_transport(entry_point.name, loaded, plugins)
        else:
            _add_call(entry_point.name, loaded, plugins)
    except _Unusable as error:
        return str(error)
    except (Exception, SystemExit) as error:  # whatever a plugin does wrong, it must not take the others with it
        return " ".join(f"{type(error).__name__}: {error}".split())
    return None


def _refuse_taken(entry_point: metadata.EntryPoint, plugins: Plugins) -> None:
    for other in plugins.found:
        if (other.group, other.name, other.problem) == (entry_point.group, entry_point.name, None):
            raise _Unusable(f"{other.distribution} has taken the name")


def _no_subclass(base: type) -> _Unusable:
    return _Unusable(f"it is no subclass of {base.__module__}.{base.__qualname__}")


def _refuse_abstract(loaded: type) -> None:
    if missing := sorted(getattr(loaded, "__abstractmethods__", ())):
        raise _Unusable(f"{loaded.__qualname__} lacks {', '.join(missing)}")


def _add_transport(name: str, loaded: object, plugins: Plugins) -> None:
    if not (isinstance(loaded, type) and issubclass(loaded, Transport)):
        raise _no_subclass(Transport)
    _refuse_abstract(loaded)
    options = getattr(loaded, "OPTIONS", ())
    if name not in options:
        raise _Unusable(f"its OPTIONS lack its own name, {name!r}")
    for other, known in plugins.transports.items():
        # A console that held both would name two transports.
        if other in options:
            raise _Unusable(f"its option {other!r} is the name of another transport")
        if name in known.OPTIONS:
            raise _Unusable(f"its name is an option of {other!r}")
    plugins.transports[name] = loaded


def _add_call(name: str, loaded: object, plugins: Plugins) -> None:
    if not (isinstance(loaded, type) and issubclass(loaded, Call)):
        raise _no_subclass(Call)
    _refuse_abstract(loaded)
    if not grammar.NAME.fullmatch(name.encode()):
        raise _Unusable("the name of a call is capitals, digits and underscores, a capital first")
    if name in _RESERVED:
        raise _Unusable(f"{name} is the test shell's own")
    if loaded.SCRIPTS:
        _check_scripts(loaded, plugins)
    plugins.calls[name] = loaded()


def _check_scripts(call: type[Call], plugins: Plugins) -> None:
    taken = {*resources.target_scripts(), resources.SETTINGS}
    taken.update(script for other in plugins.calls.values() for script in other.SCRIPTS)
    for script, content in call.SCRIPTS.items():
        if not _SCRIPT_NAME.fullmatch(script):
            raise _Unusable(f"its script {script!r} is not named with letters, digits, '-', '_' and '.'")
        if script in taken:
            raise _Unusable(f"there is a script {script!r} already")
        if not isinstance(content, bytes):
            raise _Unusable(f"its script {script!r} is not bytes")
