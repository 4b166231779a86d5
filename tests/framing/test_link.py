"""The host's side of framing 2: every state with every input, then a device at the other end of a bad line."""

from __future__ import annotations

import random
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.framing.events import Abandoned, Damage, Request
from dispatcher.framing.link import (
    ANSWERS_REMEMBERED,
    ASK_INTERVAL,
    CALLS_REMEMBERED,
    CONFIRM_AFTER,
    HOLD_AFTER,
    NEWS_BURST,
    NEWS_RATE,
    TABLE,
    Input,
    Link,
    News,
    State,
)
from dispatcher.framing.reliable import Down, Kind, Up, UpDecoder, decode_down, encode_message, encode_up, parts_up

ID = "0123456789ab"
LONG = encode_message("SEND", ["id", "k=" + "v" * 400])


class Board:
    """A link with one device's frames fed to it; what is typed is decoded as it comes."""

    def __init__(self) -> None:
        self.link = Link()
        self.now = 0.0

    def say(self, text: bytes, number: int = 1, total: int = 1, request: str = ID) -> list[News]:
        return self.link.receive(Up(request, number, total, text), self.now)

    def typed(self) -> list[tuple[str, int]]:
        frames = [decode_down(line) for line in self.link.typed]
        self.link.typed.clear()
        return [(frame.kind.name, frame.part) for frame in frames if frame]

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.link.tick(self.now)


@pytest.fixture
def board() -> Board:
    return Board()


def test_a_quick_answer_costs_one_frame(board: Board) -> None:
    (request,) = board.say(b"SEND ready k=v")
    assert isinstance(request, Request)
    assert (request.name, request.args, request.id) == ("SEND", ("ready", "k=v"), ID)
    board.link.answer(ID, Kind.DATA, b"", board.now)
    assert board.typed() == [("DONE", 0)]
    assert board.link.due() is None


def test_a_request_seen_again_is_done_once_and_answered_again(board: Board) -> None:
    assert len(board.say(b"SEND ready")) == 1
    board.link.answer(ID, Kind.DATA, b"", board.now)
    assert board.say(b"SEND ready") == []
    assert board.typed() == [("DONE", 0), ("DONE", 0)]
    assert board.link.repeats == 1


def test_parts_are_asked_for_one_by_one(board: Board) -> None:
    parts = parts_up(LONG)
    assert len(parts) == 3
    assert board.say(parts[0], 1, 3) == []
    assert board.say(parts[0], 1, 3) == []
    assert board.say(parts[2], 3, 3) == []
    assert board.say(parts[1], 2, 3) == []
    (request,) = board.say(parts[2], 3, 3)
    assert isinstance(request, Request)
    assert request.args == ("id", "k=" + "v" * 400)
    assert board.typed() == [("GO", 1), ("GO", 1), ("GO", 1), ("GO", 2)]


def test_a_call_that_waits_is_told_to_hold_and_gets_its_answer_until_it_confirms(board: Board) -> None:
    board.say(b"WAIT x")
    board.wait(HOLD_AFTER)
    assert board.typed() == [("HOLD", 0)]
    board.wait(30)
    assert board.typed() == []
    board.link.answer(ID, Kind.DATA, b"k=v\n", board.now)
    board.wait(CONFIRM_AFTER)
    board.wait(2 * CONFIRM_AFTER)
    assert board.typed() == [("DATA", 1)] * 3
    board.say(b"+BYE")
    board.wait(100)
    assert board.typed() == []
    assert board.link.due() is None


def test_only_what_did_not_arrive_counts_as_repeated(board: Board) -> None:
    board.say(b"WAIT x")
    board.say(b"WAIT x")
    assert board.typed() == [("HOLD", 0)]
    assert board.link.repeats == 0, "the answer was late, not lost"
    board.say(b"+ASK")
    assert board.link.repeats == 0, "a held call asks now and then"
    board.say(b"WAIT x")
    assert board.link.repeats == 1, "HOLD was lost"
    assert board.link.heard == 4


def test_nobody_is_typed_at_who_has_not_asked_for_long(board: Board) -> None:
    board.say(b"WAIT x")
    board.wait(HOLD_AFTER)
    board.typed()
    board.now += ASK_INTERVAL + 1
    board.link.answer(ID, Kind.DATA, b"k=v\n", board.now)
    assert board.typed() == []
    board.say(b"+ASK")
    assert board.typed() == [("DATA", 1)]


def test_an_unconfirmed_answer_is_not_typed_for_ever(board: Board) -> None:
    board.say(b"WAIT x")
    board.wait(HOLD_AFTER)
    board.link.answer(ID, Kind.DATA, b"k=v\n", board.now)
    for _ in range(1000):
        if (due := board.link.due()) is None:
            break
        board.wait(due - board.now)
    assert board.link.due() is None
    assert len(board.typed()) <= 9


