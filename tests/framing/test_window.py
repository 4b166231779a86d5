"""How much of a head stands at the end of some data, beside trying every length."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.framing.window import begun


def tried(data: bytes, head: bytes, at_least: int) -> int:
    lengths = range(min(len(head) - 1, len(data) - at_least), 0, -1)
    return next((length for length in lengths if data.endswith(head[:length])), 0)


@given(st.binary(max_size=8).map(lambda data: bytes(b"ab"[byte & 1] for byte in data)), st.integers(0, 2))
def test_as_every_length_tried(data: bytes, at_least: int) -> None:
    for head in (b"aab", b"aba", b"aaaa", b"b"):
        assert begun(data, head, at_least) == tried(data, head, at_least)


@pytest.mark.parametrize(("data", "length"), [(b"x <MN", 3), (b"<<", 1), (b"<MN2 ", 0), (b"", 0)])
def test_a_frame_that_begins(data: bytes, length: int) -> None:
    assert begun(data, b"<MN2 ") == length
