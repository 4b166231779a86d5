"""Fetching from Debian, by the real apt-get, apt-cache and dpkg-deb from an archive on this disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dispatcher.errors import WorldError
from dispatcher.guest.debian import Packages, run

from .conftest import BUSYBOX, KERNEL_PACKAGE, Archive


@pytest.fixture
def packages(tmp_path: Path) -> Packages:
    scratch = tmp_path / "scratch with a space"
    scratch.mkdir()
    return Packages(scratch)


def test_the_package_behind_a_meta_package(debian: Archive, packages: Packages) -> None:
    packages.refresh()
    assert packages.dependency("linux-image-cloud-amd64", "linux-image-") == KERNEL_PACKAGE
    assert packages.dependency("linux-image-cloud-amd64", "third") == "third"


def test_a_package_unpacked(debian: Archive, packages: Packages) -> None:
    packages.refresh()
    root = packages.unpack("busybox-static")
    assert (root / "bin/busybox").read_bytes() == BUSYBOX
    assert packages.unpacked == ["busybox-static_1%3a1.35.0-4_amd64.deb"]


def test_lists_are_private(debian: Archive, packages: Packages, tmp_path: Path) -> None:
    packages.refresh()
    packages.unpack("busybox-static")
    assert list((tmp_path / "host-lists").iterdir()) == [tmp_path / "host-lists/partial"]
    assert not (tmp_path / "host-cache").exists()


def test_a_package_that_the_lists_lack(debian: Archive, packages: Packages) -> None:
    with pytest.raises(WorldError, match=r"`apt-get -q download busybox-static` failed with status 100: E: "):
        packages.unpack("busybox-static")


def test_a_version_that_the_archive_no_longer_has(debian: Archive, packages: Packages) -> None:
    packages.refresh()
    (debian.directory / "busybox-static.deb").unlink()
    with pytest.raises(WorldError, match=r"`apt-get -q download busybox-static` failed.*Failed to fetch"):
        packages.unpack("busybox-static")


def test_a_package_changed_on_its_way(debian: Archive, packages: Packages) -> None:
    packages.refresh()
    deb = debian.directory / "busybox-static.deb"
    deb.write_bytes(deb.read_bytes()[:-1] + b"?")
    with pytest.raises(WorldError, match=r"`apt-get -q download busybox-static` failed.*Failed to fetch"):
        packages.unpack("busybox-static")


def test_an_archive_that_cannot_be_reached(archive: Archive, packages: Packages) -> None:
    (archive.directory / "Packages").unlink()
    with pytest.raises(WorldError, match="`apt-get -q update` failed with status 100: E: ") as caught:
        packages.refresh()
    assert caught.value.hint == "the sources in /etc/apt must be Debian's, and reachable"


def test_a_meta_package_that_is_none(debian: Archive, packages: Packages) -> None:
    packages.refresh()
    with pytest.raises(WorldError, match=r"the package busybox-static depends on no linux-image-\*"):
        packages.dependency("busybox-static", "linux-image-")
    with pytest.raises(WorldError, match=r"the package linux-image-cloud-amd64 depends on no zlib\*"):
        packages.dependency("linux-image-cloud-amd64", "zlib")


def test_no_debian_host(no_programs: Callable[..., None], packages: Packages) -> None:
    no_programs()
    with pytest.raises(WorldError) as caught:
        packages.unpack("busybox-static")
    assert str(caught.value) == (
        "cannot run `apt-get -q download busybox-static`: there is no apt-get on this host\n"
        "  it comes with Debian's package apt; elsewhere, bring a kernel of your own"
    )


def test_a_file_that_is_no_package(archive: Archive, tmp_path: Path) -> None:
    broken = tmp_path / "broken.deb"
    broken.write_bytes(b"not one")
    with pytest.raises(WorldError, match=r"`dpkg-deb -x .*broken.deb .*` failed with status 2: dpkg-deb: error: "):
        run(["dpkg-deb", "-x", str(broken), str(tmp_path / "root")])


def test_a_program_that_may_not_be_run(tmp_path: Path) -> None:
    program = tmp_path / "apt-get"
    program.write_text("")
    with pytest.raises(WorldError, match=r"cannot run `.*apt-get`: Permission denied"):
        run([str(program)])


def test_a_program_that_fails_without_a_word() -> None:
    with pytest.raises(WorldError, match="`false` failed with status 1: it did not say why"):
        run(["false"])
