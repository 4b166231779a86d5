"""The command transport: programs on ptys, why they ended, and nothing of theirs left behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import re
import signal
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from console_harness import children, opened, run, soon

from dispatcher.console import processes
from dispatcher.console.command import CommandTransport
from dispatcher.console.connection import Console
from dispatcher.console.processes import Family
from dispatcher.errors import ConsoleClosed, ConsoleError, UserError


def transport(text: str) -> CommandTransport:
    return CommandTransport("board", {"command": text})


async def line(console: Console, pattern: bytes) -> re.Match[bytes]:
    return (await console.expect([re.compile(pattern)], soon()))[1]


async def end_of(text: str) -> str:
    async with opened(text) as console:
        return str(await console.ended())


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# --- what cannot be started ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "board: console command is empty"),
        ("   ", "board: console command is empty"),
        ("''", "board: console command is empty"),
        ("sh -c 'echo", 'board: console command "sh -c \'echo": no closing quotation'),
        ("sh \\", "board: console command 'sh \\\\': no escaped character"),
    ],
)
def test_a_command_that_cannot_be_meant_is_refused_before_anything_is_opened(text: str, message: str) -> None:
    with pytest.raises(UserError) as raised:
        transport(text)
    assert str(raised.value).startswith(message)
    assert raised.value.exit_status == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no-such-program --flag", "board: the program 'no-such-program' is not found"),
        ("/no/such/program", "board: the program '/no/such/program' is not found"),
        ("/etc/passwd", "board: the program '/etc/passwd' is not a program that can be run"),
        ("/etc", "board: the program '/etc' is not a program that can be run"),
        ("cd /tmp", "board: the program 'cd' is not found"),
    ],
)
def test_a_program_that_is_not_there_is_named(text: str, message: str) -> None:
    async def test() -> None:
        with pytest.raises(ConsoleError) as raised:
            async with opened(text):
                pass
        assert str(raised.value).startswith(message)

    run(test())


def test_a_program_that_the_kernel_does_not_run_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF, but no more of it")
    program.chmod(0o755)

    async def test() -> None:
        with pytest.raises(ConsoleError, match=r"^board: cannot start '.*/program': .*Exec format error"):
            async with opened(str(program)):
                pass
        assert children() == before  # at once, not only after some later collection

    before = children()
    run(test())


# --- why it ended ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("true", "board: 'true' ended with status 0"),
        ("sh -c 'exit 7'", "board: 'sh' ended with status 7"),
        ("sh -c 'kill -KILL $$'", "board: 'sh' was ended by SIGKILL"),
        ("sh -c 'kill -INT $$'", "board: 'sh' was ended by SIGINT"),
        ("sh -c 'kill -40 $$'", "board: 'sh' was ended by signal 40"),
        ("sh -c 'trap \"\" HUP; sleep 600 & exit 5'", "board: 'sh' ended with status 5"),
        ("sh -c 'trap \"\" HUP; yes & exit 5'", "board: 'sh' ended with status 5"),
        ("sh -c 'exec </dev/null >/dev/null 2>&1; exec sleep 60'", "board: 'sh' closed its terminal"),
    ],
)
def test_why_a_program_ended_is_told(text: str, reason: str) -> None:
    assert run(end_of(text)) == reason


@pytest.mark.parametrize("program", ["cat", "yes", "sh -c 'trap \"exit 130\" INT; cat; exit 0'"])
def test_a_program_that_our_own_interrupt_ends_is_not_said_to_have_ended_by_itself(program: str) -> None:
    async def test() -> None:
        async with opened(program) as console:
            with contextlib.suppress(ConsoleClosed):
                await console.interrupt()
            name = program.split(maxsplit=1)[0]
            why = "took the Ctrl-C that was typed for a shell as its own and ended; it passes none on"
            assert str(await console.ended()) == f"board: {name!r} {why}"

    run(test())


def test_the_status_is_told_however_long_the_end_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing its terminal is the first thing that a program's end does."""
    first = [None, None]
    leader = CommandTransport._leader
    monkeypatch.setattr(CommandTransport, "_leader", lambda self: first.pop() if first else leader(self))
    assert run(end_of("sh -c 'exit 3'")) == "board: 'sh' ended with status 3"


