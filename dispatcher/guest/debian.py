"""Fetches single files out of Debian packages; nothing is installed into the host, and no root is needed.

The host's own package lists are asked first. Where they lack the package, or are so old that the archive no
longer has the version that they name, lists are fetched into a private directory and asked instead: that needs
nothing of the host but its ``sources.list``.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Final

from dispatcher.errors import WorldError

PROGRAMS: Final = {"apt-get": "apt", "apt-cache": "apt", "dpkg-deb": "dpkg"}
"""The programs that this needs, and the Debian package of each."""

SETTINGS: Final = """\
#clear APT::Architectures;
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
"""
"""apt.conf(5), read after the host's own. The hooks would act on the host. The sandbox's user could not write
below a private directory. A list that was not fetched counts as a failure."""


APT_HINT: Final = "the sources in /etc/apt must be Debian's, and reachable"


class Packages:
    """Debian's packages of one architecture, whatever the host's is.

    :param scratch: an empty directory of the caller's, for lists and downloads; the caller removes it.
    :param architecture: as Debian names it.
    :ivar unpacked: the file names of the packages that were unpacked, which tell their versions.
    """

    def __init__(self, scratch: Path, architecture: str = "amd64") -> None:
        self._scratch = scratch
        settings = scratch / "apt.conf"
        settings.write_text(SETTINGS.format(architecture=architecture))
        self._options = [f"-c={settings}"]
        self.unpacked: list[str] = []

    def refresh(self) -> None:
        """Fetch lists into the private directory, and ask those from now on."""
        lists, cache = self._scratch / "lists", self._scratch / "cache"
        for directory in (lists, cache):
            (directory / "partial").mkdir(parents=True, exist_ok=True)
        self._options += ["-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={cache}"]
        self._apt("apt-get", "-q", "update")

    def dependency(self, package: str, prefix: str) -> str:
        """Name the package with this prefix that a meta package depends on.

        :raises WorldError: there is no such package, or it depends on none.
        """
        shown = self._apt("apt-cache", "show", "--no-all-versions", package)
        depends = re.search(r"^Depends: (.*)$", shown, re.MULTILINE)
        names = re.findall(r"[^\s,|]+(?= *[,|(]|$)", depends[1]) if depends else []
        for name in names:
            if name.startswith(prefix):
                return str(name)
        raise WorldError(f"the package {package} depends on no {prefix}*")

    def unpack(self, package: str) -> Path:
        """Download a package's newest version and unpack its files.

        :returns: the directory that stands for ``/``.
        :raises WorldError: the download or the unpacking failed.
        """
        directory = self._scratch / f"package-{package}"
        directory.mkdir()
        self._apt("apt-get", "-q", "download", package, cwd=directory)
        archives = list(directory.glob("*.deb"))
        if len(archives) != 1:
            raise WorldError(f"`apt-get download {package}` left {len(archives)} packages, not one")
        root = directory / "root"
        run(["dpkg-deb", "-x", str(archives[0]), str(root)])
        self.unpacked.append(archives[0].name)
        return root

    def _apt(self, program: str, *arguments: str, cwd: Path | None = None) -> str:
        command = [program, *self._options, *arguments]
        return run(command, said=[program, *arguments], cwd=cwd, hint=APT_HINT)


def run(command: list[str], *, said: list[str] | None = None, cwd: Path | None = None, hint: str | None = None) -> str:
    """Run one of the packaging programs and return what it printed.

    :param said: the command as an error names it, where that is shorter.
    :param hint: what to do when it fails.
    :raises WorldError: the program is not on this host or failed; names the command and its own first complaint.
    """
    words = " ".join(said or command)
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError as error:
        raise WorldError(
            f"cannot run `{words}`: there is no {command[0]} on this host",
            hint=f"it comes with Debian's package {PROGRAMS[command[0]]}; elsewhere, bring a kernel of your own",
        ) from error
    except OSError as error:
        raise WorldError(f"cannot run `{words}`: {error.strerror}") from error
    if done.returncode != 0:
        complaint = _complaint(done.stderr)
        raise WorldError(f"`{words}` failed with status {done.returncode}: {complaint}", hint=hint)
    return done.stdout


def _complaint(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("E:", "dpkg-deb: error:"))]
    return (errors or lines or ["it did not say why"])[0]
