"""Every test of the target scripts runs under every shell that the scripts promise to run under."""

from __future__ import annotations

import os
import tempfile
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


@pytest.fixture
def public_device(shell: list[str]) -> Iterator[Device]:
    """A device whose directories everybody can enter, as on a real one; pytest's are its user's only."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        scripts = Path(directory) / "scripts"
        scripts.mkdir()
        write_target_scripts(scripts, shell)
        device = Device(Path(directory) / "device", shell, scripts)
        yield device
        device.close()
