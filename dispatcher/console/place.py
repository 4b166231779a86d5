"""Where files can go on a device, and which of ours its image has brought already."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from dispatcher.console.install import COMMON
from dispatcher.console.shell import Shell

_NAMES_AT_ONCE: Final = 20
"""Names of scripts that fit a line to the device."""


async def find_directory(shell: Shell, candidates: Sequence[str], interpreter: str, *, deadline: float) -> str | None:
    """Make the first of some directories that can be made and that a script can be run from, and say which it is.

    A root file system may be read-only, and a tmpfs may be mounted ``noexec``.

    :param candidates: absolute, without white space and quotes; each the run's own, and removed where it will not do.
    :param interpreter: the path of the shell that runs the scripts.
    :param deadline: on the event loop's clock.
    """
    works = f'({COMMON};mkdir -p $R)&&printf "#!%s\\n" {interpreter}>$R/can&&chmod 755 $R/can&&$R/can'
    command = f"for R in {' '.join(candidates)};do {works}&&break;rm -rf $R;R=;done 2>/dev/null"
    answer = await shell.run(command, deadline=deadline, check=False, doing="find a directory for files")
    return answer.value or None


async def link_shipped(
    shell: Shell, directory: str, names: Iterable[str], version: str, marker: tuple[str, str], *, deadline: float
) -> bool:
    """Link scripts that the device's image has brought into a directory of ours, again perhaps. Whether they are there.

    :param directory: is made where it is missing.
    :param version: what the image's file of versions must say: nothing else is looked at.
    :param marker: the name of a script to be found by ``PATH``, and that of the file of versions beside it.
    :param deadline: on the event loop's clock.
    """
    script, versions = marker
    ask = f'R=$(command -v {script})&&R=${{R%/*}}&&IFS= read -r _v <"$R/{versions}"&&[ "$_v" = "{version}" ]'
    answer = await shell.run(f"{{ {ask};}} 2>/dev/null", deadline=deadline, check=False, doing="look for scripts")
    if answer.status != 0 or not answer.value.startswith("/") or " " in answer.value:
        return False
    listed = sorted(names)
    for start in range(0, len(listed), _NAMES_AT_ONCE):
        words = " ".join(f'"$R/{name}"' for name in listed[start : start + _NAMES_AT_ONCE])
        link = f"R={answer.value};({COMMON};mkdir -p {directory})&&ln -sf {words} {directory}"
        done = await shell.run(f"{{ {link};}} 2>/dev/null", deadline=deadline, check=False, doing="link scripts")
        if done.status != 0:
            return False
    return True
