"""Where the files of a test definition come from: a folder, or a git repository that is cloned into one."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from dispatcher.console.install import Entry
from dispatcher.errors import FileError
from dispatcher.wording import quoted

BYTES_LIMIT: Final = 4 * 1024 * 1024
"""All files of one definition. They travel over a console: at 115200 baud this much takes six minutes."""

FILES_LIMIT: Final = 1000
"""Files and directories of one definition."""

CLONE_TIMEOUT: Final = 300.0
"""Seconds that one git command may take."""

_OUTER_GIT = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_PREFIX")
"""Variables that git sets for its hooks. They would turn a clone into a change of the repository outside."""


def read_folder(folder: Path, where: str) -> dict[str, Entry]:
    """Every regular file below a folder, by its path within it. ``.git`` is left out.

    :param where: file and line that name the folder, for errors: too many, too large, a link that leads outside.
    """
    files: dict[str, Entry] = {}
    total = 0
    for path in _walk(folder, where):
        inside = str(path.relative_to(folder))
        try:
            info = path.stat()
            total += info.st_size
            if total > BYTES_LIMIT:
                raise _too_much(f"more than {BYTES_LIMIT // 1024**2} MiB with {quoted(inside)}", folder, where)
            with path.open("rb") as stream:
                content = stream.read(BYTES_LIMIT)
        except OSError as error:
            raise FileError(f"{quoted(str(path), 200)} cannot be read: {error.strerror}", where=where) from error
        files[inside] = Entry(content, executable=bool(info.st_mode & 0o100))
    return files


def _walk(folder: Path, where: str) -> Iterator[Path]:
    """The regular files below a folder, in order of their names, links that stay inside of it followed."""
    root = folder.resolve()
    count = 0
    pending = [folder]
    while pending:
        try:
            entries = sorted(pending.pop().iterdir(), key=lambda entry: entry.name)
        except OSError as error:
            raise FileError(f"{quoted(str(folder), 200)} cannot be read: {error.strerror}", where=where) from error
        for entry in entries:
            if entry.name == ".git":
                continue
            count += 1
            if count > FILES_LIMIT:
                raise _too_much(f"more than {FILES_LIMIT} files and directories", folder, where)
            if not entry.name.isprintable():
                raise FileError(f"the file name {quoted(entry.name)} cannot be sent to a device", where=where)
            if entry.is_symlink():
                _check_link(entry, root, where)
            if entry.is_dir():
                pending.append(entry)
            elif entry.is_file():
                yield entry


def _check_link(link: Path, root: Path, where: str) -> None:
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: pathlib's word for a loop before Python 3.13
        raise FileError(f"the link {quoted(str(link), 200)} leads nowhere", where=where) from error
    if not target.is_relative_to(root):
        what = f"the link {quoted(str(link), 200)} leads out of {quoted(str(root), 200)}"
        raise FileError(what, where=where, hint="copy the file, or remove the link")
    if link.parent.resolve().is_relative_to(target):
        raise FileError(f"the link {quoted(str(link), 200)} leads to a folder that it stands in", where=where)


def _too_much(what: str, folder: Path, where: str) -> FileError:
    hint = "everything below that folder goes to the device; give the test definition a folder of its own"
    return FileError(f"{quoted(str(folder), 200)} holds {what}", where=where, hint=hint)


def clone(repository: str, branch: str | None, revision: str | None, workdir: Path, where: str) -> Path:
    """Clones a repository into a new folder below ``workdir`` and returns that folder.

    :param revision: checked out where given; only then the whole history is fetched.
    :param where: file and line that name the repository, for errors: no git, git's own complaint, too slow.
    """
    folder = Path(tempfile.mkdtemp(prefix="git-", dir=workdir))
    command = ["git", "clone", "--quiet"]
    command += [f"--branch={branch}"] if branch else []
    command += [] if revision else ["--depth=1"]
    _git([*command, "--", repository, str(folder)], f"{quoted(repository, 200)} cannot be cloned", where)
    if revision:
        what = f"{quoted(repository, 200)} has no revision {quoted(revision)}"
        _git(["git", "-C", str(folder), "checkout", "--quiet", "--detach", revision, "--"], what, where)
    return folder


def _git(command: list[str], failed: str, where: str) -> None:
    """Runs git in a session of its own, so that it can neither ask on the user's terminal nor outlive us."""
    environment = {name: value for name, value in os.environ.items() if name not in _OUTER_GIT}
    environment["GIT_TERMINAL_PROMPT"] = "0"
    try:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        hint = "install git, or clone the repository yourself and use 'from: file'"
        raise FileError(f"git cannot be started: {error.strerror}", where=where, hint=hint) from error
    try:
        output, _ = process.communicate(timeout=CLONE_TIMEOUT)
    except subprocess.TimeoutExpired as error:
        raise FileError(f"{failed}: git took more than {CLONE_TIMEOUT:g} s", where=where) from error
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    if process.returncode:
        raise FileError(failed, where=where, hint=_last_line(output))


def _last_line(output: bytes) -> str | None:
    lines = [line for line in output.decode(errors="replace").splitlines() if line.strip()]
    blamed = [line for line in lines if line.startswith(("fatal:", "error:"))] or lines
    return "".join(char if char.isprintable() else "?" for char in blamed[-1].strip())[:300] if blamed else None
