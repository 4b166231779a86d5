"""The ways in which labs reach a board, with the real parts: ser2net, telnet, QEMU."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from console_harness import Output, opened, run, soon
from lab import board, need, ser2net

from dispatcher.console.command import CommandTransport
from dispatcher.console.connection import Console
from dispatcher.console.login import login
from dispatcher.console.serial import SerialTransport
from dispatcher.console.shell import Shell, start
from dispatcher.console.transport import Transport
from dispatcher.guest import recipe

pytestmark = pytest.mark.slow

MODES = {
    "raw": ("tcp", {"serial": "socket://127.0.0.1:{port}"}),
    "raw, by socat": ("tcp", {"command": "socat -,rawer tcp:127.0.0.1:{port}"}),
    "telnet": ("telnet,tcp", {"command": "telnet -E -8 127.0.0.1 {port}"}),
    "rfc2217": ("telnet(rfc2217),tcp", {"serial": "rfc2217://127.0.0.1:{port}?ign_set_control"}),
}


def transport(console: dict[str, str], **places: Any) -> Transport:
    options = {key: value.format(**places) for key, value in console.items()}
    return (CommandTransport if "command" in options else SerialTransport)("board", options)


async def reached(console: Console) -> Shell:
    await login(console, prompts=["board# $"], credentials=None, deadline=soon())
    return await start(console, "sh", deadline=soon())


async def behaves(console: Console) -> None:
    """A board's console does all that a run asks of it, ^C included."""
    shell = await reached(console)
    assert (await shell.run("R=$((6*7))", deadline=soon())).value == "42"
    output = Output()
    answer = await shell.run_test("i=0;while [ $i -lt 2000 ];do i=$((i+1));echo line $i;done;exit 3", output)
    assert answer.status == 3
    lines = re.findall(rb"line ([0-9]+)\r+\n", output.data)
    assert lines == [b"%d" % number for number in range(1, 2001)]
    output = Output()
    running = asyncio.ensure_future(shell.run_test("echo asleep;exec sleep 600", output))
    await output.has(b"asleep")
    await console.send(b"\x03")
    assert (await running).status != 0
    await shell.leave()


def test_a_uart_by_its_path() -> None:
    async def test() -> None:
        with board() as there:
            async with opened(SerialTransport("board", {"serial": there.path})) as console:
                await behaves(console)

    run(test())


@pytest.mark.filterwarnings("ignore:set(Daemon|Name)")  # pyserial 3.5 uses what Python 3.10 deprecated
@pytest.mark.parametrize("mode", MODES)
def test_ser2net(mode: str, tmp_path: Path) -> None:
    accepter, options = MODES[mode]
    need(options.get("command", "sh").split()[0])

    async def test() -> None:
        with board() as there, ser2net(tmp_path, there.path, accepter) as server:
            async with opened(transport(options, port=server.port)) as console:
                await behaves(console)

    run(test())


@pytest.mark.filterwarnings("ignore:set(Daemon|Name)")
@pytest.mark.parametrize("mode", MODES)
def test_ser2net_is_killed_and_started_again_while_a_test_runs(mode: str, tmp_path: Path) -> None:
    accepter, options = MODES[mode]
    need(options.get("command", "sh").split()[0])
    events: asyncio.Queue[str] = asyncio.Queue()

    async def test() -> None:
        with board() as there, ser2net(tmp_path, there.path, accepter) as server:
            line = transport(options, port=server.port)
            line = type(line)("board", {**line.options, "reconnect": 60})
            async with opened(line, observe=lambda kind, **_data: events.put_nowait(kind)) as console:
                shell = await reached(console)
                output = Output()
                running = asyncio.ensure_future(shell.run_test('echo begun;read word;echo "got $word"', output))
                await output.has(b"begun")
                server.kill()
                assert await events.get() == "lost"
                assert server.start()
                while "got" not in output.data.decode():
                    # telnet and socat are back before they are connected, and take what is typed with them.
                    await console.send(b"again\n")
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(output.has(b"got"), 0.5)
                assert (await running).status == 0
                await shell.leave()

    run(test())


