"""The shells' frames: what they write and what they believe, against the vectors and against the Python side.

One process a shell does a whole batch; it would take minutes to start one for each frame.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from frame_host import frames_settings
from script_harness import Device

from dispatcher.framing.lava import raw, text
from dispatcher.framing.reliable import (
    LETTERS,
    Down,
    Kind,
    decode_down,
    decode_message,
    decode_up,
    encode_down,
    encode_message,
    encode_up,
)

pytestmark = pytest.mark.slow

FRAMES = Path(__file__).parents[2] / "fixtures" / "frames"
COUNT = 5000 if os.environ.get("HYPOTHESIS_PROFILE") == "soak" else 300

# Defines the batch's commands over the library's functions, then runs the batch.
CODEC = r"""#!/bin/sh
LC_ALL=C
. "${0%"${0##*/}"}./lava-multi-node.lib"
exec 8>&1
_owed=0
up() {
	_id=$1
	_frame "$2" "$3" "$4"
	_say "$_last"
}
request() {
	_id=$1
	shift
	_compose "$@"
	_n=0
	while [ $((_n += 1)) -le $_parts ]; do _tell_part $_n; done
}
down() {
	_say "${1%????}-${1#????????}-4" >"$_proc/sys/kernel/random/uuid"
	_new_id
	_line=$2
	if _heard; then _say "$_id $_kind $_part $_of $_octal"; else _say damaged; fi
}
. "$1"
"""

ANY = bytes(set(range(1, 256)) - {ord("\n")})


def vectors(name: str) -> list[list[str]]:
    lines = (FRAMES / name).read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines if not line.startswith("# ")]


def quoted(word: bytes) -> bytes:
    return b"'" + word.replace(b"'", b"'\\''") + b"'"


Batch = Callable[..., list[bytes]]


@pytest.fixture
def batch(device: Device) -> Batch:
    """Runs commands in the device's shell; the lines they print."""

    def run(commands: Iterable[list[bytes]], **settings: str) -> list[bytes]:
        device.settings(**frames_settings(**settings))
        device.add("lava-codec", CODEC)
        (device.root / "proc/sys/kernel/random").mkdir(parents=True, exist_ok=True)
        lines = [b" ".join([command, *map(quoted, args)]) + b"\n" for command, *args in commands]
        (device.root / "batch").write_bytes(b"".join(lines))
        with (device.root / "out").open("wb") as out:
            env = {"LAVA_PROC": str(device.root / "proc")}
            call = device.start("lava-codec", str(device.root / "batch"), stdout=out, env=env)
            call.process.wait(COUNT)
            status = call.finish()
        assert (status, call.output) == (0, b"")
        return (device.root / "out").read_bytes().removesuffix(b"\n").split(b"\n")

    return run


def bytes_of(octal: bytes, device: Device) -> bytes:
    r"""The payload that the shell would print: \ooo each, in mksh \0ooo."""
    step = 5 if b"mksh" in raw(device.shell[0]) else 4
    assert len(octal) % step == 0
    return bytes(int(octal[start + 1 : start + step], 8) for start in range(0, len(octal), step))


def test_vectors_of_the_device(batch: Batch) -> None:
    rows = vectors("up.tsv")
    assert len(rows) > 10
    lines = batch([b"up", *map(raw, row[:4])] for row in rows)
    assert lines == [raw(row[4]) for row in rows]


def test_frames_of_a_run_begin_with_its_seed(batch: Batch) -> None:
    rows = vectors("up.tsv")
    for seed in ((0, 0), (65520, 65518), (32692, 7)):
        lines = batch([[b"up", *map(raw, row[:4])] for row in rows], SEED_A=str(seed[0]), SEED_B=str(seed[1]))
        for row, line in zip(rows, lines, strict=True):
            assert line + b"\n" == encode_up(row[0], int(row[1]), int(row[2]), raw(row[3]), seed)


def test_vectors_of_the_host(batch: Batch, device: Device) -> None:
    rows = vectors("down.tsv")
    assert {Kind[row[1]] for row in rows} == set(Kind)
    lines = batch([b"down", raw(row[0]), raw(row[5])] for row in rows)
    for row, line in zip(rows, lines, strict=True):
        request_id, kind, part, of, octal = line.split(b" ")
        assert (text(request_id), Kind(int(kind)).name, text(part), text(of)) == (row[0], *row[1:4])
        assert bytes_of(octal, device) == (b"" if row[4] == "-" else bytes.fromhex(row[4]))


def test_damaged_vectors_are_not_believed(batch: Batch) -> None:
    names = {raw(row[0]) for row in vectors("down.tsv")}
    rows = vectors("down-damaged.tsv")
    assert len(rows) > 5
    lines = batch([b"down", name, raw(row[1])] for row in rows for name in sorted(names))
    assert lines == [b"damaged"] * len(rows) * len(names)


def some_bytes(generator: random.Random, most: int) -> bytes:
    alphabet = generator.choice((ANY, b"abc=.-_ 09", b"%<> \x01\x7f\xff", b"-", b":?'\\\"$`*"))
    return bytes(generator.choices(alphabet, k=generator.randint(0, most)))


def test_random_requests_are_what_the_host_reads(batch: Batch) -> None:
    generator = random.Random(2)
    requests = [
        ("SEND", [text(some_bytes(generator, size)) for size in generator.choices((3, 9, 30, 500), (9, 9, 6, 1), k=3)])
        for _ in range(COUNT)
    ]
    # Around the length of a part, where a part could come out empty or too long.
    requests += [("SEND", ["i", "k=" + "v" * size + tail]) for size in range(130, 152) for tail in ("", " ", "\xff")]
    requests += [("SEND", ["-", "--", "-?", "", "k=\n"]), ("WAIT/t30/b/p", [":"])]
    names = [b"%012x" % generator.getrandbits(48) for _ in requests]
    lines = batch(
        [b"request", name, b"%20", raw(verb), *map(raw, args)]
        for name, (verb, args) in zip(names, requests, strict=True)
    )
    for name, (verb, args) in zip(names, requests, strict=True):
        parts = []
        while not parts or parts[-1].number < parts[-1].total:
            line = lines.pop(0)
            assert len(line) < 200
            frame = decode_up(line[1:-1])
            assert frame
            assert encode_up(frame.id, frame.number, frame.total, frame.text) == line + b"\n"
            assert (frame.id, frame.number) == (text(name), len(parts) + 1)
            parts.append(frame)
        joined = b"".join(part.text for part in parts)
        head, *options = verb.split("/")
        assert joined == encode_message(head, args, options)
        message = decode_message(joined)
        assert message
        assert (message.verb, list(message.args)) == (head, args)
    assert not lines


def test_a_signals_words_keep_their_blanks(batch: Batch) -> None:
    (line,) = batch([[b"request", b"0" * 12, b" ", b"SIGNAL", b"TESTCASE", b"TEST_CASE_ID=a%>  RESULT=pass"]])
    frame = decode_up(line[1:-1])
    assert frame
    assert frame.text == b"SIGNAL TESTCASE TEST_CASE_ID=a%25%3E  RESULT=pass"


def damaged(generator: random.Random, line: bytes) -> bytes:
    """A frame after what lines do to them, so that most are no frames any more."""
    data = bytearray(line)
    for _ in range(generator.randint(0, 3)):
        place = generator.randrange(len(data))
        match generator.randrange(5):
            case 0:
                data[place] ^= 1 << generator.randrange(7)
            case 1 if len(data) > 40:
                del data[place]
            case 2:
                data.insert(place, generator.choice(LETTERS.encode()))
            case 3:
                data[place : place + 2] = data[place : place + 2][::-1]
            case 4:
                other = generator.randrange(len(data))
                data[place], data[other] = data[other], data[place]
    return bytes(byte for byte in data if byte not in b"\0\n")


def test_random_frames_and_what_a_line_makes_of_them(batch: Batch, device: Device) -> None:
    generator = random.Random(3)
    cases = []
    for _ in range(COUNT):
        name = f"{generator.getrandbits(48):012x}"
        payload = generator.randbytes(generator.choice((0, 1, 9, 80)))
        frame = Down(
            name, Kind(generator.randrange(6)), generator.randrange(65536), generator.randrange(65536), payload
        )
        line = encode_down(frame).removesuffix(b"\n")
        cases.append((name, damaged(generator, line)))
        junk = generator.choice(
            (b"", b"root@x:~# ", b"#", b"\xff\x7f#ceij", encode_down(frame)[:20], b"#" + line[1:13])
        )
        cases.append((name, junk + line + generator.choice((b"", b"\r", b" # ls", b"#"))))
    lines = batch([b"down", raw(name), line] for name, line in cases)
    believed = 0
    for (name, line), said in zip(cases, lines, strict=True):
        # The device looks at its own id only: what stands behind the last of them.
        head = b"#" + encode_down(Down(name, Kind.GO))[1:13]
        found = decode_down(head + line.rpartition(head)[2]) if head in line else None
        believed += found is not None
        if found is None:
            assert said == b"damaged", line
            continue
        request_id, kind, part, of, octal = said.split(b" ")
        assert (text(request_id), int(kind), int(part), int(of)) == (found.id, found.kind, found.part, found.of)
        assert bytes_of(octal, device) == found.payload
    assert COUNT <= believed < COUNT * 1.5
