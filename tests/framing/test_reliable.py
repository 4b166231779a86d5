"""Framing 2's frames: the vectors that the shells read too, and damage of every kind."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.framing import grammar, reliable
from dispatcher.framing.events import Damage
from dispatcher.framing.reliable import (
    LETTERS,
    Down,
    Kind,
    Up,
    UpDecoder,
    answer_frames,
    decode_down,
    decode_message,
    decode_up,
    encode_down,
    encode_message,
    encode_up,
    parts_up,
)

FRAMES = Path(__file__).parents[2] / "fixtures" / "frames"
CORRUPTIONS = int(os.environ.get("MULTINODE_CORRUPTIONS", "20000"))


def vectors(name: str) -> list[list[str]]:
    lines = (FRAMES / name).read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines if not line.startswith("# ")]


def decode(data: bytes, size: int | None = None) -> list[Up | Damage]:
    decoder = UpDecoder()
    size = size or max(1, len(data))
    events = [event for start in range(0, len(data), size) for event in decoder.feed(data[start : start + size])]
    return events + decoder.finish()


@pytest.mark.parametrize(("request_id", "number", "total", "text", "frame"), vectors("up.tsv"))
def test_vectors_to_the_host(request_id: str, number: str, total: str, text: str, frame: str) -> None:
    assert encode_up(request_id, int(number), int(total), text.encode()) == frame.encode() + b"\n"
    expected = Up(request_id, int(number), int(total), text.encode(), offset=3)
    for size in (None, 1, 7):
        assert decode(b"# \t" + frame.encode() + b"\r\n$ ", size) == [expected]


@given(st.tuples(st.integers(0, 65520), st.integers(0, 65518)), st.binary(min_size=1, max_size=150))
def test_a_frame_has_the_seed_that_it_was_made_with(seed: tuple[int, int], noise: bytes) -> None:
    text = bytes(32 + byte % 28 for byte in noise)
    content = encode_up("0123456789ab", 1, 1, text, seed)[1:-2]
    for seeds in (None, {seed}):
        found = decode_up(content, seeds=seeds)
        assert found == Up("0123456789ab", 1, 1, text, seed=seed)
    assert decode_up(content, seeds={(seed[0] ^ 1, seed[1]), (seed[0], seed[1] ^ 1)}) is None


def test_sums_that_no_seed_gives_are_damage() -> None:
    content = encode_up("0123456789ab", 1, 1, b"WAIT a", (5, 7))[1:-2]
    body, _blank, given = content.rpartition(b" ")
    first, second = map(int, given.split(b"."))
    for more in ((65521, 0), (0, 65519)):
        assert decode_up(b"%s %d.%d" % (body, first + more[0], second + more[1]), seeds=None) is None


@pytest.mark.parametrize(("what", "frame"), vectors("up-damaged.tsv"))
def test_damaged_vectors_to_the_host(what: str, frame: str) -> None:
    events = decode(frame.encode() + b"\r\n", 5)
    assert [type(event) for event in events] == [Damage], what


@pytest.mark.parametrize(("request_id", "kind", "part", "of", "payload", "frame"), vectors("down.tsv"))
def test_vectors_to_the_device(request_id: str, kind: str, part: str, of: str, payload: str, frame: str) -> None:
    data = b"" if payload == "-" else bytes.fromhex(payload)
    down = Down(request_id, Kind[kind], int(part), int(of), data)
    assert encode_down(down) == frame.encode() + b"\n"
    assert decode_down(b"\x00x" + frame.encode()) == down


@pytest.mark.parametrize(("what", "frame"), vectors("down-damaged.tsv"))
def test_damaged_vectors_to_the_device(what: str, frame: str) -> None:
    assert decode_down(frame.encode()) is None, what


# --- messages ----------------------------------------------------------------------------------------------------

anything = st.binary(max_size=300).map(lambda data: reliable.text(data.replace(b"\0", b"").replace(b"\n", b"")))


@given(st.lists(anything, max_size=5), st.lists(st.sampled_from(["b", "p", "t30", "t0.5"]), max_size=3, unique=True))
def test_any_message_arrives_as_it_was(args: list[str], options: list[str]) -> None:
    message = encode_message("SEND", args, options)
    parts = parts_up(message)
    stream = b"".join(encode_up("0123456789ab", n, len(parts), part) for n, part in enumerate(parts, 1))
    assert max(len(line) for line in stream.splitlines(keepends=True)) <= grammar.FRAME_LIMIT
    frames = decode(stream.replace(b"\n", b"\r\n"), 13)
    joined = b"".join(frame.text for frame in frames if isinstance(frame, Up))
    decoded = decode_message(joined)
    assert decoded is not None
    assert (decoded.verb, decoded.args) == ("SEND", tuple(args))
    assert decoded.options == {option[0]: option[1:] for option in options}


@given(st.binary(max_size=1000))
def test_any_answer_arrives_as_it_was(content: bytes) -> None:
    frames = answer_frames("0123456789ab", Kind.DATA, content)
    typed = [encode_down(frame) for frame in frames]
    assert max(map(len, typed)) <= grammar.FRAME_LIMIT
    assert b"".join(frame.payload for frame in map(decode_down, typed) if frame) == content


@pytest.mark.parametrize(
    "text", [b"", b"send x", b"SEND%", b"SEND a%2", b"SEND a%zz", b"+NEXT\x80", b"SEND/ x", b"1 x"]
)
def test_what_is_no_message(text: bytes) -> None:
    assert decode_message(text) is None


# --- the letters -------------------------------------------------------------------------------------------------

TTY_ACTS_ON = {0x03, 0x04, 0x08, 0x0A, 0x0D, 0x0F, 0x11, 0x12, 0x13, 0x15, 0x16, 0x17, 0x1A, 0x1C, 0x7F}


@pytest.mark.parametrize("letter", LETTERS)
def test_no_flipped_bit_of_a_letter_means_anything(letter: str) -> None:
    flipped = {ord(letter) ^ 1 << bit for bit in range(8)}
    assert not flipped & (TTY_ACTS_ON | set(b"\"'$`;|&<>\\"))


def test_the_letters_are_sixteen() -> None:
    assert len(set(LETTERS)) == 16


# --- damage ------------------------------------------------------------------------------------------------------


def frames_for(generator: random.Random) -> bytes:
    words = [
        "".join(generator.choices("abc019=-.%/", k=generator.randrange(1, 30))) for _ in range(generator.randrange(4))
    ]
    verb = generator.choice(["SEND", "WAIT", "SYNC", "SIGNAL"])
    request = f"{generator.getrandbits(48):012x}"
    return encode_up(request, 1, 1, encode_message(verb, ["id", *words])[:150])[1:-2]


def corrupt(frame: bytes, other: bytes, generator: random.Random) -> bytes:
    data = bytearray(frame)
    kind = generator.randrange(6)
    place = generator.randrange(len(data))
    if kind == 0:
        for _ in range(generator.randrange(1, 4)):
            data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    elif kind == 1:
        del data[place : place + generator.randrange(1, 4)]
    elif kind == 2:
        for index in range(place, min(len(data), place + generator.randrange(2, 9))):
            data[index] = generator.randrange(0x20, 0x7F)
    elif kind == 3:
        width, second = generator.randrange(1, 5), generator.randrange(len(data))
        data[place : place + width], data[second : second + width] = (
            data[second : second + width],
            data[place : place + width],
        )
    elif kind == 4:
        data[place:] = other[generator.randrange(len(other)) :]
    else:
        data[place:] = other[place:]
    return bytes(data)


def test_no_random_corruption_passes() -> None:
    """Bursts, flips, losses, swaps and splices of two frames; ``make soak`` tries ten million."""
    generator = random.Random(os.environ.get("MULTINODE_SEED", "1"))
    frame, other = frames_for(generator), frames_for(generator)
    for number in range(CORRUPTIONS):
        if number % 50 == 0:
            frame, other = other, frames_for(generator)
        damaged = corrupt(frame, other, generator)
        assert damaged in (frame, other) or decode_up(damaged) is None, (frame, other, damaged)


@given(
    st.lists(st.binary(max_size=60) | st.sampled_from([b"<MN2 ", b">", b"<", b"\r\n"]), max_size=30), st.integers(1, 40)
)
def test_cutting_the_bytes_changes_nothing(pieces: list[bytes], size: int) -> None:
    frame = encode_up("0123456789ab", 1, 1, b"SYNC x")
    data = frame.join(pieces)
    assert decode(data, size) == decode(data)


@given(
    st.lists(st.binary(max_size=60) | st.sampled_from([b"<MN2 ", b"<MN2 <MN2 ", b">", b"\r\n"]), max_size=30),
    st.integers(1, 40),
    st.integers(0, 3),
)
def test_damage_beyond_a_limit_is_counted_and_hides_no_frame(pieces: list[bytes], size: int, limit: int) -> None:
    data = encode_up("0123456789ab", 1, 1, b"SYNC x").join(pieces)
    whole, decoder = UpDecoder(), UpDecoder(limit)
    everything = whole.feed(data)
    told = [event for start in range(0, len(data), size) for event in decoder.feed(data[start : start + size])]
    damage = [event for event in everything if isinstance(event, Damage)]
    assert told == [event for event in everything if isinstance(event, Up) or event in damage[:limit]]
    assert decoder.untold == max(0, len(damage) - limit)


def test_a_flood_costs_bounded_memory() -> None:
    decoder = UpDecoder()
    for blob in (b"<MN2 " * 1000, b"<MN2 0123456789ab 1/1 " + b"x" * 5000, b"<" * 5000, b"<MN2" * 1000):
        for start in range(0, len(blob), 16):
            decoder.feed(blob[start : start + 16])
            assert len(decoder._kept) <= grammar.FRAME_LIMIT
    frame = encode_up("0123456789ab", 1, 1, b"SYNC x")
    assert isinstance(decoder.feed(frame)[-1], Up)
