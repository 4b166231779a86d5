"""Putting files on a device: pieces that printf(1) puts together again, and what goes wrong."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest
from console_harness import BadLine, Hits, Noise, changed, lost, now, run, soon, started, without
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.console.install import _PIECE, TRIES, Entry, _word, cksum, install, pieces
from dispatcher.console.shell import LINE_LIMIT
from dispatcher.console.transport import Transport
from dispatcher.errors import ConsoleTimeout, InstallError

EVERYTHING = bytes(range(256)) + b"-%s %d '\"\\n-" + bytes(reversed(range(256)))


def put(directory: Path | str, files: dict[str, Entry], *console: Transport | str) -> None:
    async def test() -> None:
        async with started(*console) as shell:  # type: ignore[arg-type]
            await install(shell, str(directory), files, deadline=soon())
            assert (await shell.run("R=alive", deadline=soon())).value == "alive"

    run(test())


def refused(directory: Path | str, files: dict[str, Entry], *console: Transport | str) -> str:
    """Why files cannot be put there; the shell lives on."""

    async def test() -> str:
        async with started(*console) as shell:  # type: ignore[arg-type]
            with pytest.raises(InstallError) as raised:
                await install(shell, str(directory), files, deadline=soon())
            assert (await shell.run("R=alive", deadline=soon())).value == "alive"
            return str(raised.value)

    return run(test())


def test_what_is_there_whole_is_left_and_the_rest_put_there_again(tmp_path: Path) -> None:
    files = {name: Entry(name.encode() * 300, executable=True) for name in ("whole", "gone", "cut", "d/whole")}
    files["empty"] = Entry(b"")
    put(tmp_path, files)
    for name in "whole", "d/whole":
        os.utime(tmp_path / name, (1000, 1000))
    for name in "gone", "empty":
        (tmp_path / name).unlink()
    (tmp_path / "cut").write_bytes(b"")

    async def test() -> None:
        async with started() as shell:
            await install(shell, str(tmp_path), files, deadline=soon(), again=True)

    run(test())
    assert {name: (tmp_path / name).read_bytes() for name in files} == {n: e.content for n, e in files.items()}
    old = {name for name in files if (tmp_path / name).stat().st_mtime == 1000}
    assert old == {"whole", "d/whole"}
    assert all(os.access(tmp_path / name, os.X_OK) == entry.executable for name, entry in files.items())


# --- pieces ----------------------------------------------------------------------------------------------------

CONTENT = st.one_of(st.binary(max_size=400), st.text("-%\\'\"`$ #=\n\0a0", max_size=200).map(str.encode))


@pytest.fixture(scope="module")
def printf() -> object:
    """One dash that prints each format that it is given, as the loop does."""
    process = subprocess.Popen(
        ["dash", "-c", 'while IFS= read -r l;do printf "$l";printf "\\377\\376\\375";done'],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def print_all(formats: list[str]) -> bytes:
        process.stdin.write("".join(f"{each}\n" for each in formats).encode())
        process.stdin.flush()
        found = b""
        for _format in formats:
            part = b""
            while not part.endswith(b"\377\376\375"):
                part += process.stdout.read(1)
            found += part[:-3]
        return found

    yield print_all
    process.stdin.close()
    process.stdout.close()
    process.wait()


@given(content=CONTENT, limit=st.integers(4, 60))
def test_pieces_are_printed_as_what_they_were(printf, content: bytes, limit: int) -> None:  # type: ignore[no-untyped-def]
    cut = list(pieces(content.replace(b"\377\376\375", b""), limit))
    assert all(0 < len(piece) <= limit for piece in cut)
    assert all(piece.isascii() and piece.isprintable() and "'" not in piece for piece in cut)
    assert not any(piece.startswith("-") for piece in cut)
    assert printf(cut) == content.replace(b"\377\376\375", b"")


def test_pieces_fill_a_line_and_no_more() -> None:
    assert list(pieces(b"")) == []
    lengths = [len(piece) for piece in pieces(b"x" * 5000)]
    assert lengths[0] == _PIECE
    assert _PIECE + len("printf ''>>\"$F\"") <= LINE_LIMIT
    assert sum(lengths) == 5000


@given(content=st.binary(max_size=2000))
def test_the_checksum_is_that_of_posix(content: bytes) -> None:
    """Against the algorithm as POSIX spells it out, bit by bit."""
    crc, length = 0, len(content)
    tail = b""
    while length:
        tail, length = tail + bytes([length & 0xFF]), length >> 8
    for byte in content + tail:
        crc ^= byte << 24
        for _bit in range(8):
            crc = (crc << 1 ^ 0x04C11DB7 if crc & 1 << 31 else crc << 1) & 0xFFFFFFFF
    assert cksum(content) == f"{crc ^ 0xFFFFFFFF} {len(content)}"


def test_the_checksum_is_that_of_the_program() -> None:
    printed = subprocess.run(["cksum"], input=EVERYTHING, stdout=subprocess.PIPE, check=True).stdout
    assert printed.decode().split() == cksum(EVERYTHING).split()


@pytest.mark.parametrize("name", ["plain", "it's", 'a "b" $c `d`', "-n", "\u20ac", "a\tb", "\udcff", "%s\\", "a\nb"])
def test_a_path_is_one_word(name: str) -> None:
    word = _word(name)
    assert word.isascii()
    assert word.isprintable()
    printed = subprocess.run(["dash", "-c", f"printf %s {word}"], stdout=subprocess.PIPE, check=True).stdout
    assert printed == os.fsencode(name)


# --- files -----------------------------------------------------------------------------------------------------


def test_files_arrive_under_every_shell(shell_command: str, tmp_path: Path) -> None:
    files = {
        "run.sh": Entry(b"#!/bin/sh\necho 'it runs'\n", executable=True),
        "empty": Entry(b""),
        "bin/everything": Entry(EVERYTHING * 3),
        "a/b/c/deep": Entry(b"deep"),
        "odd/-n it's $HOME `\"\\ \u20ac\t": Entry(b"odd", executable=True),
    }
    put(tmp_path / "d", files, "sh", shell_command)
    for path, entry in files.items():
        assert (tmp_path / "d" / path).read_bytes() == entry.content
        assert bool((tmp_path / "d" / path).stat().st_mode & stat.S_IXUSR) is entry.executable
    assert subprocess.run([tmp_path / "d" / "run.sh"], stdout=subprocess.PIPE, check=True).stdout == b"it runs\n"
    found = [path for path in (tmp_path / "d").rglob("*") if path.is_file()]
    assert len(found) == len(files)


def test_every_user_of_a_device_can_read_what_is_not_private(shell_command: str, tmp_path: Path) -> None:
    """Tests make calls as others than root, whose umask is 077 on many a system."""
    files = {"bin/run": Entry(b"run", executable=True), "bin/lib": Entry(b"lib"), "own": Entry(b"own", private=True)}
    put(tmp_path / "d", files, "sh -c 'umask 077; exec sh -i'", shell_command)
    found = {str(path.relative_to(tmp_path)): path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert found == {"d": 0o755, "d/bin": 0o755, "d/bin/run": 0o755, "d/bin/lib": 0o644, "d/own": 0o600}


def test_what_was_there_before_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("of an earlier run, and longer")
    put(tmp_path, {"file": Entry(b"new")})
    assert (tmp_path / "file").read_bytes() == b"new"


def test_more_files_than_fit_a_line_arrive(tmp_path: Path) -> None:
    files = {f"{'long' * 20}-{number}/file-{number}": Entry(b"%d" % number, True) for number in range(30)}
    put(tmp_path, files)
    for path, entry in files.items():
        assert (tmp_path / path).read_bytes() == entry.content
        assert (tmp_path / path).stat().st_mode & stat.S_IXUSR


# --- a device without tools ------------------------------------------------------------------------------------


@pytest.fixture
def poor(tmp_path: Path) -> str:
    """A shell that finds nothing but mkdir and chmod."""
    bare = tmp_path / "bare-bin"
    bare.mkdir()
    for name in ("mkdir", "chmod"):
        (bare / name).symlink_to(f"/bin/{name}")
    return f"PATH={bare} /bin/sh"


def test_files_arrive_where_there_is_no_cksum(poor: str, tmp_path: Path) -> None:
    files = {"dir/everything": Entry(EVERYTHING * 3), "run.sh": Entry(b"#!/bin/sh\n", executable=True)}
    put(tmp_path / "d", files, "sh", poor)
    assert (tmp_path / "d/dir/everything").read_bytes() == EVERYTHING * 3
    assert (tmp_path / "d/run.sh").stat().st_mode & stat.S_IXUSR


# --- damage ----------------------------------------------------------------------------------------------------


PIECE = b"first of"
DAMAGE: dict[str, Noise] = {
    "lost": lost,
    "a byte": without(b"s"),
    "a changed byte": changed(b"first", b"fir5t"),
    "a changed byte that makes a directive": changed(b"first of", b"first %z"),
    "the sign of a piece": changed(b"=", b"5"),
    "its number": changed(b"#", b"#9"),
    "the number of the next": lambda line: b"#%d" % (int(line[1 : line.index(b" ")]) + 1) + line[line.index(b" ") :],
    "its length": changed(b"=", b"=1"),
}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("damage", "tools"),
    [*((damage, "all") for damage in DAMAGE), ("lost", "few"), ("a changed byte", "few"), ("its number", "few")],
)
def test_files_arrive_whole_over_a_bad_line(damage: str, tools: str, poor: str, tmp_path: Path) -> None:
    hits = Hits((PIECE, DAMAGE[damage]))
    files = {
        "a": Entry(b"touch /no/such;first of " + b"x" * 1000 + b" last"),
        "b": Entry(b"another"),
        "c": Entry(b""),
    }
    put(tmp_path / "d", files, BadLine("sh", typed=hits), poor if tools == "few" else "sh")
    assert not hits.left
    assert {path.name: path.read_bytes() for path in (tmp_path / "d").iterdir()} == {
        path: entry.content for path, entry in files.items()
    }


@pytest.mark.usefixtures("impatient")
def test_a_file_of_which_every_copy_was_damaged_arrives(tmp_path: Path) -> None:
    """On a line that flips one bit in 20,000 bytes no copy of a long file is whole."""
    content = b"first of " + b"x" * 1000
    hits = Hits(*[(PIECE, DAMAGE["a changed byte"])] * (2 * TRIES))
    put(tmp_path / "d", {"file": Entry(content)}, BadLine("sh", typed=hits))
    assert not hits.left
    assert (tmp_path / "d/file").read_bytes() == content


def test_a_line_that_always_damages_is_told(tmp_path: Path) -> None:
    noise = changed(b"content", b"c0ntent")
    message = refused(tmp_path, {"good": Entry(b"good"), "bad": Entry(b"content")}, BadLine("sh", typed=noise))
    assert message == (
        f"board: cannot write {tmp_path}/bad: it has not arrived whole in {TRIES} tries\n"
        "  is the console's line this bad?"
    )


def test_a_line_that_loses_everything_ends_at_the_deadline(tmp_path: Path) -> None:
    async def test() -> None:
        line = BadLine("sh")
        async with started(line) as shell:
            line._noise["typed"] = lost
            with pytest.raises(ConsoleTimeout, match=rf"it was to make {tmp_path}/d"):
                await install(shell, f"{tmp_path}/d", {"file": Entry(b"x")}, deadline=now() + 0.1)

    run(test())


# --- what the device refuses -----------------------------------------------------------------------------------


def test_a_directory_that_cannot_be_made_is_named_with_the_devices_reason() -> None:
    message = refused("/proc/no", {"file": Entry(b"x")})
    assert message.startswith("board: cannot make /proc/no: mkdir: ")
    assert "/proc/no" in message.partition("mkdir: ")[2]
    assert "\n  lava_test_results_dir in the device file" in message


def test_a_file_that_cannot_be_made_is_named_with_the_devices_reason(shell_command: str, tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    message = refused(tmp_path, {"file": Entry(b"x")}, "sh", shell_command)
    assert message.startswith(f"board: cannot write {tmp_path}/file: ")
    assert "irectory" in message


def test_a_full_disk_is_told(shell_command: str) -> None:
    message = refused("/dev", {"full": Entry(b"x" * 2000)}, "sh", shell_command)
    assert message.startswith("board: cannot write /dev/full: the device's shell could not write all of it")
    assert "is its file system full?" in message


def test_a_file_that_does_not_keep_what_is_written_is_told() -> None:
    assert refused("/dev", {"null": Entry(b"x")}).startswith("board: cannot write /dev/null: it has not arrived whole")
