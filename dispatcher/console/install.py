"""Putting files on a device over its console: in pieces that its tty survives, each acknowledged, and checked whole."""

from __future__ import annotations

import os
import shlex
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dispatcher.console.shell import LINE_LIMIT, Shell
from dispatcher.errors import InstallError

TRIES = 3
"""How often a file is written until it has arrived whole."""

COPIES: Final = 100
"""How often a piece is sent that is compared, until the line is taken to damage every copy."""

COMMON: Final = "umask 022"
"""What lets every user of a device read what is made after it; tests make calls as others than root."""

_PIECE = LINE_LIMIT - 32
_AROUND = len("#100 =800 \n")
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True, slots=True)
class Entry:
    """One file to be put on a device. A private one nobody but its owner may read, at any time."""

    content: bytes
    executable: bool = False
    private: bool = False


async def install(
    shell: Shell, directory: str, files: Mapping[str, Entry], *, deadline: float, again: bool = False
) -> None:
    """Write files below a directory of the device, which is made where it is missing.

    The device needs nothing but its shell, ``mkdir`` and ``chmod``. Where it has ``cat`` and ``cksum``, pieces are sent
    once and files are checked when they are there; where not, or for a file that was damaged, each piece is sent twice
    and compared.

    :param files: path relative to ``directory`` → what it holds; any bytes.
    :param deadline: on the event loop's clock.
    :param again: some of them may be there; what is found whole is left.
    :raises dispatcher.errors.InstallError: the device could not make a directory or a file.
    :raises dispatcher.errors.ConsoleTimeout: it stopped answering.
    """
    await _Installer(shell, directory, files, deadline).run(again=again)


def typed_size(files: Mapping[str, Entry]) -> int:
    """How many bytes it takes at least to type the contents of some files."""
    return sum(len(piece) + _AROUND for entry in files.values() for piece in pieces(entry.content))


