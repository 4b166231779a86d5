"""The ELF kernel inside a bzImage; Debian's own is unpacked in test_recipe."""

from __future__ import annotations

import struct

import pytest

from dispatcher.guest import kernel
from dispatcher.guest.kernel import LZ4_MAGIC, PVH_NOTE, elf_kernel

ELF = b"\x7fELF" + PVH_NOTE


def literals(data: bytes) -> bytes:
    """A block's last sequence: literals alone, fewer than 15 + 255."""
    if len(data) < 15:
        return bytes([len(data) << 4]) + data
    return bytes([0xF0, len(data) - 15]) + data


def payload(*blocks: bytes, size: int) -> bytes:
    framed = b"".join(struct.pack("<I", len(block)) + block for block in blocks)
    return LZ4_MAGIC + framed + struct.pack("<I", size)


def image(packed: bytes, *, version: int = 0x020F, setup_sectors: int = 2) -> bytes:
    head = bytearray(((setup_sectors or 4) + 1) * 512)
    head[0x1F1] = setup_sectors
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x206, version)
    struct.pack_into("<II", head, 0x248, 100, len(packed))
    return bytes(head) + bytes(100) + packed + b"what follows the payload"


def test_literals() -> None:
    assert elf_kernel(image(payload(literals(ELF), size=len(ELF)))) == ELF


def test_setup_sectors_zero_means_four() -> None:
    assert elf_kernel(image(payload(literals(ELF), size=len(ELF)), setup_sectors=0)) == ELF


def test_blocks_do_not_see_each_other() -> None:
    back_four = b"\x00\x04\x00" + literals(b"")
    assert elf_kernel(image(payload(literals(ELF), literals(b"tail"), size=len(ELF) + 4))) == ELF + b"tail"
    assert elf_kernel(image(payload(literals(ELF), back_four, size=len(ELF) + 4))) is None


@pytest.mark.parametrize(
    ("tail", "distance", "length"),
    [(b"abcdef", 6, 6), (b"abcdef", 6, 4), (b"abc", 3, 10), (b"a", 1, 18), (b"a", 1, 19), (b"ab", 2, 18 + 255 + 7)],
)
def test_a_copy_repeats_what_it_writes(tail: bytes, distance: int, length: int) -> None:
    data = ELF + tail
    more = length - 4 - 15
    lengths = b"" if more < 0 else b"\xff" * (more // 255) + bytes([more % 255])
    head = bytes([0xF0 | min(length - 4, 15), len(data) - 15])
    block = head + data + struct.pack("<H", distance) + lengths + literals(b"end")
    expected = data + (tail * 300)[:length] + b"end"
    assert elf_kernel(image(payload(block, size=len(expected)))) == expected


def test_a_size_that_is_not_what_came_out() -> None:
    assert elf_kernel(image(payload(literals(ELF), size=len(ELF) + 1))) is None
    assert elf_kernel(image(payload(literals(ELF), size=len(ELF) - 1))) is None


def test_a_claim_beyond_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = image(payload(literals(ELF), size=len(ELF)))
    monkeypatch.setattr(kernel, "KERNEL_LIMIT", len(ELF))
    assert elf_kernel(packed) == ELF
    monkeypatch.setattr(kernel, "KERNEL_LIMIT", len(ELF) - 1)
    assert elf_kernel(packed) is None


def test_an_elf_that_qemu_could_not_start() -> None:
    no_pvh = b"\x7fELF and no note"
    assert elf_kernel(image(payload(literals(no_pvh), size=len(no_pvh)))) is None


def test_another_compression() -> None:
    assert elf_kernel(image(b"\x28\xb5\x2f\xfd zstd's magic" + struct.pack("<I", 100))) is None


def test_no_bzimage() -> None:
    assert elf_kernel(b"") is None
    assert elf_kernel(ELF * 100) is None


def test_an_old_boot_protocol_names_no_payload() -> None:
    assert elf_kernel(image(payload(literals(ELF), size=len(ELF)), version=0x0207)) is None


def test_cut_anywhere_it_is_no_kernel_and_no_error() -> None:
    whole = image(payload(literals(ELF), size=len(ELF)))
    whole = whole[: -len(b"what follows the payload")]
    assert elf_kernel(whole) == ELF
    assert all(elf_kernel(whole[:length]) is None for length in range(len(whole)))
    packed = payload(literals(ELF), size=len(ELF))
    assert all(elf_kernel(image(packed[:length])) is None for length in range(len(packed)))