def test_a_long_answer_goes_part_by_part(board: Board) -> None:
    board.say(b"WAIT x")
    board.link.answer(ID, Kind.DATA, bytes(200), board.now)
    board.say(b"+NEXT 2")
    board.say(b"+NEXT 2")
    board.say(b"+NEXT 3")
    board.say(b"+NEXT 4")
    board.say(b"+NEXT 0")
    board.say(b"+NEXT x")
    assert board.typed() == [("DATA", 1), ("DATA", 2), ("DATA", 2), ("DATA", 3)]


def test_a_failure_carries_its_reason(board: Board) -> None:
    board.say(b"WAIT x")
    board.link.answer(ID, Kind.FAIL, b"nobody is left", board.now)
    assert decode_down(board.link.typed[0]) == Down(ID, Kind.FAIL, 1, 1, b"nobody is left")


@pytest.mark.parametrize("text", [b"+ASK", b"+NEXT 2"])
def test_a_monitor_that_was_restarted_asks_for_the_request_again(board: Board, text: bytes) -> None:
    assert board.say(text) == []
    assert board.say(parts_up(LONG)[1], 2, 3) == []
    assert board.say(b"+BYE") == []
    assert board.typed() == [("AGAIN", 0), ("AGAIN", 0)]


def test_a_message_that_makes_no_sense_is_answered(board: Board) -> None:
    (damage,) = board.say(b"lower case")
    assert isinstance(damage, Damage)
    assert board.typed() == [("FAIL", 1)]


def test_a_message_without_end_is_given_up(board: Board) -> None:
    events: list[News] = []
    for number in range(1, 9999):
        events += board.say(b"x" * 150, number, 9999)
    assert [type(event) for event in events] == [Damage]


def test_a_flood_of_calls_costs_bounded_memory(board: Board) -> None:
    for number in range(5 * CALLS_REMEMBERED):
        request = f"{number:012x}"
        board.now += 1 / NEWS_RATE
        assert len(board.say(b"WAIT x", request=request)) == 1
        if number % 2:
            board.link.answer(request, Kind.DATA, bytes(100_000), board.now)
        board.link.typed.clear()
    assert len(board.link._calls) <= CALLS_REMEMBERED
    assert board.link._size <= ANSWERS_REMEMBERED
    assert board.link._size == sum(call.size for call in board.link._calls.values())


def test_more_calls_than_a_device_can_make_are_not_looked_into(board: Board) -> None:
    news = [board.say(b"SEND x", request=f"{number:012x}") for number in range(3 * NEWS_BURST)]
    assert sum(isinstance(events[0], Request) for events in news if events) == NEWS_BURST
    assert sum(isinstance(events[0], Damage) for events in news if events) == 1, "it is told once"
    board.link.typed.clear()
    refused = f"{2 * NEWS_BURST:012x}"
    board.now += 2 / NEWS_RATE
    assert isinstance(board.say(b"SEND x", request=refused)[0], Request), "a call that is real says it again"
    assert board.say(b"+ASK", request="ffffffffffff") == []
    assert board.say(b"+ASK", request="fffffffffffe") == []
    assert board.typed() == [("AGAIN", 0)]


def test_a_flood_of_calls_does_not_disturb_one_that_is_known(board: Board) -> None:
    board.say(b"WAIT x")
    for number in range(3 * NEWS_BURST):
        board.say(b"SEND x", request=f"{number:012x}")
    board.link.typed.clear()
    board.link.answer(ID, Kind.DATA, b"k=v\n", board.now)
    board.say(b"WAIT x")
    assert board.typed() == [("DATA", 1), ("DATA", 1)]


# --- every state with every input --------------------------------------------------------------------------------


def in_state(state: State) -> Board:
    board = Board()
    if state is State.COLLECTING:
        board.say(LONG[:150], 1, 3)
    else:
        board.say(b"WAIT x")
        if state is State.HELD:
            board.wait(HOLD_AFTER)
        elif state in {State.ANSWERED, State.CLOSED}:
            board.link.answer(ID, Kind.DATA, bytes(200), board.now)
        if state is State.CLOSED:
            board.say(b"+BYE")
    assert board.link._calls[ID].state is state
    board.link.typed.clear()
    return board


def give(board: Board, what: Input) -> list[News]:
    collecting = board.link._calls[ID].state is State.COLLECTING
    said = {Input.ASK: b"+ASK", Input.NEXT: b"+NEXT 2", Input.BYE: b"+BYE"}
    if what is Input.PART:
        return board.say(LONG[150:300], 2, 3) if collecting else board.say(b"WAIT x")
    if what in said:
        return board.say(said[what])
    if what is Input.ANSWER:
        board.link.answer(ID, Kind.DATA, b"again", board.now)
    else:
        board.wait(1.0)
    return []


