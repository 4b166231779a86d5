"""The serial transport: ports by path and by URL, their lines, their errors, and no thread left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import struct
import subprocess
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import serial
import serial.rfc2217
from console_harness import opened, run, soon

from dispatcher.console.serial import SerialTransport
from dispatcher.errors import ConsoleClosed, ConsoleError, UserError


def transport(port: str, **options: Any) -> SerialTransport:
    """A port whose loss is its end, unless a test says otherwise."""
    return SerialTransport("board", {"serial": port, "reconnect": 0, **options})


class Wire:
    """A pty whose slave is a UART by its path; the test holds the master."""

    def __init__(self) -> None:
        self.master, slave = os.openpty()
        self.path = os.ttyname(slave)
        self._slave: int | None = slave
        os.set_blocking(self.master, False)

    async def hear(self, size: int) -> bytes:
        loop = asyncio.get_running_loop()
        heard = b""
        while len(heard) < size:
            ready = loop.create_future()
            loop.add_reader(self.master, ready.set_result, None)
            await ready
            loop.remove_reader(self.master)
            heard += os.read(self.master, 65536)
        return heard

    def flags(self) -> list[Any]:
        return termios.tcgetattr(self.master)

    def close(self) -> None:
        for descriptor in (self.master, self._slave):
            if descriptor is not None:
                os.close(descriptor)


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()
    yield wire
    wire.close()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def url(listener: socket.socket, scheme: str = "socket") -> str:
    return f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"


async def accepted(listener: socket.socket) -> socket.socket:
    board, _address = await asyncio.get_running_loop().sock_accept(listener)
    board.setblocking(False)
    return board


def pattern(text: bytes) -> list[re.Pattern[bytes]]:
    return [re.compile(text)]


# --- options ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"serial": ""}, "board: console serial is empty"),
        ({"baudrate": "fast"}, "board: baudrate 'fast' is not a number of bits a second"),
        ({"baudrate": "115200"}, "board: baudrate '115200' is not a number"),
        ({"baudrate": True}, "board: baudrate True is not a number"),
        ({"baudrate": 0}, "board: baudrate 0 is not a number"),
        ({"baudrate": -9600}, "board: baudrate -9600 is not a number"),
        ({"baudrate": 10**12}, "board: baudrate 1000000000000 is not a number"),
        ({"rtscts": "yes"}, "board: rtscts 'yes' is neither true nor false"),
        ({"xonxoff": 1}, "board: xonxoff 1 is neither true nor false"),
        ({"dtr": "low"}, "board: dtr 'low' is neither true nor false"),
        ({"rts": 0}, "board: rts 0 is neither true nor false"),
        ({"hupcl": "no"}, "board: hupcl 'no' is neither true nor false"),
        ({"dsrdtr": "on"}, "board: dsrdtr 'on' is neither true nor false"),
        ({"exclusive": 1}, "board: exclusive 1 is neither true nor false"),
        ({"reconnect": "1.5"}, "board: reconnect '1.5' is not a number of seconds"),
        ({"reconnect": -1}, "board: reconnect -1 is not a number of seconds"),
        ({"serial": "loop://", "hupcl": True}, "board: hupcl cannot be set on loop://"),
        ({"serial": "loop://", "exclusive": True}, "board: exclusive cannot be set on loop://"),
        ({"serial": "sockte://h:1"}, "board: console serial 'sockte://h:1': pyserial knows no sockte://"),
        ({"serial": "soc.ket://h:1"}, "board: console serial 'soc.ket://h:1': pyserial knows no soc.ket://"),
        ({"serial": "telnet://u:pw@h:1"}, "board: console serial: pyserial knows no telnet://"),
        (
            {"serial": "socket://127.0.0.1"},
            "board: console serial 'socket://127.0.0.1' does not name a host and a port",
        ),
        ({"serial": "rfc2217://h:99999"}, "board: console serial 'rfc2217://h:99999' does not name a host and a port"),
        ({"serial": "rfc2217://u:pw@h:1"}, "board: console serial: rfc2217:// takes no user and no password\n"),
        (
            {"serial": "labhost:7001"},
            "board: console serial 'labhost:7001' is neither a path nor a URL\n"
            "  write a server's port like socket://labhost:7001 or rfc2217://labhost:7001",
        ),
        ({"serial": "socket:/h:1"}, "board: console serial 'socket:/h:1' is neither a path nor a URL"),
        ({"serial": "hwgrep://"}, "board: console serial 'hwgrep://' would take the first port there is\n"),
        ({"serial": "hwgrep://(["}, "board: console serial 'hwgrep://([' is no regular expression: "),
    ],
)
def test_an_option_that_cannot_be_meant_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as raised:
        transport(**{"port": "/dev/ttyS0"} | {"port" if key == "serial" else key: v for key, v in options.items()})
    assert str(raised.value).startswith(message)


def test_a_link_below_dev_serial_is_the_same_line(tmp_path: Path) -> None:
    (tmp_path / "by-id").symlink_to("/dev/null")
    assert transport(str(tmp_path / "by-id")).line() == transport("/dev/null").line() == "/dev/null"


def test_a_url_that_a_request_fills_in_later_is_taken() -> None:
    transport("socket://{ipaddr}:{port}")


def found_by_searching(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> SerialTransport:
    found = [(wire.path, "a board", "USB VID:PID=0403:6001")]
    monkeypatch.setattr("serial.tools.list_ports.grep", lambda _pattern, **_options: found)
    return transport("hwgrep://0403:6001")


def test_a_port_that_is_searched_for_is_the_line_that_is_found(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found_by_searching(wire, monkeypatch).line() == wire.path


def test_a_port_that_is_searched_for_is_refused_if_somebody_has_it(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with opened(found_by_searching(wire, monkeypatch)):
            other = found_by_searching(wire, monkeypatch)
            with pytest.raises(ConsoleError, match=r"^board: cannot open hwgrep:\S+ another program uses it\n"):
                other.open()

    run(test())


def test_a_search_that_finds_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serial.tools.list_ports.grep", lambda _pattern, **_options: [])
    assert transport("hwgrep://0403").line() == "hwgrep://0403"
    with pytest.raises(ConsoleError, match=r"^board: cannot open hwgrep://0403: no ports found .*\n  .* the cable"):
        transport("hwgrep://0403").open()


# --- a path ----------------------------------------------------------------------------------------------------


def test_a_port_is_read_written_and_released(wire: Wire, tmp_path: Path) -> None:
    everything = bytes(range(256))

    async def test() -> None:
        async with opened(transport(wire.path), tmp_path / "log") as console:
            os.write(wire.master, everything + b"login: ")
            await console.expect(pattern(b"login: "), soon())
            sending = asyncio.ensure_future(console.send(everything * 1000))
            assert await wire.hear(256_000) == everything * 1000
            await sending

    run(test())
    assert (tmp_path / "log").read_bytes() == everything + b"login: "


def test_a_port_is_set_up_as_it_was_asked_for(wire: Wire) -> None:
    async def test() -> None:
        async with opened(transport(wire.path, baudrate=9600, xonxoff=True, rtscts=True, hupcl=True)):
            iflag, oflag, cflag, lflag, _ispeed, ospeed, _cc = wire.flags()
            assert ospeed == termios.B9600
            assert iflag & termios.IXON
            assert cflag & termios.CRTSCTS
            assert cflag & termios.HUPCL
            assert not lflag & (termios.ICANON | termios.ECHO | termios.ISIG)
            assert not oflag & termios.OPOST
        async with opened(transport(wire.path, hupcl=False)):
            assert not wire.flags()[2] & (termios.HUPCL | termios.CRTSCTS)
            assert wire.flags()[5] == termios.B115200
        async with opened(transport(wire.path)):
            assert not wire.flags()[2] & termios.HUPCL

    run(test())


@pytest.mark.parametrize(
    ("options", "set_to"),
    [
        ({}, []),
        ({"dtr": True}, [("dtr", True)]),
        ({"dtr": False, "rts": False}, [("dtr", False), ("rts", False)]),
        ({"rts": True}, [("rts", True)]),
    ],
)
def test_only_the_lines_that_are_named_are_touched(
    options: dict[str, Any], set_to: list[tuple[str, bool]], wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched: list[tuple[str, bool]] = []
    monkeypatch.setattr(serial.Serial, "_update_dtr_state", lambda port: touched.append(("dtr", port._dtr_state)))
    monkeypatch.setattr(serial.Serial, "_update_rts_state", lambda port: touched.append(("rts", port._rts_state)))

    async def test() -> None:
        async with opened(transport(wire.path, **options)):
            pass

    run(test())
    assert touched == set_to


def test_nothing_to_read_is_not_the_end(wire: Wire) -> None:
    """Somebody else took it: a tty that is not told to wait for a byte then reads nothing, as it does at its end."""

    async def test() -> None:
        async with opened(transport(wire.path)) as console:
            assert console._readable() is False
            assert not console._ended.is_set()
            os.write(wire.master, b"still here")
            await console.expect(pattern(b"still here"), soon())

    run(test())


def test_a_port_that_is_open_already_is_refused(wire: Wire) -> None:
    async def test() -> None:
        async with opened(transport(wire.path)):
            with pytest.raises(ConsoleError, match=f"^board: cannot open {wire.path}: another program uses it\n"):
                async with opened(transport(wire.path)):
                    pass

    run(test())


_HOLD = (
    "import fcntl,sys,time; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); time.sleep(600)"
)


def test_who_has_locked_a_port_is_named(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not who else has it open, as the one that plays the board does; and another user's, whose files are not seen."""
    monkeypatch.setattr("dispatcher.console.holder._openers", lambda _path, _device: iter([os.getppid()]))
    other = subprocess.Popen([sys.executable, "-c", _HOLD, wire.path], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        other.stdout.readline()

        async def test() -> None:
            with pytest.raises(ConsoleError) as raised:
                async with opened(transport(wire.path)):
                    pass
            taken = f"board: cannot open {wire.path}: process {other.pid} ({sys.executable} -c import fcntl"
            assert str(raised.value).startswith(taken)
            assert " uses it\n  close that one first" in str(raised.value)
            async with opened(transport(wire.path, exclusive=False)):
                pass

        run(test())
    finally:
        other.kill()
        other.communicate()


def test_who_reads_a_port_without_a_lock_is_found(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that read a line get half of it each; on a pty nobody minds, so it is taken for a UART here."""
    monkeypatch.setattr("dispatcher.console.serial.is_simulated", lambda _path: False)
    reader = subprocess.Popen(["cat", wire.path], stdout=subprocess.PIPE)
    try:
        os.write(wire.master, b"up\n")
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"up\n"

        async def test() -> None:
            with pytest.raises(ConsoleError, match=rf"process {reader.pid} \(cat {wire.path}\) uses it\n"):
                async with opened(transport(wire.path)):
                    pass

        run(test())
    finally:
        reader.kill()
        reader.communicate()


def test_a_pty_that_has_become_the_terminal_of_a_shell_is_not_typed_at(wire: Wire) -> None:
    """A simulator's pty is lost when it ends; what is found by that name afterwards may be a person's terminal."""
    with open(wire.path, "rb") as terminal:
        shell = subprocess.Popen(["setsid", "--ctty", "cat"], stdin=terminal, stdout=subprocess.PIPE)
    try:
        os.write(wire.master, b"up\n")
        assert shell.stdout is not None
        assert shell.stdout.readline() == b"up\n"

        async def test() -> None:
            with pytest.raises(ConsoleError, match=rf"cannot open {wire.path}: process {shell.pid} \(cat\) uses it\n"):
                async with opened(transport(wire.path)):
                    pass
            async with opened(transport(wire.path, exclusive=False)):
                pass

        run(test())
    finally:
        shell.kill()
        shell.communicate()


def test_what_came_before_a_port_was_opened_is_read(wire: Wire) -> None:
    """QEMU's pty holds what its guest said; a line that was lost for a while, what came since."""
    tty.setraw(wire.master)
    os.write(wire.master, b"SeaBIOS")

    async def test() -> None:
        async with opened(transport(wire.path)) as console:
            await console.expect(pattern(b"SeaBIOS"), soon())

    run(test())


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/dev/ttyUSB99", "board: cannot open /dev/ttyUSB99: there is no such file\n  see console: serial:"),
        ("/dev/null", "board: cannot open /dev/null: it is no serial line\n  see console: serial:"),
        ("/etc/passwd", "board: cannot open /etc/passwd: it is no serial line"),
        ("/etc", "board: cannot open /etc: Is a directory"),
        ("/dev/tty\0S0", "board: cannot open /dev/tty\0S0: embedded null byte"),
    ],
)
def test_a_port_that_cannot_be_opened_is_named(path: str, message: str) -> None:
    async def test() -> None:
        with pytest.raises(ConsoleError) as raised:
            async with opened(transport(path)):
                pass
        assert str(raised.value).startswith(message)

    run(test())


