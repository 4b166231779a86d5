"""The loop on the device: under every shell, started from every shell, and what it is used for."""

from __future__ import annotations

import asyncio
import os
import re
from itertools import pairwise
from pathlib import Path

import pytest
from console_harness import (
    INTERACTIVE,
    SHELLS,
    Output,
    PairTransport,
    now,
    opened,
    run,
    soon,
    started,
)

from dispatcher.console.connection import INTERRUPT, Console
from dispatcher.console.shell import LINE_LIMIT, PROMPT_LIMIT, RELEASE, Shell, start
from dispatcher.errors import ConsoleClosed, ConsoleError, ConsoleTimeout, DeviceRebooted, InstallError

pytestmark = pytest.mark.slow

PRINTABLE = "".join(map(chr, range(0x20, 0x7F)))


# --- every shell -----------------------------------------------------------------------------------------------


def test_every_shell_runs_tests_and_gives_its_console_back(interactive_shell: str) -> None:
    position = list(INTERACTIVE.values()).index(interactive_shell)
    shell_command = list(SHELLS.values())[position - 1]

    async def test() -> None:
        async with opened(interactive_shell) as console:
            before = await settings(console)
            shell = await start(console, shell_command, deadline=soon())
            answer = await shell.run(r"R='a  b \n c';(exit 5)", deadline=soon(), check=False)
            assert (answer.status, answer.value) == (5, r"a b \n c")
            output = Output()
            answer = await shell.run_test("echo output;stty -a;exit 3", output)
            assert answer.status == 3
            assert b"\r\noutput\r\n" in output.data
            assert b"-echo " in output.data
            assert re.search(rb"susp = \^Z.* ixon ", output.data, re.DOTALL)
            assert (await shell.run("R=$(stty -a)", deadline=soon())).value.count("-echo ") == 1
            await shell.leave()
            assert await settings(console) == before

    run(test())


async def settings(console: Console) -> bytes:
    """How the tty is set, said by the interactive shell; its line editor sets it otherwise while it reads."""
    console.forget()
    await console.send(b"stty -g; echo do''ne\n")
    return (await console.expect([re.compile(rb"([0-9a-f:]{40,})\s+done")], soon()))[1].group(1)


def test_every_printable_character_arrives(shell_command: str) -> None:
    async def test() -> None:
        async with started("sh", shell_command) as shell:
            quoted = PRINTABLE.replace("'", "'\\''")
            for text in (quoted, quoted[::-1].replace("''\\'", "'\\''"), "x" * 300 + quoted):
                answer = await shell.run(f"R='{text}'", deadline=soon())
                assert answer.value == text.replace("'\\''", "'").strip()

    run(test())


def test_a_value_is_one_line_and_no_pattern(shell_command: str) -> None:
    async def test() -> None:
        async with started("sh", shell_command) as shell:
            answer = await shell.run("cd /;R=$(printf '* a\\n\\n\\tb?\\n')", deadline=soon())
            assert answer.value == "* a b?"
            answer = await shell.run("R=$(printf '\\342\\202\\254\\377')", deadline=soon())
            assert answer.value == "\u20ac\udcff"
            assert (await shell.run(":", deadline=soon())).value == ""

    run(test())


def test_an_interrupt_does_not_end_the_loop(shell_command: str, tmp_path: Path) -> None:
    said = tmp_path / "said"
    said.write_text("running\n")

    async def test() -> None:
        async with started("sh", shell_command) as shell:
            await shell.console.send(b"#99 half a line\x03")
            assert (await shell.run("R=alive", deadline=soon())).value == "alive"
            output = Output()
            running = asyncio.ensure_future(shell.run_test(f"tail -f {said}; echo not reached", output))
            await output.has(b"running")
            await shell.console.send(b"\x03")
            assert (await running).status != 0
            assert b"not reached" not in output.data
            assert (await shell.run("R=again", deadline=soon())).value == "again"

    run(test())


