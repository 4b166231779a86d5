"""LAVA's own parts, unpacked from Debian's packages: installed, they would bring 180 others."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from processes import MULTINODE, ended

PACKAGES = ("lava-common", "lava-coordinator", "lava-dispatcher", "lava-dispatcher-host")
MODULES = "certifi chardet configobj idna jinja2 magic markupsafe netifaces pyudev requests six tz urllib3 voluptuous"
NEEDED = tuple(f"python3-{name}" for name in MODULES.split())
"""What the dispatcher's modules import beside what this project needs anyway."""

PATIENCE = 300


def missing(why: str) -> NoReturn:
    """Skip, or fail where no test may be skipped."""
    if os.environ.get("CI"):
        pytest.fail(f"{why}, and in CI no test may be skipped")
    pytest.skip(f"{why}; MULTINODE_LAVA_ROOT may name a tree into which {', '.join(PACKAGES)} are unpacked")


@pytest.fixture(scope="session")
def lava(pytestconfig: pytest.Config) -> Path:
    """The tree with LAVA's dispatcher and coordinator, fetched once."""
    named = os.environ.get("MULTINODE_LAVA_ROOT")
    if named:
        return Path(named)
    assert pytestconfig.cache is not None
    # Another list of packages is another tree.
    kept = pytestconfig.cache.mkdir("lava") / f"root-{zlib.crc32(repr(PACKAGES + NEEDED).encode()):08x}"
    with (kept.parent / "lock").open("w") as lock:
        # Of two workers that update apt's lists at once, one fails; and only one's tree can be put there.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.is_dir():
            fetch(kept)
    return kept


def fetch(kept: Path) -> None:
    """Download and unpack the packages."""
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            missing(f"there is no {tool} to fetch LAVA's packages with")
    with tempfile.TemporaryDirectory(dir=kept.parent) as name:
        folder = Path(name)
        folder.chmod(0o755)
        done = apt_get(folder, "download", *PACKAGES, *NEEDED)
        if done.returncode and os.geteuid() == 0:
            apt_get(folder, "update")  # a fresh image has no lists, or old ones
            done = apt_get(folder, "download", *PACKAGES, *NEEDED)
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.startswith("E:")] or ["it does not say why"]
            missing(f"apt-get cannot download LAVA's packages ({said[-1]})")
        root = folder / "root"
        for package in folder.glob("*.deb"):
            subprocess.run(["dpkg", "-x", str(package), str(root)], check=True, timeout=PATIENCE)
        root.rename(kept)


def apt_get(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["apt-get", "-qq", *arguments], cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


@pytest.fixture(scope="session")
def lava_environment(lava: Path) -> dict[str, str]:
    """An environment in which Python finds LAVA's modules."""
    return {**os.environ, "PYTHONPATH": str(lava / "usr" / "lib" / "python3" / "dist-packages"), "PYTHONWARNINGS": ""}


@pytest.fixture
def our_coordinator(tmp_path: Path) -> Iterator[int]:
    """The port of ours, with its journal in SQLite."""
    command = [*MULTINODE, "coordinator", "--port", "0", "--journal", str(tmp_path / "journal.sqlite")]
    with ended(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        assert line.startswith("ready on 127.0.0.1:"), process.stderr.read()
        yield int(line.rpartition(":")[2])
        process.terminate()
        _out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
        assert "Traceback" not in err
