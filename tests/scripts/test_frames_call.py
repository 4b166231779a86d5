"""Calls over framing 2: exactly what is said, when, and what comes of it."""

from __future__ import annotations

import re

import pytest
from frame_host import Fail, Host, Later, Never, frames_settings, losing, start
from script_harness import Device

from dispatcher.framing.events import Request
from dispatcher.framing.reliable import Down, Kind, encode_down

ANY = bytes(set(range(1, 256)) - {ord("\n")})
ONE = {"5": {"k": "v"}}


@pytest.fixture(autouse=True)
def framing(device: Device) -> None:
    device.settings(**frames_settings())


@pytest.fixture
def patient(device: Device) -> None:
    """A call repeats only what was lost, on a busy machine as well."""
    device.settings(**frames_settings(QUIET="10"))


def request_of(host: Host) -> Request:
    (request,) = host.requests
    return request


# --- what is asked and answered --------------------------------------------------------------------------------


def test_a_send_costs_two_frames_and_prints_nothing(device: Device) -> None:
    host = start(device, "lava-send", "ready", "free-space=12G")
    assert host.finish() == 0
    request = request_of(host)
    assert (request.name, request.args, request.options) == ("SEND", ("ready", "free-space=12G"), {})
    assert (host.told, host.answered, host.printed) == (["SEND ready free-space=12G"], ["DONE"], b"")
    assert len(host.heard) + sum(map(len, host.typed)) < 100
    assert re.fullmatch("[0-9a-f]{12}", request.id or "")


def test_any_value_is_sent_byte_for_byte(device: Device) -> None:
    (device.work / "k=globbed").touch()
    for locale in ("C", "C.UTF-8"):
        host = start(device, "lava-send", b"x>", b"k=" + ANY, b"j= a  b ", b"l=*", env={"LC_ALL": locale})
        assert host.finish() == 0
        values = [arg.encode("utf-8", "surrogateescape") for arg in request_of(host).args]
        assert values == [b"x>", b"k=" + ANY, b"j= a  b ", b"l=*"]


def test_what_no_framing_carries_is_refused_on_the_device(device: Device) -> None:
    control = b" cannot hold a newline or another control character: "
    for words, message in (
        (["a\nb"], b"the message ID" + control + b"a\n"),
        (["a", "k\t=v"], b"the key" + control + b"k\n"),
        (["a", "k=v\nw"], b"the value cannot hold a newline: k=v\n"),
        (["a", "k=" + "v" * 65536], b"the message is over 64 KiB: a\n"),
    ):
        assert device.run("lava-send", *words) == (1, b"lava-send: " + message)


CALLS = [("lava-wait", "WAIT"), ("lava-wait-all", "WAIT_ALL"), ("lava-sync", "SYNC")]


@pytest.mark.parametrize("held", [False, True])
def test_the_answer_is_in_the_cache_file(device: Device, held: bool) -> None:
    value = ANY.decode("utf-8", "surrogateescape")
    data = {"5": {"k": value, "e": ""}, "6": {"k": "w"}}
    answers = ["DATA 1", "DATA 2", "DATA 3", "DATA 4"]
    for script, name in CALLS:
        device.cache.write_text("old\n")
        host = start(device, script, "ready", react=lambda _: Later(data) if held else data)
        assert host.finish() == 0
        lines = b"5:k=" + ANY + b"\n5:e=\n6:k=w\n"
        assert device.cache.read_bytes() == (lines if name != "WAIT" else re.sub(b"(?m)^[56]:", b"", lines))
        bye = ["+BYE"] if held else []
        assert host.told == [f"{name} ready", "+NEXT 2", "+NEXT 3", "+NEXT 4", *bye]
        assert host.answered == ["HOLD", *answers] if held else answers
        assert host.printed == b""
        assert host.call.tty() == host.call.initial
        assert [path.name for path in device.root.glob("cache*")] == ["cache.txt"]


@pytest.mark.parametrize("held", [False, True])
def test_an_answer_without_data_leaves_no_cache(device: Device, held: bool) -> None:
    for script, name in CALLS:
        device.cache.write_text("old\n")
        host = start(device, script, "ready", react=lambda _: Later() if held else None)
        assert host.finish() == 0
        assert host.told == [f"{name} ready", *["+BYE"] * held]
        assert not device.cache.exists()


@pytest.mark.parametrize("held", [False, True])
def test_a_failed_call_says_why(device: Device, held: bool) -> None:
    reason = "have 2 of 3, missing 12347 (b☃ckend): " + "x" * 100
    for script, name in CALLS:
        device.cache.write_text("old\n")
        host = start(device, script, "ready", react=lambda _: Later(Fail(reason)) if held else Fail(reason))
        assert host.finish() == 1
        assert host.printed == f"{script}: {reason}\n".encode()
        assert host.told == [f"{name} ready", "+NEXT 2", *["+BYE"] * held]
        assert not device.cache.exists()


