"""Plugins: what is told of broken ones, and the example plugin, really installed and at work in a job."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import cast

import pytest
import yaml
from packaging_harness import ROOT, Environment, build

from dispatcher.console.transport import Transport
from dispatcher.errors import CallRefused, ConsoleError, UserError
from dispatcher.plugins import CALLS, TRANSPORTS, Found, Plugins, load

# --- entry points of distributions that stand in a directory -----------------------------------------------------

Install = Callable[..., list[metadata.EntryPoint]]

A_TRANSPORT = """\
from dispatcher.console.transport import Transport
class Wire(Transport):
    OPTIONS = {"wire": "its number"}
    def open(self): ...
    async def close(self): ...
"""

A_CALL = """\
from dispatcher.job.calls import Call
class Ask(Call):
    async def answer(self, args, session): ...
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a distribution of one module, both of one name; its entry points."""
    monkeypatch.syspath_prepend(tmp_path)
    modules = []

    def install(name: str, source: str, group: str, **entry_points: str) -> list[metadata.EntryPoint]:
        modules.append(name)
        (tmp_path / f"{name}.py").write_text(source)
        info = tmp_path / name / f"{name}-1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        lines = [f"{entry} = {name}:{value}\n" for entry, value in entry_points.items()]
        (info / "entry_points.txt").write_text(f"[{group}]\n{''.join(lines)}")
        [distribution] = metadata.distributions(path=[str(info.parent)])
        return list(distribution.entry_points)

    yield install
    for name in modules:
        sys.modules.pop(name, None)


def problem(plugins: Plugins) -> str:
    """The problem of the one entry point that has one."""
    [found] = plugins.problems
    assert found.problem is not None
    assert "\n" not in found.problem
    return found.problem


class TestFinding:
    def test_loads_a_transport(self, install: Install) -> None:
        plugins = load(install("wires", A_TRANSPORT, TRANSPORTS, wire="Wire"))
        assert plugins.found == [Found(TRANSPORTS, "wire", "wires")]
        assert plugins.transports["wire"].__name__ == "Wire"
        assert not plugins.problems

    def test_loads_a_call(self, install: Install) -> None:
        plugins = load(install("asks", A_CALL, CALLS, ASK="Ask"))
        assert plugins.found == [Found(CALLS, "ASK", "asks")]
        assert type(plugins.calls["ASK"]).__name__ == "Ask"

    def test_finds_its_own_as_installed(self) -> None:
        plugins = load()
        assert {"command", "serial"} <= set(plugins.transports)
        assert {"SEND", "WAIT", "WAIT_ALL", "SYNC"} <= set(plugins.calls)
        assert Found(CALLS, "SEND", "multinode-dispatcher") in plugins.found

    def test_a_broken_one_does_not_take_the_others_with_it(self, install: Install) -> None:
        broken = install("broken", "import no_such_module", CALLS, ASK="Ask")
        plugins = load([*broken, *install("asks", A_CALL, CALLS, ASK_TOO="Ask")])
        assert list(plugins.calls) == ["ASK_TOO"]
        assert [found.distribution for found in plugins.problems] == ["broken"]

    def test_an_entry_point_without_a_distribution_is_named_too(self) -> None:
        plugins = load([metadata.EntryPoint("ASK", "no_such_module:Ask", CALLS)])
        assert plugins.problems[0].distribution == "an unknown distribution"


class TestBroken:
    @pytest.mark.parametrize(
        ("source", "told"),
        [
            ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
            ("1 / 0", "ZeroDivisionError: division by zero"),
            ("raise SystemExit('out of\\n here')", "SystemExit: out of here"),
            ("Wire = = 1", "SyntaxError: invalid syntax"),
            ("", "AttributeError: module 'wires' has no attribute 'Wire'"),
            ("Wire = 5", "it is no subclass of dispatcher.console.transport.Transport"),
            ("class Wire: ...", "it is no subclass of dispatcher.console.transport.Transport"),
            (A_TRANSPORT.replace("    def open(self): ...\n", ""), "Wire lacks open"),
            (A_TRANSPORT.replace('"wire"', '"line"'), "its OPTIONS lack its own name, 'wire'"),
            (A_TRANSPORT.replace("OPTIONS", "KEYS"), "its OPTIONS lack its own name, 'wire'"),
        ],
    )
    def test_transport(self, install: Install, source: str, told: str) -> None:
        plugins = load(install("wires", source, TRANSPORTS, wire="Wire"))
        assert problem(plugins).startswith(told)
        assert not plugins.transports

    @pytest.mark.parametrize(
        ("source", "name", "told"),
        [
            ("import no_such_module", "ASK", "ModuleNotFoundError: No module named 'no_such_module'"),
            (A_TRANSPORT.replace("Wire", "Ask"), "ASK", "it is no subclass of dispatcher.job.calls.Call"),
            (A_CALL.replace("answer", "reply"), "ASK", "Ask lacks answer"),
            (A_CALL, "ask", "the name of a call is capitals, digits and underscores, a capital first"),
            (A_CALL, "ASK-ME", "the name of a call is capitals, digits and underscores, a capital first"),
            (A_CALL, "SIGNAL", "SIGNAL is the test shell's own"),
            (A_CALL, "REBOOT", "REBOOT is the test shell's own"),
            (A_CALL + "    def __init__(self): raise OSError('no')", "ASK", "OSError: no"),
            (A_CALL + "    SCRIPTS = {'lava-send': b''}", "ASK", "there is a script 'lava-send' already"),
            (A_CALL + "    SCRIPTS = {'lava-multi-node.conf': b''}", "ASK", "there is a script 'lava-multi-node.conf'"),
            (A_CALL + "    SCRIPTS = {'../x': b''}", "ASK", "its script '../x' is not named with letters"),
            (A_CALL + "    SCRIPTS = {'lava-ask': ''}", "ASK", "its script 'lava-ask' is not bytes"),
        ],
    )
    def test_call(self, install: Install, source: str, name: str, told: str) -> None:
        plugins = load(install("asks", source, CALLS, **{name: "Ask"}))
        assert problem(plugins).startswith(told)
        assert not plugins.calls


class TestTakenNames:
    def test_of_a_built_in_call(self, install: Install) -> None:
        plugins = load([*install("asks", A_CALL, CALLS, SEND="Ask"), *metadata.entry_points(group=CALLS)])
        assert plugins.problems == [Found(CALLS, "SEND", "asks", "multinode-dispatcher has taken the name")]
        assert type(plugins.calls["SEND"]).__name__ == "Send"

    def test_of_another_plugin(self, install: Install) -> None:
        first = install("alpha", A_CALL, CALLS, ASK="Ask")
        plugins = load([*install("beta", A_CALL, CALLS, ASK="Ask"), *first])
        assert plugins.problems == [Found(CALLS, "ASK", "beta", "alpha has taken the name")]

    def test_of_a_plugin_that_is_broken_is_free(self, install: Install) -> None:
        broken = install("alpha", "", CALLS, ASK="Ask")
        plugins = load([*broken, *install("beta", A_CALL, CALLS, ASK="Ask")])
        assert [found.distribution for found in plugins.problems] == ["alpha"]
        assert "ASK" in plugins.calls

    def test_a_script_of_another_plugin(self, install: Install) -> None:
        source = A_CALL + "    SCRIPTS = {'lava-ask': b''}"
        first = install("alpha", source, CALLS, ASK="Ask")
        plugins = load([*first, *install("beta", source, CALLS, ASK_TOO="Ask")])
        assert problem(plugins) == "there is a script 'lava-ask' already"

    def test_an_option_of_another_transport(self, install: Install) -> None:
        source = A_TRANSPORT.replace('"wire"', '"baudrate"')
        own = metadata.entry_points(group=TRANSPORTS)
        plugins = load([*install("wires", source, TRANSPORTS, baudrate="Wire"), *own])
        assert problem(plugins) == "its name is an option of 'serial'"

    def test_an_option_that_is_another_transport(self, install: Install) -> None:
        source = A_TRANSPORT.replace('{"wire": "its number"', '{"wire": "its number", "serial": "the line"')
        own = metadata.entry_points(group=TRANSPORTS)
        plugins = load([*install("wires", source, TRANSPORTS, wire="Wire"), *own])
        assert problem(plugins) == "its option 'serial' is the name of another transport"


# --- the example plugin, installed -------------------------------------------------------------------------------

EXAMPLE = ROOT / "fixtures/example-plugin"

BROKEN_PLUGIN = """\
[build-system]
requires = ["setuptools>=68"]
build-backend = "setuptools.build_meta"
[project]
name = "broken-plugin"
version = "1"
[project.entry-points."multinode.calls"]
BROKEN = "broken_plugin:Broken"
[tool.setuptools]
py-modules = ["broken_plugin"]
"""

DEVICES = """\
devices:
  socketed: {device_type: board, console: {unix: %s}}
  local: {device_type: pc, console: {command: sh}}
