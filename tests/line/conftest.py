"""Every shell that the target scripts promise to run under goes through the bad line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from linelab import SHELLS, install_shell


@pytest.fixture(params=list(SHELLS), scope="session")
def shell(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One shell's path. A missing one is skipped on a person's machine and an error in CI."""
    return _found(request.param, tmp_path_factory)


@pytest.fixture(scope="session")
def any_shell(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of a shell where it does not matter which."""
    return _found("dash", tmp_path_factory)


def _found(name: str, factory: pytest.TempPathFactory) -> Path:
    found = install_shell(name, factory.mktemp("shell"))
    if found is None:
        complain = pytest.fail if os.environ.get("CI") else pytest.skip
        complain(f"{name} is not installed")
    return found


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """These take minutes: ``make soak`` runs them, and so does MULTINODE_LINE=1."""
    if os.environ.get("MULTINODE_SOAK") or os.environ.get("MULTINODE_LINE"):
        return
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="make soak runs it, and MULTINODE_LINE=1 does"))
