"""lava-wait, lava-wait-all, lava-sync: the call, its reply, the cache file and the tty."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import termios
from pathlib import Path

import pytest
from script_harness import Device

CALLS = [("lava-wait", b"WAIT"), ("lava-wait-all", b"WAIT_ALL"), ("lava-sync", b"SYNC")]
ITEMS = (
    b" 12345:server-ip=10.0.0.1 12345:note=up 12:30 since 5:x now 12345:url=http://h/?a=b&c== 12345:empty="
    b" 12346:cmd=$(touch X) `touch X` * ? \\n %s 12346:-n=-e  two   blanks 12346:a:b=:c=12:d=e 12346:\xff\xe9=\xff"
    b" 12346:sum=2 + 3 = 5 5=5 12346:see=x a:b=c 5:=d 12346:last="
)
PAIRS = [
    b"server-ip=10.0.0.1",
    b"note=up 12:30 since 5:x now",
    b"url=http://h/?a=b&c==",
    b"empty=",
    b"cmd=$(touch X) `touch X` * ? \\n %s",
    b"-n=-e  two   blanks",
    b"a:b=:c=12:d=e",
    b"\xff\xe9=\xff",
    b"sum=2 + 3 = 5 5=5",
    b"see=x a:b=c 5:=d",
    b"last=",
]
OWNERS = [b"12345:"] * 4 + [b"12346:"] * 7


def lines(*items: bytes) -> bytes:
    return b"".join(item + b"\n" for item in items)


PLAIN = lines(*PAIRS)
PREFIXED = lines(*(owner + pair for owner, pair in zip(OWNERS, PAIRS, strict=True)))


@pytest.mark.parametrize(("script", "name"), CALLS)
def test_the_data_is_in_the_cache_file(device: Device, script: str, name: bytes) -> None:
    for locale in ("C", "C.UTF-8"):
        device.cache.write_text("old\n")
        call = device.start(script, "ready", env={"LC_ALL": locale})
        call.answer(name + b" ready", b"<LAVA_%s_COMPLETE%s>" % (name, ITEMS))
        assert call.finish() == 0
        assert call.output == b"<LAVA_MULTI_NODE> <LAVA_%s ready>\r\n" % name
        assert device.cache.read_bytes() == (PLAIN if name == b"WAIT" else PREFIXED)
    assert [path.name for path in device.root.glob("cache*")] == ["cache.txt"]
    assert not list(device.work.iterdir())


def test_wait_all_may_name_a_role_and_wait_may_prefix(device: Device) -> None:
    (device.work / "globbed 6:k").touch()
    call = device.test("lava-wait-all ready '$(x)*'; lava-wait -e; echo \"$?\"")
    call.answer(b"WAIT_ALL ready $(x)*", b"<LAVA_WAIT_ALL_COMPLETE 5:k=v>")
    call.answer(b"WAIT -e", b"<LAVA_WAIT_COMPLETE 5:k=* 6:k=w>")
    assert call.finish() == 0
    assert device.cache.read_bytes() == b"k=*\nk=w\n"
    call = device.start("lava-wait", "x", env={"LAVA_MULTI_NODE_CACHE_PREFIX": "always"})
    call.answer(b"WAIT x", b"<LAVA_WAIT_COMPLETE 5:k=v 6:k=w>")
    assert call.finish() == 0
    assert device.cache.read_bytes() == b"5:k=v\n6:k=w\n"


@pytest.mark.parametrize(("script", "name"), CALLS)
def test_a_reply_without_data_leaves_no_cache(device: Device, script: str, name: bytes) -> None:
    device.cache.write_text("old\n")
    call = device.start(script, "ready")
    call.answer(name + b" ready", b"<LAVA_%s_COMPLETE>" % name)
    assert call.finish() == 0
    assert not device.cache.exists()


@pytest.mark.parametrize(("script", "name"), CALLS)
def test_a_refusal_is_one_line_and_status_1(device: Device, script: str, name: bytes) -> None:
    device.cache.write_text("old\n")
    call = device.start(script, "ready")
    call.answer(name + b" ready", b"<LAVA_%s_COMPLETE nack>" % name)
    assert call.finish() == 1
    said = b"%s ready: the dispatcher refused or gave up; its log says why\r\n" % script.encode()
    assert call.output == b"<LAVA_MULTI_NODE> <LAVA_%s ready>\r\n" % name + said
    assert not device.cache.exists()


def test_lines_that_are_not_the_reply_are_ignored(device: Device) -> None:
    call = device.start("lava-wait", "ready")
    call.expect(b"<LAVA_WAIT ready>\r\n")
    call.type(b"\n\n# <LAVA_WAIT_COMPLET>\n<LAVA_WAIT_ALL_COMPLETE 1:a=b>\n<LAVA_SYNC_COMPLETE>\r\n")
    call.type(b"<LAVA_WAIT_COMPLETED 1:a=b>\n<LAVA_WAIT_COMPLETE 1:a=cut off\n$(touch X) * \\\n\xff\n")
    call.type(b"[ 12.5] junk > root@x:~# <LAVA_WAIT_COMPLETE 2:k=<LAVA_WAIT_COMPLETE x 3:l=y>\r\n")
    assert call.finish() == 0
    assert device.cache.read_bytes() == b"k=<LAVA_WAIT_COMPLETE x\nl=y\n"


def test_what_lava_types_after_a_reply_disturbs_no_other_call(device: Device) -> None:
    call = device.test("lava-wait one; lava-sync two; lava-wait three && cat $C", env={"C": str(device.cache)})
    call.answer(b"WAIT one", b"<LAVA_WAIT_COMPLETE 1:k=v>\n\n")
    call.answer(b"SYNC two", b"<LAVA_SYNC_COMPLETE>\n\n")
    call.answer(b"WAIT three", b"<LAVA_WAIT_COMPLETE 1:k=w>\n\n")
    call.expect(b"k=w\r\n")
    assert call.finish() == 0


def test_a_reply_may_be_longer_than_a_line_of_the_tty(device: Device) -> None:
    values = [b"%d:key-%d=%s" % (n % 3 + 1, n, b"v" * (n % 50)) for n in range(600)]
    reply = b"<LAVA_WAIT_ALL_COMPLETE " + b" ".join(values) + b">"
    assert len(reply) > 20_000
    call = device.start("lava-wait-all", "ready")
    call.answer(b"WAIT_ALL ready", reply)
    assert call.finish() == 0
    assert device.cache.read_bytes() == lines(*values)
    call = device.start("lava-wait", "ready")
    call.answer(b"WAIT ready", b"<LAVA_WAIT_COMPLETE 1:k=" + b"x" * 65535 + b" 2:k=y>")
    assert call.finish() == 0
    assert device.cache.read_bytes() == b"k=" + b"x" * 65535 + b"\nk=y\n"


TOO_LONG = b"%s: the message ID cannot be over 128 bytes: " + "é".encode() * 65 + b"\n"
REFUSED = [
    (("lava-wait",), b"usage: lava-wait [--timeout SECONDS] ID\n"),
    (("lava-wait", "a", "b"), b"usage: lava-wait [--timeout SECONDS] ID\n"),
    (("lava-sync",), b"usage: lava-sync [--timeout SECONDS] ID\n"),
    (("lava-sync", "a", "b"), b"usage: lava-sync [--timeout SECONDS] ID\n"),
    (("lava-wait-all",), b"usage: lava-wait-all [--timeout SECONDS] ID [ROLE]\n"),
    (("lava-wait-all", "a", "b", "c"), b"usage: lava-wait-all [--timeout SECONDS] ID [ROLE]\n"),
    *(((name, "é" * 65), TOO_LONG % name.encode()) for name, _ in CALLS),
    (("lava-wait", ""), b"lava-wait: the message ID is one word, not: \n"),
    (
        ("lava-sync", "a>"),
        b"lava-sync: the message ID cannot hold a newline, another control character or '>': a\n",
    ),
    (("lava-wait-all", "a", ""), b"lava-wait-all: the role is one word, not: \n"),
    (("lava-wait-all", "a", "b c"), b"lava-wait-all: the role is one word, not: b c\n"),
]


def test_a_call_that_cannot_be_made_changes_nothing(device: Device) -> None:
    device.cache.write_text("old\n")
    for words, message in REFUSED:
        assert device.run(*words, env={"LC_ALL": "C.UTF-8"}) == (1, message)
    assert device.cache.read_text() == "old\n"


class TestTheCacheFile:
    """Where it is, and what becomes of one that cannot be replaced."""

    def test_the_environment_names_another_and_its_directory_is_made(self, device: Device) -> None:
        device.cache.write_text("the default\n")
        cache = device.root / "new dir" / "$(touch X) *" / "cache"
        call = device.start("lava-wait", "ready", env={"LAVA_MULTI_NODE_CACHE": str(cache)})
        call.answer(b"WAIT ready", b"<LAVA_WAIT_COMPLETE 1:k=v>")
        assert call.finish() == 0
        assert cache.read_bytes() == b"k=v\n"
        assert device.cache.read_text() == "the default\n"
        call = device.start("lava-wait", "ready", env={"LAVA_MULTI_NODE_CACHE": "plain"})
        call.answer(b"WAIT ready", b"<LAVA_WAIT_COMPLETE 1:k=w>")
        assert call.finish() == 0
        assert (device.work / "plain").read_bytes() == b"k=w\n"

    def test_a_link_is_replaced_and_not_followed(self, device: Device) -> None:
        kept = device.root / "kept"
        kept.write_text("kept\n")
        device.cache.symlink_to(kept)
        call = device.start("lava-wait", "ready")
        call.answer(b"WAIT ready", b"<LAVA_WAIT_COMPLETE 1:k=v>")
        assert call.finish() == 0
        assert not device.cache.is_symlink()
        assert device.cache.read_bytes() == b"k=v\n"
        assert kept.read_text() == "kept\n"

    @pytest.mark.parametrize("kind", ["directory", "device", "missing directory"])
    def test_what_cannot_be_replaced_is_told_before_the_call(self, device: Device, kind: str) -> None:
        cache = {"directory": str(device.work), "device": "/dev/null", "missing directory": "/proc/x/y"}[kind]
        status, output = device.run("lava-wait", "ready", env={"LAVA_MULTI_NODE_CACHE": cache})
        assert status == 1
        assert output == (
            b"lava-wait: the cache file cannot be replaced (another user's?); set LAVA_MULTI_NODE_CACHE: "
            + cache.encode()
            + b"\n"
        )
        assert Path(cache).exists() == (kind != "missing directory")

    def test_a_cache_that_cannot_be_written_after_all_is_told(self, device: Device) -> None:
        directory = device.root / "soon gone"
        call = device.start("lava-wait", "ready", env={"LAVA_MULTI_NODE_CACHE": str(directory / "cache")})
        call.expect(b"<LAVA_WAIT ready>\r\n")
        directory.rmdir()
        call.type(b"<LAVA_WAIT_COMPLETE 1:k=v>\n")
        assert call.finish() == 1
        assert b"lava-wait: the cache file cannot be written: " in call.output

    @pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
    def test_a_cache_of_another_user_is_one_clear_error(self, public_device: Device) -> None:
        directory = public_device.root / "tmp"
        directory.mkdir()
        directory.chmod(0o1777)
        cache = directory / "cache"
        cache.write_text("root's\n")
        link = directory / "link"
        link.symlink_to("nowhere")
        nobody = {"env": {"LAVA_MULTI_NODE_CACHE": str(cache)}, "user": 65534, "group": 65534}
        status, output = public_device.run("lava-sync", "ready", **nobody)
        assert (status, output.count(b"\n")) == (1, 1)
        assert b"the cache file cannot be replaced (another user's?)" in output
        assert cache.read_text() == "root's\n"
        linked = nobody | {"env": {"LAVA_MULTI_NODE_CACHE": str(link)}}
        assert public_device.run("lava-sync", "ready", **linked) == (
            1,
            b"lava-sync: the cache file cannot be replaced (another user's?); set LAVA_MULTI_NODE_CACHE: "
            + str(link).encode()
            + b"\n",
        )
        cache.unlink()
        call = public_device.start("lava-sync", "ready", **nobody)
        call.answer(b"SYNC ready", b"<LAVA_SYNC_COMPLETE 1:k=v>")
        assert call.finish() == 0
        assert cache.stat().st_uid == 65534


class TestTheConsole:
    """A call finds it whatever its stdin and stdout are."""

    def test_substitution_output_file_and_loop_over_a_file(self, device: Device) -> None:
        (device.work / "list").write_text("three\nfour\n")
        call = device.test("""
            x=$(lava-wait one); echo "one $? [$x]"
            lava-wait two >out 2>&1 </dev/null; echo "two $?"
            while read -r id; do lava-wait "$id" | cat; echo "loop $id"; done <list
            lava-wait five & wait; echo "job"
            wc -c <out
            """)
        for name in (b"one", b"two", b"three", b"four", b"five"):
            call.answer(b"WAIT " + name, b"<LAVA_WAIT_COMPLETE 1:k=v>")
        assert call.finish() == 0
        said = [line.strip() for line in call.output.splitlines() if not line.startswith(b"<LAVA_")]
        assert said == [b"one 0 []", b"two 0", b"loop three", b"loop four", b"job", b"0"]

    def test_the_path_in_the_settings_serves_without_a_controlling_terminal(self, device: Device) -> None:
        nowhere = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        settings = device.bin / "lava-multi-node.conf"
        call = device.start("lava-wait", "ready", terminal=False, path_setting=settings, **nowhere)
        call.answer(b"WAIT ready", b"<LAVA_WAIT_COMPLETE 1:k=v>")
        assert call.finish() == 0
        assert device.cache.read_bytes() == b"k=v\n"

    def test_stdin_and_stdout_serve_where_nothing_else_does(self, device: Device) -> None:
        device.settings(CONSOLE="nonexistent")
        call = device.start("lava-wait", "ready", terminal=False)
        call.answer(b"WAIT ready", b"<LAVA_WAIT_COMPLETE 1:k=v>")
        assert call.finish() == 0

    def test_no_console_at_all_is_told(self, device: Device) -> None:
        with (device.root / "stderr").open("wb") as errors:
            status, output = device.run("lava-wait", "x", terminal=False, stdin=subprocess.DEVNULL, stderr=errors)
        assert (status, output) == (1, b"")
        assert (device.root / "stderr").read_bytes() == (
            b"lava-wait: no console: neither LAVA_CONSOLE nor /dev/tty opens, and stdin is no terminal\n"
        )

    def test_a_console_that_ends_is_told(self, device: Device) -> None:
        settings = device.bin / "lava-multi-node.conf"
        settings.write_text(settings.read_text() + "LAVA_CONSOLE=/dev/null\n")
        status, output = device.run("lava-wait", "x")
        assert (status, output) == (1, b"lava-wait: the console ended before the reply to WAIT came\n")


class TestTheTty:
    """It is set for a wait and put back, however the wait ends."""

    WAIT = """
        trap : INT HUP
        sh -c 'echo "pid $$"; exec lava-wait ready'
        echo "status $?"
        read -r line
        """

    @pytest.mark.parametrize(
        ("end", "status"),
        [
            ("reply", b"0"),
            ("nack", b"1"),
            (signal.SIGTERM, b"143"),
            (signal.SIGHUP, b"129"),
            (signal.SIGINT, b"130"),
            (b"\x03", b"130"),
        ],
    )
    def test_it_is_put_back(self, device: Device, end: object, status: bytes) -> None:
        call = device.test(self.WAIT)
        call.expect(b"pid ")
        pid = int(call.expect(b"\r\n"))
        call.expect(b"<LAVA_WAIT ready>\r\n")
        during = call.tty()
        assert not during[3] & (termios.ICANON | termios.ECHO)
        assert during[3] & termios.ISIG
        call.settle()
        if isinstance(end, signal.Signals):
            os.kill(pid, end)
        else:
            typed = {"reply": b"<LAVA_WAIT_COMPLETE>\n", "nack": b"<LAVA_WAIT_COMPLETE nack>\n"}
            call.type(typed.get(end, b"\x03"))  # type: ignore[call-overload]
        call.expect(b"status " + status + b"\r\n")
        assert call.tty() == call.initial
        call.type(b"\n")
        assert call.finish() == 0

    def test_a_device_without_stty_is_served(self, device: Device) -> None:
        tools = device.root / "tools"
        tools.mkdir()
        for tool in ("rm", "mv", "mkdir", "printf"):
            (tools / tool).symlink_to(shutil.which(tool) or "")
        dash = device.root / "sh"
        dash.symlink_to(device.shell[0])
        call = device.start("lava-wait", "ready", env={"PATH": f"{device.bin}:{tools}"})
        call.answer(b"WAIT ready", b"<LAVA_WAIT_COMPLETE 1:k=v>")
        assert call.finish() == 0
        assert device.cache.read_bytes() == b"k=v\n"


def test_a_plugin_makes_calls_and_signals_of_its_own(device: Device) -> None:
    device.add(
        "lava-lock",
        '#!/bin/sh\n. "${0%"${0##*/}"}./lava-multi-node.lib"\n'
        'lava_call LOCK "$@" || exit 3\necho "[$LAVA_REPLY]"\nlava_call UNLOCK\necho "[$LAVA_REPLY]"\n'
        'lava_signal FEEDBACK "a b"\nlava_signal FEEDBACK "a > b"\n',
    )
    call = device.start("lava-lock", "disk", "$(x)")
    call.answer(b"LOCK disk $(x)", b"<LAVA_LOCK_COMPLETE  a > b *  >")
    call.expect(b"[ a > b *  ]\r\n")
    call.answer(b"UNLOCK", b"<LAVA_UNLOCK_COMPLETE>")
    call.expect(b"[]\r\n<LAVA_SIGNAL_FEEDBACK a b>\r\n")
    call.expect(b"lava-lock: the signal cannot hold a newline, another control character or '>': a \r\n")
    assert call.finish() == 1
    assert call.tty() == call.initial
    call = device.start("lava-lock", "disk")
    call.answer(b"LOCK disk", b"<LAVA_LOCK_COMPLETE nack>")
    assert call.finish() == 3
