"""The processes of a test: how ours are started, and that they end."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

MULTINODE = (sys.executable, "-m", "dispatcher.cli.main")


@contextlib.contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """A process until the end of the block."""
    with process:
        try:
            yield process
        finally:
            process.terminate()
