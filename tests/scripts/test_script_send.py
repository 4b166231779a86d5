"""lava-send: the exact line it prints, and what it refuses rather than let the line change it."""

from __future__ import annotations

import pytest
from script_harness import Device

HEAD = b"<LAVA_MULTI_NODE> <LAVA_SEND "
LONGEST = 3990
"""Bytes of a marker: what LAVA's dispatcher searches at a time, 4000 characters, less a line end and some."""

ACCEPTED = {
    "no data": ["ready"],
    "data": ["ready", "server_ip=10.0.0.1", "free_space=12-G", "X9=2"],
    "empty value": ["ready", "c="],
    "blanks in a value": ["ready", "time=up 12:30 and more", "next=1"],
    "blanks around values": ["ready", "k=  v", "j= v  "],
    "nothing is evaluated": ["*", "a=*", "b=?", "c=$(touch X)", "d=`touch X`", "e=~", "f=\"'\\n%s", "g=<LAVA_x"],
    "options are IDs": ["--timeout", "n=-e"],
    "the longest ID": ["i" * 128],
    "not ASCII": [
        "prêt\U0010ffff",
        "key=naïve ☃ \u00a0\u0085\u2003.",
        "bounds=\u0080\u07ff\u0800\ud7ff\ue000\uffff\U00010000",
    ],
}

NO_TEXT = b"lava-send: the value has to be ASCII or UTF-8 (which od has to be there for): "
HELD = b" cannot hold a newline, another control character or '>': "
REFUSED = {
    "no ID": ([], b"usage: lava-send ID [KEY=VALUE ...]\n"),
    "an empty ID": ([""], b"lava-send: the message ID is one word, not: \n"),
    "an ID over 128 bytes": (["é" * 65], b"lava-send: the message ID cannot be over 128 bytes: "),
    "an ID with =": (["a=b"], b"lava-send: the message ID cannot hold '=': a=b\n"),
    "an ID with a blank": (["a b"], b"lava-send: the message ID is one word, not: a b\n"),
    "an ID with a newline": (["a\nb"], b"lava-send: the message ID" + HELD + b"a\n"),
    "an ID like a framing's number with >": (["2>b"], b"lava-send: the message ID" + HELD + b"2\n"),
    "an ID with >": (["a>b"], b"lava-send: the message ID" + HELD + b"a\n"),
    "a word without =": (["a", "b=1", "word"], b"lava-send: not KEY=VALUE: word\n"),
    "an empty word": (["a", ""], b"lava-send: not KEY=VALUE: \n"),
    "an empty key": (["a", "=v"], b"lava-send: the key is one word, not: \n"),
    "a key with a blank": (["a", "k k=v"], b"lava-send: the key is one word, not: k k\n"),
    "a key with a tab": (["a", "k\tk=v"], b"lava-send: the key" + HELD + b"k\n"),
    "a key with >": (["a", "k>=v"], b"lava-send: the key" + HELD + b"k\n"),
    "a value with a newline": (["a", "j=1", "k=v\nw"], b"lava-send: the value" + HELD + b"k=v\n"),
    "a value with a newline at its end": (["a", "k=v\n"], b"lava-send: the value" + HELD + b"k=v\n"),
    "a value with an escape": (["a", "k=\x1b[0m"], b"lava-send: the value" + HELD + b"k=\n"),
    "a value with DEL": (["a", "k=v\x7f"], b"lava-send: the value" + HELD + b"k=v\n"),
    "a value with >": (["a", "k=a->b"], b"lava-send: the value" + HELD + b"k=a-\n"),
    "a marker across key and value": (
        ["a", "<LAVA_SIGNAL_X=a\n"],
        b"lava-send: this dispatcher's keys are letters, digits and '_', not: \n",
    ),
    "a value with a marker": (["a", "k=1<LAVA_TEST_RUNNER EXIT>"], b"lava-send: the value" + HELD + b"k=1\n"),
    "a key with a dash": (["a", "k-j=v"], b"lava-send: this dispatcher's keys are letters, digits and '_', not: k-j\n"),
    "a key that is not ASCII": (
        ["a", "clé=v"],
        b"lava-send: this dispatcher's keys are letters, digits and '_', not: ",
    ),
    "a blank after a value": (
        ["a", "k=v ", "j="],
        b"lava-send: with this dispatcher the value cannot end with a blank: k=v ",
    ),
    "a wide blank after a value": (
        ["a", "k=v\u2003", "j="],
        b"with this dispatcher the value cannot end with a blank: k=v",
    ),
    "a wide blank in an ID": (["a\u00a0b"], b"lava-send: the message ID is one word, not: a"),
    "another pair in a value": (["a", "k=v w=x"], b"with this dispatcher the value cannot hold '=': k=v w=x\n"),
    "padding": (["a", "k=YQ=="], b"with this dispatcher the value cannot hold '=': k=YQ==\n"),
    "bytes that are no text": (["a", b"k=\xff"], NO_TEXT),
    "a character cut short": (["a", b"k=\xc3"], NO_TEXT),
    "a character cut short before another": (["a", b"k=\xe2\x98a"], NO_TEXT),
    "a character written too long": (["a", b"k=\xc0\xaf\xe0\x80\xaf"], NO_TEXT),
    "half a pair of surrogates": (["a", b"k=\xed\xa0\x80"], NO_TEXT),
    "a character behind the last": (["a", b"k=\xf4\x90\x80\x80"], NO_TEXT),
    "a byte that begins nothing": (["a", b"k=\xfc\x80\x80\x80\x80"], NO_TEXT),
    "a message too long": (["a", "k=" + "v" * LONGEST], b"this dispatcher the message cannot be over 3900 bytes: a\n"),
}


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_what_it_prints(device: Device, locale: str) -> None:
    (device.work / "k=globbed").touch()
    for case, words in ACCEPTED.items():
        status, output = device.run("lava-send", *words, env={"LC_ALL": locale})
        assert (status, output) == (0, HEAD + " ".join(words).encode() + b">\n"), case
    assert [path.name for path in device.work.iterdir()] == ["k=globbed"]


def test_what_it_refuses(device: Device) -> None:
    for case, (words, message) in REFUSED.items():
        status, output = device.run("lava-send", *words, env={"LC_ALL": "C.UTF-8"})
        assert status == 1, case
        assert message in output, case
        assert output.count(b"\n") == 1, case
        assert b"<LAVA" not in output, case


def test_the_largest_message(device: Device) -> None:
    words = ["big", "k="]
    words[1] += "v" * (LONGEST - len(HEAD) - len("big k=>"))
    status, output = device.run("lava-send", *words)
    assert (status, output) == (0, HEAD + " ".join(words).encode() + b">\n")


def test_it_prints_to_the_console_wherever_stdout_goes(device: Device) -> None:
    call = device.test("""
        x=$(lava-send one)
        lava-send two >out
        lava-send three </dev/null | cat >>out
        while read -r line; do lava-send "$line"; done <list >>out
        echo "[$x]$(wc -c <out)"
        """)
    (device.work / "list").write_text("four\nfive\n")
    assert call.finish() == 0
    calls = [HEAD + name + b">\r\n" for name in (b"one", b"two", b"three", b"four", b"five")]
    assert call.output.replace(b" ", b"") == (b"".join(calls) + b"[]0\r\n").replace(b" ", b"")


def test_it_leaves_the_cache_alone(device: Device) -> None:
    device.cache.write_text("k=v\n")
    assert device.run("lava-send", "a", "k=w")[0] == 0
    assert device.cache.read_text() == "k=v\n"
