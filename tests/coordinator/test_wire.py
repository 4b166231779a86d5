"""The wire's values: what goes in comes out, and nothing that a peer sends does harm."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.coordinator import wire
from dispatcher.errors import WireError
from dispatcher.group.events import Member
from dispatcher.group.needs import Kind

SURROGATES = st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF)
PRINTABLE = st.characters(exclude_categories=("C", "Z")) | SURROGATES
NAMES = st.text(PRINTABLE, min_size=1, max_size=20)
SECONDS = st.floats(0.5, wire.HOLD_LIMIT)
ANY_BYTES = (
    st.binary(max_size=30).filter(lambda b: not set(b) & {0, 10}).map(lambda b: b.decode("utf-8", "surrogateescape"))
)
KEYS = NAMES.filter(lambda key: "=" not in key)
MEMBERS = st.lists(st.builds(Member, NAMES, NAMES), min_size=1, max_size=3, unique_by=lambda member: member.id).map(
    tuple
)
CALLERS = st.builds(
    wire.Caller,
    NAMES,
    NAMES,
    NAMES,
    st.just(True),
    NAMES,
    st.just(0.0) | SECONDS,
    st.none() | NAMES,
    st.none() | NAMES,
    st.none() | NAMES,
)
REQUESTS = st.one_of(
    st.builds(wire.Join, CALLERS, st.none() | st.integers(1, wire.GROUP_LIMIT), st.just(()) | MEMBERS, st.booleans()),
    st.builds(wire.Stay, CALLERS),
    st.builds(wire.Send, CALLERS, NAMES, st.dictionaries(KEYS, ANY_BYTES).map(lambda data: tuple(data.items()))),
    st.builds(wire.Wait, CALLERS, st.just(Kind.WAIT_ALL), NAMES, st.none() | NAMES, st.booleans(), st.booleans()),
    st.builds(wire.Wait, CALLERS, st.just(Kind.SYNC), NAMES, why=st.none() | NAMES),
    st.builds(wire.Withdraw, CALLERS),
    st.builds(wire.Leave, CALLERS, NAMES),
    st.builds(wire.Status, st.none() | NAMES),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def body(framed: bytes) -> bytes:
    assert wire.length(framed[: wire.HEADER_SIZE]) == len(framed) - wire.HEADER_SIZE
    return framed[wire.HEADER_SIZE :]


@given(REQUESTS)
def test_a_request_arrives_as_it_was_made(request: wire.Request) -> None:
    assert wire.parse(body(wire.dump(request))) == request


@given(REQUESTS, st.data())
def test_a_request_with_any_field_exchanged_is_taken_or_refused(request: wire.Request, data: st.DataObject) -> None:
    fields = json.loads(body(wire.dump(request)))
    part = data.draw(st.sampled_from([fields, fields["multinode"]]))
    part[data.draw(st.sampled_from(sorted(part) or ["hold"]))] = data.draw(JSON)
    with contextlib.suppress(WireError):
        wire.parse(json.dumps(fields).encode())


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_taken_or_refused(data: bytes) -> None:
    for read in (wire.parse, wire.parse_reply, wire.length):
        with contextlib.suppress(WireError):
            read(data)


def test_what_a_stock_dispatcher_sends_is_taken_as_it_writes_it() -> None:
    sent = {
        "request": "lava_send", "messageID": "m", "message": {"a": None, "n": 1, "f": 0.5, "t": True},
        "client_name": 12345, "group_name": "g", "hostname": "w", "port": 3079, "blocksize": 4096, "timeout": 90,
    }  # fmt: skip
    request = wire.parse(json.dumps(sent).encode())
    pairs = (("a", ""), ("n", "1"), ("f", "0.5"), ("t", "true"))
    assert request == wire.Send(wire.Caller("g", "12345"), "m", pairs)


@pytest.mark.parametrize(
    ("reply", "response"),
    [(wire.ACK, "ack"), (wire.nack('"no"'), "nack"), (wire.WAIT, "wait"), (wire.ack({}), "ack")],
)
def test_replies_are_counted_by_their_response(reply: bytes, response: str) -> None:
    assert wire.response(reply) == response == wire.parse_reply(body(reply)).response


def test_lavas_replies_are_not_taken_for_ours() -> None:
    assert wire.parse_reply(b'{"response": "ack", "message": "sync-id"}') == wire.Reply("ack", {}, None, (), False)
    with pytest.raises(WireError, match="no response"):
        wire.parse_reply(b'{"response": 1}')