def test_a_port_that_is_not_ours_says_which_group(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_port: object) -> None:
        raise serial.SerialException(13, "could not open port: [Errno 13] Permission denied")

    monkeypatch.setattr(serial.Serial, "open", refuse)

    async def test() -> None:
        with pytest.raises(ConsoleError, match=r"permission denied\n.*dialout"):
            async with opened(transport(wire.path)):
                pass

    run(test())


def test_an_unplugged_port_is_told() -> None:
    async def test() -> None:
        wire = Wire()
        async with opened(transport(wire.path)) as console:
            wire.close()
            assert str(await console.ended()) == f"board: {wire.path} hung up"

    run(test())


def test_closing_does_not_wait_for_a_line_that_stands_still(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = []
    monkeypatch.setattr(termios, "tcflush", lambda descriptor, queue: flushed.append(queue))

    async def test() -> None:
        async with opened(transport(wire.path)):
            flushed.clear()
        assert flushed == [termios.TCOFLUSH]

    run(test())


# --- a URL -----------------------------------------------------------------------------------------------------


def test_a_socket_is_read_written_and_closed(listener: socket.socket, tmp_path: Path) -> None:
    data = os.urandom(1 << 20)

    async def test() -> None:
        loop = asyncio.get_running_loop()
        async with opened(transport(url(listener)), tmp_path / "log") as console:
            board = await accepted(listener)
            # At once, while the other end may still be opening its port.
            sending = asyncio.gather(console.send(data), loop.sock_sendall(board, data + b"login: "))
            heard = b""
            while len(heard) < len(data):
                heard += await loop.sock_recv(board, 65536)
            assert heard == data
            await console.expect(pattern(b"login: "), soon())
            await sending
        assert await loop.sock_recv(board, 1) == b""
        board.close()

    run(test())
    assert (tmp_path / "log").read_bytes() == data + b"login: "


def test_a_socket_that_ends_is_told(listener: socket.socket) -> None:
    async def test() -> None:
        async with opened(transport(url(listener))) as console:
            board = await accepted(listener)
            board.send(b"last words")
            board.close()
            assert str(await console.ended()) == f"board: {url(listener)} ended: read failed: socket disconnected"
            await console.expect(pattern(b"last words"), soon())
            with pytest.raises(ConsoleClosed):
                await console.send(b"x")

    run(test())


def test_a_socket_that_is_reset_is_told_and_closed(listener: socket.socket) -> None:
    """pyserial would leave it to the garbage collector, which complains."""

    async def test() -> None:
        async with opened(transport(url(listener))) as console:
            board = await accepted(listener)
            board.send(b"up")
            await console.expect(pattern(b"up"), soon())
            board.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            board.close()
            assert str(await console.ended()) == f"board: {url(listener)} ended: Connection reset by peer"

    run(test())


def test_opening_a_url_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """pyserial waits up to 5 s for a socket, and for rfc2217:// as long again: the other consoles are to be read."""
    may_open = threading.Event()
    open_port = serial.serial_for_url

    def slowly(*args: Any, **options: Any) -> serial.Serial:
        may_open.wait()
        return open_port(*args, **options)

    monkeypatch.setattr(serial, "serial_for_url", slowly)

    async def test() -> None:
        async with opened(transport("loop://")) as console:
            await console.send(b"typed before it is open")
            may_open.set()
            await console.expect(pattern(b"typed before it is open"), soon())

    run(test())


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("loop://?logging=loud", "board: cannot open loop://?logging=loud: "),
    ],
)
def test_a_url_that_cannot_be_opened_ends_the_console_with_the_reason(address: str, message: str) -> None:
    async def test() -> None:
        async with opened(transport(address)) as console:
            with pytest.raises(ConsoleClosed) as raised:
                await console.expect(pattern(b"x"), soon())
            assert str(raised.value).startswith(message)

    run(test())