SILENT = {
    *product([State.COLLECTING], [Input.NEXT, Input.BYE, Input.ANSWER, Input.WAITED, Input.UNCONFIRMED]),
    *product([State.ASKED, State.HELD], [Input.NEXT, Input.BYE]),
    *product([State.HELD], [Input.WAITED, Input.UNCONFIRMED]),
    *product([State.ANSWERED], [Input.ANSWER, Input.WAITED, Input.UNCONFIRMED, Input.BYE]),
    *product([State.CLOSED], Input),
}


@pytest.mark.parametrize(("state", "what"), list(product(State, Input)))
def test_every_state_with_every_input(state: State, what: Input) -> None:
    board = in_state(state)
    events = give(board, what)
    abandoned = what is Input.BYE and state in {State.ASKED, State.HELD}
    assert [type(event) for event in events] == [Abandoned] * abandoned, "nothing else is news"
    assert (board.typed() == []) is ((state, what) in SILENT)


def test_the_table_names_nothing_unknown() -> None:
    assert all(isinstance(state, State) and isinstance(what, Input) for state, what in TABLE)
    assert not any(state is State.CLOSED for state, _ in TABLE)


# --- a device at the other end -----------------------------------------------------------------------------------


class Device:
    """A call as the scripts make it: says a message's parts, repeats what is not answered, collects the answer."""

    def __init__(self, request: str, message: bytes) -> None:
        self.id = request
        self.parts = parts_up(message)
        self.answer = b""
        self.got = 0
        self.held = False
        self.done: Kind | None = None
        self.last = self._part(1)

    def _part(self, number: int) -> bytes:
        return encode_up(self.id, number, len(self.parts), self.parts[number - 1])

    def hear(self, frame: Down) -> bytes | None:
        """What to say next, None for nothing."""
        if frame.id != self.id or self.done is not None:
            return None
        match frame.kind:
            case Kind.GO:
                self.last = self._part(min(frame.part + 1, len(self.parts)))
            case Kind.AGAIN:
                self.last = self._part(1)
            case Kind.HOLD:
                self.held = True
                self.last = encode_up(self.id, 1, 1, b"+ASK")
                return None
            case Kind.DONE:
                self.done = frame.kind
            case Kind.DATA | Kind.FAIL:
                if frame.part == self.got + 1:
                    self.answer += frame.payload
                    self.got += 1
                if self.got == frame.of:
                    self.done = frame.kind
                else:
                    self.last = encode_up(self.id, 1, 1, b"+NEXT %d" % (self.got + 1))
        if self.done is not None:
            return encode_up(self.id, 1, 1, b"+BYE") if self.held else None
        return self.last


def spoil(line: bytes, generator: random.Random, rate: float) -> bytes:
    if generator.random() >= rate:
        return line
    place = generator.randrange(len(line))
    return [line[:place] + line[place + 1 :], line[:place] + b"~" + line[place + 1 :], b""][generator.randrange(3)]


@given(st.integers(0, 2**32), st.integers(0, 600), st.integers(0, 600), st.floats(0, 0.4))
def test_every_call_is_done_once_and_answered_whole(seed: int, sent: int, answered: int, rate: float) -> None:
    generator = random.Random(seed)
    link, decoder = Link(), UpDecoder()
    value = "".join(chr(generator.randrange(33, 1000)) for _ in range(sent))
    content = generator.randbytes(answered)
    device = Device(f"{generator.getrandbits(48):012x}", encode_message("SEND", ["id", f"k={value}"]))
    asked, now, answer_at = [], 0.0, generator.choice([0.0, 0.1, 5.0])
    to_host = [device.last]
    for _ in range(5000):
        now += 0.05
        for line in to_host:
            for frame in decoder.feed(spoil(line, generator, rate)):
                if isinstance(frame, Up):
                    asked += [event for event in link.receive(frame, now) if isinstance(event, Request)]
        to_host = []
        if asked and now >= answer_at:
            link.answer(device.id, Kind.DATA, content, now)
        link.tick(now)
        typed, link.typed = link.typed, []
        for line in typed:
            frame = decode_down(spoil(line, generator, rate))
            if frame and (said := device.hear(frame)):
                to_host.append(said)
        if device.done is not None:
            break
        if not typed and generator.random() < 0.1:
            to_host.append(device.last)
    assert device.done is (Kind.DATA if content else Kind.DONE)
    assert device.answer == content
    assert [request.args for request in asked] == [("id", f"k={value}")]
