"""Finds the files that travel with the package but are not Python: the target scripts and the example jobs.

In a wheel they are inside the package; in a checkout, editable installs included, they stand beside it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from dispatcher.console.install import cksum
from dispatcher.errors import MultinodeError

LIBRARY: Final = "lava-multi-node.lib"
SETTINGS: Final = "lava-multi-node.conf"
VERSION: Final = "lava-multi-node.version"
"""What ``make -C target-scripts install`` puts beside the scripts: :func:`version` of what it has installed."""

ALWAYS: Final = frozenset(
    (
        *(LIBRARY, "lava-self", "lava-role", "lava-group", "lava-send", "lava-wait", "lava-wait-all", "lava-sync"),
        *("lava-test-runner", "lava-test-shell", "lava-test-case", "lava-test-set", "lava-test-raise"),
        *("lava-echo-ipv4",),
    )
)
"""What every device gets, whatever its tests name: they may call scripts of the device's own that call these."""

_PACKAGE: Final = Path(__file__).parent


def _folder(installed: str, checkout: str) -> Path:
    for folder in (_PACKAGE / installed, _PACKAGE.parent / checkout):
        if folder.is_dir():
            return folder
    raise MultinodeError(f"this installation lacks its {checkout}", hint="install multinode-dispatcher again")


@functools.cache
def target_scripts() -> Mapping[str, bytes]:
    """The scripts for the device and their library, by name: without comments and indentation, which cost a slow line
    a third of the time.
    """
    return MappingProxyType({name: _bare(content) for name, content in _sources().items()})


@functools.cache
def version() -> str:
    """What tells these scripts from those of any other version: cksum(1) of all of them, by name in ASCII's order."""
    return cksum(b"".join(_sources().values()))


def _sources() -> dict[str, bytes]:
    folder = _folder("target_scripts", "target-scripts")
    return {path.name: path.read_bytes() for path in sorted(folder.glob("lava-*"))}


def _bare(script: bytes) -> bytes:
    """A script of ours, none of whose texts has a line that begins with ``#`` or a tab."""
    return re.sub(rb"\A(#!.*\n)?|^\t*(?:#.*)?\n|^\t+", lambda found: found[1] or b"", script, flags=re.MULTILINE)


def example_jobs() -> Path:
    """The folder of the example jobs."""
    return _folder("example_jobs", "fixtures/jobs")
