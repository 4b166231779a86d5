"""Where files can go, and scripts that the image has brought: asked of every shell."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from console_harness import run, soon, started

from dispatcher import resources
from dispatcher.console.place import find_directory, link_shipped

NAMES = {f"lava-{number}" for number in range(45)} | {"lava-self"}
MARKER = ("lava-self", "lava.version")


def found(shell_command: str, candidates: list[Path], interpreter: str = "/bin/sh") -> str | None:
    async def test() -> str | None:
        async with started("sh -c 'umask 077; exec sh -i'", shell_command) as shell:
            place = await find_directory(shell, [str(each) for each in candidates], interpreter, deadline=soon())
            assert (await shell.run("R=alive", deadline=soon())).value == "alive"
            return place

    return run(test())


def linked(shell_command: str, image: Path, directory: Path, version: str, path: str = "$PATH") -> bool:
    async def test() -> bool:
        async with started("sh", shell_command) as shell:
            await shell.run(f"PATH={image}:{path}; umask 077", deadline=soon())
            return await link_shipped(shell, str(directory), NAMES, version, MARKER, deadline=soon())

    return run(test())


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A directory of an image that has brought scripts."""
    directory = tmp_path / "image"
    directory.mkdir()
    for name in NAMES:
        (directory / name).write_text(f"#!/bin/sh\necho {name}\n")
        (directory / name).chmod(0o755)
    (directory / MARKER[1]).write_text("12345 678\n")
    return directory


def test_the_first_directory_that_can_be_made(shell_command: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    places = [tmp_path / "file" / "a", tmp_path / "b", tmp_path / "c"]
    assert found(shell_command, places) == str(tmp_path / "b")
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o755, "for calls of every user"
    assert not (tmp_path / "c").exists()


def test_a_directory_that_no_script_can_be_run_from_is_left_as_it_was(tmp_path: Path) -> None:
    assert found("/bin/sh", [tmp_path / "a", tmp_path / "b"], "/not/there") is None
    assert list(tmp_path.iterdir()) == []


def test_scripts_of_the_image_are_linked(shell_command: str, image: Path, tmp_path: Path) -> None:
    assert linked(shell_command, image, tmp_path / "run/bin", "12345 678")
    assert {path.name for path in (tmp_path / "run/bin").iterdir()} == NAMES
    assert (tmp_path / "run/bin").stat().st_mode & 0o777 == 0o755
    assert subprocess.check_output([tmp_path / "run/bin/lava-7"]) == b"lava-7\n"


@pytest.mark.parametrize("missing", ["version", "other version", "scripts", "ln"])
def test_what_is_not_current_or_cannot_be_linked_is_left(missing: str, image: Path, tmp_path: Path) -> None:
    if missing == "version":
        (image / MARKER[1]).unlink()
    if missing == "other version":
        (image / MARKER[1]).write_text("12345 679\n")
    if missing == "scripts":
        (image / "lava-self").unlink()
    path = "/nowhere" if missing == "ln" else "$PATH"
    assert not linked("/bin/sh", image, tmp_path / "run/bin", "12345 678", path)
    assert not list(tmp_path.glob("run/bin/*"))


def test_what_make_installs_says_its_version(tmp_path: Path) -> None:
    scripts = Path(__file__).parents[2] / "target-scripts"
    subprocess.run(["make", "-s", "-C", scripts, "install", f"DESTDIR={tmp_path}", "PREFIX="], check=True)
    assert (tmp_path / "bin" / resources.VERSION).read_text() == resources.version() + "\n"
