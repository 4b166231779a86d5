"""Writes a guest's initial file system as a newc cpio archive, without cpio, root or real device nodes.

The format is the kernel's own (``Documentation/driver-api/early-userspace/buffer-format.rst``): a header of
ASCII hexadecimal fields, the name, the data, each padded to four bytes; a member named ``TRAILER!!!`` ends it.
The same entries give the same bytes: times are 0, owners root, inode numbers count from 1.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

MAGIC: Final = b"070701"
TRAILER: Final = "TRAILER!!!"
DATA_LIMIT: Final = 2**32 - 1
"""Bytes of one file: the header's size field has eight hexadecimal digits."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One member of the archive.

    :param name: its path, relative to the guest's root, without ``.``, ``..`` or doubled slashes.
    :param mode: type and permission bits, as in ``st_mode``.
    :param data: a file's content, a symbolic link's target.
    :param device: major and minor number of a device node.
    """

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory(name: str, permissions: int = 0o755) -> Entry:
    """Make the entry of a directory."""
    return Entry(name, stat.S_IFDIR | permissions)


def file(name: str, data: bytes, permissions: int = 0o644) -> Entry:
    """Make the entry of a regular file."""
    return Entry(name, stat.S_IFREG | permissions, data)


def symlink(name: str, target: str) -> Entry:
    """Make the entry of a symbolic link."""
    return Entry(name, stat.S_IFLNK | 0o777, target.encode())


def character_device(name: str, major: int, minor: int, permissions: int = 0o600) -> Entry:
    """Make the entry of a character device node."""
    return Entry(name, stat.S_IFCHR | permissions, device=(major, minor))


def archive(entries: Iterable[Entry]) -> bytes:
    """Put the entries into one archive, in their order: a directory must come before what is in it.

    :raises ValueError: a name that is not relative and plain, that stands twice, or whose directory is
        missing (the kernel skips such a member without a word); a file beyond :data:`DATA_LIMIT`.
    """
    directories = {""}
    seen: set[str] = set()
    parts: list[bytes] = []
    for inode, entry in enumerate(entries, start=1):
        _check(entry, directories, seen)
        seen.add(entry.name)
        if stat.S_ISDIR(entry.mode):
            directories.add(entry.name)
        parts.append(_member(inode, entry))
    parts.append(_member(0, Entry(TRAILER, 0)))
    return b"".join(parts)


def _check(entry: Entry, directories: set[str], seen: set[str]) -> None:
    steps = entry.name.split("/")
    if "\0" in entry.name or any(step in ("", ".", "..") for step in steps) or entry.name == TRAILER:
        raise ValueError(f"not a name for an archive member: {entry.name!r}")
    if entry.name in seen:
        raise ValueError(f"twice in the archive: {entry.name!r}")
    if "/".join(steps[:-1]) not in directories:
        raise ValueError(f"its directory does not stand before it: {entry.name!r}")
    if len(entry.data) > DATA_LIMIT:
        raise ValueError(f"too large for the format: {entry.name!r}")


def _member(inode: int, entry: Entry) -> bytes:
    name = entry.name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    owner = group = time = archive_major = archive_minor = checksum = 0
    fields = (inode, entry.mode, owner, group, links, time, len(entry.data), archive_major, archive_minor)
    fields_of_node = (*entry.device, len(name), checksum)
    header = MAGIC + b"".join(b"%08X" % field for field in fields + fields_of_node)
    return _padded(header + name) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
