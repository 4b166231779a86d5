"""Framing 1's decoder: each case whole, byte by byte and with bytes around it, then under random attack."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.errors import CallRefused
from dispatcher.framing import grammar, lava
from dispatcher.framing.events import Damage, Event, InstallFailed, Request, RunnerExit, Signal
from dispatcher.framing.lava import Decoder

KERNEL = b"[   12.345678] usb 1-1: new high-speed USB device <x@example.org>\r\n"


def decode(data: bytes, size: int | None = None) -> list[Event]:
    decoder = Decoder()
    size = size or max(1, len(data))
    events = [event for start in range(0, len(data), size) for event in decoder.feed(data[start : start + size])]
    return events + decoder.finish()


def spelled(events: list[Event]) -> list[tuple[object, ...]]:
    """Events without offsets and without damage."""
    kinds = {Request: "request", Signal: "signal", RunnerExit: "exit", InstallFailed: "install-failed"}
    told = []
    for event in events:
        if isinstance(event, Request):
            told.append(("request", event.name, *event.args))
        elif isinstance(event, Signal):
            told.append(("signal", event.name, event.params))
        elif not isinstance(event, Damage):
            told.append((kinds[type(event)],))
    return told


CASES = {
    "a send without pairs": (b"<LAVA_MULTI_NODE> <LAVA_SEND ready>\r\n", [("request", "SEND", "ready")]),
    "dashed keys": (
        b"<LAVA_MULTI_NODE> <LAVA_SEND ready free-space=12G server-ip=10.0.0.1>\n",
        [("request", "SEND", "ready", "free-space=12G", "server-ip=10.0.0.1")],
    ),
    "values keep their blanks": (
        b"<LAVA_MULTI_NODE> <LAVA_SEND id a=x  y 12:30 c= b=\xc3\xa9\xff>\n",
        [("request", "SEND", "id", "a=x  y 12:30", "c=", "b=é\udcff")],
    ),
    "a value may hold '<' and '='": (
        b"<LAVA_MULTI_NODE> <LAVA_SEND id a=1<2=x>\n",
        [("request", "SEND", "id", "a=1<2=x")],
    ),
    "a wait": (b"<LAVA_MULTI_NODE> <LAVA_WAIT ready>\r\n", [("request", "WAIT", "ready")]),
    "a wait-all with a role": (
        b"<LAVA_MULTI_NODE> <LAVA_WAIT_ALL ready a.b*>\n",
        [("request", "WAIT_ALL", "ready", "a.b*")],
    ),
    "a sync behind a prompt": (b"# <LAVA_MULTI_NODE> <LAVA_SYNC s>\r\n", [("request", "SYNC", "s")]),
    "a plugin's call without arguments": (b"<LAVA_MULTI_NODE> <LAVA_NOW>\n", [("request", "NOW")]),
    "a line end of a pty in a pty": (b"<LAVA_MULTI_NODE> <LAVA_SYNC s>\r\r\n", [("request", "SYNC", "s")]),
    "NULs around it": (b"\0\0<LAVA_MULTI_NODE> <LAVA_SYNC s>\0\r\n", [("request", "SYNC", "s")]),
    "no line feed at the very end": (b"<LAVA_MULTI_NODE> <LAVA_SYNC s>", [("request", "SYNC", "s")]),
    "signals": (
        b"<LAVA_SIGNAL_STARTRUN 0_x 1a2b>\n<LAVA_SIGNAL_TESTSET STOP>\r\n",
        [("signal", "STARTRUN", "0_x 1a2b"), ("signal", "TESTSET", "STOP")],
    ),
    "a signal through the kernel's log": (
        b"[   12.345678] <LAVA_SIGNAL_ENDRUN 0_x 1a2b>\r\n",
        [("signal", "ENDRUN", "0_x 1a2b")],
    ),
    "a signal that a shell's trace spells before it is printed": (
        b"++ echo <LAVA_SIGNAL_TESTEVENT a>\r\n<LAVA_SIGNAL_TESTEVENT a>\r\n+ set -- <LAVA_SIGNAL_X y> z\n",
        [("signal", "TESTEVENT", "a")],
    ),
    "a signal behind a plus that is no trace": (
        b"+ <LAVA_SIGNAL_TESTEVENT a>\n+<LAVA_SIGNAL_TESTEVENT b>\n+1 <LAVA_SIGNAL_TESTEVENT c>\n",
        [("signal", "TESTEVENT", "a"), ("signal", "TESTEVENT", "b"), ("signal", "TESTEVENT", "c")],
    ),
    "a call in a trace": (b"+ x <LAVA_MULTI_NODE> <LAVA_SYNC s>\n", [("request", "SYNC", "s")]),
    "two markers that lost a line feed between them": (
        b"<LAVA_SIGNAL_ENDTC a><LAVA_SIGNAL_TESTCASE TEST_CASE_ID=a RESULT=pass>\n",
        [("signal", "ENDTC", "a"), ("signal", "TESTCASE", "TEST_CASE_ID=a RESULT=pass")],
    ),
    "the runner": (
        b"<LAVA_TEST_RUNNER INSTALL_FAIL>\r\n<LAVA_TEST_RUNNER EXIT>\r\n",
        [("install-failed",), ("exit",)],
    ),
    "a kernel line before the line feed": (
        b"<LAVA_MULTI_NODE> <LAVA_SYNC s>" + KERNEL + b"\r\n",
        [("request", "SYNC", "s")],
    ),
    "several lines before the line feed": (
        b"<LAVA_MULTI_NODE> <LAVA_SYNC s>no time stamps here\r\nnor there\r\n\r\n",
        [("request", "SYNC", "s")],
    ),
    "a kernel line inside it": (b"<LAVA_MULTI_NODE> <LAVA_SYNC " + KERNEL + b"s>\r\n", []),
    "a kernel line inside a value": (b"<LAVA_MULTI_NODE> <LAVA_SEND i k=" + KERNEL + b"v>\r\n", []),
    "a kernel line without a time stamp, but with its own '>'": (
        b"<LAVA_MULTI_NODE> <LAVA_WAIT abx> y\r\nc>\r\n",
        [],
    ),
    "a trace of the marker, then the marker": (
        b"+ printf '<LAVA_MULTI_NODE> <LAVA_SYNC s>'\r\n<LAVA_MULTI_NODE> <LAVA_SYNC s>\r\n",
        [("request", "SYNC", "s")],
    ),
    "a marker that another one cuts": (
        b"<LAVA_MULTI_NODE> <LAVA_SYNC <LAVA_MULTI_NODE> <LAVA_WAIT w>\n",
        [("request", "WAIT", "w")],
    ),
    "a marker cut at its line's end": (b"<LAVA_MULTI_NODE> <LAVA_SYNC s\r\n>\r\n", []),
    "a head cut at its line's end": (b"<LAVA_MULTI_NODE>\r\n <LAVA_SYNC s>\r\n", []),
    "a control character inside it": (b"<LAVA_MULTI_NODE> <LAVA_SYNC s\x08>\n", []),
    "a name in small letters": (b"<LAVA_MULTI_NODE> <LAVA_sync s>\n", []),
    "a runner's unknown word": (b"<LAVA_TEST_RUNNER EXITED>\n", []),
    "the echo of a reply that holds a marker": (
        b"<LAVA_WAIT_COMPLETE 2:k=<LAVA_TEST_RUNNER EXIT>\r\n",
        [],
    ),
    "the echo of a reply that holds a call": (
        b"$ <LAVA_WAIT_ALL_COMPLETE 2:k=<LAVA_MULTI_NODE> <LAVA_SYNC s>\r\n",
        [],
    ),
    "the debug lines of LAVA's scripts": (b"<LAVA_MULTI_NODE_DEBUG started Mon>\n", []),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("size", [None, 1, 2, 7])
def test_each_case_however_it_arrives(name: str, size: int | None) -> None:
    data, expected = CASES[name]
    assert spelled(decode(data, size)) == expected


@pytest.mark.parametrize("name", [name for name in CASES if name != "no line feed at the very end"])
def test_each_case_with_lines_around_it(name: str) -> None:
    data, expected = CASES[name]
    around = b"x\r\n" + data + b"[    1.000000] hello\r\n<LAVA_MULTI_NODE> <LAVA_WAIT after>\r\n"
    assert spelled(decode(around)) == [*expected, ("request", "WAIT", "after")]


def test_damage_is_told_with_its_place() -> None:
    data = b"ok\r\n<LAVA_MULTI_NODE> <LAVA_SYNC fo" + KERNEL + b"o>\r\n"
    (damage,) = decode(data, 3)
    assert isinstance(damage, Damage)
    assert damage.offset == data.index(b"<LAVA")
    assert damage.text.startswith("<LAVA_MULTI_NODE> <LAVA_SYNC fo[   12.345678] usb")


def test_offsets_count_every_byte_of_the_console() -> None:
    data = b"a" * 5000 + b"\n" + b"<LAVA_MULTI_NODE> <LAVA_SYNC a>\r\n" * 3
    offsets = [event.offset for event in decode(data, 11)]
    assert offsets == [found.start() for found in re.finditer(b"<LAVA_MULTI", data)]


ENDLESS = {
    "text": b"a",
    "openings": b"<LAVA_",
    "half markers": b"<LAVA_MULTI_NODE> <LAVA_WAIT ",
    "one half marker": b"x",
    "angle brackets": b"<",
    "replies": b"<LAVA_WAIT_COMPLETE 1:k=v ",
}


@pytest.mark.parametrize("kind", ENDLESS)
@pytest.mark.parametrize("size", [16, 65536])
def test_an_endless_line_costs_bounded_memory_and_hides_nothing_after_it(kind: str, size: int) -> None:
    decoder = Decoder()
    data = b"<LAVA_MULTI_NODE> <LAVA_WAIT " * (kind == "one half marker") + ENDLESS[kind] * (
        400_000 // len(ENDLESS[kind])
    )
    for start in range(0, len(data), size):
        decoder.feed(data[start : start + size])
        assert decoder.kept <= grammar.LINE_LIMIT
    assert spelled(decoder.feed(b"\r\n<LAVA_MULTI_NODE> <LAVA_SYNC s>\r\n")) == [("request", "SYNC", "s")]


def test_a_marker_at_the_end_of_an_endless_line_is_found() -> None:
    data = b"x" * 300_000 + b"<LAVA_MULTI_NODE> <LAVA_SYNC s>\r\n"
    assert spelled(decode(data, 4096)) == [("request", "SYNC", "s")]


@pytest.mark.parametrize("size", [1, 100, 1000, 65536, None])
def test_the_limit_is_met_at_the_same_byte_however_the_bytes_are_cut(size: int | None) -> None:
    data = b"<LAVA_SIGNAL_" + b"z" * 66_600 + b"<LAVA_MULTI_NODE> <LAVA_WAIT x>\n"
    assert decode(data, size) == decode(data, 7)
    assert spelled(decode(data, size)) == [("request", "WAIT", "x")]
    many = (
        b"<LAVA_SIGNAL_"
        + b"z" * 300_000
        + b"<LAVA_SIGNAL_A "
        + b"y" * 70_000
        + b"\r\n<LAVA_MULTI_NODE> <LAVA_WAIT x>\n"
    )
    assert decode(many, size) == decode(many, 7)


def test_a_long_run_of_blanks_takes_linear_time() -> None:
    """Quadratic time would be minutes here."""
    value = "v=a" + " " * 60_000 + "b"
    for blanks in (value, value + " =c", "v=a" + " b" * 30_000):
        (request,) = decode(b"<LAVA_MULTI_NODE> <LAVA_SEND x " + blanks.encode() + b">\n")
        assert isinstance(request, Request)
        assert " ".join(request.args) == f"x {blanks}"


def test_the_largest_message_fits() -> None:
    value = "v" * (grammar.MESSAGE_LIMIT - 1)
    data = b"<LAVA_MULTI_NODE> <LAVA_SEND id k=" + value.encode() + b">\r\n"
    assert spelled(decode(data, 1000)) == [("request", "SEND", "id", f"k={value}")]


# --- random attack ------------------------------------------------------------------------------------------------

kernel_lines = st.builds(
    lambda seconds, body: b"[%12.6f] %s\r\n" % (seconds, body),
    st.floats(0, 99999),
    st.text("abc <>=:[]LAVA_MULTINODE", max_size=60).map(str.encode),
)
words = st.text("abcXYZ019-_.", min_size=1, max_size=8)


@st.composite
def markers(draw: st.DrawFn) -> tuple[bytes, tuple[object, ...]]:
    name = draw(st.sampled_from(["SEND", "WAIT", "WAIT_ALL", "SYNC"]))
    args = [draw(words)]
    if name == "SEND":
        args += [f"{key}={value}" for key, value in draw(st.lists(st.tuples(words, words), max_size=3))]
    elif name == "WAIT_ALL":
        args += draw(st.lists(words, max_size=1))
    return f"<LAVA_MULTI_NODE> <LAVA_{name} {' '.join(args)}>".encode(), ("request", name, *args)


@given(
    st.binary(max_size=400)
    | st.lists(st.sampled_from([c for data, _ in CASES.values() for c in data.split(b" ")])).map(b" ".join),
    st.integers(1, 50),
)
def test_cutting_the_bytes_changes_nothing(data: bytes, size: int) -> None:
    assert decode(data, size) == decode(data)


@given(st.data())
def test_what_is_reported_was_sent_and_what_was_whole_is_reported(data: st.DataObject) -> None:
    """Markers with kernel lines printed anywhere into them, over line ends of every kind."""
    stream, sent, whole = b"", [], []
    for marker, request in data.draw(st.lists(markers(), max_size=8)):
        line_end = data.draw(st.sampled_from([b"\n", b"\r\n", b"\r\r\n"]))
        noise = data.draw(st.lists(st.tuples(st.integers(0, len(marker)), kernel_lines), max_size=2))
        line, where = marker, sorted(noise, key=lambda item: item[0], reverse=True)
        for position, kernel in where:
            line = line[:position] + kernel + line[position:]
        stream += line + line_end
        sent.append(request)
        if all(position in (0, len(marker)) for position, _ in noise):
            whole.append(request)
    reported = spelled(decode(stream, data.draw(st.integers(1, 64))))
    forged = [event for event in reported if event[0] == "request" and event not in sent]
    assert not forged
    remaining = iter(reported)
    assert all(any(event == wanted for event in remaining) for wanted in whole), "all that was whole, in order"


@given(st.lists(markers(), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_a_request_stands_in_the_bytes_in_one_piece(sent: list[tuple[bytes, tuple[object, ...]]], random) -> None:  # type: ignore[no-untyped-def]
    """Bytes flipped, lost and swapped: whatever is reported is spelled by the bytes that arrived."""
    stream = bytearray(b"\r\n".join(marker for marker, _ in sent) + b"\r\n")
    for _ in range(random.randrange(6)):
        place = random.randrange(len(stream))
        if random.random() < 0.5:
            stream[place] ^= 1 << random.randrange(8)
        else:
            del stream[place]
    for event in decode(bytes(stream), 5):
        if isinstance(event, Request):
            spelling = (
                rb"<LAVA_MULTI_NODE> <LAVA_"
                + event.name.encode()
                + b"".join(rb"[ \t]+" + re.escape(lava.raw(arg)) for arg in event.args)
                + rb"[ \t]*>"
            )
            assert re.match(spelling, stream[event.offset :])


# --- replies ------------------------------------------------------------------------------------------------------


def test_replies_as_lava_types_them() -> None:
    data = {"12345": {"ip": "10.0.0.1", "free-space": ""}, "12346": {"note": "at 12:30 a>b"}}
    assert lava.encode_reply("WAIT_ALL", data) == (
        b"<LAVA_WAIT_ALL_COMPLETE 12345:ip=10.0.0.1 12345:free-space= 12346:note=at 12:30 a>b>\n"
    )
    assert lava.encode_reply("SYNC", {}) == b"<LAVA_SYNC_COMPLETE>\n"
    assert lava.encode_nack("WAIT") == b"<LAVA_WAIT_COMPLETE nack>\n"
    assert lava.encode_words("NOW", ["12", "UTC"]) == b"<LAVA_NOW_COMPLETE 12 UTC>\n"


@pytest.mark.parametrize("value", ["a\nb", "a\x03b", "see 12:k=v", "<LAVA_TEST_RUNNER EXIT"])
def test_a_value_that_framing_1_would_change_is_refused(value: str) -> None:
    with pytest.raises(CallRefused, match="framing 1 cannot carry"):
        lava.encode_reply("WAIT", {"1": {"k": value}})


@given(st.dictionaries(st.text("0123456789", min_size=1, max_size=4), st.dictionaries(words, st.text(max_size=20))))
def test_the_echo_of_any_reply_is_never_an_event(data: dict[str, dict[str, str]]) -> None:
    try:
        reply = lava.encode_reply("WAIT", data)
    except CallRefused:
        return
    assert decode(reply.replace(b"\n", b"\r\n"), 3) == []
