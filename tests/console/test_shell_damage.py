"""The loop on the device over a line that damages what passes, in both directions: it is asked again, and runs once."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from console_harness import (
    PATIENCE,
    BadLine,
    Hits,
    Noise,
    Output,
    PairTransport,
    changed,
    lost,
    now,
    opened,
    run,
    soon,
    started,
    without,
)

from dispatcher.console import shell as shell_module
from dispatcher.console.shell import Shell, start

pytestmark = pytest.mark.slow

# --- damage ----------------------------------------------------------------------------------------------------

APPEND = b"; R=appended"
DAMAGE_TYPED = {
    "the line": lost,
    "its number": without(b"#"),
    "a digit": changed(b"#", b"#9"),
    "a byte": without(b"e"),
    "a letter": changed(b"echo", b"ecHo"),
    "a letter of the second half": lambda line: line[:-3] + b"D" + line[-2:],
    "the line feed": without(b"\n"),
    "its middle": lambda line: line[:20] + line[40:],
    "a byte too many": changed(b"echo", b"eecho"),
    "a kill character": changed(b"echo", b"\x15cho"),
    "an end of file": changed(b"echo", b"ec\x04o"),
    "an interrupt": changed(b"echo", b"\x03cho"),
    "a quit character": changed(b"echo", b"\x1ccho"),
    "a suspend character": changed(b"echo", b"\x1acho"),
    "a stop character": changed(b"echo", b"\x13cho"),
}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("damage", DAMAGE_TYPED.values(), ids=DAMAGE_TYPED.keys())
def test_a_line_damaged_on_its_way_is_sent_again_and_run_once(damage: Noise, tmp_path: Path) -> None:
    hits = Hits((APPEND, damage))

    async def test() -> None:
        async with started(BadLine("sh", typed=hits)) as shell:
            answer = await shell.run(f"echo once >>{tmp_path}/file{APPEND.decode()}", deadline=soon())
            assert (answer.status, answer.value) == (0, "appended")
            assert (await shell.run("R=next", deadline=soon())).value == "next"

    run(test())
    assert not hits.left
    assert (tmp_path / "file").read_text() == "once\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


KERNEL = b"[   12.345678] usb 1-1: new high-speed USB device number 2\r\n"
DAMAGE_PRINTED = {
    "the line": lost,
    "a byte": without(b"p"),
    "a status": changed(b" 0 app", b" 1 app"),
    "a value": changed(b"appended", b"appendix"),
    "a number": lambda line: re.sub(rb"(mn\w+ )\d", rb"\g<1>9", line, count=1),
    "a kernel line in the value": changed(b"app", b"app" + KERNEL),
    "a kernel line in the key": changed(b"mn", b"m" + KERNEL + b"n"),
    "a kernel line before the line feed": without(b".\r\n"),
    "a line without its key": lambda line: line[12:],
    "two kernel lines": lambda line: line[:5] + KERNEL + line[5:30] + KERNEL + line[30:],
}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("damage", DAMAGE_PRINTED.values(), ids=DAMAGE_PRINTED.keys())
def test_a_damaged_answer_is_asked_for_again(damage: Noise, tmp_path: Path) -> None:
    hits = Hits((b"0 appended", damage))

    async def test() -> None:
        async with started(BadLine("sh", printed=hits)) as shell:
            answer = await shell.run(f"echo once >>{tmp_path}/file{APPEND.decode()}", deadline=soon())
            assert (answer.status, answer.value) == (0, "appended")
            assert (await shell.run("R=next", deadline=soon())).value == "next"

    run(test())
    assert not hits.left
    assert (tmp_path / "file").read_text() == "once\n"


def test_a_line_that_is_not_whole_is_sent_again_without_delay() -> None:
    async def test() -> None:
        transport = PairTransport()
        async with opened(transport) as console:
            shell = Shell(console, b"mnkey")
            running = asyncio.ensure_future(shell.run("true", deadline=soon()))
            began = now()
            assert await transport.hear_line() == b"#1 true #1 true\n"
            await transport.say(b"\r\nmnkey 0 ?  mnkey 0 ? .\r\n")
            assert await transport.hear_line() == b"#1 true #1 true\n"
            assert now() == began
            await transport.say(b"\r\nmnkey 1 0  mnkey 1 0 .\r\n")
            assert (await running).status == 0
            transport.far.close()

    run(test(), jumping=True)


def test_a_test_whose_line_is_not_whole_is_sent_again_without_delay() -> None:
    async def test() -> None:
        transport = PairTransport()
        async with opened(transport) as console:
            running = asyncio.ensure_future(Shell(console, b"mnkey").run_test("true", Output()))
            began = now()
            for _time in range(3):
                assert await transport.hear_line() == b"#1 +true #1 +true\n"
                await transport.say(b"\r\nmnkey 0 ?  mnkey 0 ? .\r\n")
            await transport.hear_line()
            assert now() == began
            await transport.say(b"\r\nmnkey 1 0  mnkey 1 0 .\r\n")
            assert (await running).status == 0
            transport.far.close()

    run(test(), jumping=True)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("damage", [lost, without(b"p"), changed(b"=", b"=="), changed(b"=", b"=9")])
def test_a_piece_of_another_length_is_not_written(damage: Noise, tmp_path: Path) -> None:
    hits = Hits((b" a piece", damage))

    async def test() -> None:
        async with started(BadLine("sh", typed=hits)) as shell:
            await shell.run(f"F={tmp_path}/file", deadline=soon())
            for piece in ("a piece ", "another\\012"):
                assert (await shell.append(piece, deadline=soon(), doing="write")).status == 0

    run(test())
    assert not hits.left
    assert (tmp_path / "file").read_text() == "a piece another\n"


# --- starting over a bad line ----------------------------------------------------------------------------------

DAMAGE_START = {
    "the line": lost,
    "a quote": without(b"'"),
    "a closing quote": lambda line: line[:-2] + b"\n",
    "the first characters": lambda line: line[7:],
    "a byte that changes what the loop does": changed(b">>", b" >"),
    "a condition": changed(b"[ ", b"! "),
    "a byte of its answer": changed(b'printf "', b'printf ".'),
    "a byte at which it ends": changed(b"IFS= read", b"IF\xd3= read"),
    "a byte of each answer but the first": changed(b"_s=$?;;esac;}", b"_s=$?{;;esac;}"),
    "a byte of what runs commands": changed(b'*)eval "$_h"', b'*)evam "$_h"'),
    "its middle": lambda line: line[:200] + line[300:],
    "the line feed": without(b"\n"),
}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("damage", DAMAGE_START.values(), ids=DAMAGE_START.keys())
def test_a_loop_damaged_on_its_way_is_started_again(damage: Noise, tmp_path: Path) -> None:
    hits = Hits((b"eval", damage))

    async def test() -> None:
        async with started(BadLine("sh", typed=hits)) as shell:
            for number in range(2):
                await shell.run(f"F={tmp_path}/file", deadline=soon())
                assert (await shell.append(f"{number}\\012", deadline=soon(), doing="write")).status == 0

    run(test())
    assert not hits.left
    assert (tmp_path / "file").read_text() == "0\n1\n"


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("damage", [lost, without(b"n"), changed(b" 0 ", b" 0 " + KERNEL)])
def test_a_start_whose_answer_is_damaged_is_asked_again(damage: Noise) -> None:
    typed: list[bytes] = []

    def keep(line: bytes) -> bytes:
        typed.append(line)
        return line

    async def test() -> None:
        async with started(BadLine("sh", typed=keep, printed=Hits((b" 0 0 ", damage)))) as shell:
            assert (await shell.run("R=1", deadline=soon())).value == "1"

    run(test())
    assert sum(b"eval" in line and b"while" in line for line in typed) >= 1


# --- tests -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("damage", ["the line", "a letter", "the line feed", "an interrupt"])
def test_a_test_whose_line_is_damaged_runs_once(damage: str, tmp_path: Path) -> None:
    hits = Hits((APPEND, DAMAGE_TYPED[damage]))

    async def test() -> None:
        async with started(BadLine("sh", typed=hits)) as shell:
            await shell.run_test(f"echo once >>{tmp_path}/file{APPEND.decode()}", Output())
            assert (await shell.run("R=next", deadline=soon())).value == "next"

    run(test())
    assert not hits.left
    assert (tmp_path / "file").read_text() == "once\n"


DAMAGE_REPORT = {
    "a byte of the first half": without(b"m"),
    "a byte of the second half": lambda line: line[:-6] + line[-5:],
    "a status": lambda line: re.sub(rb" [7+] ", b" 0 ", line, count=1),
    "a kernel line": lambda line: line[:8] + KERNEL + line[8:],
    "another kernel line": lambda line: line[:-4] + KERNEL + line[-4:],
    "its second half": lambda line: line[: len(line) // 2] + b"\r\n",
}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("marker", [rb" \+ ", b" 7 "], ids=["begin", "end"])
@pytest.mark.parametrize("damage", DAMAGE_REPORT.values(), ids=DAMAGE_REPORT.keys())
def test_a_test_whose_reports_are_damaged_does_not_wait_for_ever(damage: Noise, marker: bytes, tmp_path: Path) -> None:
    left = [damage, damage]

    def printed(line: bytes) -> bytes:
        return left.pop()(line) if left and line.startswith(b"mn") and re.search(marker, line) else line

    async def test() -> None:
        async with started(BadLine("sh", printed=printed)) as shell:
            command = f"echo once >>{tmp_path}/file; echo out; exit 7"
            assert (await shell.run_test(command, Output())).status == 7
            assert (await shell.run("R=next", deadline=soon())).value == "next"

    run(test())
    assert not left
    assert (tmp_path / "file").read_text() == "once\n"


@pytest.mark.parametrize("marker", [b" +", b" 7 "], ids=["begin", "end"])
def test_a_report_that_is_lost_comes_a_second_time(marker: bytes) -> None:
    """Nobody could see that it is missing."""
    hits = Hits((marker, lost))

    async def test() -> None:
        async with started(BadLine("sh", printed=hits)) as shell:
            assert (await shell.run_test("exit 7", Output())).status == 7

    run(test())
    assert not hits.left


@pytest.mark.usefixtures("impatient")
def test_a_report_and_the_line_that_asks_for_it_again_may_both_be_damaged() -> None:
    reports = Hits((b" 7 ", without(b"m")), (b" 7 ", lost))
    asked = Hits((b"+exit", bytes), (b"+exit", without(b"x")), (b"+exit", lost))

    async def test() -> None:
        async with started(BadLine("sh", typed=asked, printed=reports)) as shell:
            assert (await shell.run_test("exit 7", Output())).status == 7

    run(test())
    assert not asked.left
    assert not reports.left


# --- leaving ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("way", ["typed", "printed"])
@pytest.mark.parametrize("damage", [lost, without(b" "), changed(b"0", b"1")])
def test_leaving_over_a_bad_line_leaves(way: str, damage: Noise) -> None:
    holds = {"typed": b";exit", "printed": b" 0  mn"}

    async def test() -> None:
        noise = Hits()
        async with opened(BadLine("sh", **{way: noise})) as console:
            shell = await start(console, "sh", deadline=soon())
            noise.left.append((holds[way], damage))
            await shell.leave()
            await console.send(b"echo ba''ck\n")
            await console.expect([re.compile(b"back")], soon())

    run(test())


def test_leaving_is_tried_as_long_as_the_loop_says_that_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell_module, "FIRST_PATIENCE", PATIENCE)

    async def test() -> None:
        noise = Hits()
        async with opened(BadLine("sh", typed=noise)) as console:
            shell = await start(console, "sh", deadline=soon())
            noise.left += [(b";exit", changed(b";exit", b";eXit"))] * 4
            await shell.leave()
            assert not noise.left
            await console.send(b"echo ba''ck\n")
            await console.expect([re.compile(b"back")], soon())

    run(test())
