"""Every test of the target scripts runs under every shell that the scripts promise to run under."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from script_harness import SHELLS, Device, find_shell, write_target_scripts


@pytest.fixture(params=list(SHELLS), scope="session")
def shell(request: pytest.FixtureRequest) -> list[str]:
    """The command of one shell. A missing one is skipped on a person's machine and an error in CI."""
    found = find_shell(request.param)
    if found is None:
        complain = pytest.fail if os.environ.get("CI") else pytest.skip
        complain(f"{request.param} is not installed")
    return found


@pytest.fixture(scope="session")
def scripts(shell: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The target scripts as the dispatcher rewrites them for ``shell``."""
    directory = tmp_path_factory.mktemp("scripts")
    write_target_scripts(directory, shell)
    return directory


@pytest.fixture
def device(shell: list[str], scripts: Path, tmp_path: Path) -> Iterator[Device]:
    """A device that runs ``shell``."""
    device = Device(tmp_path / "device", shell, scripts)
    yield device
    device.close()