def test_options_travel_with_the_wait(device: Device) -> None:
    host = Host(
        device.test(
            """
            lava-wait --timeout 30 x
            lava-wait-all --timeout 0.5 x client
            lava-sync x </dev/null
            LAVA_MULTI_NODE_CACHE_PREFIX=always lava-wait --timeout 7 x </dev/null; cat $C
            LAVA_MULTI_NODE_CACHE_PREFIX=always lava-wait x; cat $C
            lava-wait x & wait
            """,
            env={"C": str(device.cache)},
        ),
        react=lambda _: ONE,
    )
    assert host.finish() == 0
    assert host.told == ["WAIT/t30 x", "WAIT_ALL/t0.5 x client", "SYNC/b x", "WAIT/t7/b/p x", "WAIT/p x", "WAIT/b x"]
    assert [request.options for request in host.requests[2:4]] == [{"b": ""}, {"t": "7", "b": "", "p": ""}]
    assert host.printed == b"5:k=v\n5:k=v\n"


def test_another_shell_of_the_test_may_send_what_a_call_waits_for(device: Device) -> None:
    host = Host(
        device.test(
            """
            mkfifo held
            { read -r line <held; } & other=$!
            lava-wait beside
            (lava-wait-all further-off; exit)
            echo >held; wait $other
            lava-wait alone
            /bin/sleep 60 & other=$!
            until grep -q sleep /proc/$other/comm; do :; done
            lava-sync no-shell; kill $other
            """,
        ),
        react=lambda _: ONE,
    )
    assert host.finish() == 0
    assert host.told == ["WAIT/b beside", "WAIT_ALL/b further-off", "WAIT alone", "SYNC no-shell"]


def test_other_timeouts_are_refused(device: Device) -> None:
    device.cache.write_text("old\n")
    for value in ("", "x", "1.2.3", ".", "-1", "1e3", "1234567890"):
        status, output = device.run("lava-wait", "--timeout", value, "x")
        assert (status, output) == (1, f"lava-wait: --timeout takes seconds, not: {value}\n".encode())
    for words in (["--timeout"], ["--timeout", "5"], ["--timeout", "5", "x", "y"], ["x", "y", "z"]):
        assert device.run("lava-wait", *words) == (1, b"usage: lava-wait [--timeout SECONDS] ID\n")
    device.settings(**frames_settings(FRAMING="1"))
    message = b"lava-wait: --timeout is more than this dispatcher knows\n"
    assert device.run("lava-wait", "--timeout", "5", "x") == (1, message)
    assert device.cache.read_text() == "old\n"


def test_a_plugins_call_gets_its_words(device: Device) -> None:
    device.add(
        "lava-lock",
        '#!/bin/sh\n. "${0%"${0##*/}"}./lava-multi-node.lib"\nset -eu\n'
        'lava_call LOCK "$@"\necho "[$LAVA_REPLY]"\nlava_call UNLOCK\necho "[$LAVA_REPLY]"\n'
        'lava_signal FEEDBACK "a > b"\nlava_call BAD "a\nb" || exit 3\n',
    )
    host = start(device, "lava-lock", "$(x) *", react={"LOCK $(x) *": ["a", "*", "☃"], "BAD a\nb": Fail("no")})
    assert host.finish() == 3
    assert host.told == ["LOCK $(x)%20*", "UNLOCK", "SIGNAL FEEDBACK a %3E b", "BAD a%0Ab"]
    assert host.printed == "[a * ☃]\n[]\nlava-lock: no\n".encode()
    assert host.call.tty() == host.call.initial


def test_signals_are_requests_too(device: Device) -> None:
    host = start(device, "lava-test-case", "é>", "--shell", "lava-send", "x", env={"LC_ALL": "C.UTF-8"})
    assert host.finish() == 0
    assert [type(event).__name__ for event in host.events] == ["Signal", "Request", "Signal", "Signal"]
    assert host.told == [
        "SIGNAL STARTTC %C3%A9%3E",
        "SEND x",
        "SIGNAL ENDTC %C3%A9%3E",
        "SIGNAL TESTCASE TEST_CASE_ID=%C3%A9%3E RESULT=pass",
    ]
    assert host.call.tty() == host.call.initial


def test_the_command_of_a_test_case_is_not_touched_by_the_calls_around_it(device: Device) -> None:
    (device.work / "file").touch()
    command = 'set -- *; while getopts a o -a; do echo "$o $# ${LC_ALL-unset} ${#w}"; done'
    env = {"LANG": "C.UTF-8", "w": "é"}
    host = start(device, "lava-test-case", "a", "--shell", command, env=env)
    assert host.finish() == 0
    # dash and mksh count bytes.
    assert re.fullmatch(rb"a 1 unset [12]\n", host.printed)


