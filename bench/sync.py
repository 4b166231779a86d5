"""What a barrier costs on a slow line: ``lava-sync`` of two members over simulated UARTs, beside its bytes' own time.

Each member is a shell on a pty behind a relay that lets bytes pass at a baud rate, ten bits a byte, each way. A round
is timed from the first byte of the last arrival's frame, as it leaves the device, to the moment when both scripts have
returned; the bytes are those that the round's frames and answers put on the busier of the two lines meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import pty
import shutil
import statistics
import subprocess
import tempfile
import tty
from dataclasses import dataclass, field
from pathlib import Path

from dispatcher import resources
from dispatcher.coordinator.client import EmbeddedClient
from dispatcher.coordinator.journal.memory import MemoryJournal
from dispatcher.coordinator.live import LiveGroup
from dispatcher.framing.conversation import Conversation
from dispatcher.framing.events import Request
from dispatcher.framing.reliable import UNSEEDED
from dispatcher.group.events import Member
from dispatcher.group.needs import Kind
from dispatcher.job import overlay

MEMBERS = (Member("1", "a"), Member("2", "b"))


@dataclass
class Line:
    """One device's UART: a shell on a pty, and the host's conversation with it, bytes paced both ways."""

    member: Member
    client: EmbeddedClient
    baud: int
    folder: Path
    conversation: Conversation = field(default_factory=Conversation)
    passed: list[tuple[float, bytes]] = field(default_factory=list)
    returned: float = 0.0

    def start(self, shell: str, driver: str) -> None:
        """Start a driver script on a pty of its own."""
        self.master, slave = pty.openpty()
        tty.setraw(slave)
        binaries = self.folder / "bin"
        binaries.mkdir(parents=True)
        for name, content in resources.target_scripts().items():
            (binaries / name).write_bytes(content.replace(b"#!/bin/sh", f"#!{shell}".encode(), 1))
            (binaries / name).chmod(0o755)
        settings = overlay.settings(
            job_id=self.member.id,
            role=self.member.role,
            group=[(member.id, member.role) for member in MEMBERS],
            console=os.ttyname(slave),
            cache=str(self.folder / "cache"),
            test_shell=shell,
            nonce="0000",
            seed=UNSEEDED,
        )
        (binaries / resources.SETTINGS).write_bytes(settings)
        script = self.folder / "driver"
        script.write_text(f"PATH={binaries}:$PATH; LAVA_TTY=$(stty -g); export LAVA_TTY\n{driver}")
        self.process = subprocess.Popen([shell, str(script)], stdin=slave, stdout=slave, start_new_session=True)
        os.close(slave)

    async def run(self) -> None:
        """Pass bytes on, at the line's rate, until the shell has gone."""
        loop = asyncio.get_running_loop()
        incoming: asyncio.Queue[bytes] = asyncio.Queue()

        def readable() -> None:
            try:
                data = os.read(self.master, 4096)
            except OSError:
                data = b""
            self.passed.append((loop.time(), data))
            incoming.put_nowait(data)
            if not data:
                loop.remove_reader(self.master)

        loop.add_reader(self.master, readable)
        tasks = set()
        while True:
            due = self.conversation.due()
            try:
                async with asyncio.timeout_at(due):
                    data = await incoming.get()
            except TimeoutError:
                self.conversation.tick(loop.time())
                await self.type()
                continue
            if not data:
                return
            await asyncio.sleep(10 * len(data) / self.baud)
            for event in self.conversation.hear(data, loop.time()):
                if isinstance(event, Request):
                    tasks.add(asyncio.ensure_future(self.answer(event)))
            await self.type()

    async def answer(self, request: Request) -> None:
        """Meet the others, and answer."""
        loop = asyncio.get_running_loop()
        data = await self.client.wait(request.id or "", Kind.SYNC, request.args[0], None, timeout=None)
        self.conversation.succeed(request, data, loop.time())
        await self.type()

    async def type(self) -> None:
        """Type what there is, at the line's rate."""
        typed, self.conversation.typed = self.conversation.typed, []
        for frame in typed:
            await asyncio.sleep(10 * len(frame) / self.baud)
            self.passed.append((asyncio.get_running_loop().time(), frame))
            os.write(self.master, frame)


async def measure(shell: str, baud: int, rounds: int, folder: Path) -> list[tuple[float, float]]:
    """Seconds of each round, and the seconds that its bytes need on the busier line."""
    group = LiveGroup("bench", MEMBERS, MemoryJournal(), grace=None)
    lines = [Line(m, EmbeddedClient(group, m.id), baud, folder / m.id) for m in MEMBERS]
    # The second arrives last: it lets the first one's HOLD pass. "back" tells when a script has returned.
    loop_text = "i=0; while [ $i -lt %d ]; do %s lava-sync round-$i; echo back; i=$((i+1)); done\n"
    for line, pause in zip(lines, ("", "sleep 0.5;"), strict=True):
        line.start(shell, loop_text % (rounds, pause))
    joining = [asyncio.ensure_future(line.client.join(f"j{line.member.id}")) for line in lines]
    await asyncio.gather(*joining, *(line.run() for line in lines))
    results = []
    for number in range(rounds):
        spans = [_round(line.passed, number) for line in lines]
        began = spans[1][0]
        ended = max(span[1] for span in spans)
        carried = max(sum(len(data) for when, data in line.passed if began <= when < ended) for line in lines)
        results.append((ended - began, 10 * carried / baud))
    return results


def _round(passed: list[tuple[float, bytes]], number: int) -> tuple[float, float]:
    """When a member's frame of a round began, and when its script had returned."""
    began = next(when for when, data in passed if f"SYNC round-{number} ".encode() in data)
    backs = [when for when, data in passed for _ in range(data.count(b"back\n"))]
    return began, backs[number]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    print(f"{'shell':10}{'baud':>8}{'a sync, ms':>12}{'its bytes, ms':>15}{'ratio':>8}   (medians){'best ratio':>12}")
    for shell in ("dash", "bash", "mksh", "ksh93"):
        path = shutil.which(shell)
        if path is None:
            continue
        for baud in (115200, 9600):
            with tempfile.TemporaryDirectory(prefix="multinode-bench-") as folder:
                rounds = asyncio.run(measure(path, baud, arguments.rounds, Path(folder)))
            took = statistics.median(seconds for seconds, _ in rounds)
            needed = statistics.median(seconds for _, seconds in rounds)
            best = min(seconds / own for seconds, own in rounds)
            ratios = f"{took / needed:>8.2f}{best:>24.2f}"
            print(f"{shell:10}{baud:>8}{1000 * took:>12.1f}{1000 * needed:>15.1f}{ratios}", flush=True)


if __name__ == "__main__":
    main()