"""

JOB = """\
job_name: what time is it
timeouts: {job: {minutes: 2}, action: {minutes: 1}, connection: {minutes: 1}}
protocols:
  lava-multinode:
    roles:
      board: {device_type: board, count: 1}
      pc: {device_type: pc, count: 1}
actions:
- test:
    role: [board, pc]
    definitions:
    - name: clock
      from: inline
      path: inline/clock.yaml
      repository:
        metadata: {format: Lava-Test Test Definition 1.0, name: clock}
        run:
          steps:
          - now=$(lava-now)
          - lava-test-case time --result pass --measurement "${now%% *}" --units seconds
          - lava-test-case iso --shell test "$(date -u -d "@${now%% *}" +%Y-%m-%dT%H:%M:%SZ)" = "${now##* }"
          - lava-test-case takes-no-argument --shell '! lava-now then'
          - lava-sync done
"""


class SocketShell:
    """A shell on a pty behind a UNIX-domain socket, as QEMU serves a guest's console; it serves one client."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        # Wakes the thread, which may still wait for its client.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        try:
            client, _address = self._listener.accept()
        except OSError:
            return
        master, slave = os.openpty()
        with client, subprocess.Popen(["setsid", "--ctty", "sh"], stdin=slave, stdout=slave, stderr=slave) as shell:
            os.close(slave)
            _relay(client, master)
            os.close(master)  # the shell is hung up
            shell.wait()


