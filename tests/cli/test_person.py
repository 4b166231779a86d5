"""People at a console: those who type while a test runs, and those for whom a run leaves it open."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from .conftest import LOCAL, PATIENCE, Multinode, job_text
from .test_board import Board, board, devices

__all__ = ["board"]  # the fixture

pytestmark = pytest.mark.slow

Write = Callable[[str, str], Path]

TYPED = (
    b"hello?\n",
    b"\n",
    b"#\n",
    b"#ceijkmnqrsuvyzEF\n",
    b"# a comment, and no frame\n",
    b"<LAVA_SEND_COMPLETE>\n",
    b"<LAVA_WAIT_COMPLETE never>\n",
    b"<MN2 0123456789ab 1/1 SEND never 1.1>\n",
    b"<LAVA_TEST_RUNNER EXIT>\n",
    b"half a line",
)


def test_what_somebody_types_while_a_call_waits_is_no_frame(
    board: Board, write: Write, command: list[str], tmp_path: Path
) -> None:
    typed = tmp_path / "typed"
    steps = {
        "a": ["lava-wait go", "grep -q answer=42 $LAVA_MULTI_NODE_CACHE"],
        "b": [f"while [ ! -e {typed} ]; do sleep 0.1; done", "lava-send go answer=42"],
    }
    both = write("d.yaml", devices(board.path) + "  local: {device_type: board, console: {command: sh}}\n")
    arguments = ["run", write("job.yaml", job_text(steps)), "--devices", both, "--output", tmp_path / "o"]
    with subprocess.Popen([*command, *map(str, arguments), "-v"], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        for line in run.stdout:
            if "lava-wait go ..." in line:
                for text in TYPED:
                    board.types(text)
                typed.touch()
                break
        out, _err = run.communicate(timeout=PATIENCE)
    assert run.returncode == 0, out


def until_it_is_kept(run: subprocess.Popen[str]) -> str:
    """What a run says until it waits for a person."""
    assert run.stderr is not None
    said = ""
    while "Ctrl-C here closes it" not in said:
        line = run.stderr.readline()
        assert line, said
        said += line
    return said


def test_the_files_of_earlier_tests_are_named_behind_an_interactive_one(
    write: Write, command: list[str], tmp_path: Path
) -> None:
    document = yaml.safe_load(job_text({"a": ["true"]}))
    script = [{"command": "nothing", "successes": [{"message": "never said"}]}]
    interactive = [{"name": "x", "prompts": ["[#$] $"], "script": script}]
    document["actions"].append({"test": {"role": "a", "timeout": {"seconds": 180}, "interactive": interactive}})
    job = write("job.yaml", yaml.safe_dump(document, sort_keys=False))
    shell = write("d.yaml", "devices: {local: {device_type: board, console: {command: sh -i}, prompts: ['[#$] $']}}")
    arguments = ["run", job, "--devices", shell, "--output", tmp_path / "o", "--keep"]
    with subprocess.Popen([*command, *map(str, arguments)], stderr=subprocess.PIPE, text=True) as run:
        said = until_it_is_kept(run)
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=PATIENCE)
    found = re.search(r"1 \(a\) is left on local, with its files in (\S+)\n", said)
    assert found, said
    assert Path(found.group(1), "bin", "lava-send").exists()
    shutil.rmtree(found.group(1))


def test_a_local_shell_is_kept_until_ctrl_c(write: Write, command: list[str], tmp_path: Path, mark: str) -> None:
    job = write("job.yaml", job_text({"a": ["lava-test-case x --result fail"], "b": ["true"]}))
    arguments = ["run", job, "--devices", LOCAL, "--output", tmp_path / "o", "--keep"]
    with subprocess.Popen([*command, *map(str, arguments)], stderr=subprocess.PIPE, text=True) as run:
        said = until_it_is_kept(run)
        found = re.search(r"1 \(a\) is left on local-1, with its files in (\S+)\n .* UNIX-CONNECT:(\S+)\n", said)
        assert found, said
        assert said.count("is left on") == 1
        assert Path(found.group(1), "bin", "lava-send").exists()
        with socket.socket(socket.AF_UNIX) as person:
            person.settimeout(PATIENCE)
            person.connect(found.group(2))
            person.sendall(b"echo a shell ans''wers\n")
            heard = b""
            while b"a shell answers" not in heard:
                data = person.recv(4096)
                assert data
                heard += data
            person.sendall(b"exit 3\n")
            while data := person.recv(4096):
                heard += data
            assert b"\r\n[multinode: 'sh' ended with status 3]\r\n" in heard
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=PATIENCE)
    assert run.returncode == 1
    assert not Path(found.group(2)).exists()


def test_a_serial_line_is_released_at_its_prompt(board: Board, write: Write, multinode: Multinode) -> None:
    job = write("job.yaml", job_text({"a": ["false"]}))
    ran = multinode("run", job, "--devices", write("d.yaml", devices(board.path)), "--keep")
    assert ran.status == 1
    miniterm = r"(?:pyserial-miniterm|\S+ -m serial.tools.miniterm)"
    found = re.search(rf"1 \(a\) is left on \S+, with its files in (\S+)\n  {miniterm} {board.path} 115200\n", ran.err)
    assert found, ran.err
    assert "Ctrl-C" not in ran.err
    board.asks(f"ls {found.group(1)}/bin\n".encode(), b"lava-send")
    board.asks(f"rm -r {found.group(1)} && echo remo''ved\n".encode(), b"removed")


def test_nothing_is_kept_of_a_run_that_passes(multinode: Multinode, write: Write) -> None:
    ran = multinode("run", write("job.yaml", job_text({"a": ["true"]})), "--devices", LOCAL, "--keep")
    assert (ran.status, ran.err) == (0, "")