def test_an_end_without_a_status_is_told() -> None:
    """Where SIGCHLD is ignored, as under some supervisors, the kernel keeps no status."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert run(end_of("sh -c 'exit 3'")) == "board: 'sh' ended"
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_without_pidfd_the_end_of_file_still_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_pid: int) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", absent)
    assert run(end_of("sh -c 'exit 3'")) == "board: 'sh' ended with status 3"


def test_the_last_words_of_a_program_are_heard_though_another_holds_its_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "HANGUP_GRACE", 0.1)
    log = tmp_path / "log"

    async def test() -> None:
        async with opened("sh -c 'trap \"\" HUP; sleep 600 & seq 1 9999; exit 3'", log) as console:
            await console.ended()
        assert log.read_bytes().endswith(b"\r\n9999\r\n")

    run(test())


def test_the_last_words_of_a_program_are_heard(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened("sh -c 'echo last words; exit 3'", tmp_path / "log") as console:
            await console.ended()
            await line(console, b"last words")
            with pytest.raises(ConsoleClosed, match="'sh' ended with status 3"):
                await console.send(b"anybody?\n")
        assert (tmp_path / "log").read_bytes() == b"last words\r\n"

    run(test())


# --- what a program finds --------------------------------------------------------------------------------------


def test_a_program_finds_a_wide_dumb_terminal_that_is_its_own() -> None:
    async def test() -> None:
        async with opened("sh -c 'tty; stty size; echo $TERM; ps -o tty= -p $$; sleep 60'") as console:
            tty = (await line(console, rb"/dev/(pts/\d+)\r\n50 500\r\ndumb\r\n")).group(1)
            assert (await line(console, rb"pts/\d+")).group() == tty

    run(test())


def test_arguments_arrive_as_they_are_quoted() -> None:
    async def test() -> None:
        async with opened("""printf '<%s>' 'a b' "c'd" $HOME \\* ''""") as console:
            await line(console, rb"<a b><c'd><\$HOME><\*><>")

    run(test())


def test_signals_that_are_ignored_here_are_not_ignored_there() -> None:
    """Python ignores SIGPIPE; a shell that was started so cannot undo it, and every ``yes | head`` would complain."""

    async def test() -> None:
        async with opened("sh -c 'grep SigIgn /proc/self/status; sleep 60'") as console:
            ignored = int((await line(console, rb"SigIgn:\s+([0-9a-f]+)")).group(1), 16)
            assert ignored & 0x7FFFFFFF == 0, "of those that have names"

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        run(test())
    finally:
        signal.signal(signal.SIGHUP, before)


def test_no_descriptor_of_ours_is_open_there() -> None:
    async def test() -> None:
        async with opened("sleep 60"), opened("sh -c 'echo $$; sleep 60'") as console:
            pid = int((await line(console, rb"(\d+)\r\n")).group(1))
            assert set(os.listdir(f"/proc/{pid}/fd")) - {"10", "255"} == {"0", "1", "2"}

    run(test())


# --- closing ---------------------------------------------------------------------------------------------------

IGNORING = "trap '' HUP TERM INT QUIT"


def members_of(session: int) -> set[int]:
    family = Family()
    family.session = session
    return family.members()


@pytest.mark.parametrize(
    "script",
    [
        "echo $$; sleep 600",
        f"{IGNORING}; echo $$; sleep 600; sleep 600",
        f"{IGNORING}; (sleep 600& echo $!; sleep 600)& wait",
        "(sleep 600& sleep 600& echo $!)& sleep 600",
        f"{IGNORING}; exec </dev/null; (echo $$; exec >/dev/null 2>&1; sleep 600)",
        "echo $$; kill -STOP $$",
        "trap '' HUP; (sleep 600& echo $!); exit 0",
    ],
    ids=["plain", "deaf", "deaf-grandchildren", "grandchildren", "deaf-without-tty", "stopped", "orphan"],
)
def test_closing_ends_every_process_of_the_session(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "HANGUP_GRACE", 0.1)

    async def test() -> None:
        async with opened(f'sh -c "{script}"') as console:
            known = int((await line(console, rb"(\d+)\r\n")).group(1))
            session = os.getsid(known)
            assert session != os.getsid(0)
            assert members_of(session)
        assert not members_of(session)
        assert not alive(known)

    run(test())


def test_a_stopped_program_is_told_to_end(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(f"trap 'echo told >{tmp_path}/file; exit' TERM; echo $$; kill -STOP $$; exit 1\n")

    async def test() -> None:
        # Not the session's leader, nor a child that loses its parent: those the kernel itself has go on.
        async with opened(f"sh -c 'trap \"\" HUP; trap : TERM; sh {script}; exit'") as console:
            await line(console, rb"\d+\r\n")

    run(test())
    assert (tmp_path / "file").read_text() == "told\n"


def test_closing_ends_a_program_that_forks_while_it_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "HANGUP_GRACE", 0.1)

    async def test() -> None:
        async with opened("sh -c 'trap \"sleep 600& sleep 600\" HUP; echo $$; while :; do sleep 600; done'") as console:
            session = int((await line(console, rb"(\d+)\r\n")).group(1))
        assert not members_of(session)

    run(test())


def test_closing_leaves_other_sessions_alone() -> None:
    async def test() -> None:
        async with opened("sleep 600") as bystander:
            async with opened("sleep 600"):
                pass
            assert not bystander._ended.is_set()

    others = [subprocess.Popen(["sleep", "600"], start_new_session=new) for new in (True, False)]
    try:
        run(test())
        assert [other.poll() for other in others] == [None, None]
    finally:
        for other in others:
            other.kill()
            other.wait()


def test_consoles_that_close_together_look_at_all_processes_together(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    found = processes._Census.found

    def counting(census: processes._Census) -> Any:
        nonlocal looks
        looks += 1
        return found(census)

    monkeypatch.setattr(processes._Census, "found", counting)
    families = [Family() for _ in range(8)]
    for family in families:
        family.session = -1
    for expected in (2, 4):  # who finds none looks twice
        assert [family.members() for family in families] == [set()] * 8
        assert looks == expected
    families[0].session = os.getsid(0)
    assert os.getpid() in families[0].members()
    assert looks == 5


def test_closing_gives_up_on_what_cannot_be_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of another user, as behind sudo, or one that waits for hardware: the run ends all the same."""
    monkeypatch.setattr(processes, "_signal", lambda *_: None)
    leader = 0

    async def test() -> None:
        nonlocal leader
        async with opened("sh -c \"trap '' HUP; echo $$; sleep 600\"") as console:
            leader = int((await line(console, rb"(\d+)\r\n")).group(1))
            monkeypatch.setattr(processes, "HANGUP_GRACE", 0.0)
            monkeypatch.setattr(processes, "KILL_GRACE", 0.01)
        assert alive(leader)

    run(test())
    os.killpg(leader, signal.SIGKILL)
    os.waitpid(leader, 0)


