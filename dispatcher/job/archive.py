"""Test definitions from a tarball at a URL: downloaded by this machine, and unpacked so that nothing in it can do harm.

Neither the server nor the archive is trusted: both are read up to a limit, and nothing is written before all of it has
been looked at. What is written then are plain files below a folder of ours.
"""

from __future__ import annotations

import bz2
import gzip
import http.client
import io
import lzma
import tarfile
import tempfile
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import unquote, urlsplit

from dispatcher.console.install import Entry
from dispatcher.errors import FileError
from dispatcher.job.origin import BYTES_LIMIT, FILES_LIMIT
from dispatcher.job.results import printable
from dispatcher.wording import quoted

SCHEMES: Final = ("http", "https", "file")

COMPRESSIONS: Final = ("bz2", "gz", "xz")
"""What ``compression`` may say. Which it is, the archive itself tells."""

ARCHIVE_LIMIT: Final = 2 * BYTES_LIMIT
"""Bytes of an archive, both as it is downloaded and with its compression undone."""

DOWNLOAD_TIMEOUT: Final = 300.0
"""Seconds that a download may take."""

_SILENCE: Final = 60.0
"""Seconds that a server may say nothing."""

_DEEPEST: Final = 100
_LONGEST: Final = 4096
_LINKS: Final = 40
"""Links that one path may lead through, as on Linux (path_resolution(7))."""

_XZ_MEMORY: Final = 128 * 1024 * 1024
_AT_ONCE: Final = 64 * 1024


def download(url: str, workdir: Path, where: str) -> Path:
    """Put what a tarball holds into a new folder below ``workdir``, and return that folder.

    :param url: its scheme is one of :data:`SCHEMES`.
    :param where: file and line that name it, for errors: unreachable, too large, too slow, not sound.
    """
    shown = quoted(url, 200)
    data = fetch(url, where)
    try:
        files = unpack(data)
    except _Unsound as error:
        raise FileError(f"{shown} cannot be unpacked: {error}", where=where) from error
    folder = Path(tempfile.mkdtemp(prefix="url-", dir=workdir))
    for path, entry in files.items():
        target = folder / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(entry.content)
            target.chmod(0o700 if entry.executable else 0o600)
        except OSError as error:
            what = f"{shown} cannot be unpacked: {quoted(path, 200)}: {error.strerror}"
            raise FileError(what, where=where) from error
    return folder


# --- downloading -------------------------------------------------------------------------------------------------


def fetch(url: str, where: str, timeout: float = DOWNLOAD_TIMEOUT) -> bytes:
    """What is at a URL. :raises FileError: it cannot be had, is too large, or takes longer than ``timeout`` seconds."""
    got: list[bytes | Exception] = []

    def work() -> None:
        try:
            got.append(_read(url, time.monotonic() + timeout))
        except Exception as error:  # it is told by who waits
            got.append(error)

    # A name server, or headers that trickle, cannot be given a deadline otherwise.
    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    worker.join(timeout)
    result = got[0] if got else TimeoutError(f"it took more than {timeout:g} s")
    if isinstance(result, bytes):
        return result
    if not isinstance(result, OSError | http.client.HTTPException | ValueError):
        raise result
    why = result.strerror if isinstance(result, OSError) and result.strerror else str(result)
    # The server may have chosen the words.
    raise FileError(f"{quoted(url, 200)} cannot be downloaded: {printable(why[:200])}", where=where) from result