def test_what_a_test_sets_is_gone_after_it(shell_command: str) -> None:
    """A device's environment may set any name, those that the loop uses too."""
    spoilt = ";".join(f"{name}=spoilt;export {name}" for name in ("_k", "_n", "_s", "_q", "_l", "_m", "R", "F", "IFS"))

    async def test() -> None:
        async with started("sh", shell_command) as shell:
            assert (await shell.run_test(f"{spoilt};stty raw echo;set -eu;false", Output())).status == 1
            assert (await shell.run("R='a b'", deadline=soon())).value == "a b"
            assert re.search(r"[^-]icanon.* -echo ", (await shell.run("R=$(stty -a)", deadline=soon())).value)
            assert (await shell.run_test(". /no/such/file", Output())).status != 0
            assert (await shell.run_test("if", Output())).status != 0
            assert (await shell.run("R=alive", deadline=soon())).value == "alive"

    run(test())


def test_no_time_limit_of_the_devices_shell_ends_the_loop(shell_command: str) -> None:
    """bash and ksh93 take TMOUT for how long a read may wait."""

    async def test() -> None:
        async with started("env TMOUT=1 sh", shell_command) as shell:
            assert (await shell.run("R=$TMOUT", deadline=soon())).value == "0"

    run(test())


def test_the_end_of_file_ends_the_loop(shell_command: str) -> None:
    """A loop that a hang-up leaves behind does not spin."""

    async def test() -> None:
        async with started("sh -c 'read -r line; eval \"$line\"; echo gone'", shell_command) as shell:
            await shell.console.send(b"\x04\x04\x04")
            await shell.console.expect([re.compile(b"gone")], soon())

    run(test())


# --- commands --------------------------------------------------------------------------------------------------


def test_the_line_that_starts_the_loop_survives_every_prompt() -> None:
    async def test() -> None:
        transport = PairTransport()
        async with opened(transport) as console:
            starting = asyncio.ensure_future(start(console, "/bin/sh", deadline=now() + 1))
            line = await transport.hear_line()
            assert len(line) < PROMPT_LIMIT
            assert re.fullmatch(rb"[ -~]+\n", line)
            assert b"!" not in line  # which a shell's history would expand
            with pytest.raises(ConsoleTimeout):
                await starting
            transport.far.close()

    run(test(), jumping=True)


