"""Putting files on a device over its console: in pieces that its tty survives, each of them acknowledged."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dispatcher.console.shell import LINE_LIMIT, Shell

_PIECE = LINE_LIMIT - 8


@dataclass(frozen=True, slots=True)
class Entry:
    """One file to be put on a device."""

    content: bytes
    executable: bool = False


async def install(shell: Shell, directory: str, files: Mapping[str, Entry], *, deadline: float) -> None:
    """Write files below a directory of the device, which is made where it is missing.

    The device needs nothing but its shell, ``mkdir`` and ``chmod``.

    :param files: path relative to ``directory`` → what it holds; any bytes.
    :param deadline: on the event loop's clock.
    :raises dispatcher.errors.InstallError: the device could not make a directory or a file.
    :raises dispatcher.errors.ConsoleTimeout: it stopped answering.
    """
    for folder in sorted({f"{directory}/{path}".rpartition("/")[0] for path in files}):
        await shell.run(f"mkdir -p {shlex.quote(folder)}", deadline=deadline)
    for path, entry in files.items():
        target = f"{directory}/{path}"
        await shell.run(f'F={shlex.quote(target)};:>"$F"', deadline=deadline)
        for piece in pieces(entry.content):
            await shell.run(f"={piece}", deadline=deadline)
    for command in _chmod(directory, files):
        await shell.run(command, deadline=deadline)


def pieces(content: bytes, limit: int = _PIECE) -> Iterator[str]:
    r"""Cut bytes into formats for printf(1), each at most ``limit`` characters of printable ASCII.

    What is not printable travels as ``\ooo``, as do the backslash, the percent sign, and a ``-`` that would be an
    option at the start of a format (POSIX, printf, EXTENDED DESCRIPTION).
    """
    piece: list[str] = []
    length = 0
    for byte in content:
        character = _ESCAPED[byte] if piece or byte != 0x2D else "\\055"
        if length + len(character) > limit:
            yield "".join(piece)
            character = _ESCAPED[byte] if byte != 0x2D else "\\055"
            piece, length = [], 0
        piece.append(character)
        length += len(character)
    if piece:
        yield "".join(piece)


def _escape(byte: int) -> str:
    if byte == 0x25:
        return "%%"
    return chr(byte) if 0x20 <= byte < 0x7F and byte != 0x5C else f"\\{byte:03o}"


_ESCAPED = [_escape(byte) for byte in range(256)]


def _chmod(directory: str, files: Mapping[str, Entry]) -> Iterator[str]:
    """As few commands as fit a line."""
    command = ""
    for path in (path for path, entry in files.items() if entry.executable):
        target = shlex.quote(f"{directory}/{path}")
        if command and len(command) + len(target) >= _PIECE:
            yield command
            command = ""
        command = f"{command or 'chmod 755'} {target}"
    if command:
        yield command
