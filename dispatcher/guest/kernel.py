"""Takes the ELF kernel out of a bzImage, so that an emulated guest need not unpack it at every boot.

Under QEMU's TCG that saves a guest about a second. A bzImage says where its payload is (``payload_offset`` and
``payload_length``, ``Documentation/arch/x86/boot.rst``), and the payload ends with its unpacked size. QEMU
starts an ELF kernel through the PVH entry that one of its notes names; one without that note is of no use.
"""

from __future__ import annotations

import struct
from typing import Final

HEADER_MAGIC: Final = b"HdrS"
PAYLOAD_VERSION: Final = 0x0208
"""The boot protocol from which on the header names its payload."""

PVH_NOTE: Final = struct.pack("<III4s", 4, 4, 18, b"Xen\0")
"""Name size, description size, ``XEN_ELFNOTE_PHYS32_ENTRY`` and owner, as QEMU looks for them; the 64-bit
form of the description is :data:`PVH_NOTE_64`."""

PVH_NOTE_64: Final = struct.pack("<III4s", 4, 8, 18, b"Xen\0")

KERNEL_LIMIT: Final = 512 * 1024 * 1024
"""Bytes that a payload may claim to unpack to."""

LZ4_MAGIC: Final = b"\x02\x21\x4c\x18"
LZ4_BLOCK: Final = 8 * 1024 * 1024
"""Bytes that one block of LZ4's legacy frame, which the kernel's build uses, unpacks to at most."""


def elf_kernel(image: bytes) -> bytes | None:
    """Unpack the ELF kernel of a bzImage; ``None`` where there is none that QEMU could start.

    The image itself boots too, so whatever is not as expected (an old boot protocol, another compression
    than Debian's, a damaged payload, no PVH entry) is no error.
    """
    payload = _payload(image)
    if payload is None:
        return None
    (size,) = struct.unpack("<I", payload[-4:])
    if size > KERNEL_LIMIT or not payload.startswith(LZ4_MAGIC):
        return None
    try:
        kernel = _lz4(payload[len(LZ4_MAGIC) : -4], size)
    except (IndexError, ValueError, struct.error):
        return None
    usable = len(kernel) == size and kernel.startswith(b"\x7fELF")
    return kernel if usable and (PVH_NOTE in kernel or PVH_NOTE_64 in kernel) else None


def _payload(image: bytes) -> bytes | None:
    if len(image) < 0x260 or image[0x202:0x206] != HEADER_MAGIC:
        return None
    (version,) = struct.unpack_from("<H", image, 0x206)
    if version < PAYLOAD_VERSION:
        return None
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = image[start : start + length]
    return payload if len(payload) == length > 8 else None


def _lz4(frame: bytes, size: int) -> bytes:
    kernel = bytearray()
    at = 0
    while at < len(frame):
        (length,) = struct.unpack_from("<I", frame, at)
        at += 4
        kernel += _lz4_block(frame[at : at + length])
        at += length
        if len(kernel) > size:
            raise ValueError("unpacks to more than it claims")
    return bytes(kernel)


def _lz4_block(block: bytes) -> bytearray:
    """Unpack one block (``lz4_Block_format.md``): literals, then a copy of what stands ``distance`` back."""
    out = bytearray()
    at = 0
    while True:
        token = block[at]
        count, at = _lz4_length(block, at + 1, token >> 4)
        out += block[at : at + count]
        at += count
        if at >= len(block):
            return out
        distance = block[at] | block[at + 1] << 8
        count, at = _lz4_length(block, at + 2, token & 15)
        count += 4
        start = len(out) - distance
        if distance == 0 or start < 0 or len(out) > LZ4_BLOCK:
            raise ValueError("a copy from outside the block")
        # A copy may reach into what it is writing: that repeats the last ``distance`` bytes.
        run = bytes(out[start : start + count])
        out += run if distance >= count else (run * (count // distance + 1))[:count]


def _lz4_length(block: bytes, at: int, nibble: int) -> tuple[int, int]:
    if nibble < 15:
        return nibble, at
    while True:
        more = block[at]
        nibble += more
        at += 1
        if more != 255:
            return nibble, at
