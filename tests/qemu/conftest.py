"""The guests of these tests."""

from __future__ import annotations

import os

import pytest

from dispatcher.guest import recipe


def made(architecture: recipe.Architecture) -> recipe.Guest:
    missing = recipe.missing(architecture=architecture)
    if missing:
        text = "not on this host: " + ", ".join(missing)
        if os.environ.get("CI"):
            pytest.fail(text)
        pytest.skip(text)
    return recipe.prepare(architecture=architecture)


@pytest.fixture(scope="session")
def guest() -> recipe.Guest:
    return made(recipe.AMD64)


@pytest.fixture(scope="session")
def arm_guest() -> recipe.Guest:
    return made(recipe.ARM64)