def _relay(client: socket.socket, master: int) -> None:
    """Hand bytes on, both ways, until one side has ended."""
    while True:
        readable, _, _ = select.select([client, master], [], [])
        try:
            data = os.read(master, 4096) if master in readable else None
            typed = client.recv(4096) if client in readable else None
            if data == b"" or typed == b"":
                return
            client.sendall(data or b"")
            os.write(master, typed or b"")
        except OSError:  # a pty without a program at its other end says EIO
            return


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """The project, the example plugin and a broken one, installed from their wheels."""
    broken = tmp_path / "broken-project"
    broken.mkdir()
    (broken / "pyproject.toml").write_text(BROKEN_PLUGIN)
    (broken / "broken_plugin.py").write_text("import no_such_module\n")
    environment = Environment(tmp_path / "environment")
    wheels: list[Path] = []
    for name, source in {"own": ROOT, "example": EXAMPLE, "broken": broken}.items():
        (tmp_path / name).mkdir()
        wheels += build(source, tmp_path / name, "--wheel").glob("*.whl")
    environment.install(*wheels)
    return environment


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Path]:
    """The path of a socket with a shell behind it."""
    path = tmp_path / "console"
    shell = SocketShell(path)
    yield path
    shell.close()


@pytest.mark.slow
def test_installed_it_is_found_and_a_job_uses_it(environment: Environment, served: Path, tmp_path: Path) -> None:
    done = environment.run("multinode", "plugins", cwd=tmp_path)
    lines = [line.split(maxsplit=3) for line in done.stdout.splitlines()]
    assert ["transport", "unix", "multinode-example-plugin"] in lines
    assert ["call", "NOW", "multinode-example-plugin"] in lines
    why = "skipped: ModuleNotFoundError: No module named 'no_such_module'"
    assert ["call", "BROKEN", "broken-plugin", why] in lines
    assert done.returncode == 0

    (tmp_path / "devices.yaml").write_text(DEVICES % served)
    (tmp_path / "job.yaml").write_text(JOB)
    before = int(time.time())
    done = environment.run("multinode", "run", "job.yaml", "--output", "out", cwd=tmp_path)
    after = int(time.time())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "plugin 'BROKEN' of broken-plugin is skipped: ModuleNotFoundError" in done.stderr
    cases = yaml.safe_load((tmp_path / "out/results.yaml").read_text())
    for role in ("board", "pc"):
        told = [case["name"] for case in cases if (case["metadata"]["role"], case["suite"]) == (role, "0_clock")]
        assert told == ["time", "iso", "takes-no-argument", "multinode-sync-done"]
    assert {case["result"] for case in cases} == {"pass"}
    times = [float(case["measurement"]) for case in cases if case["name"] == "time"]
    assert all(before <= time <= after for time in times)


class TestUnixTransport:
    @pytest.fixture
    def transport(self, monkeypatch: pytest.MonkeyPatch) -> type[Transport]:
        """The example's transport, imported from where it stands."""
        monkeypatch.syspath_prepend(EXAMPLE)
        return cast(type[Transport], importlib.import_module("multinode_example.unix").UnixTransport)

    @pytest.mark.parametrize("path", ["", "/" + "x" * 107])
    def test_a_path_that_cannot_be_one(self, transport: type[Transport], path: str) -> None:
        with pytest.raises(UserError, match="guest: console unix: a socket's path has 1 to 107 bytes"):
            transport("guest", {"unix": path})

    def test_a_socket_that_nobody_serves(self, transport: type[Transport], tmp_path: Path) -> None:
        with pytest.raises(ConsoleError, match=f"guest: cannot connect to {tmp_path}/no: No such file or directory"):
            transport("guest", {"unix": f"{tmp_path}/no"}).open()

    def test_a_server_that_is_busy(self, transport: type[Transport], tmp_path: Path) -> None:
        path = f"{tmp_path}/busy"
        with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
            listener.bind(path)
            listener.listen(0)
            client.connect(path)
            with pytest.raises(ConsoleError, match=f"guest: cannot connect to {path}: its server is busy"):
                transport("guest", {"unix": path}).open()


def test_the_call_trusts_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLE)
    now = importlib.import_module("multinode_example.now").Now()
    with pytest.raises(CallRefused, match="NOW takes no argument, not 'then'"):
        asyncio.run(now.answer(["then"], None))
