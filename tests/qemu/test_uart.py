"""The lines of a real UART: QEMU's 16550 under the kernel's own driver, opened by this package inside the guest."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from dispatcher.guest import recipe

from .python_guest import with_program

PROGRAM = Path(__file__).with_name("uart_lines.py")
PATIENCE = 280

pytestmark = pytest.mark.slow

LINUX_RAISES = "DTR+RTS"
"""Whoever opens a port, and whatever its lines were (tty_port_block_til_ready)."""


def test_dtr_rts_and_hupcl_are_left_alone_unless_they_are_set(guest: recipe.Guest, tmp_path: Path) -> None:
    guest = with_program(guest, PROGRAM, tmp_path)
    qemu = shlex.split(recipe.qemu_command(guest, memory=256, append="rdinit=/program"))
    console = qemu.index("-chardev")
    qemu[console:] = ["-chardev", "file,id=c,path=" + str(tmp_path / "console"), "-serial", "chardev:c"]
    subprocess.run([*qemu, "-serial", "null"], check=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)
    printed = (tmp_path / "console").read_text()
    cases = dict(line.split(" ", 2)[1:] for line in printed.splitlines() if line.startswith("case "))
    assert cases == {
        "untouched": "none True",
        "plain": f"{LINUX_RAISES} none",
        "plain-hupcl": "True",
        "beside": f"none {LINUX_RAISES} DTR+RTS",
        "low": "none none",
        "kept": f"{LINUX_RAISES} DTR+RTS",
        "kept-hupcl": "False",
        "kept-then-plain": "DTR+RTS DTR+RTS",
        "kept-then-low": "RTS RTS",
        "kept-then-raised": f"{LINUX_RAISES} DTR+RTS",
        "dropped": "DTR+RTS none",
        "dropped-hupcl": "True",
    }, printed
