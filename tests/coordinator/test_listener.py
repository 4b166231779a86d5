"""Sends that are answered before their connection is one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket

from coordinator_lab import Lab, in_lab, until

from dispatcher.coordinator.journal.memory import MemoryJournal
from dispatcher.coordinator.listener import TURN
from dispatcher.coordinator.server import AT_ONCE_LIMIT, Limits
from dispatcher.errors import JournalError
from dispatcher.group.events import Event, Sent


def said(lab: Lab, data: bytes) -> socket.socket:
    """A client whose bytes lie in the kernel before the server looks."""
    client = socket.create_connection(("127.0.0.1", lab.port))
    client.sendall(data)
    client.setblocking(False)
    return client


async def heard(client: socket.socket) -> bytes:
    """All that the server answers."""
    answer = b""
    with contextlib.closing(client):
        while data := await asyncio.get_running_loop().sock_recv(client, 65536):
            answer += data
    return answer


def send(member: str = "1", group: str = "g", **message: str) -> bytes:
    fields = {"request": "lava_send", "client_name": member, "group_name": group, "messageID": "m", "message": message}
    body = json.dumps(fields).encode()
    return b"%08X%b" % (len(body), body)


def test_a_send_needs_no_place_among_the_connections() -> None:
    async def scenario(lab: Lab) -> None:
        await lab.gather("1", "2")
        await until(lambda: lab.counters.open == 0)
        held = asyncio.ensure_future(
            lab.ask(request="lava_wait", client_name="2", group_name="g", messageID="m", multinode={"hold": 60})
        )
        await until(lambda: lab.counters.held == 1)
        assert b'"nack"' in await heard(said(lab, send("3", k="v")))
        assert b'"ack"' in await heard(said(lab, send("1", k="v")))
        assert (await held)["message"] == {"1": {"k": "v"}}
        counters = lab.counters
        assert (counters.accepted, counters.turned_away, counters.requests["send"], counters.lost) == (5, 0, 2, 0)
        assert (counters.replies["ack"], counters.replies["nack"]) == (2, 1)

    in_lab(scenario, limits=Limits(connections=1))


def test_what_is_not_whole_too_long_or_no_send_is_a_connection_as_ever() -> None:
    async def scenario(lab: Lab) -> None:
        await lab.gather("1")
        whole = send("1", k="v")
        slow = said(lab, whole[:20])
        await until(lambda: lab.counters.open == 1)
        slow.sendall(whole[20:])
        long = said(lab, send("1", k="x" * AT_ONCE_LIMIT))
        rubbish = said(lab, b"rubbish!")
        answers = await asyncio.gather(heard(slow), heard(long), heard(rubbish))
        assert [json.loads(answer[8:])["response"] for answer in answers] == ["ack", "ack", "nack"]
        assert lab.counters.malformed == {"header": 1}

    in_lab(scenario)


def test_a_crowd_is_answered_in_turns_with_the_silent_among_it() -> None:
    async def scenario(lab: Lab) -> None:
        await lab.gather("1")
        silent = said(lab, b"")
        crowd = [said(lab, send("1", number=str(number))) for number in range(TURN + 1)]
        gone = said(lab, send("1", number="last"))
        gone.close()
        for answer in await asyncio.gather(*(heard(client) for client in crowd)):
            assert b'"ack"' in answer
        await until(lambda: lab.counters.requests["send"] == len(crowd) + 1)
        silent.close()

    in_lab(scenario)


class _Full(MemoryJournal):
    """A journal that keeps no messages."""

    def append(self, group: str, event: Event) -> None:
        if isinstance(event, Sent):
            raise JournalError("the disk is full")
        super().append(group, event)


def test_what_the_journal_does_not_keep_is_not_acknowledged() -> None:
    async def scenario(lab: Lab) -> None:
        told: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context["exception"]))
        await lab.gather("1")
        with contextlib.suppress(ConnectionResetError):
            assert await heard(said(lab, send("1", k="v"))) == b""
        assert [type(error) for error in told] == [JournalError]

    in_lab(scenario, journal=_Full())
