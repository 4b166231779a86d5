"""The ``multinode`` fixture, which pytest finds by itself (entry point group ``pytest11``); see ``docs/pytest.md``.

pytest imports this module in every run where the distribution is installed, so it imports nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from dispatcher.integration.multinode import Multinode


@pytest.fixture
def multinode(tmp_path: object) -> Iterator[Multinode]:
    """Runs MultiNode jobs, and lets the test be a member of a group itself; all that it opened is closed after it."""
    from pathlib import Path

    from dispatcher.integration.multinode import Multinode

    with Multinode(Path(str(tmp_path))) as bench:
        yield bench