def test_closing_never_closes_a_descriptor_twice() -> None:
    """pexpect's objects close what they hold when they are collected; by then the number may be another's."""

    async def test() -> None:
        async with opened("true") as console:
            spawn: Any = console._spawn
            descriptor = spawn.child_fd
            await console.ended()
        assert spawn.closed
        assert spawn.ptyproc.closed
        again = os.open("/dev/null", os.O_RDONLY)
        kept = [again, *(os.dup(again) for _ in range(20))]
        assert descriptor in kept
        del console, spawn
        gc.collect()
        for each in kept:
            os.close(each)

    run(test())


def test_closing_what_never_opened_does_nothing() -> None:
    run(transport("sleep 600").close())


def test_a_program_that_ends_while_it_is_closed_is_no_zombie() -> None:
    async def test() -> None:
        async with opened("sh -c 'echo $$; exit 0'") as console:
            await console.ended()

    run(test())


# --- writing to a slow program ---------------------------------------------------------------------------------


def test_a_megabyte_reaches_a_program_that_reads_slowly(tmp_path: Path) -> None:
    reader = tmp_path / "reader.py"
    reader.write_text(
        "import os, sys, tty, zlib\n"
        "tty.setraw(0)\n"
        "os.write(1, b'ready ')\n"
        "left, crc = 1 << 20, 0\n"
        "while left:\n"
        "    data = os.read(0, 777)\n"
        "    left, crc = left - len(data), zlib.crc32(data, crc)\n"
        "os.write(1, b'got %08x.' % crc)\n"
    )

    async def test() -> None:
        data = os.urandom(1 << 20)
        async with opened(f"{sys.executable} {reader}") as console:
            await line(console, b"ready ")
            await asyncio.gather(console.send(data[: 1 << 19]), console.send(data[1 << 19 :]))
            assert int((await line(console, b"got ([0-9a-f]{8})")).group(1), 16) == zlib.crc32(data)

    run(test())
