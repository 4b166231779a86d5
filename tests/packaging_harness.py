"""Wheels of the project and of plugins, and environments that hold nothing but what is installed into them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

_NOT_COPIED = (".git", ".venv*", ".*_cache", ".cache", ".hypothesis", "__pycache__", "*.egg-info", "build", "dist")
_OF_THE_CALLER = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")


def skip_or_fail(reason: str) -> None:
    """Skip on a person's machine, fail in CI."""
    complain = pytest.fail if os.environ.get("CI") else pytest.skip
    complain(reason)


def build(source: Path, work: Path, *options: str) -> Path:
    """Build a source distribution, and a wheel from that; the directory that holds them.

    :param source: a project; it is copied, so that no build leaves anything in it.
    :param options: ``--wheel`` for a wheel alone, from the project itself.
    """
    copy = work / "source"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns(*_NOT_COPIED, "multinode-output*"))
    output = work / "dist"
    command = [sys.executable, "-m", "build", "--no-isolation", *options, "--outdir", output, copy]
    done = subprocess.run(command, cwd=work, env=clean_environment(), text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return output


def clean_environment() -> dict[str, str]:
    """This process's environment, but for what would let another Python see this one's packages."""
    return {name: value for name, value in os.environ.items() if name not in _OF_THE_CALLER}


class Environment:
    """A virtual environment, empty at first, made with the Python that runs the tests."""

    def __init__(self, directory: Path) -> None:
        self._bin = directory / "bin"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory], check=True)

    def install(self, *wheels: Path) -> None:
        """Install wheels and what they depend on."""
        pip = [sys.executable, "-m", "pip", "--python", self._bin / "python", "install", "-q", *wheels]
        done = subprocess.run(pip, env=clean_environment(), text=True, capture_output=True)
        if done.returncode != 0 and "Retrying (Retry(" in done.stderr:
            skip_or_fail("no package index can be reached")
        assert done.returncode == 0, done.stderr

    def run(self, program: str, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run one of its programs to the end."""
        return subprocess.run(
            [self._bin / program, *arguments], cwd=cwd, env=clean_environment(), text=True, capture_output=True
        )
