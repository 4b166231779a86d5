"""How fast a run reads its consoles, beside reading the same ptys and doing nothing.

First one console: a shell on a pty prints a file, and all of it goes the way of a test's output: transport, console,
transcript, the loop's listener, both framings, results, events. The same shell's file is read with a plain ``os.read``
in the same run, in reads of 64 KiB (a pty gives 4095 bytes at most) and of 16, which a UART's FIFO gives.

Then many consoles in one process, each at a baud rate's full rate, ten bits a byte: the share of a core that reading
them takes, and the memory. The rate is kept by another process, which writes to each pty a hundred times a second.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import multiprocessing
import os
import pty
import resource
import subprocess
import tempfile
import time
import tty
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from pexpect import fdpexpect
from pexpect.spawnbase import SpawnBase

from dispatcher.console import shell as console_shell
from dispatcher.console.command import CommandTransport
from dispatcher.console.connection import Console
from dispatcher.console.transcript import Transcript
from dispatcher.console.transport import Transport
from dispatcher.coordinator.client import EmbeddedClient
from dispatcher.coordinator.journal.memory import MemoryJournal
from dispatcher.coordinator.live import LiveGroup
from dispatcher.framing import grammar
from dispatcher.framing.reliable import encode_message, encode_up
from dispatcher.group.events import Member
from dispatcher.job.record import Record
from dispatcher.job.results import MemberResults
from dispatcher.job.session import TestSession

MEMBER = Member("1", "bench")
SIZE = 4_000_000
TICK = 0.01
LINE = b"[   12.345678] usb 1-1: new high-speed USB device number 2 using xhci_hcd\n"
RESULT = encode_message("SIGNAL", ["TESTCASE", "TEST_CASE_ID=x", "RESULT=pass"])


def frames() -> Iterator[bytes]:
    for number in itertools.count():
        yield LINE * 20 + encode_up(f"{number:012x}", 1, 1, RESULT)


def repeated(block: bytes) -> Iterator[bytes]:
    return itertools.repeat(block)


KINDS = {
    "text": lambda: repeated(LINE),
    "text, a marker in 20 lines": lambda: repeated(LINE * 20 + b"<LAVA_SIGNAL_TESTCASE TEST_CASE_ID=x RESULT=pass>\n"),
    "text, a frame in 20 lines": frames,
    "no line feed": lambda: repeated(b"x" * 64),
    "half markers": lambda: repeated(b"<LAVA_MULTI_NODE> <LAVA_WAIT "),
    "half frames": lambda: repeated(b"<MN2 0123456789ab 1/1 "),
}


def content(kind: str, size: int) -> bytes:
    """Output of one kind, about as long as asked."""
    data = bytearray()
    for block in KINDS[kind]():
        data += block
        if len(data) >= size:
            break
    return bytes(data)


def session(console: Console, record: Record) -> TestSession:
    """What hears a test, as a run has it."""

    def note(kind: str, **data: object) -> None:
        record.note(kind, MEMBER, console.name, **data)

    group = LiveGroup("bench", [MEMBER], MemoryJournal(), grace=None)
    results = MemberResults(
        MEMBER, console.name, monotonic=time.monotonic, now=lambda: datetime.now(UTC), observe=lambda _case: None
    )
    return TestSession(
        *(console, MEMBER, [MEMBER], EmbeddedClient(group, MEMBER.id)),
        calls={},
        results=results,
        note=note,
        requests=itertools.count(),
        timeout=None,
    )


def plain(path: Path, size: int) -> float:
    """Seconds to read what ``cat`` prints on a pty."""
    reader, writer = pty.openpty()
    with subprocess.Popen(["cat", str(path)], stdin=writer, stdout=writer):
        os.close(writer)
        began = time.perf_counter()
        try:
            while os.read(reader, size):
                pass
        except OSError:  # EIO: the end
            pass
        seconds = time.perf_counter() - began
    os.close(reader)
    return seconds


async def whole(path: Path, folder: Path) -> tuple[float, float]:
    """Seconds in which a run takes in what ``cat`` prints as a test, and those of the processor's."""
    console = Console("bench", CommandTransport("bench", {"command": "sh"}), Transcript(folder / "console.log"))
    record = Record(folder / "events.jsonl")
    console.open()
    try:
        shell = await console_shell.start(console, "/bin/sh", deadline=asyncio.get_running_loop().time() + 10)
        hears = session(console, record)
        began, used = time.perf_counter(), time.process_time()
        await shell.run_test(f"exec cat {path}", hears.hear)
        seconds = time.perf_counter() - began, time.process_time() - used
        hears.cancel()
        return seconds
    finally:
        await console.close()
        record.close()