def test_a_refused_connection_is_told_once(listener: socket.socket) -> None:
    address = url(listener)
    listener.close()

    async def test() -> None:
        async with opened(transport(address)) as console:
            assert str(await console.ended()) == f"board: cannot open {address}: Connection refused"

    run(test())


def test_a_port_without_a_descriptor_is_relayed_and_leaves_no_thread() -> None:
    data = os.urandom(3000)
    before = threading.active_count()

    async def test() -> None:
        async with opened(transport("loop://")) as console:
            await console.send(data + b"end.")
            await console.expect(pattern(b"end[.]$"), soon())
            assert threading.active_count() > before

    run(test())


def test_a_relay_whose_port_fails_while_it_is_written_to_ends_the_console(monkeypatch: pytest.MonkeyPatch) -> None:
    from serial.urlhandler import protocol_loop

    def broken(_port: object, _data: bytes) -> int:
        raise serial.SerialException("connection failed (socket error)")

    monkeypatch.setattr(protocol_loop.Serial, "write", broken)

    async def test() -> None:
        async with opened(transport("loop://")) as console:
            await console.send(b"x")
            assert str(await console.ended()) == "board: loop:// ended: connection failed (socket error)"

    run(test())


def test_what_a_relay_had_begun_to_read_when_its_port_failed_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from serial.urlhandler import protocol_loop

    def broken(_port: object) -> int:
        raise serial.SerialException("the cable was pulled")

    monkeypatch.setattr(protocol_loop.Serial, "in_waiting", property(broken))

    async def test() -> None:
        async with opened(transport("loop://"), tmp_path / "log") as console:
            await console.send(b"x")
            assert str(await console.ended()) == "board: loop:// ended: the cable was pulled"

    run(test())
    assert (tmp_path / "log").read_bytes() == b"x"


