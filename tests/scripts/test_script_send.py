"""lava-send: the exact line it prints, and what it refuses rather than let the line change it."""

from __future__ import annotations

import pytest
from script_harness import Device

HEAD = b"<LAVA_MULTI_NODE> <LAVA_SEND "
KIB_64 = 64 * 1024

ACCEPTED = {
    "no data": ["ready"],
    "data": ["ready", "server-ip=10.0.0.1", "free-space=12G", "_x.y/z:1=2"],
    "empty value": ["ready", "c="],
    "blanks in a value": ["ready", "time=up 12:30 and more", "next=1"],
    "equals signs": ["ready", "url=http://x/?a=b&c==", "pad=YQ=="],
    "nothing is evaluated": ["*", "a=*", "b=?", "c=$(touch X)", "d=`touch X`", "e=~", "f=\"'\\n%s", "g=<LAVA_x"],
    "options are IDs": ["--timeout", "-n=-e", "-e=x"],
    "the longest ID": ["i" * 128],
    "not ASCII": ["prêt", "clé=naïve ☃ \u00a0\u0085\u2003."],
}

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
    "a marker across key and value": (["a", "<LAVA_SIGNAL_X=a\n"], b"lava-send: the value" + HELD + b"\n"),
    "a value with a marker": (["a", "k=1<LAVA_TEST_RUNNER EXIT>"], b"lava-send: the value" + HELD + b"k=1\n"),
    "a blank before a value": (["a", "k= v"], b"lava-send: the value cannot begin or end with a blank: k= v\n"),
    "a blank after a value": (["a", "k=v "], b"lava-send: the value cannot begin or end with a blank: k=v "),
    "another pair in a value": (["a", "k=v w=x"], b"lava-send: the value cannot hold '=' after a blank: k=v w=x\n"),
    "64 KiB and one byte": (["a", "k=" + "v" * KIB_64], b"lava-send: the message is over 64 KiB: a\n"),
    "64 KiB of two-byte letters": (["a", "k=" + "é" * (KIB_64 // 2)], b"the message is over 64 KiB: a\n"),
    "a line too long by its pairs": (["a", *["k=" + "v" * 60] * 1060], b"the message is over 64 KiB: a\n"),
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


def test_bytes_that_are_no_text_arrive_as_they_are(device: Device) -> None:
    value = bytes(range(0x80, 0x100))
    for locale in ("C", "C.UTF-8"):
        status, output = device.run("lava-send", b"a", b"k=" + value, env={"LC_ALL": locale})
        assert (status, output) == (0, HEAD + b"a k=" + value + b">\n")


def test_64_kib_is_the_largest_message(device: Device) -> None:
    pairs = [f"a={'x' * (KIB_64 // 2 - 1)}", f"b={'y' * (KIB_64 // 2 - 1)}"]
    status, output = device.run("lava-send", "big", *pairs)
    assert (status, output) == (0, HEAD + " ".join(["big", *pairs]).encode() + b">\n")


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
