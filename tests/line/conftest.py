"""Every shell that the target scripts promise to run under goes through the bad line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.register_assert_rewrite("linelab", "plan")

from linelab import SHELLS, install_shell  # noqa: E402


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