def _read(url: str, deadline: float) -> bytes:
    parts = urlsplit(url)
    if parts.scheme == "file":
        if parts.netloc not in {"", "localhost"}:
            raise ValueError(f"it is a file of the host {quoted(parts.netloc)}")
        with Path(unquote(parts.path)).open("rb") as stream:
            return _limited(stream.read, deadline)
    try:
        with _opener().open(url, timeout=_SILENCE) as answer:
            data = _limited(answer.read1, deadline)
            if answer.length:
                raise ValueError("the server broke off")
            return data
    except urllib.error.HTTPError as error:
        error.close()
        raise ValueError(f"the server says {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise ValueError(str(getattr(error.reason, "strerror", None) or error.reason)) from error


def _opener() -> urllib.request.OpenerDirector:
    """Speaks HTTP alone: a server may send us elsewhere, and not to a file of this machine."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _limited(read: Callable[[int], bytes], deadline: float) -> bytes:
    data = bytearray()
    while piece := read(_AT_ONCE):
        data += piece
        if len(data) > ARCHIVE_LIMIT:
            raise ValueError(f"it is larger than {ARCHIVE_LIMIT // 1024**2} MiB")
        if time.monotonic() > deadline:
            raise ValueError("it took too long")
    return bytes(data)


# --- unpacking ---------------------------------------------------------------------------------------------------


class _Unsound(Exception):
    """Why an archive will not do, one line."""


def unpack(data: bytes) -> dict[str, Entry]:
    """Every regular file of a tarball by its path, links that stay inside of it followed. ``.git`` is left out.

    :raises _Unsound: it is none, holds too much, or something that leads out of it.
    """
    tree = _Tree()
    try:
        with tarfile.open(fileobj=io.BytesIO(_uncompressed(data)), mode="r:") as archive:
            for member in archive:
                _add(tree, archive, member)
    except _Unsound:
        raise
    except Exception as error:  # tarfile lets through what its parts raise: IndexError, RecursionError …
        raise _Unsound(f"it is no tar archive: {error}") from error
    return dict(tree.files())


def _uncompressed(data: bytes) -> bytes:
    try:
        if data.startswith(b"\x1f\x8b"):
            plain = gzip.GzipFile(fileobj=io.BytesIO(data)).read(ARCHIVE_LIMIT + 1)
        elif data.startswith(b"BZh"):
            plain = bz2.BZ2File(io.BytesIO(data)).read(ARCHIVE_LIMIT + 1)
        elif data.startswith(b"\xfd7zXZ\0"):
            decompressor = lzma.LZMADecompressor(memlimit=_XZ_MEMORY)
            plain = decompressor.decompress(data, ARCHIVE_LIMIT + 1)
            if not decompressor.eof and len(plain) <= ARCHIVE_LIMIT:
                raise EOFError("it breaks off")
        else:
            plain = data
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise _Unsound(f"its compression is damaged: {error}") from error
    if len(plain) > ARCHIVE_LIMIT:
        raise _Unsound(f"it holds more than {ARCHIVE_LIMIT // 1024**2} MiB")
    return plain


def _add(tree: _Tree, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    tree.count()  # first: a damaged archive may repeat itself for ever
    path = _inside(PurePosixPath(), member.name)
    if ".git" in path.parts:
        return
    if member.isdir():
        tree.directory(path)
    elif member.issym():
        tree.links[tree.free(path)] = _inside(path.parent, member.linkname)
    elif member.islnk():
        tree.links[tree.free(path)] = _inside(PurePosixPath(), member.linkname)
    elif member.isreg():
        tree.weigh(member.size, path)
        stream = archive.extractfile(member)
        tree.plain[tree.free(path)] = Entry(stream.read() if stream else b"", executable=bool(member.mode & 0o100))
    else:
        raise _Unsound(f"{quoted(str(path))} is neither a file nor a directory nor a link")


def _inside(folder: PurePosixPath, name: str) -> PurePosixPath:
    """A path of the archive, which must not lead out of it."""
    if len(name) > _LONGEST or name.count("/") > _DEEPEST:
        raise _Unsound(f"the path {quoted(name)} is too long")
    if not name.isprintable():
        raise _Unsound(f"the file name {quoted(name)} cannot be sent to a device")
    if name.startswith("/"):
        raise _Unsound(f"{quoted(name)} is an absolute path")
    parts = list(folder.parts)
    for part in PurePosixPath(name).parts:
        if part != "..":
            parts.append(part)
        elif parts:
            parts.pop()
        else:
            raise _Unsound(f"{quoted(name)} leads out of it")
    return PurePosixPath(*parts)


@dataclass(slots=True)
class _Tree:
    """What an archive holds, by path from its top. What stands twice is the last one's, as when tar unpacks it."""

    plain: dict[PurePosixPath, Entry] = field(default_factory=dict)
    links: dict[PurePosixPath, PurePosixPath] = field(default_factory=dict)
    directories: dict[PurePosixPath, dict[str, None]] = field(default_factory=lambda: {PurePosixPath(): {}})
    """Each with the names that stand in it, in their order."""
    _count: int = 0
    _bytes: int = 0

    def count(self) -> None:
        self._count += 1
        if self._count > FILES_LIMIT:
            raise _Unsound(f"it holds more than {FILES_LIMIT} files and directories")

    def weigh(self, size: int, path: PurePosixPath) -> None:
        if size < 0:
            raise _Unsound(f"{quoted(str(path))} has a negative size")
        self._bytes += size
        if self._bytes > BYTES_LIMIT:
            raise _Unsound(f"it holds more than {BYTES_LIMIT // 1024**2} MiB with {quoted(str(path))}")

    def directory(self, path: PurePosixPath) -> None:
        if path in self.plain or path in self.links:
            raise _Unsound(f"{quoted(str(path))} is a directory, and something else")
        if path not in self.directories:
            self.directory(path.parent)
            self.directories[path] = {}
            self.directories[path.parent][path.name] = None

    def free(self, path: PurePosixPath) -> PurePosixPath:
        """A path at which a file or a link is to stand, in a directory."""
        if path in self.directories:
            raise _Unsound(f"{quoted(str(path))} is a directory, and something else")
        self.directory(path.parent)
        self.directories[path.parent][path.name] = None
        self.plain.pop(path, None)
        self.links.pop(path, None)
        return path

    def files(self) -> Iterator[tuple[str, Entry]]:
        """The files with every link followed; what links name is counted again, since it is sent again."""
        self._count = self._bytes = 0
        yield from self._below(PurePosixPath(), PurePosixPath(), ())

    def _below(
        self, real: PurePosixPath, shown: PurePosixPath, above: tuple[PurePosixPath, ...]
    ) -> Iterator[tuple[str, Entry]]:
        for name in self.directories[real]:
            self.count()
            path = shown / name
            target = self._resolved(real / name)
            if target in self.plain:
                self.weigh(len(self.plain[target].content), path)
                yield str(path), self.plain[target]
            elif target in (*above, real):
                raise _Unsound(f"the link {quoted(str(path))} leads to a folder that it stands in")
            elif target in self.directories and len(above) < _DEEPEST:
                yield from self._below(target, path, (*above, real))
            else:
                where = "too deep" if target in self.directories else "nowhere"
                raise _Unsound(f"the link {quoted(str(path))} leads {where}")

    def _resolved(self, path: PurePosixPath) -> PurePosixPath:
        """Where a path leads, through links on its way too."""
        followed = 0
        done = PurePosixPath()
        pending = list(path.parts)
        while pending:
            step = done / pending.pop(0)
            if step not in self.links:
                done = step
                continue
            followed += 1
            if followed > _LINKS:
                raise _Unsound(f"the link {quoted(str(path))} leads to itself, or through more than {_LINKS} links")
            done, pending = PurePosixPath(), [*self.links[step].parts, *pending]
        return done
