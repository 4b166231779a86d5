"""How fast a run reads its consoles, beside reading the same ptys and doing nothing, and beside LAVA's own loop.

First one console: a shell on a pty prints a file, and all of it goes the way of a test's output: transport, console,
log and recording, the loop's listener, both framings, results, events, the watch for a reboot. The same file is read
with a plain ``os.read`` in the same run, in reads of 64 KiB (a pty gives 4095 bytes at most) and of 16.

Then what a UART's FIFO gives: 16 bytes are written to a raw pty at a time, as fast as it takes them, and at a baud
rate, where each has to be read by itself and what one costs is told by CPU time.

LAVA's loop reads the same where MULTINODE_LAVA_ROOT names a tree into which Debian's packages ``lava-common`` and
``lava-dispatcher`` are unpacked, with what they import: as shipped, and with its log off. It gets a shorter file, and
so long for it: some kinds of output take it for ever.

Last many consoles in one process, each at a baud rate's full rate, ten bits a byte: the share of a core that reading
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
import shlex
import subprocess
import sys
import tempfile
import time
import tty
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from pexpect import fdpexpect
from pexpect.spawnbase import SpawnBase

from dispatcher.console import shell as console_shell
from dispatcher.console.command import CommandTransport
from dispatcher.console.connection import Console, Listener
from dispatcher.console.reboot import RebootWatch
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

BESIDE = Path(__file__).with_name("beside")
MEMBER = Member("1", "bench")
SIZE = 4_000_000
SMALL = 8
"""How much shorter a file is that is read in small pieces."""
LAVA_SIZE = 1_000_000
LAVA_LIMIT = 10.0
"""Seconds that LAVA's loop may take for its file."""
LAVA_READ = 4092
"""Bytes that it asks for at a time as shipped, the device constant ``spawn_maxread``."""
BLOCK = 16
BAUD = 115200
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
    "half signals": lambda: repeated(b"<LAVA_SIGNAL_TESTCASE "),
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


# --- readers -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Took:
    """What it took to read a file: seconds, those of the reader's CPU, and reads."""

    size: int
    seconds: float
    cpu: float
    reads: int

    @property
    def speed(self) -> float:
        """MB/s."""
        return self.size / self.seconds / 1e6


def best(measure: Callable[[], Took], times: int = 3) -> Took:
    return min((measure() for _ in range(times)), key=lambda took: took.seconds)


def session(console: Console, record: Record) -> tuple[Listener, Callable[[], None]]:
    """What hears a test, as a run has it, and what ends that."""

    def note(kind: str, **data: object) -> None:
        record.note(kind, MEMBER, console.name, **data)

    group = LiveGroup("bench", [MEMBER], MemoryJournal(), grace=None)
    results = MemberResults(
        MEMBER, console.name, monotonic=time.monotonic, now=lambda: datetime.now(UTC), observe=lambda _case: None
    )
    test = TestSession(
        *(console, MEMBER, [MEMBER], EmbeddedClient(group, MEMBER.id)),
        calls={},
        results=results,
        note=note,
        requests=itertools.count(),
        timeout=None,
    )
    watch = RebootWatch(console, ["bench:~# "])

    def listen(data: bytes) -> None:
        test.hear(data)
        watch.hear(data)

    def cancel() -> None:
        test.cancel()
        watch.cancel()

    return listen, cancel


def kept(folder: Path, name: str) -> Transcript:
    return Transcript(folder / f"{name}.log", recording=folder / f"{name}.cast")


def plain(command: list[str], total: int, size: int) -> Took:
    """Read what a command prints on a pty."""
    reader, writer = pty.openpty()
    reads = 0
    with subprocess.Popen(command, stdin=writer, stdout=writer):
        os.close(writer)
        began, used = time.perf_counter(), time.process_time()
        try:
            while os.read(reader, size):
                reads += 1
        except OSError:  # EIO: the end
            pass
        took = Took(total, time.perf_counter() - began, time.process_time() - used, reads)
    os.close(reader)
    return took


async def whole(command: list[str], total: int, size: int, folder: Path) -> Took:
    """Take in what a command prints as a run does with a test."""
    grammar.READ_SIZE = size  # type: ignore[misc]
    console = Console("bench", CommandTransport("bench", {"command": "sh"}), kept(folder, "console"))
    record = Record(folder / "events.jsonl")
    console.open()
    try:
        shell = await console_shell.start(console, "/bin/sh", deadline=asyncio.get_running_loop().time() + 10)
        listen, cancel = session(console, record)
        blocks = 0

        def counted(data: bytes) -> None:
            nonlocal blocks
            blocks += 1
            listen(data)

        began, used = time.perf_counter(), time.process_time()
        await shell.run_test(f"exec {shlex.join(command)}", counted)
        took = Took(total, time.perf_counter() - began, time.process_time() - used, blocks)
        cancel()
        return took
    finally:
        await console.close()
        record.close()


