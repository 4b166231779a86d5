"""``from: url``: tarballs from a server that is not trusted either."""

from __future__ import annotations

import contextlib
import io
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from jobtext import entry, load, put, refused

from dispatcher.console.install import Entry
from dispatcher.errors import FileError
from dispatcher.job.archive import ARCHIVE_LIMIT, _Unsound, fetch, unpack
from dispatcher.job.origin import BYTES_LIMIT, FILES_LIMIT
from dispatcher.job.testdef import Definition, resolve
from dispatcher.job.yamlfile import Skipped

Item = tuple[str, bytes | str, str]
"""A path, its content or where it leads, and its kind: a file, a program, a directory, a link, or something else."""

KINDS = {
    "file": tarfile.REGTYPE,
    "program": tarfile.REGTYPE,
    "dir": tarfile.DIRTYPE,
    "link": tarfile.SYMTYPE,
    "hard": tarfile.LNKTYPE,
    "fifo": tarfile.FIFOTYPE,
    "device": tarfile.CHRTYPE,
}

TESTDEF = b"metadata: {name: of the archive}\nrun: {steps: [./x.sh]}\n"


def packed(*items: Item, mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content, kind in items:
            info = tarfile.TarInfo(name)
            info.type = KINDS[kind]
            info.mode = 0o755 if kind == "program" else 0o644
            data = content if isinstance(content, bytes) else b""
            info.size = len(data)
            info.linkname = content if isinstance(content, str) else ""
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def file(name: str, content: bytes = b"x") -> Item:
    return name, content, "file"


def link(name: str, target: str) -> Item:
    return name, target, "link"


# --- unpacking ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_files_are_unpacked_however_they_are_packed(mode: str) -> None:
    data = packed(("./", "", "dir"), file("./a"), ("./b/c", b"run", "program"), file("b/.git/x"), mode=mode)
    assert unpack(data) == {"a": Entry(b"x"), "b/c": Entry(b"run", executable=True)}


def test_links_are_followed_inside() -> None:
    data = packed(
        file("d/one", b"1"),
        link("d/two", "one"),
        link("e", "d"),
        link("f/g", "../e/two"),
        ("hard", "d/one", "hard"),
        file("late", b"old"),
        file("late", b"new"),
    )
    contents = {path: each.content for path, each in unpack(data).items()}
    assert contents == {
        "d/one": b"1",
        "d/two": b"1",
        "e/one": b"1",
        "e/two": b"1",
        "f/g": b"1",
        "hard": b"1",
        "late": b"new",
    }


def raw(name: str, kind: bytes, numbers: dict[int, int]) -> bytes:
    """A header with numbers at some offsets, in GNU's notation of big and negative ones."""
    info = tarfile.TarInfo(name)
    info.type = kind
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    for offset, number in numbers.items():
        header[offset : offset + 12] = tarfile.itn(number, 12, tarfile.GNU_FORMAT)  # type: ignore[attr-defined]
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


CHAIN = packed(*(link(f"l{n}", f"l{n + 1}/" + "/".join("x" * 90)) for n in range(900)))
DEEP = "/".join(["d"] * 200)
BOMB = packed(file("zeros", bytes(ARCHIVE_LIMIT)))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (packed(file("/etc/passwd")), "'/etc/passwd' is an absolute path"),
        (packed(file("a/../../x")), "'a/../../x' leads out of it"),
        (packed(link("a/b", "../../x")), "'../../x' leads out of it"),
        (packed(link("a", "/etc/passwd")), "'/etc/passwd' is an absolute path"),
        (packed(("a", "../x", "hard")), "'../x' leads out of it"),
        (packed(link("a", "b")), "the link 'a' leads nowhere"),
        (packed(link("a", "b"), link("b", "a")), "the link 'a' leads to itself"),
        (packed(file("d/x"), link("d/e", "../d")), "the link 'd/e' leads to a folder that it stands in"),
        (packed(link("d", "/tmp"), file("d/x")), "'/tmp' is an absolute path"),
        (packed(link("d", "e"), file("d/x")), "'d' is a directory, and something else"),
        (packed(file("d/x"), file("d")), "'d' is a directory, and something else"),
        (packed(file("."), file("x")), "'.' is a directory, and something else"),
        (packed(("a", "", "fifo")), "'a' is neither a file nor a directory nor a link"),
        (packed(("a", "", "device")), "'a' is neither a file nor a directory nor a link"),
        (packed(file("a\x1bb")), "the file name 'a\\x1bb' cannot be sent to a device"),
        (packed(file(DEEP)), "the path 'd/d/d"),
        (packed(*(file(f"f{n}") for n in range(FILES_LIMIT + 1))), "it holds more than 1000 files and directories"),
        (packed(file("big", bytes(BYTES_LIMIT + 1))), "it holds more than 4 MiB with 'big'"),
        (packed(file("d/x", bytes(BYTES_LIMIT // 2)), link("e", "d"), link("f", "d")), "it holds more than 4 MiB with"),
        (BOMB, "it holds more than 8 MiB"),
        (BOMB[:-100], "its compression is damaged: "),
        (packed(file("a"), mode="w:xz")[:-40], "its compression is damaged: "),
        (packed(file("a"), mode="w")[:600], "it is no tar archive: "),
        (b"<html>", "it is no tar archive: "),
        (b"", "it is no tar archive: "),
        (raw("a", tarfile.GNUTYPE_SPARSE, {483: -(10**12)}), "'a' has a negative size"),
        (raw("a", tarfile.GNUTYPE_SPARSE, {482: 1}), "it is no tar archive: "),
        (raw("a", tarfile.GNUTYPE_LONGNAME, {}) * 2000, "it is no tar archive: "),
        (CHAIN, "the link 'l0' leads to itself, or through more than 40 links"),
    ],
    ids=map(str, range(29)),  # not of the archives, which hold the time
)
def test_an_archive_that_will_not_do(data: bytes, why: str) -> None:
    with pytest.raises(_Unsound) as caught:
        unpack(data)
    assert str(caught.value)[: len(why)] == why


def test_links_do_not_multiply() -> None:
    floors = [link(f"d{n}/{side}", f"../d{n + 1}") for n in range(60) for side in "ab"]
    with pytest.raises(_Unsound, match="more than 1000 files"):
        unpack(packed(*floors, file("d60/x")))


# --- downloading -------------------------------------------------------------------------------------------------


class Server:
    """Answers GET with what a test says of a path; ``held`` is a path that is not answered while the test runs."""

    def __init__(self) -> None:
        self.answers: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}
        self.over = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answers[self.path](self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def serve(self, path: str, body: bytes, status: int = 200, *, missing: int = 0, to: str = "") -> str:
        def answer(request: BaseHTTPRequestHandler) -> None:
            request.send_response(status)
            request.send_header("Content-Length", str(len(body) + missing))
            request.send_header("Location", to)
            request.end_headers()
            with contextlib.suppress(ConnectionError):  # who has read enough hangs up
                request.wfile.write(body)

        self.answers[path] = answer
        return self.url + path

    def close(self) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    server = Server()
    yield server
    server.close()


def test_a_file_is_fetched_over_http_and_from_here(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a b").write_bytes(b"here")
    there = server.serve("/there", b"there")
    server.serve("/moved", b"", 302, to=there)
    assert fetch(there, "job.yaml:1") == fetch(f"{server.url}/moved", "job.yaml:1") == b"there"
    assert fetch((tmp_path / "a b").as_uri(), "job.yaml:1") == b"here"


def test_what_cannot_be_fetched_is_told_with_its_line(server: Server, tmp_path: Path) -> None:
    def why(url: str, timeout: float = 60.0) -> str:
        with pytest.raises(FileError) as caught:
            fetch(url, "job.yaml:7", timeout)
        assert caught.value.where == "job.yaml:7"
        begin, _, reason = caught.value.what.partition(" cannot be downloaded: ")
        assert begin == repr(url)
        return reason

    secret = tmp_path / "secret"
    secret.write_bytes(b"x")
    server.answers["/held"] = lambda _request: server.over.wait() and None
    assert why(server.serve("/gone", b"", 404)) == "the server says 404 Not Found"
    server.answers["/rude"] = lambda request: request.send_error(404, "\x1b[31m" + "x" * 1000)
    assert why(f"{server.url}/rude").startswith("the server says 404 \\x1b[31mxxx")
    assert len(why(f"{server.url}/rude")) < 250
    assert "file" in why(server.serve("/moved", b"", 302, to=secret.as_uri()))
    assert why(server.serve("/loop", b"", 302, to="/loop")).startswith("the server says 302 ")
    assert why(server.serve("/large", bytes(ARCHIVE_LIMIT + 1))) == "it is larger than 8 MiB"
    assert why(server.serve("/short", b"abc", missing=2)) == "the server broke off"
    assert why(f"{server.url}/held", 0.1) == "it took more than 0.1 s"
    assert why((tmp_path / "none").as_uri()) == "No such file or directory"
    assert why("file://elsewhere/x") == "it is a file of the host 'elsewhere'"
    assert why("http://[/x") == "Invalid IPv6 URL"


# --- definitions -------------------------------------------------------------------------------------------------


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def from_url(url: str, *more: str) -> str:
    return entry("\n".join(["from: url", "name: x", f"repository: {url}", "path: t/x.yaml", "compression: gz", *more]))


def resolved(text: str) -> Definition:
    definition = load(text)
    assert not definition.resolved
    Path("work").mkdir()
    return resolve(definition, Path("work"), Skipped())


def test_a_definition_from_a_tarball(in_folder: Path) -> None:
    put("x.tar.gz", packed(file("t/x.yaml", TESTDEF), ("x.sh", b"#!/bin/sh\n", "program"), link("y.sh", "x.sh")))
    definition = resolved(from_url((in_folder / "x.tar.gz").as_uri()))
    assert definition.resolved
    assert (definition.steps, definition.metadata_name) == (("./x.sh",), "of the archive")
    program = Entry(b"#!/bin/sh\n", executable=True)
    assert definition.files == {"t/x.yaml": Entry(TESTDEF), "x.sh": program, "y.sh": program}


def test_a_tarball_that_is_not_sound(in_folder: Path) -> None:
    put("x.tar.gz", packed(file("t/y.yaml", TESTDEF)))
    url = (in_folder / "x.tar.gz").as_uri()
    with pytest.raises(FileError) as caught:
        resolved(from_url(url))
    assert (caught.value.where, caught.value.what[:9]) == ("job.yaml:7", "'t/x.yaml")
    put("x.tar.gz", packed(file("../x")))
    with pytest.raises(FileError) as caught:
        resolve(load(from_url(url)), Path("work"), Skipped())
    assert (caught.value.where, caught.value.what) == (
        "job.yaml:7",
        f"{url!r} cannot be unpacked: '../x' leads out of it",
    )


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        (from_url("tests/x.tar.gz"), 9, "'repository' of a definition 'from: url' is the URL of a tarball, not"),
        (from_url("ftp://h/x.tar.gz"), 9, "'repository' of a definition 'from: url' is the URL of a tarball, not"),
        (from_url("http://h/x").replace("compression: gz", "compression: zstd"), 11, "an archive with the compression"),
        (from_url("http://h/x", "branch: main"), 12, "'branch' has no meaning in a definition 'from: url'"),
        (from_url("http://h/x").replace("path: t/", "path: ../"), 10, "'path' must stay within the repository"),
    ],
)
def test_a_bad_entry_is_told_with_its_line(text: str, line: int, what: str, in_folder: Path) -> None:
    error = refused(text)
    assert (error.where, error.what[: len(what)]) == (f"job.yaml:{line}", what)
