"""A call that waits is killed, at every stage, and its reply arrives after that at the shell that started it."""

from __future__ import annotations

import array
import fcntl
import os
import re
import shutil
import signal
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stray_terminal import HISTORY, SHELLS, Kind, Terminal, program

from dispatcher import resources
from dispatcher.framing.reliable import UNSEEDED, Down, decode_up, encode_down
from dispatcher.framing.reliable import Kind as Answer
from dispatcher.job import overlay

pytestmark = pytest.mark.slow

TOOLS = ("cat", "date", "mkdir", "mv", "printf", "rm", "setsid", "sleep", "stty")
"""What the scripts may start. A rest of a frame that names a command can name none but these."""

RUN = "0_suite"


class Device:
    """A shell at the prompt of a console, with the target scripts for it."""

    def __init__(self, shell: str, root: Path) -> None:
        self.shell = shell
        self.root = root
        self.bin = root / "bin"
        self.bin.mkdir(parents=True)
        interpreter = [program(SHELLS[shell][0]), *(["ash"] if shell == "ash" else [])]
        for name, content in resources.target_scripts().items():
            self._write(self.bin / name, content.replace(b"#!/bin/sh\n", f"#!{' '.join(interpreter)}\n".encode(), 1))
        for tool in TOOLS:
            (self.bin / tool).symlink_to(str(shutil.which(tool)))
        self._stage(" ".join(interpreter))
        self.terminal = Terminal(Kind(SHELLS[shell]), path=self.bin, root=root / "home")
        settings = overlay.settings(
            job_id="1",
            role="device",
            group=[("1", "device")],
            console=self.terminal.tty,
            cache=str(root / "cache"),
            test_shell=" ".join(interpreter),
            nonce="beef",
            seed=UNSEEDED,
        )
        (self.bin / resources.SETTINGS).write_bytes(settings + b"LAVA_QUIET=1\n")

    def _write(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        path.chmod(0o755)

    def _stage(self, shell: str) -> None:
        suite = self.root / "0" / "tests" / RUN
        suite.mkdir(parents=True)
        (suite / "uuid").write_text("0123456789abcdef\n")
        (suite / "run.sh").write_text("lava-wait x\n")
        (self.root / "0" / "lava-test-runner.conf").write_text(f"{suite}\n")

    def heard(self, text: str) -> str:
        """Wait until a frame with this text has come; its id."""
        found: list[str] = []

        def look(seen: bytes) -> bool:
            frames = [decode_up(content) for content in re.findall(rb"<(MN2 [^>]*)>", seen)]
            found[:] = [frame.id for frame in frames if frame and re.match(text, frame.text.decode())]
            return bool(found)

        assert self.terminal.until(look), f"no {text}: {self.terminal.seen[-2000:]!r}"
        return found[0]

    def type(self, *frames: bytes) -> None:
        """Type frames, and wait until they have been read."""
        for frame in frames:
            self.terminal.add(frame)
        waiting = array.array("i", [1])
        while waiting[0]:
            fcntl.ioctl(self.terminal.slave, termios.FIONREAD, waiting)

    def kill(self, script: str, how: signal.Signals) -> None:
        """End the process that runs a script, and wait for its end."""
        (pid,) = (pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self._runs(pid, script))
        os.kill(pid, how)
        while _stat(pid)[0] not in ("", "Z"):
            pass

    def _runs(self, pid: int, script: str) -> bool:
        """Whether a process runs a script and is no helper that it has forked."""
        words = _words(pid)
        return f"{self.bin}/{script}" in words and _words(int(_stat(pid)[1])) != words

    def files(self) -> dict[str, bytes]:
        """Every file and what it holds, but what the scripts and the shell note for themselves."""
        paths = [path for path in self.root.rglob("*") if path.is_file() and path.name != HISTORY]
        return {str(path): path.read_bytes() for path in paths if not path.name.startswith("lava-multi-node.")}


def _stat(pid: int) -> list[str]:
    """proc(5): state, parent and more; they follow the name, which may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ["", "0"]


def _words(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return []


@pytest.fixture(params=SHELLS)
def device(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Device]:
    device = Device(request.param, tmp_path)
    yield device
    device.terminal.close()


def answer(request: str, *contents: bytes) -> list[bytes]:
    parts = [Down(request, Answer.DATA, number, len(contents), part) for number, part in enumerate(contents, 1)]
    return [encode_down(part) for part in parts]


def after_the_request(device: Device) -> list[bytes]:
    """Let a call say what it wants; what is still to be typed to it."""
    return [encode_down(Down(device.heard("WAIT x"), Answer.DONE))]


def after_hold(device: Device) -> list[bytes]:
    request = device.heard("WAIT x")
    device.type(encode_down(Down(request, Answer.HOLD)))
    return [*answer(request, b"k=v\n"), *answer(request, b"k=v\n")]


def between_two_parts(device: Device) -> list[bytes]:
    request = device.heard("WAIT x")
    first, *others = answer(request, b"a=1\n", b"b=2\n", b"c=3\n")
    device.type(encode_down(Down(request, Answer.HOLD)), first)
    device.heard(r"\+NEXT 2")
    return others


def within_a_part(device: Device) -> list[bytes]:
    second, third = between_two_parts(device)
    device.type(second[:20])
    return [second[20:], second, third]


STAGES = [after_the_request, after_hold, between_two_parts, within_a_part]
SIGNALS = [signal.SIGTERM, signal.SIGKILL]

Stage = Callable[[Device], list[bytes]]


def assert_nothing_happened(device: Device, settings: bytes, files: dict[str, bytes]) -> None:
    """The shell lives, its tty is as it was, and there is no new file but what a killed call cannot remove."""
    assert device.terminal.output(b"stty -g").split()[-1:] == settings.split()[-1:]
    left = {path for path in device.files() if re.fullmatch(rf"{re.escape(str(device.root))}/cache\.\d+", path)}
    assert {path: content for path, content in device.files().items() if path not in left} == files


@pytest.mark.parametrize("how", SIGNALS)
@pytest.mark.parametrize("stage", STAGES)
def test_a_call_is_killed_and_its_reply_finds_the_shell(device: Device, stage: Stage, how: signal.Signals) -> None:
    settings, files = device.terminal.output(b"stty -g"), device.files()
    device.terminal.type(b"lava-wait x\n")
    rest = stage(device)
    device.terminal.seen = b""
    device.kill("lava-wait", how)
    device.terminal.add(b"".join(rest))
    device.terminal.prompted()
    assert_nothing_happened(device, settings, files)


@pytest.mark.parametrize("how", SIGNALS)
def test_a_call_of_a_test_is_killed_and_its_reply_finds_the_runner(device: Device, how: signal.Signals) -> None:
    settings, files = device.terminal.output(b"stty -g"), device.files()
    device.terminal.type(f"lava-test-runner {device.root}/0\n".encode())
    device.type(encode_down(Down(device.heard("SIGNAL STARTRUN"), Answer.DONE)))
    rest = within_a_part(device)
    device.terminal.seen = b""
    device.kill("lava-wait", how)
    device.terminal.add(b"".join(rest))
    device.type(encode_down(Down(device.heard("RUNNER EXIT"), Answer.DONE)))
    device.terminal.prompted()
    stage = f"{device.root}/0/"
    assert device.terminal.output(b"stty -g").split()[-1:] == settings.split()[-1:]
    others = {path: content for path, content in device.files().items() if not path.startswith(stage)}
    left = {path for path in others if path.startswith(f"{device.root}/cache.")}
    assert others.keys() - left == {path for path in files if not path.startswith(stage)}


@pytest.mark.parametrize("how", SIGNALS)
def test_a_call_is_killed_where_the_shell_has_no_job_control(device: Device, how: signal.Signals) -> None:
    settings, files = device.terminal.output(b"stty -g"), device.files()
    device.terminal.output(b"set +m")
    device.terminal.type(b"lava-wait x\n")
    rest = between_two_parts(device)
    device.terminal.seen = b""
    device.kill("lava-wait", how)
    device.terminal.add(b"".join(rest))
    device.terminal.prompted()
    assert_nothing_happened(device, settings, files)
