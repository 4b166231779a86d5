"""Mixed calls under every shell, over a line with every fault that the console's page promises to bear."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

import pytest
from badline import BAD, CLEAN, Faults
from linelab import Lab
from plan import ANY, PLAIN, Step, long, mixed, run

SOAK = bool(os.environ.get("MULTINODE_SOAK"))

pytestmark = pytest.mark.slow


def run_all(
    root: Path, shell: Path, faults: Faults, plans: Sequence[tuple[int, Sequence[Step]]], *, timeout: float = 240
) -> None:
    """Run several plans, (seed, steps) each, on a board and a line each, at the same time: most of it is waiting."""

    async def one(number: int, seed: int, steps: Sequence[Step]) -> None:
        async with Lab(root / str(number), shell, faults, seed) as lab:
            try:
                await run(lab, steps, timeout=timeout)
            finally:
                print(f"seed {seed}: {lab.report()}")

    async def everything() -> None:
        async with asyncio.TaskGroup() as group:
            for number, (seed, steps) in enumerate(plans):
                group.create_task(one(number, seed, steps))

    asyncio.run(everything())


def test_fifty_mixed_calls_and_long_ones_arrive_over_a_bad_line(shell: Path, tmp_path: Path) -> None:
    plans: list[tuple[int, Sequence[Step]]] = [(seed, mixed(seed, 10)) for seed in range(1, 6)]
    plans += [(seed, [step]) for seed, step in enumerate(long(6, 4096), 6)]
    run_all(tmp_path, shell, BAD, plans)


def test_a_message_of_64_kib_arrives_over_a_clean_line(shell: Path, tmp_path: Path) -> None:
    run_all(tmp_path, shell, CLEAN, [(1, long(1, 65536, ANY if SOAK else PLAIN))])


@pytest.mark.timeout(0)
@pytest.mark.skipif(not SOAK, reason="make soak runs it")
def test_a_thousand_mixed_calls_arrive_over_a_bad_line(shell: Path, tmp_path: Path) -> None:
    seed = int(os.environ.get("MULTINODE_SEED") or secrets.randbelow(2**32))
    print(f"the seeds begin at {seed}")
    plans = [(seed + number, mixed(seed + number, 50)) for number in range(20)]
    run_all(tmp_path, shell, BAD, plans, timeout=3600)
