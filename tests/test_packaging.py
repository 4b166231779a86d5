"""What travels in the wheel and the source distribution, and what make does on a machine that lacks something."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from packaging_harness import ROOT, Environment, build


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the project's source distribution and the wheel made from it."""
    return build(ROOT, tmp_path_factory.mktemp("project"))


def files_below(folder: Path, pattern: str = "*") -> set[str]:
    found = (path for path in folder.rglob(pattern) if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix() for path in found}


def below(prefix: str, names: Iterable[str]) -> set[str]:
    return {name.removeprefix(prefix) for name in names if name.startswith(prefix) and not name.endswith("/")}


@pytest.mark.slow
class TestDistributions:
    def test_the_wheel_holds_the_package_the_scripts_and_the_examples(self, built: Path) -> None:
        [wheel] = built.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
        assert {name.split("/")[0].split("-")[0] for name in names} == {"dispatcher", "multinode_dispatcher"}
        scripts = below("dispatcher/target_scripts/", names)
        assert scripts == files_below(ROOT / "target-scripts", "lava-*") | {"Makefile"}
        assert "lava-multi-node.lib" in scripts
        jobs = below("dispatcher/example_jobs/", names)
        assert jobs == files_below(ROOT / "fixtures/jobs")
        assert "example-1/job.yaml" in jobs
        modules = {name for name in below("dispatcher/", names) if name.endswith((".py", "py.typed"))}
        assert modules == files_below(ROOT / "dispatcher", "*.py") | {"py.typed"}
        assert any(name.endswith("/LICENSE") for name in names)
        assert any(name.endswith(".data/data/lib/systemd/system/multinode-coordinator.service") for name in names)

    def test_the_source_distribution_can_be_tested(self, built: Path) -> None:
        [sdist] = built.glob("*.tar.gz")
        with tarfile.open(sdist) as archive:
            names = archive.getnames()
        top = names[0].split("/")[0]
        held = below(f"{top}/", names)
        assert {"Makefile", "LICENSE", "README.md", "CHANGELOG.md", "setup.cfg", "pyproject.toml"} <= held
        assert "systemd/multinode-coordinator.service" in held
        assert {f"tests/{name}" for name in files_below(ROOT / "tests")} <= held
        assert {f"fixtures/{name}" for name in files_below(ROOT / "fixtures")} <= held
        assert {f"target-scripts/{name}" for name in files_below(ROOT / "target-scripts")} <= held

    def test_the_wheel_alone_runs_the_demo(self, built: Path, tmp_path: Path) -> None:
        environment = Environment(tmp_path / "environment")
        environment.install(*built.glob("*.whl"))
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()

        demo = environment.run("multinode", "demo", cwd=elsewhere)
        assert demo.returncode == 0, demo.stdout + demo.stderr
        assert "all passed" in demo.stdout
        assert list(elsewhere.iterdir()) == []

        plugins = environment.run("multinode", "plugins", cwd=elsewhere)
        assert (plugins.returncode, plugins.stderr) == (0, "")
        lines = [line.split() for line in plugins.stdout.splitlines()]
        assert ["transport", "serial", "multinode-dispatcher"] in lines
        assert ["call", "WAIT_ALL", "multinode-dispatcher"] in lines
        assert "skipped" not in plugins.stdout


class Machine:
    """A machine whose programs are stand-ins, and a checkout there that has nothing but what make reads."""

    def __init__(self, directory: Path) -> None:
        self.bin = directory / "bin"
        self.bin.mkdir()
        self.checkout = directory / "a checkout"
        self.checkout.mkdir()
        for name in ("Makefile", "setup.cfg", "pyproject.toml"):
            shutil.copy(ROOT / name, self.checkout)
        for name in ("sh", "make", "touch", "sed", "expand"):
            self.has(name)

    def has(self, name: str, does: str | None = None) -> None:
        """Give it a program: what ``does`` says in sh, or this host's own."""
        if does is None:
            (self.bin / name).symlink_to(shutil.which(name) or "")
            return
        (self.bin / name).write_text(f"#!/bin/sh\n{does}\n")
        (self.bin / name).chmod(0o755)

    def make(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", "-s", *arguments],
            cwd=self.checkout,
            env={"PATH": str(self.bin), **environment},
            text=True,
            capture_output=True,
        )


