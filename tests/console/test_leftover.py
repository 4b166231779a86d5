"""What a test is told whose run has gone. Tests of the command show that it ends (``tests/cli/test_board.py``)."""

from __future__ import annotations

import pytest

from dispatcher.console.leftover import FRAME, Leftover
from dispatcher.framing.reliable import Down, Kind, decode_down, encode_up

ID = "0123456789ab"


def told(left: Leftover, text: bytes) -> list[Down]:
    found = FRAME.search(b"noise <MN2 \n" + encode_up(ID, 1, 1, text, (77, 88)) + b"> noise")
    assert found is not None
    typed = left.answer(found[1], 0.0)
    assert typed is not None
    return [frame for line in typed.splitlines(keepends=True) if (frame := decode_down(line))]


def test_a_call_that_waits_is_asked_for_and_fails() -> None:
    left = Leftover((5, 6))
    assert [frame.kind for frame in told(left, b"+ASK")] == [Kind.AGAIN]
    for _twice in range(2):
        (failure,) = told(left, b"WAIT never")
        assert (failure.id, failure.kind, failure.payload) == (
            ID,
            Kind.FAIL,
            b"the run that this test was of has ended",
        )
    assert told(left, b"+BYE") == []


@pytest.mark.parametrize("text", [b"SIGNAL TESTCASE TEST_CASE_ID=a%20RESULT=pass", b"RUNNER EXIT"])
def test_what_it_tells_has_been_heard(text: bytes) -> None:
    assert [frame.kind for frame in told(Leftover((5, 6)), text)] == [Kind.DONE]


def test_what_has_no_frames_form_is_not_answered() -> None:
    for content in (b"MN2 ", b"MN2 0123456789ab 2/1 WAIT a 1.2", b"MN2 0123456789ab 1/1 WAIT a 65521.2"):
        assert Leftover((5, 6)).answer(content, 0.0) is None


def test_the_calls_of_this_run_are_not_its_business() -> None:
    content = encode_up(ID, 1, 1, b"WAIT later", (77, 88))[1:-2]
    assert Leftover((77, 88)).answer(content, 0.0) is None
    assert Leftover((77, 89)).answer(content, 0.0)