# --- QEMU ------------------------------------------------------------------------------------------------------

SERIALS = {
    "stdio": ("stdio,id=c,signal=off", "", {"command": "{qemu}"}),
    "pty": ("pty,id=c", r"redirected to (\S+)", {"serial": "{where}"}),
    "UNIX socket": (
        "socket,id=c,path={folder}/console,server=on,wait=on",
        r"unix:([^,\s]+)",
        {"command": "socat -,rawer unix:{where}"},
    ),
    "TCP": (
        "socket,id=c,host=127.0.0.1,port=0,server=on,wait=on",
        r"tcp:([0-9.:]+)",
        {"serial": "socket://{where}"},
    ),
}


@pytest.mark.parametrize("serial", SERIALS)
def test_a_guest_of_qemu(serial: str, tmp_path: Path) -> None:
    need(recipe.AMD64.qemu, "socat")
    if recipe.missing():
        pytest.skip("; ".join(recipe.missing()))
    chardev, announced, options = SERIALS[serial]
    terminal = "serial,id=c,path=/dev/tty"
    command = recipe.qemu_command(recipe.prepare())
    assert terminal in command
    command = command.replace(terminal, chardev.format(folder=tmp_path))

    async def test(where: str) -> None:
        async with opened(transport(options, qemu=command, where=where)) as console:
            await login(console, prompts=["/ # $"], credentials=None, deadline=soon())
            shell = await start(console, "/bin/sh", deadline=soon())
            assert (await shell.run("R=$(uname -s)", deadline=soon())).value == "Linux"
            await shell.leave()

    if not announced:
        run(test(""))
        return
    qemu = subprocess.Popen(shlex.split(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert qemu.stdout is not None
        found = next(match for line in qemu.stdout if (match := re.search(announced, line)))
        run(test(found.group(1)))
    finally:
        qemu.kill()
        qemu.communicate()


# --- a run -----------------------------------------------------------------------------------------------------

JOB = """\
job_name: restart
timeouts: {{job: {{minutes: 2}}, action: {{minutes: 1}}}}
protocols: {{lava-multinode: {{roles: {{a: {{device_type: board, count: 1}}, b: {{device_type: local, count: 1}}}}}}}}
actions:
- test:
    role: a
    definitions:
    - {{name: a, from: inline, repository: {{run: {{steps: [lava-wait go, lava-wait on]}}}}}}
- test:
    role: b
    definitions:
    - {{name: b, from: inline, repository: {{run: {{steps: ["{until}", lava-send go, lava-send on]}}}}}}
"""
DEVICES = """\
devices:
  a: {{device_type: board, console: {{serial: 'rfc2217://127.0.0.1:{port}?ign_set_control'}}, prompts: ['board# $']}}
  b: {{device_type: local, console: {{command: sh}}}}
"""


def test_a_wait_outlives_ser2net(tmp_path: Path) -> None:
    sent = tmp_path / "sent"
    (tmp_path / "job.yaml").write_text(JOB.format(until=f"while [ ! -e {sent} ]; do sleep 0.1; done"))
    with board() as there, ser2net(tmp_path, there.path, "telnet(rfc2217),tcp") as server:
        (tmp_path / "devices.yaml").write_text(DEVICES.format(port=server.port))
        arguments = ["run", tmp_path / "job.yaml", "--output", tmp_path / "output"]
        with subprocess.Popen(
            [sys.executable, "-m", "dispatcher.cli.main", *map(str, arguments)], stdout=subprocess.PIPE, text=True
        ) as ran:
            assert ran.stdout is not None
            for line in ran.stdout:
                if "lava-wait go ..." in line:
                    server.kill()
                elif "the console was lost" in line:
                    # Answered while nobody is there: the device asks again.
                    sent.touch()
                elif "lava-send on" in line:
                    assert server.start()
            assert ran.wait() == 0
        log = (tmp_path / "output" / "consoles" / "1.log").read_text(errors="replace")
        assert "[multinode: the console is open again after " in log
