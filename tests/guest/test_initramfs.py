"""The newc writer against the kernel's description of the format; the kernel itself reads one in test_recipe."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

import pytest

from dispatcher.guest import initramfs
from dispatcher.guest.initramfs import Entry, archive, character_device, directory, file, symlink

FIELDS = (
    *("inode", "mode", "uid", "gid", "links", "mtime", "size"),
    *("dev_major", "dev_minor", "rdev_major", "rdev_minor", "name_size", "check"),
)


@dataclass
class Member:
    name: str
    data: bytes
    header: dict[str, int]


def members(data: bytes) -> list[Member]:
    """Read an archive by the format's description, strictly."""
    found = []
    at = 0
    while at < len(data):
        assert data[at : at + 6] == b"070701"
        assert at % 4 == 0
        numbers = [int(data[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        header = dict(zip(FIELDS, numbers, strict=True))
        name_end = at + 110 + header["name_size"]
        assert data[name_end - 1] == 0
        start = name_end + -name_end % 4
        end = start + header["size"]
        found.append(Member(data[at + 110 : name_end - 1].decode(), data[start:end], header))
        assert not any(data[name_end:start])
        at = end + -end % 4
        assert not any(data[end:at])
    return found


def test_one_file_byte_for_byte() -> None:
    assert archive([file("a", b"hello", 0o640)]) == (
        b"070701"
        b"00000001000081A0000000000000000000000001000000000000000500000000000000000000000000000000"
        b"0000000200000000"
        b"a\0"
        b"hello\0\0\0"
        b"070701"
        b"00000000000000000000000000000000000000010000000000000000"
        b"000000000000000000000000000000000000000B00000000"
        b"TRAILER!!!\0\0\0\0"
    )


def test_every_kind_of_member_comes_back() -> None:
    read = members(
        archive(
            [
                directory("dev"),
                directory("tmp", 0o1777),
                character_device("dev/console", 5, 1),
                symlink("init", "bin/sh"),
                file("empty", b""),
            ]
        )
    )
    assert [(member.name, member.data) for member in read] == [
        ("dev", b""),
        ("tmp", b""),
        ("dev/console", b""),
        ("init", b"bin/sh"),
        ("empty", b""),
        ("TRAILER!!!", b""),
    ]
    modes = [member.header["mode"] for member in read[:-1]]
    assert [stat.filemode(mode) for mode in modes] == [
        "drwxr-xr-x",
        "drwxrwxrwt",
        "crw-------",
        "lrwxrwxrwx",
        "-rw-r--r--",
    ]
    assert (read[2].header["rdev_major"], read[2].header["rdev_minor"]) == (5, 1)
    assert [member.header["links"] for member in read[:-1]] == [2, 2, 1, 1, 1]


@pytest.mark.parametrize("length", range(9))
def test_padding_of_every_length(length: int) -> None:
    name, data = "n" * (length + 1), bytes(range(1, length + 1))
    read = members(archive([file(name, data), file("next", b"x")]))
    assert [(member.name, member.data) for member in read[:-1]] == [(name, data), ("next", b"x")]


def test_bytes_do_not_depend_on_the_host() -> None:
    entries = [directory("d"), file("d/f", os.urandom(100))]
    first = archive(entries)
    before = os.umask(0o077)
    try:
        assert archive(entries) == first
    finally:
        os.umask(before)
    assert all(member.header["mtime"] == 0 for member in members(first))


def test_inodes_differ_so_that_nothing_is_a_hard_link() -> None:
    read = members(archive([file(name, b"same") for name in ("a", "b", "c")]))
    assert len({member.header["inode"] for member in read[:-1]}) == 3


@pytest.mark.parametrize("name", ["", "/init", "a//b", "./a", "a/..", "a/", "a\0b", "TRAILER!!!"])
def test_a_name_the_kernel_would_misread_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        archive([directory("a"), file(name, b"")])


def test_a_name_twice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"twice.*'a'"):
        archive([file("a", b"1"), file("a", b"2")])


@pytest.mark.parametrize(
    "entries",
    [[file("bin/sh", b"")], [file("bin", b""), file("bin/sh", b"")], [file("bin/sh", b""), directory("bin")]],
)
def test_a_member_without_its_directory_is_refused(entries: list[Entry]) -> None:
    with pytest.raises(ValueError, match="does not stand before it"):
        archive(entries)


def test_a_file_beyond_the_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initramfs, "DATA_LIMIT", 3)
    archive([file("a", b"123")])
    with pytest.raises(ValueError, match="too large"):
        archive([file("a", b"1234")])