PYTHON_OF_ANOTHER_AGE = 'case $* in -V) echo Python 3.9.2;; *"sys.exit(sys.version_info"*) exit 1;; esac'
THIS_PYTHON = f'exec {shlex.quote(sys.executable)} "$@"'
PYTHON_WITHOUT_VENV = f'case $* in *"import ensurepip"*) exit 1;; *) {THIS_PYTHON};; esac'
PYTHON_WITHOUT_INDEX = (
    'case $* in *" venv "*) mkdir -p .venv/bin; cp "$0" .venv/bin/python;; '
    '*" pip "*) echo "ERROR: No matching distribution found" >&2; exit 1;; '
    f"*) {THIS_PYTHON};; esac"
)
APT_GET = 'echo "$DEBIAN_FRONTEND $*" >>"$LOG"'


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine with a user on it who is not root."""
    if shutil.which("make") is None:
        pytest.skip("there is no make")
    machine = Machine(tmp_path)
    machine.has("id", "echo 1000")
    return machine


class TestMake:
    def test_lists_what_it_can_do(self, machine: Machine) -> None:
        done = machine.make()
        assert {line.split()[0] for line in done.stdout.splitlines()} == {
            *("help", "demo", "test", "lint", "soak", "bench", "clean")
        }

    def test_names_a_python_that_is_missing(self, machine: Machine) -> None:
        done = machine.make("demo")
        assert done.returncode != 0
        assert "there is no python3; as root: apt-get install python3 python3-venv" in done.stderr

    def test_names_a_python_that_is_too_old(self, machine: Machine) -> None:
        machine.has("python3", PYTHON_OF_ANOTHER_AGE)
        done = machine.make("demo")
        assert done.returncode != 0
        assert "python3 is Python 3.9.2; 3.11 or newer is needed" in done.stderr

    def test_names_the_package_that_makes_environments(self, machine: Machine) -> None:
        machine.has("python3", PYTHON_WITHOUT_VENV)
        done = machine.make("demo")
        package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
        assert done.returncode != 0
        assert f"as root: apt-get install {package}" in done.stderr
        assert not (machine.checkout / ".venv").exists()

    def test_installs_that_package_where_it_may(self, machine: Machine, tmp_path: Path) -> None:
        machine.has("python3", PYTHON_WITHOUT_VENV)
        machine.has("id", "echo 0")
        machine.has("apt-get", APT_GET)
        log = tmp_path / "log"
        machine.make("demo", LOG=str(log))
        update, install = log.read_text().splitlines()
        assert update == "noninteractive -qq update"
        assert install.startswith("noninteractive ")
        assert install.endswith(f" install python{sys.version_info.major}.{sys.version_info.minor}-venv")

    def test_says_what_pip_needs(self, machine: Machine) -> None:
        for name in ("mkdir", "cp"):
            machine.has(name)
        machine.has("python3", PYTHON_WITHOUT_INDEX)
        done = machine.make("demo")
        assert done.returncode != 0
        assert "No matching distribution found" in done.stderr
        assert "It needs a package index" in done.stderr

    def test_without_root_names_what_tests_need_and_runs_the_rest(self, machine: Machine) -> None:
        installed(machine)
        done = machine.make("test", "ARGS=-k nothing")
        assert done.returncode == 0
        assert "as root: apt-get install --no-install-recommends dash mksh ksh93u+m busybox-static" in done.stderr
        assert "the tests that need them are skipped" in done.stderr
        assert done.stdout.split() == ["-m", "pytest", "-n", "4", "--dist", "worksteal", "-k", "nothing"]

    def test_in_ci_nothing_may_be_missing(self, machine: Machine) -> None:
        installed(machine)
        done = machine.make("test", CI="true")
        assert done.returncode != 0
        assert "pytest" not in done.stdout

    def test_lint_needs_shellcheck(self, machine: Machine) -> None:
        installed(machine)
        done = machine.make("lint")
        assert done.returncode != 0
        assert "shellcheck is missing; as root: apt-get install shellcheck" in done.stderr


def installed(machine: Machine) -> None:
    """An environment is there already; its Python says what it is asked to run."""
    environment = machine.checkout / ".venv"
    (environment / "bin").mkdir(parents=True)
    python = environment / "bin/python"
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    for stamp in ("installed", "installed-dev"):
        (environment / stamp).touch()
