"""The console under framing 2: its tty, the calls of several processes, process groups, and whoever comes after."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import termios
from pathlib import Path

import pytest
from frame_host import Fail, Host, Later, Never, Reaction, frames_settings, losing, reactions, start
from script_harness import Device

from dispatcher.framing.events import Abandoned, InstallFailed, Request, RunnerExit, Signal
from dispatcher.framing.reliable import Down, Kind, encode_down

pytestmark = pytest.mark.slow

ROUNDS = 100 if os.environ.get("MULTINODE_SOAK") else 17
"""Of three calls each by two processes: a hundred calls."""
ONE = {"5": {"k": "v"}}


@pytest.fixture(autouse=True)
def framing(device: Device) -> None:
    device.settings(**frames_settings())


def end_all(path: Path, how: signal.Signals) -> None:
    """Send a signal to every process that runs a script; some end with the first of them."""
    for process in processes_of(path):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, how)


def processes_of(path: Path) -> list[int]:
    found = []
    for directory in Path("/proc").iterdir():
        try:
            arguments = (directory / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if bytes(path) in arguments:
            found.append(int(directory.name))
    return found


class TestTheTty:
    """It is set for a call, and put back however the call ends."""

    WAIT = """
        trap : INT HUP
        stty -onlcr
        sh -c 'echo "pid $$"; exec lava-wait ready'
        echo "status $?"
        """

    @pytest.mark.parametrize(
        ("end", "status"),
        [
            (ONE, b"0"),
            (Fail("no"), b"1"),
            (signal.SIGTERM, b"143"),
            (signal.SIGHUP, b"129"),
            (signal.SIGINT, b"130"),
        ],
    )
    def test_it_is_put_back(self, device: Device, end: Reaction | signal.Signals, status: bytes) -> None:
        host = Host(device.test(self.WAIT), lambda _: Never())
        host.until(lambda: "HOLD" in host.answers)
        during = host.call.tty()
        assert not during[3] & (termios.ICANON | termios.ECHO | termios.ISIG)
        assert not during[0] & termios.IXON
        if isinstance(end, signal.Signals):
            os.kill(int(host.heard.partition(b"pid ")[2].split()[0]), end)
        else:
            host.call.type(b"\x03\x1a\x13")
            host.release("ready", end)  # type: ignore[arg-type]
        host.shows(b"status " + status)
        assert host.told == ["WAIT ready", "+BYE"]
        after = host.call.tty()
        assert after[3:] == host.call.initial[3:]
        assert not after[1] & termios.ONLCR
        assert host.finish() == 0

    def test_a_call_that_has_heard_nothing_yet_says_that_it_ends(self, device: Device) -> None:
        host = Host(device.test(self.WAIT), lambda _: Never(), down=lambda _frame: b"")
        host.until(lambda: host.told)
        os.kill(int(host.heard.partition(b"pid ")[2].split()[0]), signal.SIGTERM)
        host.shows(b"status 143")
        assert host.told == ["WAIT ready", "+BYE"]

    def test_the_next_call_puts_it_back_for_one_that_was_killed(self, device: Device) -> None:
        host = Host(
            device.test("lava-wait never & wait $!; echo killed; lava-send after; lava-send again"),
            reactions({"WAIT never": Never()}),
        )
        host.until(lambda: "HOLD" in host.answers)
        end_all(device.bin / "lava-wait", signal.SIGKILL)
        host.shows(b"killed")
        assert host.finish() == 0
        assert [request.args for request in host.requests] == [("never",), ("after",), ("again",)]
        assert host.call.tty() == host.call.initial


class TestSeveralProcesses:
    """They call at the same time over one console."""

    JOBS = """
        job() {
            export LAVA_MULTI_NODE_CACHE=cache-$1
            n=0
            while [ $((n += 1)) -le ROUNDS ]; do
                lava-send $1-send-$n || echo "$1-$n: send"
                lava-wait $1-$n && grep -qx k=$1-$n cache-$1 || echo "$1-$n: wait"
                lava-wait-all $1-late-$n && grep -qx 5:k=$1-late-$n cache-$1 || echo "$1-$n: wait-all"
            done
        }
        job a & job b & wait
        echo "ended"
        """

    @staticmethod
    def answer(request: Request) -> Reaction:
        """To each its own."""
        data = {"5": {"k": request.args[0]}}
        if "late" in request.args[0]:
            return Later(data)
        return None if request.name == "SEND" else data

    def test_every_answer_finds_its_owner(self, device: Device) -> None:
        host = Host(device.test(self.JOBS.replace("ROUNDS", str(ROUNDS))), self.answer)
        assert host.finish(120 + ROUNDS) == 0
        # A host that is too busy to answer in time is asked twice, and its second answer may come to nobody.
        assert re.sub(rb"#[A-Za-z]+#\n", b"", host.printed) == b"ended\n"
        assert len(host.requests) == len({request.args for request in host.requests}) == 6 * ROUNDS
        assert host.call.tty() == host.call.initial

    def test_the_others_go_on_when_the_one_that_has_the_console_is_killed(self, device: Device) -> None:
        steps = """
            n=0; while [ $((n += 1)) -le 5 ]; do lava-wait x-$n || :; done 2>killed &
            n=0; while [ $((n += 1)) -le 5 ]; do lava-send y-$n || echo "y-$n: failed"; done &
            wait
            """
        victim = device.bin / "lava-wait"

        def kill(_request: Request) -> Reaction:
            if _request.name == "WAIT":
                end_all(victim, signal.SIGKILL)
            return None

        host = Host(device.test(steps), kill)
        assert host.finish() == 0
        assert len(host.requests) == 10
        assert b"failed" not in host.printed

    def test_a_call_that_waits_lets_others_by_and_then_gets_its_answer(self, device: Device) -> None:
        device.settings(**frames_settings(QUIET="1"))
        steps = """
            lava-wait one & lava-wait two &
            while lava-send go; do :; done 2>/dev/null
            wait; echo "ended"
            """

        def react(request: Request) -> Reaction:
            if request.name == "WAIT":
                return Never()
            return Fail("both wait") if {"one", "two"} <= {each.args[0] for each in host.requests} else None

        host = Host(device.test(steps), react)
        host.until(lambda: any("FAIL" in answer for answer in host.answers))
        host.until(lambda: host.answers.count("HOLD") >= 4)
        host.release("one")
        host.release("two")
        assert host.finish() == 0
        assert b"ended\n" in host.printed
        assert host.call.tty() == host.call.initial

    def test_lines_of_the_dead_and_of_nobody_do_not_hold_the_console(self, device: Device) -> None:
        gone = f"{host_pid()} 1 0123456789ab new\n"
        (device.bin / "lava-multi-node.lock").write_text(f"{gone}\n \n0 0 0\nx\n4194303 5 0123456789ac held 1:2:3")
        host = start(device, "lava-send", "x")
        assert host.finish() == 0

    @pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
    @pytest.mark.parametrize("mode", [0o644, 0o600])
    def test_no_other_users_file_stops_a_call(self, public_device: Device, mode: int) -> None:
        public_device.settings(**frames_settings())
        locked = public_device.bin / "lava-multi-node.lock"
        locked.write_text(f"{host_pid()} {start_of(host_pid())} 0123456789ab new\n")
        locked.chmod(mode)
        host = start(public_device, "lava-send", "x", user=65534, group=65534)
        assert host.finish() == 0
        assert locked.read_text()


def host_pid() -> int:
    """A process that lives and has nothing to do with the device."""
    return os.getpid()


def start_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[19]


class TestTheBackground:
    """A process group in the background is stopped when it reads its tty, so a call leaves it."""

    def test_timeout_runs_a_call(self, device: Device) -> None:
        host = Host(
            device.test(
                """
                timeout 60 lava-wait x; echo "[$?]"
                sh -c 'echo "pid $$"; exec timeout 600 lava-wait y'; echo "[$?]"
                """
            ),
            reactions({"WAIT x": Later(ONE), "WAIT y": Never()}),
        )
        host.until(lambda: host.holds("y"))
        # What the time's end does: coreutils' has an alarm; busybox's is the call itself, which its child ends.
        over, status = (signal.SIGTERM, b"143") if "busybox" in device.shell[0] else (signal.SIGALRM, b"124")
        os.kill(int(host.heard.partition(b"pid ")[2].split()[0]), over)
        assert host.finish() == 0
        assert re.fullmatch(rb"\[0\]\npid \d+\n\[%s\]\n" % status, host.printed)
        assert host.told == ["WAIT x", "+BYE", "WAIT y", "+BYE"]
        assert host.call.tty() == host.call.initial

    def test_a_call_that_finds_the_console_by_its_controlling_terminal_only(self, device: Device) -> None:
        host = Host(device.test('timeout 60 lava-send x </dev/null >/dev/null 2>out; echo "[$?]"; cat out'))
        assert host.finish() == 0
        assert host.printed == b"[0]\n"

    def test_a_job_of_a_shell_with_job_control(self, device: Device) -> None:
        # Of these shells only this one takes the terminal for its jobs where it is not interactive.
        outer = shutil.which("dash")
        if not outer:
            pytest.skip("dash is not installed")
        nested = device.root / "nested.sh"
        nested.write_text('set -m; lava-wait x & wait $!; echo "[$?]"; lava-wait y & wait $!; echo "[$?]"\n')
        host = Host(
            device.start(outer, "-c", f"set -m; {' '.join(device.shell)} {nested}; :"),
            reactions({"WAIT x": Later(ONE), "WAIT y": Fail("no")}),
        )
        assert host.finish() == 0
        assert b"[0]\n" in host.printed
        assert b"lava-wait: no\n" in host.printed
        assert b"[1]\n" in host.printed

    def test_where_it_cannot_leave_it_says_so(self, device: Device) -> None:
        said = b"lava-wait: a process group in the background cannot use the console\n"
        tools = device.root / "tools"
        tools.mkdir()
        for tool in ("timeout", "printf"):
            (tools / tool).symlink_to(shutil.which(tool) or "")
        if "busybox" not in device.shell[0]:
            call = device.test("timeout 60 lava-wait x; exit $?", env={"PATH": f"{device.bin}:{tools}"})
            assert call.finish() == 1
            assert call.output.replace(b"\r\n", b"\n") == said
        # A shell that leads its session has the console itself.
        call = device.test('set -m; lava-wait x & wait $!; echo "[$?]"')
        assert call.finish() == 0
        assert said in call.output.replace(b"\r\n", b"\n")
        assert b"[1]" in call.output


class TestWhoeverComesAfter:
    """A call that was killed leaves nothing that harms an interactive shell."""

    @pytest.fixture
    def prompt(self, device: Device) -> Host:
        """An interactive shell at its prompt."""
        device.settings(**frames_settings(TTY=""))
        program, *rest = device.shell
        host = Host(device.start(program, *rest, "-i", env={"ENV": ""}), lambda _: Never())
        host.call.type(b"PS1=Pro''mpt:; cd .\n")
        host.shows(b"Prompt:")
        return host

    @pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
    def test_an_answer_at_the_prompt_does_nothing(self, device: Device, prompt: Host, end: signal.Signals) -> None:
        prompt.call.type(b"lava-wait x\n")
        prompt.until(lambda: "HOLD" in prompt.answers)
        assert prompt.call.tty()[3] & (termios.ICANON | termios.ISIG) == termios.ICANON | termios.ISIG
        seen = prompt.heard.count(b"Prompt:")
        end_all(device.bin / "lava-wait", end)
        prompt.until(lambda: prompt.heard.count(b"Prompt:") > seen)
        name = prompt.said[0].id
        for frame in (Down(name, Kind.HOLD), Down(name, Kind.DATA, 1, 2, b"touch harm\n")):
            prompt.call.type(encode_down(frame))
        prompt.call.type(b"echo al''ive\n")
        prompt.shows(b"alive")
        assert not [path for path in device.work.iterdir() if path.name != ".sh_history"]
        prompt.call.type(b"exit\n")
        assert prompt.finish() == 0
        assert prompt.call.tty() == prompt.call.initial

    def test_a_call_at_a_prompt_repeats_what_was_lost(self, device: Device, prompt: Host) -> None:
        prompt.react = lambda _: Later({"5": {"k": "v" * 100}})
        prompt.up, prompt.down = losing(1, 3), losing(2)
        prompt.call.type(b"lava-wait x; cat %s\n" % bytes(device.cache))
        prompt.shows(b"k=" + b"v" * 100)
        prompt.call.type(b"exit\n")
        assert prompt.finish() == 0


class TestNoStty:
    """A device without stty is served with lines as they are."""

    @pytest.fixture
    def path(self, device: Device) -> str:
        if "busybox" in device.shell[0]:
            pytest.skip("busybox has an stty of its own")
        tools = device.root / "tools"
        tools.mkdir()
        for tool in ("rm", "mv", "mkdir", "printf", "sleep", "date"):
            (tools / tool).symlink_to(shutil.which(tool) or "")
        return f"{device.bin}:{tools}"

    def test_calls_work_and_repeat_what_was_lost(self, device: Device, path: str) -> None:
        data = {"5": {"k": "v" * 200}}
        host = start(
            device, "lava-wait", "x", env={"PATH": path}, react=lambda _: Later(data), up=losing(1, 3), down=losing(2)
        )
        assert host.finish() == 0
        assert device.cache.read_text() == f"k={'v' * 200}\n"

    def test_the_runner_says_so_once(self, device: Device, path: str) -> None:
        stage = Stage(device)
        stage.define("0_a", "lava-send x")
        stage.define("1_b", "lava-send y")
        host = start(device, "lava-test-runner", str(stage.path), env={"PATH": path})
        assert host.finish() == 0
        said = b"lava-test-runner: stty cannot set the console: what the dispatcher types is echoed\n"
        assert host.printed.count(said) == 1
        assert [request.args for request in host.requests] == [("x",), ("y",)]

    def test_a_call_outlives_its_clock(self, device: Device, path: str) -> None:
        """On one processor what reads by a clock is done with it before that ran, and dash forgets signals then."""
        device.add(
            "lava-locks",
            '#!/bin/sh\n. "${0%"${0##*/}"}./lava-multi-node.lib"\nlava_console\n_id=0\n_guard\n'
            "for _time in 1 2 3 4 5; do _lock; _unlock; done\necho unlocked\n",
        )
        processors = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(processors)})
        try:
            host = start(device, "lava-locks", env={"PATH": path})
        finally:
            os.sched_setaffinity(0, processors)
        assert host.finish() == 0
        assert host.printed == b"unlocked\n"


class Stage:
    """What the runner is given: a directory with test definitions."""

    def __init__(self, device: Device) -> None:
        self.path = device.root / "0"
        self.path.mkdir()
        device.settings(**frames_settings(TEST_SHELL=" ".join(device.shell)))

    def define(self, name: str, steps: str) -> None:
        directory = self.path / "tests" / name
        directory.mkdir(parents=True)
        (directory / "run.sh").write_text(steps + "\n")
        (directory / "uuid").write_text(f"u-{name}")
        with (self.path / "lava-test-runner.conf").open("a") as listed:
            listed.write(f"{directory}\n")


class TestTheRunner:
    """It tells what it does over the same frames."""

    def test_what_it_tells(self, device: Device) -> None:
        stage = Stage(device)
        stage.define("0_a", "stty -echo -icanon; lava-test-case 1 --result pass; lava-wait x & kill -9 $!; exit 3")
        stage.define("1_b", "timeout 60 lava-send y; lava-test-case 2 --shell false; stty -g >tty-after")
        (stage.path / "tests/2_c").mkdir()
        with (stage.path / "lava-test-runner.conf").open("a") as listed:
            listed.write(f"{stage.path}/tests/missing\n")
        host = start(device, "lava-test-runner", str(stage.path), react=reactions({"WAIT x": Never()}))
        assert host.finish() == 0
        told = [event for event in host.events if not isinstance(event, Request)]
        assert [(event.name, event.params) for event in told if isinstance(event, Signal)] == [
            ("STARTRUN", "0_a u-0_a"),
            ("TESTCASE", "TEST_CASE_ID=1 RESULT=pass"),
            ("STARTRUN", "1_b u-1_b"),
            ("STARTTC", "2"),
            ("ENDTC", "2"),
            ("TESTCASE", "TEST_CASE_ID=2 RESULT=fail"),
            ("ENDRUN", "1_b u-1_b"),
        ]
        assert [type(event) for event in told[-2:]] == [InstallFailed, RunnerExit]
        assert host.call.tty() == host.call.initial
        assert (device.bin / "lava-multi-node.lock").stat().st_mode & 0o777 == 0o666

    def test_its_end_is_told_once_when_it_is_killed(self, device: Device) -> None:
        stage = Stage(device)
        stage.define("0_a", "lava-wait x")
        host = start(device, "lava-test-runner", str(stage.path), react=lambda _: Never())
        host.until(lambda: "HOLD" in host.answers)
        os.killpg(host.call.process.pid, signal.SIGTERM)
        assert host.finish() == 143
        told = [type(event) for event in host.events]
        assert [kind for kind in told if kind is not Abandoned] == [Signal, Request, RunnerExit]
        assert Abandoned in told
        assert host.call.tty() == host.call.initial