# --- what gets lost, and what comes twice -----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("patient")
def test_requests_of_many_parts(device: Device) -> None:
    value = (ANY * 17)[:4096]
    host = start(device, "lava-send", b"big", b"k=" + value, up=losing(1, 5, 30), down=losing(2, 20))
    assert host.finish() == 0
    assert request_of(host).args[1].encode("utf-8", "surrogateescape") == b"k=" + value
    parts = host.said[-1].total
    assert parts > 60
    assert len(host.said) == parts + 5
    assert host.answers == [f"GO {n}" for n in range(1, parts) for _ in range(1 + (n in {2, 19}))] + ["DONE"]


@pytest.mark.slow
def test_answers_of_many_parts(device: Device) -> None:
    data = {str(member): {"k": f"{member} " + "v" * 100} for member in range(64)}
    host = start(device, "lava-wait-all", "big", react=lambda _: Later(data), up=losing(2, 9), down=losing(3, 40, 41))
    assert host.finish() == 0
    assert device.cache.read_text() == "".join(f"{member}:k={pairs['k']}\n" for member, pairs in data.items())
    assert len(host.requests) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("lost", ["request", "answer"])
def test_what_is_lost_is_said_again(device: Device, lost: str) -> None:
    faults = {"up": losing(1, 2)} if lost == "request" else {"down": losing(1, 2)}
    host = start(device, "lava-send", "ready", "k=v", **faults)
    assert host.finish() == 0
    assert len(host.requests) == 1
    assert host.texts == ["SEND ready k=v"] * 3
    assert len({frame.id for frame in host.said}) == 1


@pytest.mark.usefixtures("patient")
def test_a_late_answer_is_not_left_for_the_next_reader(device: Device) -> None:
    kept: list[bytes] = []

    def twice(frame: bytes) -> bytes:
        kept.append(frame)
        return b"" if len(kept) == 1 else b"".join(kept)

    call = device.test('lava-send ready; echo now; read -r line; echo "[$line]"')
    host = Host(call, down=twice)
    host.shows(b"now\r\n")
    call.type(b"typed\n")
    assert host.finish() == 0
    assert host.answers == ["DONE", "DONE"]
    assert b"[typed]" in host.printed


@pytest.mark.usefixtures("patient")
def test_a_part_that_comes_twice_is_taken_once(device: Device) -> None:
    value = "".join(f"{n:04d}" for n in range(100))
    for reaction in ({"5": {"k": value}}, Later({"5": {"k": value}})):
        host = start(device, "lava-wait", "ready", react=lambda _, r=reaction: r, down=lambda frame: frame * 2)
        assert host.finish() == 0
        assert device.cache.read_text() == f"k={value}\n"
        assert host.texts.count("+NEXT 2") == 1


@pytest.mark.slow
@pytest.mark.usefixtures("patient")
def test_a_confirmation_that_is_lost_is_said_again(device: Device) -> None:
    """The answer that was not confirmed comes again, to a call that had to repeat something and still listens."""
    host = start(device, "lava-wait", "ready", react=lambda _: Later(ONE), up=losing(1, 3))
    assert host.finish() == 0
    assert host.texts == ["WAIT ready", "WAIT ready", "+BYE", "+BYE"]
    assert host.answers == ["HOLD", "DATA 1", "DATA 1"]


@pytest.mark.slow
def test_a_waiting_call_asks_ever_more_seldom(device: Device) -> None:
    device.settings(**frames_settings(QUIET="1"))
    host = start(device, "lava-wait", "ready", react=lambda _: Never())
    host.until(lambda: "+ASK" in host.texts)
    host.until(lambda: host.answers.count("HOLD") >= 2)
    host.release("ready", ONE)
    assert host.finish() == 0
    assert host.told == ["WAIT ready", "+ASK", "+BYE"]
    assert device.cache.read_text() == "k=v\n"


@pytest.mark.usefixtures("patient")
def test_a_dispatcher_that_was_started_again_is_told_everything_again(device: Device) -> None:
    value = "".join(f"{n:04d}" for n in range(100))
    host = start(device, "lava-send", "ready", "k=" + value)
    host.until(lambda: "GO 2" in host.answers)
    host.restart()
    assert host.finish() == 0
    assert host.answers == ["GO 1", "GO 2", "AGAIN", "GO 1", "GO 2", "DONE"]
    assert request_of(host).args == ("ready", "k=" + value)
    # While it waits, and in the middle of an answer that may be another now.
    host = start(device, "lava-wait", "ready", react=lambda _: Never())
    host.until(lambda: "HOLD" in host.answers)
    host.release("ready", {"5": {"k": "old" * 100}})
    host.until(lambda: "DATA 2" in host.answers)
    host.restart()
    host.react = lambda _: {"5": {"k": value}}
    assert host.finish() == 0
    assert "AGAIN" in host.answers
    assert device.cache.read_text() == f"k={value}\n"