def one_console() -> None:
    print(f"{'output':28}{'reads of':>10}{'plain MB/s':>12}{'whole MB/s':>12}{'share':>8}{'MB/CPU s':>10}")
    with tempfile.TemporaryDirectory(prefix="multinode-bench-") as folder:
        path = Path(folder) / "output"
        for kind in KINDS:
            for size in (65536, 16):
                path.write_bytes(content(kind, SIZE if size > 16 else SIZE // 8))
                megabytes = path.stat().st_size / 1e6
                grammar.READ_SIZE = size  # type: ignore[misc]
                read = min(plain(path, size) for _ in range(3))
                took, used = min(asyncio.run(whole(path, Path(folder))) for _ in range(3))
                speeds = (
                    f"{megabytes / read:>12.1f}{megabytes / took:>12.1f}{read / took:>8.0%}{megabytes / used:>10.1f}"
                )
                print(f"{kind:28}{size:>10}{speeds}", flush=True)


# --- many ----------------------------------------------------------------------------------------------------


class Pty(Transport):
    """One end of a pty that another process writes to."""

    OPTIONS: ClassVar = {"pty": "its descriptor"}

    def open(self) -> SpawnBase[bytes]:
        return fdpexpect.fdspawn(int(self.options["pty"]), timeout=None)

    async def close(self) -> None:
        os.close(int(self.options["pty"]))


def feed(writers: list[int], rate: float, seconds: float, data: bytes) -> None:
    """Write to each at a rate, bytes a second."""
    began = time.perf_counter()
    sent = 0
    while (now := time.perf_counter() - began) < seconds:
        until = int(now * rate)
        for writer in writers:
            part = data[sent % len(data) :][: until - sent]
            os.write(writer, part)
        sent += len(part)
        time.sleep(max(0.0, TICK - (time.perf_counter() - began - now)))


async def many(count: int, baud: int, seconds: float, kind: str, folder: Path) -> None:
    """Read many consoles for some time, and say what it took."""
    before = _memory()
    record = Record(folder / "events.jsonl")
    consoles, hears, writers = [], [], []
    for number in range(count):
        reader, writer = pty.openpty()
        tty.setraw(writer)
        transcript = Transcript(folder / f"{number}.log")
        console = Console(f"bench-{number}", Pty(f"bench-{number}", {"pty": reader}), transcript)
        console.open()
        hears.append(session(console, record))
        console.listen(hears[-1].hear)
        consoles.append(console)
        writers.append(writer)
    opened = _memory()
    process = multiprocessing.get_context("fork").Process(
        target=feed, args=(writers, baud / 10, seconds, content(kind, 1_000_000))
    )
    process.start()
    began, used = time.perf_counter(), time.process_time()
    await asyncio.to_thread(process.join)
    took, used = time.perf_counter() - began, time.process_time() - used
    read = sum(_size(folder / f"{number}.log") for number in range(count))
    print(
        f"{count:>8}{baud:>8}  {kind:28}{read / took / 1e6:>8.2f}{used / took:>12.0%}"
        f"{(opened - before) / 1024:>13.1f}{(_memory() - opened) / 1024:>14.1f}",
        flush=True,
    )
    for heard in hears:
        heard.cancel()
    for console in consoles:
        await console.close()
    for writer in writers:
        os.close(writer)
    record.close()


def many_consoles(count: int, seconds: float) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4 * count), hard), hard))
    columns = f"{'MB/s':>8}{'of a core':>12}{'MB to open':>13}{'MB more then':>14}"
    print(f"{'consoles':>8}{'baud':>8}  {'output':28}{columns}")
    for kind in ("text", "text, a frame in 20 lines"):
        with tempfile.TemporaryDirectory(prefix="multinode-bench-") as folder:
            asyncio.run(many(count, 115200, seconds, kind, Path(folder)))


def _size(path: Path) -> int:
    return path.stat().st_size


def _memory() -> int:
    """Resident memory of this process, KiB."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--consoles", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    one_console()
    print()
    grammar.READ_SIZE = 65536  # type: ignore[misc]
    many_consoles(arguments.consoles, arguments.seconds)


if __name__ == "__main__":
    main()