def test_a_relay_that_nobody_reads_is_closed_all_the_same(listener: socket.socket) -> None:
    """Its threads stand in the middle of a write, both ways."""

    async def test() -> None:
        loop = asyncio.get_running_loop()
        async with opened(transport(url(listener))) as console:
            board = await accepted(listener)
            loop.remove_reader(console._spawn.child_fd)  # type: ignore[union-attr]
            writing = [
                asyncio.ensure_future(console.send(bytes(20_000_000))),
                asyncio.ensure_future(loop.sock_sendall(board, bytes(20_000_000))),
            ]
            done, _pending = await asyncio.wait(writing, timeout=0.3)
            assert not done
            await console.close()
            with pytest.raises(ConsoleClosed):
                await writing[0]
            with pytest.raises(OSError, match=r"reset|pipe"):
                await writing[1]
            board.close()

    run(test())


@pytest.mark.filterwarnings("ignore:set(Daemon|Name)")  # pyserial 3.5 uses what Python 3.10 deprecated
def test_a_port_behind_rfc2217(listener: socket.socket) -> None:
    """pyserial's own server, with a looped port behind it; nobody asks it to move DTR or RTS."""
    asked = bytearray()

    def serve() -> None:
        listener.setblocking(True)
        connection, _address = listener.accept()
        port = serial.serial_for_url("loop://", timeout=0)

        class Connection:
            write = staticmethod(connection.sendall)

        manager = serial.rfc2217.PortManager(port, Connection())
        with contextlib.closing(connection), contextlib.suppress(OSError):
            while data := connection.recv(1024):
                asked.extend(data)
                port.write(b"".join(manager.filter(data)))
                if echo := port.read(port.in_waiting):
                    connection.sendall(b"".join(manager.escape(echo)))
        port.close()

    async def test() -> None:
        async with opened(transport(url(listener, "rfc2217"), baudrate=9600)) as console:
            await console.send(b"typed \xff end.")
            await console.expect(pattern(b"typed \xff end[.]"), soon())

    server = threading.Thread(target=serve)
    server.start()
    run(test())
    server.join()
    settings = re.findall(rb"\xff\xfa\x2c(.)", asked, re.DOTALL)  # RFC 2217: IAC SB COM-PORT-OPTION
    assert serial.rfc2217.SET_BAUDRATE in settings
    controls = re.findall(rb"\xff\xfa\x2c\x05(.)", asked, re.DOTALL)
    moved = {
        getattr(serial.rfc2217, f"SET_CONTROL_{line}_{level}") for line in ("DTR", "RTS") for level in ("ON", "OFF")
    }
    assert moved.isdisjoint(controls)


@pytest.mark.filterwarnings("ignore:set(Daemon|Name)")
def test_a_server_behind_rfc2217_that_speaks_no_telnet_is_told_in_one_line(listener: socket.socket) -> None:
    """Its port's echo ends options that were never begun: pyserial's thread dies of it, and says so in a traceback."""

    async def test() -> None:
        async with opened(transport(url(listener, "rfc2217") + "?timeout=0.1")) as console:
            with await accepted(listener) as board:
                await asyncio.get_running_loop().sock_sendall(board, b"\xff\xf0")
                assert re.fullmatch(
                    r"board: cannot open rfc2217://\S+: Remote does not .*; socket:// is for bare ports, .*",
                    str(await console.ended()),
                )

    run(test())
