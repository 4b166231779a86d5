"""The unit file, as systemd reads it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from packaging_harness import ROOT, skip_or_fail

UNIT = ROOT / "systemd" / "multinode-coordinator.service"


def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        skip_or_fail("systemd-analyze, which reads the unit file, is not there")
    # The command itself need not be installed here; another program stands for it.
    text = UNIT.read_text().replace("ExecStart=multinode ", f"ExecStart={sys.executable} -m dispatcher.cli.main ")
    assert sys.executable in text
    (tmp_path / UNIT.name).write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", tmp_path / UNIT.name]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