def test_a_dispatcher_that_knows_more_is_believed(device: Device) -> None:
    """A stray AGAIN has the call begin again; what the host has already, it does not want."""
    host = start(device, "lava-send", "ready", "k=" + "v" * 600)
    host.until(lambda: "GO 3" in host.answers)
    host.call.type(encode_down(Down(host.said[0].id, Kind.AGAIN)))
    assert host.finish() == 0
    assert len(host.requests) == 1


def test_only_a_whole_frame_of_its_own_ends_a_call(device: Device) -> None:
    host = start(device, "lava-send", "ready", react=lambda _: Never())
    host.until(lambda: host.said)
    name = host.said[0].id
    mine, other = (encode_down(Down(request, Kind.DONE)) for request in (name, "0123456789ab"))
    flipped = mine.replace(mine[20:21], b"e" if mine[20:21] != b"e" else b"c", 1)
    call = host.call
    call.type(other + b"\n# \n#\nls\n" + mine[:20] + b"\n" + mine[20:] + mine[1:] + flipped + b"<MN2>\n")
    fail = encode_down(Down(name, Kind.FAIL, 1, 1, b"I am last"))
    call.type(b"x" * 3000)
    call.type(b"\r" + other[:-1] + mine[:17] + b" " + fail[:-1] + b"\r\n")
    assert host.finish() == 1
    assert b"I am last" in host.printed


@pytest.mark.slow
def test_a_frame_may_come_in_pieces(device: Device) -> None:
    pieces: list[bytes] = []

    def keep(frame: bytes) -> bytes:
        pieces.append(frame)
        return frame[:15] if len(pieces) == 1 else b""

    host = start(device, "lava-send", "ready", down=keep)
    host.until(lambda: len(host.said) >= 3)
    host.call.type(pieces[0][15:])
    assert host.finish() == 0
    assert len(host.answers) == len(host.said)


def test_two_answers_in_one_burst_are_both_read(device: Device) -> None:
    """bash's own read forgets what follows the first line."""
    kept: list[bytes] = []

    def together(frame: bytes) -> bytes:
        kept.append(frame)
        return b"".join(kept) if len(kept) >= 2 else b""

    host = start(device, "lava-wait", "ready", react=lambda _: Later(ONE), down=together)
    assert host.finish() == 0
    assert host.told == ["WAIT ready", "+BYE"]


# --- where the framing ends -------------------------------------------------------------------------------------


def test_a_call_that_is_never_heard_gives_up(device: Device) -> None:
    """A file is a console that is always at its end, so nobody need wait; without /proc nobody notices either."""
    console = device.root / "console"
    console.touch()
    device.settings(**frames_settings(CONSOLE=str(console)))
    assert device.run("lava-send", "ready", env={"LAVA_PROC": "/nonexistent"}) == (
        1,
        b"lava-send: the dispatcher does not answer\n",
    )
    lines = console.read_bytes().splitlines()
    assert len(lines) == 36
    assert len(set(lines)) == 1


def test_ids_differ_without_a_source_of_random_ones(device: Device) -> None:
    env = {"LAVA_PROC": "/nonexistent"}
    names = []
    for _ in range(2):
        host = start(device, "lava-test-case", "a", "--shell", "lava-send", "x", env=env)
        assert host.finish() == 0
        names += [frame.id for frame in host.said]
    assert all(re.fullmatch("beef[0-9]{8}", name) for name in names)
    assert len(set(names)) == 8
    assert [name[8:] for name in names[4:]] == ["0005", "0006", "0006", "0007"] or len(set(names)) == 8
    # The count reaches its end; a file that cannot be read or written changes nothing for one process.
    counted = device.bin / "lava-multi-node.count"
    counted.write_text("9999\n")
    host = start(device, "lava-test-case", "a", "--result", "pass", env=env)
    assert host.finish() == 0
    assert host.said[0].id.endswith("0001")
    counted.unlink()
    counted.mkdir()
    host = start(device, "lava-test-case", "a", "--shell", "true", env=env)
    assert host.finish() == 0
    assert len({frame.id for frame in host.said}) == 3


def test_a_cache_that_cannot_be_written_after_all_is_told(device: Device) -> None:
    directory = device.root / "soon gone"
    env = {"LAVA_MULTI_NODE_CACHE": str(directory / "cache")}
    host = start(device, "lava-wait", "ready", env=env, react=lambda _: Never())
    host.until(lambda: "HOLD" in host.answers)
    directory.rmdir()
    host.release("ready", ONE)
    assert host.finish() == 1
    assert host.printed.startswith(b"lava-wait: the cache file cannot be written: ")
    assert host.printed.count(b"\n") == 1
    assert host.told == ["WAIT ready", "+BYE"]