def lava(command: list[str], total: int, size: int, folder: Path, *, log: bool) -> Took | None:
    """Have LAVA's loop read it, in a process of its own; None where that takes too long."""
    packages = Path(os.environ["MULTINODE_LAVA_ROOT"]) / "usr/lib/python3/dist-packages"
    script = [sys.executable, str(BESIDE / "lava.py"), "--size", str(min(size, LAVA_READ))]
    logged = ["--log", str(folder / "lava.log")] if log else []
    try:
        ended = subprocess.run(
            [*script, *logged, shlex.join(command)],
            env={**os.environ, "PYTHONPATH": str(packages)},
            capture_output=True,
            text=True,
            timeout=LAVA_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    if ended.returncode:
        raise SystemExit(f"LAVA's loop failed: {ended.stderr.strip().splitlines()[-1]}")
    seconds, cpu, reads = ended.stdout.split()
    return Took(total, float(seconds), float(cpu), int(reads))


# --- one -----------------------------------------------------------------------------------------------------


def one_console(folder: Path) -> None:
    """Each kind of output in large reads and small ones."""
    with_lava = "MULTINODE_LAVA_ROOT" in os.environ
    columns = f"{'plain MB/s':>12}{'ours MB/s':>12}{'of plain':>10}{'MB/CPU s':>10}"
    theirs = f"{'LAVA MB/s':>12}{'ours by':>9}{'no log':>10}{'ours by':>9}" if with_lava else ""
    print(f"{'output':28}{'reads of':>10}{columns}{theirs}")
    path = folder / "output"
    command = ["cat", str(path)]
    for kind in KINDS:
        for size in (65536, 16):
            path.write_bytes(content(kind, SIZE if size > 16 else SIZE // SMALL))
            total = path.stat().st_size
            read = best(lambda: plain(command, total, size))  # noqa: B023 - called here
            ours = best(lambda: asyncio.run(whole(command, total, size, folder)))  # noqa: B023
            share = f"{ours.speed / read.speed:>10.0%}{total / ours.cpu / 1e6:>10.1f}"
            print(f"{kind:28}{size:>10}{read.speed:>12.2f}{ours.speed:>12.2f}{share}", end="", flush=True)
            for log, width in ((True, 12), (False, 10)) if with_lava else ():
                path.write_bytes(content(kind, LAVA_SIZE if size > 16 else LAVA_SIZE // SMALL))
                took = lava(command, path.stat().st_size, size, folder, log=log)
                print(beside(took, ours, width), end="", flush=True)
            print()


def beside(lavas: Took | None, ours: Took, width: int) -> str:
    """LAVA's speed, and by how much ours is faster."""
    return f"{lavas.speed:>{width}.2f}{ours.speed / lavas.speed:>9.1f}" if lavas else f"{'> limit':>{width}}{'':9}"


def uart(folder: Path, seconds: float) -> None:
    """Sixteen bytes at a time."""
    columns = f"{'MB/s':>8}{'bytes a read':>14}{'us of CPU a block':>19}"
    print(f"{f'text, blocks of {BLOCK} bytes':28}{'reader':20}{columns}")
    path = folder / "output"
    script = [sys.executable, "-S", str(BESIDE / "uart.py"), str(path)]
    for pace, size in ((0, SIZE // SMALL), (BAUD, int(BAUD / 10 * seconds))):
        path.write_bytes(content("text", size))
        total = path.stat().st_size
        command = [*script, str(pace)]
        times = 1 if pace else 3
        readers: dict[str, Callable[[], Took | None]] = {
            "plain": lambda: best(lambda: plain(command, total, 65536), times),  # noqa: B023 - called here
            "ours": lambda: best(lambda: asyncio.run(whole(command, total, 65536, folder)), times),  # noqa: B023
        }
        if "MULTINODE_LAVA_ROOT" in os.environ:
            readers["LAVA's, as shipped"] = lambda: lava(command, total, LAVA_READ, folder, log=True)  # noqa: B023
            readers["LAVA's, log off"] = lambda: lava(command, total, LAVA_READ, folder, log=False)  # noqa: B023
        for name, measure in readers.items():
            took = measure()
            paced = f"at {pace} baud" if pace else "as fast as can be"
            if took is None:
                print(f"{paced:28}{name:20}{'> limit':>8}")
                continue
            cost = f"{total / took.reads:>14.1f}{1e6 * took.cpu / (total / BLOCK):>19.1f}"
            print(f"{paced:28}{name:20}{took.speed:>8.3f}{cost}", flush=True)


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
    consoles, cancels, writers = [], [], []
    for number in range(count):
        reader, writer = pty.openpty()
        tty.setraw(writer)
        console = Console(f"bench-{number}", Pty(f"bench-{number}", {"pty": reader}), kept(folder, str(number)))
        console.open()
        listen, cancel = session(console, record)
        console.listen(listen)
        cancels.append(cancel)
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
    for cancel in cancels:
        cancel()
    for console in consoles:
        await console.close()
    for writer in writers:
        os.close(writer)
    record.close()


def many_consoles(count: int, seconds: float) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 8 * count), hard), hard))
    columns = f"{'MB/s':>8}{'of a core':>12}{'MB to open':>13}{'MB more then':>14}"
    print(f"{'consoles':>8}{'baud':>8}  {'output':28}{columns}")
    for kind in ("text", "text, a frame in 20 lines"):
        with tempfile.TemporaryDirectory(prefix="multinode-bench-") as folder:
            asyncio.run(many(count, BAUD, seconds, kind, Path(folder)))


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
    with tempfile.TemporaryDirectory(prefix="multinode-bench-") as folder:
        one_console(Path(folder))
        print()
        uart(Path(folder), arguments.seconds)
    print()
    grammar.READ_SIZE = 65536  # type: ignore[misc]
    many_consoles(arguments.consoles, arguments.seconds)


if __name__ == "__main__":
    main()