class _Installer:
    def __init__(self, shell: Shell, directory: str, files: Mapping[str, Entry], deadline: float) -> None:
        self._shell = shell
        self._directory = directory
        self._files = files
        self._deadline = deadline
        self._checks = False

    async def run(self, *, again: bool) -> None:
        await self._make_folders()
        self._checks = await self._can_check()
        missing = await self._missing() if again and self._checks else list(self._files)
        for path in missing:
            await self._write(path, once=self._checks)
        if self._checks:
            for paths in self._batches(missing):
                await self._check(paths)
        for paths in self._batches(path for path, entry in self._files.items() if entry.executable):
            await self._run(f"chmod 755 {self._words(paths)}", f"make files in {self._directory} executable")

    async def _make_folders(self) -> None:
        folders = {path.rpartition("/")[0] for path in self._files}
        for paths in self._batches(sorted(folders)):
            await self._run(
                f"{COMMON};mkdir -p {self._words(paths)}",
                f"make {self._target(paths[0])}",
                "lava_test_results_dir in the device file says where the tests' files go",
            )

    async def _run(self, command: str, doing: str, hint: str | None = None) -> None:
        """Run a command; what it complains of comes back as the reason."""
        await self._shell.run(f"R=$( {command} 2>&1)", deadline=self._deadline, doing=doing, hint=hint)

    # --- writing ---------------------------------------------------------------------------------------------

    async def _write(self, path: str, *, once: bool) -> None:
        for _attempt in range(TRIES):
            if await self._try_to_write(path, once=once):
                return
        raise self._failed(path, "the device's shell could not write all of it", "is its file system full?")

    async def _try_to_write(self, path: str, *, once: bool) -> bool:
        doing = f"write {self._target(path)}"
        make = '(umask 077;rm -f "$F";true>"$F")' if self._files[path].private else f'({COMMON};true>"$F")'
        create = f"F={self._words([path])};{make}"
        answer = await self._shell.run(create, deadline=self._deadline, check=False, doing=doing)
        if answer.status != 0:
            await self._run('(true>"$F")', doing)
        for piece in pieces(self._files[path].content, _PIECE):
            if once:
                answer = await self._shell.append(piece, deadline=self._deadline, doing=doing)
            else:
                command = f"printf '{piece}'>>\"$F\""
                answer = await self._shell.run(
                    command, deadline=self._deadline, check=False, doing=doing, copies=COPIES
                )
            if answer.status != 0:
                return False
        return True

    # --- checking --------------------------------------------------------------------------------------------

    async def _can_check(self) -> bool:
        return await self._sum_of("cksum </dev/null|cat") == cksum(b"")

    async def _missing(self) -> list[str]:
        """The files that are not there, or not as they were written."""
        # One that is empty and one that is not there have the same sum.
        missing = [path for path, entry in self._files.items() if not entry.content]
        for paths in self._batches(path for path, entry in self._files.items() if entry.content):
            if not await self._are_whole(paths):
                missing += [path for path in paths if len(paths) == 1 or not await self._are_whole([path])]
        return missing

    async def _are_whole(self, paths: Sequence[str]) -> bool:
        content = b"".join(self._files[path].content for path in paths)
        return await self._sum_of(f"cat {self._words(paths)} 2>/dev/null|cksum") == cksum(content)

    async def _check(self, paths: Sequence[str]) -> None:
        """Check some files; those that did not arrive whole are written again, each piece twice and compared."""
        for _attempt in range(TRIES):
            if await self._are_whole(paths):
                return
            if len(paths) > 1:
                for path in paths:
                    await self._check([path])
                return
            # Of a long file no copy would ever be whole where a bit is flipped now and then.
            await self._try_to_write(paths[0], once=False)
        raise self._failed(paths[0], f"it has not arrived whole in {TRIES} tries", "is the console's line this bad?")

    async def _sum_of(self, command: str) -> str:
        answer = await self._shell.run(f"R=$({command})", deadline=self._deadline, check=False, doing="check files")
        return " ".join(answer.value.split()[:2])

    # --- words -----------------------------------------------------------------------------------------------

    def _target(self, path: str) -> str:
        return f"{self._directory}/{path}" if path else self._directory

    def _words(self, paths: Iterable[str]) -> str:
        return " ".join(_word(self._target(path)) for path in paths)

    def _batches(self, paths: Iterable[str]) -> Iterator[list[str]]:
        """As many paths at a time as fit a line."""
        batch: list[str] = []
        for path in paths:
            if batch and len(self._words([*batch, path])) > _PIECE:
                yield batch
                batch = []
            batch.append(path)
        if batch:
            yield batch

    def _failed(self, path: str, why: str, hint: str) -> InstallError:
        return InstallError(f"cannot write {self._target(path)}: {why}", where=self._shell.console.name, hint=hint)


def pieces(content: bytes, limit: int = _PIECE) -> Iterator[str]:
    r"""Cut bytes into formats for printf(1), each at most ``limit`` characters of printable ASCII.

    What is not printable travels as ``\ooo``, as do the backslash, the percent sign, an apostrophe, so that a format
    may stand between two, and a ``-`` that would be an option at the start of a format (POSIX, printf, EXTENDED
    DESCRIPTION).
    """
    piece: list[str] = []
    length = 0
    for byte in content:
        character = _ESCAPED[byte]
        if length + len(character) > limit:
            yield "".join(piece)
            piece, length = [], 0
        if not piece and byte == 0x2D:
            character = "\\055"
        piece.append(character)
        length += len(character)
    if piece:
        yield "".join(piece)


def cksum(content: bytes) -> str:
    """What cksum(1) prints for a file, without its name: checksum and length in bytes (POSIX, cksum).

    It is zlib's CRC run from the other end of each byte, from 0, over the length's bytes too.
    """
    length = len(content)
    tail = length.to_bytes((length.bit_length() + 7) // 8, "little")
    crc = zlib.crc32((content + tail).translate(_REVERSED), 0xFFFFFFFF)
    return f"{int(f'{crc:032b}'[::-1], 2)} {length}"


def _word(path: str) -> str:
    """A path as the device's shell reads it."""
    if path.isascii() and path.isprintable():
        return shlex.quote(path)
    return f"\"$(printf '{''.join(_ESCAPED[byte] for byte in os.fsencode(path))}')\""


def _escape(byte: int) -> str:
    if byte == 0x25:
        return "%%"
    return chr(byte) if 0x20 <= byte < 0x7F and byte not in b"\\'" else f"\\{byte:03o}"


_ESCAPED = [_escape(byte) for byte in range(256)]
