"""Our scripts at a console that LAVA's dispatcher watches: what it would change is refused."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dispatcher import resources

pytestmark = pytest.mark.slow

PATIENCE = 300
LAVA_SIDE = Path(__file__).with_name("lava_side.py")
SHELLS = {"dash": "dash", "bash": "bash", "mksh": "mksh", "ksh93": "ksh93", "ash": "busybox"}

PIECES = [
    " ",
    " ",
    "=",
    "a",
    "B9",
    "_",
    "-",
    ".",
    "=b",
    " c=",
    "10:",
    " 10:k",
    "<",
    "'",
    '"',
    "\\",
    "$(x)",
    "*",
    "%s",
    ",",
]
PIECES += ["é", "☃", "\u00a0", "\u2003", "\U0001f600", "x" * 30]
BYTES = [b"\xff", b"\xc3", b"\xed\xa0\x80"]


@dataclass
class Told:
    """What LAVA's dispatcher made of a console's calls."""

    sent: dict[str, dict[str, str]] = field(default_factory=dict)
    waits: list[list[str]] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)


class Bench:
    """A directory of scripts that one shell runs at LAVA's console."""

    def __init__(self, root: Path, shell: Path, scripts: dict[str, bytes], environment: dict[str, str]) -> None:
        self.root, self.shell = root, shell
        self.cache = root / "cache"
        self._environment = environment
        binaries = root / "bin"
        binaries.mkdir(parents=True)
        for name, content in scripts.items():
            (binaries / name).write_bytes(content.replace(b"#!/bin/sh", b"#!%s" % bytes(shell), 1))
            (binaries / name).chmod(0o755)
        self._head = f"PATH={binaries}:/usr/bin:/bin; export PATH; LAVA_TEST_BIN={binaries}; export LAVA_TEST_BIN\n"
        self._head += f"LAVA_MULTI_NODE_CACHE={self.cache}; export LAVA_MULTI_NODE_CACHE; cd {root}\n"

    def run(self, script: bytes) -> Told:
        """Run commands to their end; what LAVA's dispatcher understood."""
        path = self.root / "script"
        path.write_bytes(self._head.encode() + script + b"echo '<LAVA_TEST_RUNNER EXIT>'\n")
        done = subprocess.run(
            [sys.executable, LAVA_SIDE, f"{self.shell} {path}"],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        told = Told()
        for line in done.stdout.splitlines():
            for what, value in json.loads(line).items():
                if what == "send":
                    told.sent[value[0]] = value[1]
                else:
                    {"wait": told.waits, "result": told.results}[what].append(value)
        return told


@pytest.fixture(params=list(SHELLS))
def ours(request: pytest.FixtureRequest, tmp_path: Path, lava_environment: dict[str, str]) -> Bench:
    program = shutil.which(SHELLS[request.param])
    if program is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{request.param} is not installed")
    shell = tmp_path / request.param
    shell.symlink_to(program)
    return Bench(tmp_path / "ours", shell, resources.target_scripts(), lava_environment)


@pytest.fixture(scope="session")
def theirs(tmp_path_factory: pytest.TempPathFactory, lava: Path, lava_environment: dict[str, str]) -> Bench:
    """LAVA's scripts, which Debian's sh runs."""
    folder = lava / "usr/lib/python3/dist-packages/lava_dispatcher/lava_test_shell/multi_node"
    scripts = {path.name: path.read_bytes() for path in folder.iterdir()}
    return Bench(tmp_path_factory.mktemp("theirs") / "device", Path("/bin/sh"), scripts, lava_environment)


def quoted(word: bytes) -> bytes:
    return b"'" + word.replace(b"'", b"'\\''") + b"'"


def messages(seed: int, count: int) -> Iterator[tuple[str, dict[bytes, bytes]]]:
    """IDs, and data of which about half passes LAVA's dispatcher."""
    generator = random.Random(seed)
    for number in range(count):
        data = {}
        for index in range(generator.randrange(1, 4)):
            key = f"k{index}" + "".join(generator.choices(["", "_x", "-y", "é"], weights=[8, 2, 1, 1]))
            value = "".join(generator.choices(PIECES, k=generator.randrange(5))).encode()
            if generator.random() < 0.05:
                value += generator.choice(BYTES)
            data[key.encode()] = value
        yield f"id-{number}", data


MESSAGES = dict(messages(1, 80))


@pytest.fixture(scope="session")
def stock(theirs: Bench) -> Told:
    """What becomes of the messages when LAVA's script sends them."""
    return theirs.run(b"".join(b"lava-send %s\n" % _words(name, data) for name, data in MESSAGES.items()))


def test_what_our_scripts_send_arrives_as_it_was_sent_or_is_refused(ours: Bench, stock: Told) -> None:
    told = ours.run(
        b"".join(
            b"if lava-send %s 2>/dev/null; then lava-wait %s && mv cache %s; fi\n"
            % (_words(name, data), *[name.encode()] * 2)
            for name, data in MESSAGES.items()
        )
    )
    passed = 0
    for name, data in MESSAGES.items():
        plain = {key.decode(): value.decode(errors="replace") for key, value in data.items()}
        if name in told.sent:
            passed += 1
            assert told.sent[name] == plain, name
            # LAVA's end answers with what was sent, which is then in the cache file.
            assert (ours.root / name).read_bytes() == b"".join(b"%s=%s\n" % pair for pair in data.items()), name
        elif all(key.isascii() for key in plain):
            assert stock.sent.get(name) != plain, f"{name}: LAVA's own script brings this there: {data}"
    assert 20 < passed < 60


def _words(name: str, data: dict[bytes, bytes]) -> bytes:
    return b" ".join([name.encode(), *(quoted(key + b"=" + value) for key, value in data.items())])


def test_what_passes_with_lavas_script_passes_with_ours(ours: Bench, theirs: Bench) -> None:
    """The words of the API's page, and what else jobs send."""
    script = b"""
        lava-send ready
        lava-send server ip=10.0.0.1 port=5001 name=board-01.lab
        lava-send url address=http://10.0.0.1:8080/a/b.html,x
        lava-send key ssh="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPT root@board"
        lava-send big data=%s
        """ % (b"x" * 3900)
    assert ours.run(script).sent == theirs.run(script).sent
    assert len(ours.run(script).sent) == 5


def test_every_call_and_result_is_understood(ours: Bench) -> None:
    told = ours.run(b"""
        lava-sync start; lava-wait-all done; lava-wait-all done client; lava-wait go
        lava-test-case one --result pass --measurement 1.5 --units ms
        lava-test-case two --shell false
        lava-test-case three --shell lava-send mine
        """)
    assert told.waits == [["lava_sync", "start"], *[["lava_wait_all", "done"]] * 2, ["lava_wait", "go"]]
    assert told.sent == {"mine": {}}
    shown = [(result["case"], result["result"], result.get("measurement")) for result in told.results]
    assert [case for case in shown if not case[0].startswith("multinode-")] == [
        ("one", "pass", 1.5),
        ("two", "fail", None),
        ("three", "pass", None),
    ]
    assert [case for case, *_ in shown if case.startswith("multinode-")] == [
        "multinode-sync-start",
        "multinode-wait_all-done",
        "multinode-wait_all-done",
        "multinode-wait-go",
        "multinode-send-mine",
    ]
