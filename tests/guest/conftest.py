"""A Debian archive of three small packages on this disk, which the real apt-get and dpkg-deb work with."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dispatcher.guest.debian import PROGRAMS

KERNEL_PACKAGE = "linux-image-9.9.9-1-cloud-amd64"

IMAGE = b"no bzImage, to be taken as it is"
BUSYBOX = b"no program either"


class Archive:
    """A flat archive: packages and their index in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._index = directory / "Packages"

    def add(self, name: str, version: str, files: dict[str, bytes], depends: str = "") -> None:
        root = self.directory / f"{name}.build"
        for path, data in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
        (root / "DEBIAN").mkdir(parents=True)
        control = f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: Nobody <n@example.org>\n"
        control += f"Depends: {depends}\n" if depends else ""
        description = "Description: a package for tests\n"
        (root / "DEBIAN/control").write_text(control + description)
        deb = self.directory / f"{name}.deb"
        subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "-b", root, deb], check=True, capture_output=True)
        shutil.rmtree(root)
        data = deb.read_bytes()
        where = f"Filename: ./{deb.name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
        with self._index.open("a") as index:
            index.write(control + where + description + "\n")

    def forget(self) -> None:
        """Take everything out of the index."""
        self._index.write_text("")


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    """The one archive that apt knows of, empty; the host's own lists name no package at all."""
    if not all(shutil.which(program) for program in PROGRAMS):
        pytest.skip("not a Debian host")
    directory = tmp_path / "archive"
    lists = tmp_path / "host-lists"
    (lists / "partial").mkdir(parents=True)
    directory.mkdir()
    sources = tmp_path / "sources.list"
    sources.write_text(f"deb [trusted=yes] copy:{directory} ./\n")
    settings = tmp_path / "host-apt.conf"
    settings.write_text(
        f'Dir::Etc::sourcelist "{sources}";\n'
        'Dir::Etc::sourceparts "/dev/null";\n'
        f'Dir::State::Lists "{lists}";\n'
        f'Dir::Cache "{tmp_path}/host-cache";\n'
        'Dir::State::status "/dev/null";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(settings))
    made = Archive(directory)
    made.forget()
    return made


@pytest.fixture
def debian(archive: Archive) -> Archive:
    """The archive with what a guest is made of."""
    archive.add("linux-image-cloud-amd64", "9.9.9-1", {}, depends=f"{KERNEL_PACKAGE} (= 9.9.9-1), other | third")
    archive.add(KERNEL_PACKAGE, "9.9.9-1", {f"boot/vmlinuz-{KERNEL_PACKAGE}": IMAGE, "boot/config": b""})
    archive.add("busybox-static", "1:1.35.0-4", {"bin/busybox": BUSYBOX})
    return archive


@pytest.fixture
def no_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Leave this host without any program but the named ones."""

    def leave(*names: str) -> None:
        directory = tmp_path / "only-these"
        directory.mkdir()
        for name in names:
            (directory / name).symlink_to(shutil.which(name) or f"/nowhere/{name}")
        monkeypatch.setenv("PATH", str(directory))

    return leave