def test_a_stray_line_is_a_comment_at_every_prompt(interactive_shell: str, tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(interactive_shell) as console:
            shell = Shell(console, b"mnkey")
            for line in (shell._doubled(f"touch {tmp_path}/oops"), b"#0 ?\n", RELEASE, b"#7 =3 ;ls\n"):
                await console.send(line)
            await console.send(b"echo don''e\n")
            await console.expect([re.compile(b"done")], soon())
        assert not os.listdir(tmp_path)

    run(test())


def test_an_interrupt_drops_the_line_that_is_half_typed(interactive_shell: str, tmp_path: Path) -> None:
    """bash runs it without its first byte if the next line feed comes with the ^C."""

    async def test() -> None:
        async with opened(interactive_shell) as console:
            await console.send(b"cd %s;echo re''ady\n" % bytes(tmp_path))
            await console.expect([re.compile(rb"ready\s+.*[$#] ")], soon())
            for half in (b"touch oops", b"xtouch oops", b'"xtouch oops', b"xtouch oops;"):
                await console.send(half)
                await console.expect([re.compile(rb"oops")], soon())
                await console.interrupt()
                await console.send(b"\n" + RELEASE + b"echo do''ne\n")
                await console.expect([re.compile(rb"done")], soon())

    run(test())
    assert not list(tmp_path.iterdir())


def test_a_command_that_fails_says_why_and_what_it_was_for() -> None:
    async def test() -> None:
        async with started() as shell:
            with pytest.raises(InstallError) as raised:
                await shell.run("R=$(mkdir /proc/x 2>&1)", deadline=soon(), doing="make /proc/x")
            assert re.match(r"board: cannot make /proc/x: mkdir: .*/proc/x", str(raised.value))
            with pytest.raises(InstallError, match="cannot run 'false': the command ended with status 1"):
                await shell.run("false", deadline=soon())

    run(test())


@pytest.mark.parametrize("command", ["", "a\nb", "caf\u00e9", "\t", "x" * (LINE_LIMIT + 1)])
def test_what_cannot_be_typed_is_refused(command: str) -> None:
    async def test() -> None:
        async with opened(PairTransport()) as console:
            with pytest.raises(ConsoleError, match="board: this cannot be typed"):
                await Shell(console, b"mnkey").run(command, deadline=soon())
            console._transport.far.close()  # type: ignore[attr-defined]

    run(test(), jumping=True)


def test_the_longest_command_arrives() -> None:
    async def test() -> None:
        async with started() as shell:
            text = "x" * (LINE_LIMIT - len("R="))
            assert (await shell.run(f"R={text}", deadline=soon())).value == text

    run(test())


def test_a_command_that_looks_like_a_line_is_not_taken_apart() -> None:
    async def test() -> None:
        async with started() as shell:
            for _ in range(3):
                number = shell._number + 1
                text = f" #{number} a #{number + 1} "
                assert (await shell.run(f"R='x{text}x'", deadline=soon())).value == f"x{text}x"

    run(test())


def test_an_echo_is_not_taken_for_an_answer() -> None:
    """A device without stty goes on echoing."""

    async def test() -> None:
        async with started("sh", "PATH=/nowhere /bin/sh") as shell:
            assert (await shell.run("R=1", deadline=soon())).value == "1"
            output = Output()
            assert (await shell.run_test("echo out", output)).status == 0
            assert b"out\r\n" in output.data
            await shell.leave()

    run(test())


# --- silence ---------------------------------------------------------------------------------------------------


def test_silence_has_a_line_sent_again_less_and_less_often_until_the_deadline() -> None:
    async def test() -> None:
        transport = PairTransport()
        async with opened(transport) as console:
            began = now()
            running = asyncio.ensure_future(Shell(console, b"mnkey").run("true", deadline=began + 60, doing="make /x"))
            sent = []
            while not running.done():
                hearing = asyncio.ensure_future(transport.hear_line())
                await asyncio.wait((hearing, running), return_when=asyncio.FIRST_COMPLETED)
                sent.append(now() - began)
                hearing.cancel()
            gaps = [later - earlier for earlier, later in pairwise(sent)]
            assert [round(gap) for gap in gaps[:-1]] == [1, 2, 4, 8, 8, 8, 8, 8, 8]
            assert sent[-1] == pytest.approx(60)
            with pytest.raises(ConsoleTimeout, match="board: the device's shell stopped answering; it was to make /x"):
                await running
            transport.far.close()

    run(test(), jumping=True)


@pytest.mark.parametrize("late", [b"", b"[   31.415926] random: crng init done\r\n"])
def test_a_login_prompt_in_the_loops_place_is_a_reboot(late: bytes) -> None:
    async def getty(transport: PairTransport) -> None:
        while True:  # what is typed is a name, then a password
            await transport.hear_line()
            await transport.say(b"Password: ")
            await transport.hear_line()
            await transport.say(b"\r\nLogin incorrect\r\nboard login: " + late)

    async def test() -> None:
        transport = PairTransport()
        async with opened(transport) as console:
            asking = asyncio.ensure_future(getty(transport))
            began = now()
            with pytest.raises(DeviceRebooted, match="the device has rebooted: it answers with 'board login:'"):
                await Shell(console, b"mnkey").run("true", deadline=now() + 3600)
            assert now() - began < 60
            asking.cancel()
            transport.far.close()

    run(test(), jumping=True)


def test_the_deadline_holds_where_nothing_can_be_typed() -> None:
    async def test() -> None:
        transport = PairTransport()
        async with opened(transport) as console:
            blocked = asyncio.ensure_future(console.send(bytes(10_000_000)))
            await asyncio.sleep(1)
            began = now()
            for waiting in (
                Shell(console, b"mnkey").run("true", deadline=began + 20),
                start(console, "/bin/sh", deadline=began + 40),
            ):
                with pytest.raises(ConsoleTimeout):
                    await waiting
            assert now() - began == pytest.approx(40)
            blocked.cancel()
            transport.far.close()

    run(test(), jumping=True)


def test_a_shell_that_is_not_there_is_told_with_what_the_device_said() -> None:
    async def test() -> None:
        async with opened("sh") as console:
            with pytest.raises(ConsoleTimeout) as raised:
                await start(console, "/bin/no-such-shell", deadline=now() + 0.5)
            assert str(raised.value).startswith("board: the shell did not start /bin/no-such-shell\n")
            assert "lava_test_sh_cmd" in str(raised.value)
            assert "the console said last: " in str(raised.value)

    run(test())


# --- tests -----------------------------------------------------------------------------------------------------


def test_a_test_reads_the_console_and_its_output_arrives_whole() -> None:
    async def test() -> None:
        async with started() as shell:
            output = Output()
            running = asyncio.ensure_future(
                shell.run_test("echo ready;read a;echo got-$a;seq 1 50000;printf no-newline;exit 4", output)
            )
            await output.has(b"ready")
            await shell.console.send(b"an answer\n")
            assert (await running).status == 4
            numbers = b"".join(b"%d\r\n" % number for number in range(1, 50001))
            # The loop begins a line of its own before it says something.
            assert output.data.lstrip() == b"ready\r\ngot-an answer\r\n" + numbers + b"no-newline\r\n"
            assert shell.busy is False

    run(test())


def test_a_test_is_not_mistaken_for_the_loop() -> None:
    """What the loop prints is parted from what only begins like it, byte by byte."""

    async def test() -> None:
        transport = PairTransport()
        async with opened(transport) as console:
            shell, output = Shell(console, b"mnkey"), Output()
            running = asyncio.ensure_future(shell.run_test("true", output))
            assert await transport.hear_line() == b"#1 +true #1 +true\n"
            said = b"mnke\r\nmn mnk.\r\nmnkez mmnke\r\n<LAVA_SIGNAL_X>\r\nmn\r\nm"
            printed = b"\r\nmnkey 1 +  mnkey 1 + .\r\n" + said + b"\r\nmnkey 1 0  mnkey 1 0 .\r\nafter"
            for position in range(len(printed)):
                await transport.say(printed[position : position + 1])
                await asyncio.sleep(0)
            assert (await running).status == 0
            assert output.data == b"\r\n" + said + b"\r\n"
            transport.far.close()

    run(test(), jumping=True)


def test_a_line_of_the_test_is_handed_on_as_soon_as_it_is_there() -> None:
    """A call is answered while its line feed is the last thing that came."""

    async def test() -> None:
        transport = PairTransport()
        async with opened(transport) as console:
            shell, output = Shell(console, b"mnkey"), Output()
            running = asyncio.ensure_future(shell.run_test("true", output))
            await transport.hear_line()
            await transport.say(b"\r\nmnkey 1 +  mnkey 1 + .\r\n")
            await transport.say(b"<LAVA_MULTI_NODE> <LAVA_WAIT x>\r\n")
            await output.has(b"<LAVA_WAIT x>\r\n")
            running.cancel()
            transport.far.close()

    run(test(), jumping=True)


def test_nothing_is_typed_while_a_test_runs() -> None:
    async def test() -> None:
        transport = PairTransport()
        async with opened(transport) as console:
            shell, output = Shell(console, b"mnkey"), Output()
            running = asyncio.ensure_future(shell.run_test("true", output))
            await transport.hear_line()
            # Left over from a command that was sent twice.
            await transport.say(b"\r\nmnkey 0 0  mnkey 0 0 .\r\n\r\nmnkey 0 0 mnkey\r\n")
            await transport.say(b"\r\nmnkey 1 +  mnkey 1 + .\r\n")
            hearing = asyncio.ensure_future(transport.hear())
            await asyncio.sleep(36000)
            assert not hearing.done()
            assert shell.busy is True
            hearing.cancel()
            running.cancel()
            transport.far.close()

    run(test(), jumping=True)


def test_a_console_that_ends_during_a_test_ends_the_test() -> None:
    async def test() -> None:
        async with started("sh -c 'sh; exit 9'") as shell:
            with pytest.raises(ConsoleClosed, match="'sh' was ended by SIGKILL"):
                await shell.run_test("kill -9 $(ps -o ppid= -p $PPID) $PPID $$", Output())
            assert shell.busy is True

    run(test())


# --- leaving ---------------------------------------------------------------------------------------------------


def test_a_loop_left_behind_is_ended_by_a_line_that_knows_nothing_of_it() -> None:
    async def test() -> None:
        async with started() as shell:
            await shell.run("true", deadline=soon())
            await shell.console.send(RELEASE + b"echo ba''ck\n")
            await shell.console.expect([re.compile(b"back")], soon())

    run(test())


STOPPED = {
    "it ends": "tail -f said",
    "it has something to put in order": 'exec $SHELL -c \'trap "sleep 0.2; echo in-or""der; exit" 2;tail -f said;:\'',
    "it heeds the third": "$SHELL -c 'i=;trap \"i=i\\$i\" 2;cat said;while [ ${#i} -lt 3 ];do sleep 0.1;done'",
    "its tty does not": "stty -isig; cat said; sleep 1; stty isig; tail -f said",
}


@pytest.mark.parametrize("command", list(STOPPED.values()), ids=list(STOPPED))
def test_a_test_is_stopped_and_the_loop_goes_on(command: str, shell_command: str, tmp_path: Path) -> None:
    (tmp_path / "said").write_text("running\n")
    command = command.replace("said", str(tmp_path / "said")).replace("$SHELL", shell_command)

    async def test() -> None:
        async with started(shell_command=shell_command) as shell:
            output = Output()
            running = asyncio.ensure_future(shell.run_test(command, output))
            await output.has(b"running")
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await shell.stop(deadline=soon())
            assert "order" not in command or b"in-order" in output.data
            assert (await shell.run("R=in", deadline=soon())).value == "in"
            await shell.leave()
            await shell.console.send(b"echo ba''ck\n")
            await shell.console.expect([re.compile(b"back")], soon())

    run(test())


def test_a_test_that_does_not_end_is_told() -> None:
    async def test() -> None:
        transport = PairTransport()
        async with opened(transport) as console:
            shell = Shell(console, b"mnkey")
            running = asyncio.ensure_future(shell.run_test("true", Output()))
            await transport.hear_line()
            running.cancel()
            with pytest.raises(ConsoleTimeout, match=r"^board: the test does not heed Ctrl-C$"):
                await shell.stop(deadline=now() + 10)
            assert shell.busy is True
            assert (await transport.hear()).count(INTERRUPT) > 5
            transport.far.close()

    run(test(), jumping=True)


@pytest.mark.parametrize("said", [b"\r\nmnkey 1 130  mnkey 1 130 .\r\n", b"\r\nmnkey 1 ?  mnkey 1 ? .\r\n"])
def test_any_answer_of_the_loop_says_that_the_test_has_ended(said: bytes) -> None:
    """The answer that tells the end may be lost."""

    async def test() -> None:
        transport = PairTransport()
        async with opened(transport) as console:
            shell = Shell(console, b"mnkey")
            running = asyncio.ensure_future(shell.run_test("true", Output()))
            await transport.hear_line()
            running.cancel()
            stopping = asyncio.ensure_future(shell.stop(deadline=now() + 10))
            assert await transport.hear() == INTERRUPT
            assert await transport.hear() == b"\n#0 ?\n"
            await transport.say(said)
            await stopping
            assert shell.busy is False
            transport.far.close()

    run(test(), jumping=True)


@pytest.mark.parametrize("missing", range(1, 20))
def test_a_release_whose_beginning_is_lost_ends_no_other_shell(missing: int) -> None:
    async def test() -> None:
        async with opened("sh") as console:
            await console.send(RELEASE[missing:] + b"echo sti''ll-here\n")
            await console.expect([re.compile(rb"still-here")], soon())

    run(test())
