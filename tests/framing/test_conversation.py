"""What is done once in the tests of one device, and what other runs' frames are worth."""

from __future__ import annotations

import pytest

from dispatcher.framing import conversation
from dispatcher.framing.conversation import Conversation, Done
from dispatcher.framing.events import Damage, Event, Request, Signal
from dispatcher.framing.reliable import UNSEEDED, Seed, encode_up

SEED = (12345, 54321)
SIGNAL = b"SIGNAL TESTCASE TEST_CASE_ID=a%20RESULT=pass"


def said(talk: Conversation, number: int, text: bytes, seed: Seed = SEED) -> list[Event]:
    events = talk.hear(encode_up(f"{number:012x}", 1, 1, text, seed), 0.0)
    for event in events:
        if isinstance(event, Request):
            talk.succeed(event, None, 0.0)
    return events


def test_frames_of_another_run_are_damage() -> None:
    talk = Conversation(seed=SEED)
    for other in (UNSEEDED, (12345, 54320), (12344, 54321), (0, 0)):
        (event,) = said(talk, 1, SIGNAL, other)
        assert isinstance(event, Damage)
    assert not talk.typed
    assert [type(event) for event in said(talk, 1, SIGNAL)] == [Signal]


def test_what_an_earlier_test_has_told_is_not_told_again() -> None:
    done = Done()
    for again in (False, True):
        talk = Conversation(seed=SEED, done=done)
        assert len(said(talk, 1, SIGNAL)) == (not again)
        assert len(said(talk, 2, b"RUNNER EXIT")) == (not again)
        (call,) = said(talk, 3, b"WAIT ready")
        assert isinstance(call, Request)
        assert call.again is again
        assert len(talk.typed) == 3, "each is answered all the same"


def test_a_call_that_nobody_has_answered_yet_is_none_that_comes_again() -> None:
    done = Done()
    for _test in range(2):
        (call,) = Conversation(seed=SEED, done=done).hear(encode_up("0" * 12, 1, 1, b"WAIT ready", SEED), 0.0)
        assert isinstance(call, Request)
        assert not call.again


def test_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "DONE_LIMIT", 2)
    done = Done()
    for request in ("a", "b", "c"):
        done.add(request)
    assert [request in done for request in ("a", "b", "c")] == [False, True, True]
