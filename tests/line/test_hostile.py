"""A device that prints whatever it likes: no other member suffers, and the dispatcher only reads it once."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import pytest
from badline import CLEAN
from linelab import DEVICE, PARTNER, Lab, Seat
from pexpect import fdpexpect
from pexpect.spawnbase import SpawnBase
from plan import Step, check, scripts

from dispatcher.console.transport import Transport
from dispatcher.console.typist import BACKLOG_LIMIT
from dispatcher.framing import grammar
from dispatcher.framing.link import CALLS_REMEMBERED
from dispatcher.framing.reliable import Down, Kind, Up, UpDecoder, encode_down, encode_up
from dispatcher.group.events import Member
from dispatcher.job import session

VILLAIN = Member("3", "villain")
MEGABYTES = 10 if os.environ.get("MULTINODE_SOAK") else 1
PATIENCE = 300.0


class Pipe(Transport):
    """A console whose other end is the test's. It never reads what it is told."""

    OPTIONS: ClassVar[Mapping[str, str]] = {}

    def open(self) -> SpawnBase[bytes]:
        self._theirs, self._ours = socket.socketpair()
        self._theirs.setblocking(False)
        spawn: fdpexpect.fdspawn[bytes] = fdpexpect.fdspawn(self._ours.fileno(), timeout=None, encoding=None)
        return spawn

    async def close(self) -> None:
        self._ours.close()
        self._theirs.close()

    async def print(self, data: bytes) -> None:
        """Print all of it; when it has been read."""
        await asyncio.get_running_loop().sock_sendall(self._theirs, data)


def numbered(text: bytes, total: int = 1, *, number: int = 1) -> Callable[[int], bytes]:
    """Frames of one text, an id each."""
    return lambda count: encode_up(f"{count:012x}", number, total, text)


FLOODS: dict[str, Callable[[int], bytes]] = {
    "sends": numbered(b"SEND x k=v"),
    "one send": lambda _count: encode_up("0123456789ab", 1, 1, b"SEND x k=v"),
    "waits": numbered(b"WAIT never"),
    "first parts": numbered(b"x" * grammar.UP_PART, 9999),
    "second parts": numbered(b"x" * grammar.UP_PART, 9999, number=2),
    "questions": numbered(b"+ASK"),
    "results": numbered(b"SIGNAL TESTCASE TEST_CASE_ID=a RESULT=pass"),
    "cases that begin": lambda count: encode_up(f"{count:012x}", 1, 1, b"SIGNAL STARTTC a%d" % count),
    "damage": lambda _count: b"<MN2 0123456789ab 1/1 SEND x k=v 1.1>\n",
    "beginnings": lambda _count: b"<MN2 <LAVA_SIGNAL_",
    "no line ends": lambda _count: b"x" * 997,
    "control characters": lambda count: bytes([count % 256]) * 16,
    "markers": lambda _count: b"<LAVA_MULTI_NODE> <LAVA_SEND x k=v>\n",
    "markers that wait": lambda _count: b"<LAVA_MULTI_NODE> <LAVA_WAIT never>\n",
    "markers of no call": lambda _count: b"<LAVA_MULTI_NODE> <LAVA_NONE x>\n",
    "results in markers": lambda _count: b"<LAVA_SIGNAL_TESTCASE TEST_CASE_ID=a RESULT=pass>\n",
}


def pieces(make: Callable[[int], bytes]) -> Iterator[bytes]:
    """A flood, some KiB at a time."""
    piece, size, count = bytearray(), 0, 0
    while size < MEGABYTES * 1_000_000:
        piece += make(count)
        count += 1
        if len(piece) >= 16384:
            size += len(piece)
            yield bytes(piece)
            piece.clear()


STEPS = [
    Step("WAIT", "go", "0_first", answer={b"k": b"v"}, late=True),
    Step("SEND", "done", "0_first", pairs={b"k": b"v"}),
    Step("TESTCASE", "case", "0_first"),
]


def beside_a_villain(root: Path, shell: Path, misbehave: Callable[[Lab, Seat, Pipe], Awaitable[None]]) -> None:
    """Have a board wait, the villain misbehave, and the board go on."""

    async def run() -> None:
        async with Lab(root, shell, CLEAN, 1, members=(DEVICE, PARTNER, VILLAIN)) as lab, asyncio.timeout(PATIENCE):
            pipe = Pipe("villain", {})
            villain = lab.seat(VILLAIN, pipe)
            await lab.start(lab.board.add_stage(scripts(lab, STEPS)))
            await lab.device.noted("call", name="WAIT")
            await misbehave(lab, villain, pipe)
            await lab.clients[PARTNER.id].send("partner", "go", [("k", "v")])
            await lab.finish(["0_first"])
            check(lab, STEPS)

    asyncio.run(run())


@pytest.mark.slow
@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_harms_no_other_member(
    flood: str, any_shell: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "KEPT_LIMIT", 2000)

    async def misbehave(lab: Lab, villain: Seat, pipe: Pipe) -> None:
        villain.session._note = lambda *_kind, **_data: None
        for piece in pieces(FLOODS[flood]):
            await pipe.print(piece)
        conversation, typist = villain.session._conversation, villain.session._typist
        assert len(villain.cases) <= session.KEPT_LIMIT
        assert len(lab.sent(VILLAIN)) <= session.KEPT_LIMIT
        assert len(villain.session._waiting) + len(villain.session._in_order) <= session.KEPT_LIMIT
        assert len(conversation._link._calls) <= CALLS_REMEMBERED
        assert len(conversation._frames._kept) <= grammar.FRAME_LIMIT
        assert typist._size <= BACKLOG_LIMIT + 2 * grammar.FRAME_LIMIT
        assert len(villain.session._output) <= session.OUTPUT_LINE_LIMIT

    beside_a_villain(tmp_path, any_shell, misbehave)


def test_another_members_ids_are_nothing_but_ids(any_shell: Path, tmp_path: Path) -> None:
    async def misbehave(lab: Lab, villain: Seat, pipe: Pipe) -> None:
        *_, waiting = UpDecoder().feed(lab.device.shown())
        assert isinstance(waiting, Up)
        for text in (b"+BYE", b"+NEXT 1", b"+ASK", b"SEND mine k=forged", b"WAIT go", b"RUNNER EXIT"):
            await pipe.print(encode_up(waiting.id, 1, 1, text))
        for kind in Kind:
            await pipe.print(encode_down(Down(waiting.id, kind, 1, 1, b"k=forged\n")))
        await pipe.print(encode_up("0" * 12, 1, 1, b"SIGNAL STARTTC end"))
        await villain.noted("signal", name="STARTTC")
        # On its own console the id was new, and what came first is what it stands for.
        assert [(kind, data["name"]) for kind, data in villain.notes if kind == "call"] == [("call", "SEND")]
        assert [event.message_id for event in lab.sent(VILLAIN)] == ["mine"]
        assert lab.sent(DEVICE) == []

    beside_a_villain(tmp_path, any_shell, misbehave)
