"""A coordinator notices that a member's dispatcher has died, and is not deceived where only a connection was lost."""

from __future__ import annotations

import asyncio
import errno
import socket
from pathlib import Path

import pytest
from coordinator_lab import Lab, in_lab, serving, until
from pki_harness import Pki
from stay_lab import Time, begin, in_time, line, stay

from dispatcher.coordinator import keepalive, wire
from dispatcher.coordinator.access import client_tls, server_tls
from dispatcher.coordinator.desk import Desk
from dispatcher.coordinator.hall import Hall
from dispatcher.coordinator.journal.memory import MemoryJournal
from dispatcher.coordinator.remote import HOLD, MARGIN, PATIENCE, Address, Place, RemoteClient
from dispatcher.coordinator.server import Limits
from dispatcher.coordinator.watch import ABSENCE, SILENCE
from dispatcher.errors import CallRefused
from dispatcher.group.events import Member
from dispatcher.group.needs import Kind
from dispatcher.group.presence import Presence

SERVER, CLIENT = Member("1", "server"), Member("2", "client")


def client(port: int, member: Member, *, incarnation: str = "", early: bool = False) -> RemoteClient:
    return RemoteClient(Address("127.0.0.1", port), Place("g", member, 2), incarnation=incarnation, early=early)


async def pair(lab: Lab) -> tuple[RemoteClient, RemoteClient]:
    """Two members that have joined and stay."""
    one, two = client(lab.port, SERVER), client(lab.port, CLIENT)
    await asyncio.gather(one.join("j1"), two.join("j2"))
    await until(lambda: lab.counters.staying == 2)
    return one, two


def die(dispatcher: RemoteClient) -> None:
    """What a killed process leaves of a client."""
    dispatcher._stay_no_more()


def told(lab: Lab, *kinds: str) -> list[str]:
    return [notice.text for _group, notice in lab.notices if notice.kind in kinds]


# --- a dispatcher dies -------------------------------------------------------------------------------------------


def test_a_member_whose_dispatcher_died_leaves_and_who_waits_for_it_is_told() -> None:
    async def scenario(time: Time) -> None:
        async with serving() as lab:
            one, two = await pair(lab)
            waiting = asyncio.ensure_future(one.wait("w", Kind.WAIT_ALL, "m", "client", timeout=None))
            await until(lambda: lab.counters.held == 1)
            die(two)
            await until(lambda: lab.hall.watch.count_absent() == 1)
            time.pass_(ABSENCE - 1)
            status = lab.server.desk.status()
            assert [round(member["absent"] or 0) for member in status["groups"][0]["members"]] == [0, 29]
            assert lab.hall.rooms["g"].group.presence("2") is Presence.HERE
            time.pass_(1)
            reason = r"missing 2 \(client\), who has left: its dispatcher has gone"
            with pytest.raises(CallRefused, match=reason):
                await waiting
            left = r"2 \(client\) has left: its dispatcher has gone"
            with pytest.raises(CallRefused, match=left):
                await two.send("s", "m", [])
            with pytest.raises(CallRefused, match=left):
                await two.wait("w2", Kind.WAIT, "m", None, timeout=None)
            assert "is given up in 30 s" in told(lab, "absent")[0]
            assert told(lab, "left") == ["2 (client) has left: its dispatcher has gone"]
            assert (
                await (await begin(lab, "2", "j2")).answer()
            ).reason == "2 (client) has left: its dispatcher has gone"

    in_time(scenario)


def test_one_that_is_started_again_is_told_how_long_it_has_to_wait_and_then_joins_anew() -> None:
    async def scenario(time: Time) -> None:
        async with serving() as lab:
            _one, two = await pair(lab)
            again = client(lab.port, CLIENT, incarnation="again.")
            with pytest.raises(CallRefused, match=r"2 \(client\) has joined already$"):
                await again.join("j1")
            die(two)
            await until(lambda: lab.hall.watch.count_absent() == 1)
            with pytest.raises(CallRefused, match="joined already; its dispatcher is away, and given up in 30 s"):
                await again.join("j2")
            time.pass_(ABSENCE)
            await until(lambda: lab.hall.rooms["g"].group.presence("2") is Presence.LEFT)
            assert await again.join("j3") == (SERVER, CLIENT)
            await until(lambda: lab.counters.staying == 2)
            with pytest.raises(CallRefused, match="another dispatcher speaks"):
                await two.send("s", "m", [])

    in_time(scenario)


def test_with_tls_too(tmp_path: Path) -> None:
    pki = Pki(tmp_path)

    async def scenario(lab: Lab) -> None:
        port = await lab.server.start("127.0.0.1", 0, ssl=server_tls(pki.server, pki.key("server")))
        place = Place("g", SERVER, 1)
        one = RemoteClient(Address("localhost", port), place, ssl=client_tls(pki.ca))
        await one.join("j1")
        await until(lambda: lab.counters.staying == 1)
        die(one)
        await until(lambda: lab.hall.watch.count_absent() == 1)
        assert "closed its connection, and is given up in 30 s" in told(lab, "absent")[0]

    in_lab(scenario)


def test_a_group_whose_dispatchers_have_all_died_ends() -> None:
    async def scenario(time: Time) -> None:
        async with serving() as lab:
            for dispatcher in await pair(lab):
                die(dispatcher)
            await until(lambda: lab.hall.watch.count_absent() == 2)
            time.pass_(ABSENCE)
            await until(lambda: not lab.hall.rooms)
            assert lab.hall.watch.count_absent() == 0

    in_time(scenario)


def test_one_that_leaves_is_not_missed() -> None:
    async def scenario(lab: Lab) -> None:
        one, two = await pair(lab)
        by_hand = await stay(lab, "2", "j2")
        await two.leave("l2", "done")
        assert (await by_hand.answer()).response == "ack"
        await until(lambda: lab.counters.staying == 1)
        await one.leave("l1", "done")
        await until(lambda: lab.counters.open == 0)
        assert told(lab, "absent", "back") == []
        assert lab.counters.lost == 0

    in_lab(scenario)


def test_stock_members_are_never_missed() -> None:
    async def scenario(time: Time) -> None:
        async with serving() as lab:
            await lab.gather("1", "2")
            assert (await (await begin(lab, "1", None)).answer()).reason == "a stay without the id of a join"
            assert (await (await begin(lab, "1", "j1")).answer()).reason == "another dispatcher speaks for 1 (tester)"
            time.pass_(SILENCE)
            assert await lab.stock("1", "lava_send", messageID="m") == {"response": "ack"}
            assert told(lab, "absent", "left") == []

    in_time(scenario)


def test_a_coordinator_that_was_stopped_itself_gives_nobody_up_before_it_has_listened_again() -> None:
    async def scenario(time: Time) -> None:
        async with serving() as lab:
            _one, two = await pair(lab)
            die(two)
            await until(lambda: lab.hall.watch.count_absent() == 1)
            time.pass_(10 * ABSENCE)
            again = await stay(lab, "2", "j2")
            await until(lambda: lab.hall.watch.count_absent() == 0)
            again.writer.close()
            await until(lambda: lab.hall.watch.count_absent() == 1)
            time.pass_(10 * ABSENCE)
            await lab.ask(request="status")
            time.pass_(ABSENCE)
            await until(lambda: lab.hall.rooms["g"].group.presence("2") is Presence.LEFT)

    in_time(scenario)


# --- a connection is lost, but nobody died -----------------------------------------------------------------------


def test_a_client_whose_connection_is_cut_stays_again() -> None:
    async def scenario(time: Time) -> None:
        async with serving() as lab, line(lab.port) as way:
            one, two = client(lab.port, SERVER), client(way.port, CLIENT)
            await asyncio.gather(one.join("j1"), two.join("j2"))
            for cuts in range(1, 4):
                await until(lambda: lab.counters.staying == 2)
                way.cut()
                await until(lambda cuts=cuts: len(told(lab, "absent")) == cuts)
                time.pass_(1)
                await until(lambda cuts=cuts: len(told(lab, "back")) == cuts)
            time.pass_(ABSENCE)
            await two.send("s", "m", [])
            assert told(lab, "back")[0].startswith("the dispatcher of 2 (client) is back after ")
            assert told(lab, "left") == []

    in_time(scenario)


def test_a_client_whose_requests_the_network_brings_too_late_makes_them_again() -> None:
    async def scenario(time: Time) -> None:
        async with serving() as lab, line(lab.port) as way:
            one, two = client(lab.port, SERVER), client(way.port, CLIENT)
            await asyncio.gather(one.join("j1"), two.join("j2"))
            await until(lambda: lab.counters.staying == 2)
            way.free.clear()
            way.cut()
            await until(lambda: bool(told(lab, "absent")))
            before = lab.counters.accepted
            sending = asyncio.ensure_future(two.send("s", "m", []))
            time.pass_(1)
            await until(lambda: lab.counters.accepted == before + 2)
            time.pass_(Limits().header)
            await until(lambda: lab.counters.malformed["late"] == 2)
            way.free.set()
            await sending
            time.pass_(1)
            await until(lambda: bool(told(lab, "back")))
            assert told(lab, "left") == []

    in_time(scenario)


def test_a_coordinator_that_is_stopped_and_started_again_misses_nobody() -> None:
    async def scenario(time: Time) -> None:
        journal = MemoryJournal()
        async with serving(journal) as lab:
            one, two = await pair(lab)
            lab.hall.watch.lose(lab.hall.watch._posts["g", "2"], silent=False)
            time.pass_(ABSENCE)
        again = Lab(journal, None, None)
        await again.server.start("127.0.0.1", lab.port)
        for _ in range(2):
            time.pass_(ABSENCE)
            await until(lambda: again.counters.staying == 2)
        assert told(again, "left", "absent") == told(lab, "left") == []
        await asyncio.gather(one.send("s1", "m", []), two.send("s2", "m", []))
        await again.server.stop()

    in_time(scenario)


def test_a_member_that_died_while_the_coordinator_was_away_is_not_missed() -> None:
    async def scenario(time: Time) -> None:
        journal = MemoryJournal()
        async with serving(journal) as lab:
            _one, two = await pair(lab)
        die(two)
        async with serving(journal) as again:
            time.pass_(SILENCE)
            assert again.hall.rooms["g"].group.presence("2") is Presence.HERE
            assert again.hall.watch.absent("g", "2") is None

    in_time(scenario)


def test_one_that_fell_silent_may_be_away_for_as_long_as_its_client_bears_it() -> None:
    assert SILENCE >= PATIENCE + 2 * (HOLD + MARGIN)

    async def scenario(time: Time) -> None:
        async with serving() as lab:
            await pair(lab)
            staying = lab.server.desk.answer(wire.Stay(wire.Caller("g", "2", join="j2")))
            assert not isinstance(staying, bytes)
            staying.let_go(TimeoutError(errno.ETIMEDOUT, "Connection timed out"))
            assert told(lab, "absent") == ["the dispatcher of 2 (client) is silent, and is given up in 450 s"]
            time.pass_(SILENCE - 1)
            await lab.ask(request="status")
            assert lab.hall.rooms["g"].group.presence("2") is Presence.HERE
            time.pass_(1)
            await until(lambda: lab.hall.rooms["g"].group.presence("2") is Presence.LEFT)

    in_time(scenario)


@pytest.mark.parametrize(
    ("error", "silence"),
    [
        (None, False),
        (ConnectionResetError(errno.ECONNRESET, "reset"), False),
        (TimeoutError(errno.ETIMEDOUT, "timed out"), True),
        (OSError(errno.EHOSTUNREACH, "no route"), True),
    ],
)
def test_what_counts_as_silence(error: Exception | None, silence: bool) -> None:
    assert keepalive.is_silence(error) is silence


def test_the_kernel_is_told_to_look_for_a_vanished_host() -> None:
    async def scenario(lab: Lab) -> None:
        await pair(lab)
        for connection in lab.server.connections:
            sock = connection._transport.get_extra_info("socket")
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == keepalive.IDLE
            unheard = 1000 * (keepalive.IDLE + keepalive.INTERVAL * keepalive.COUNT)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == unheard

    in_lab(scenario)


def test_a_dispatcher_may_be_away_for_ever_where_the_setting_says_so() -> None:
    async def scenario(time: Time) -> None:
        async with serving() as lab:
            hall = Hall(lab.journal, absence=None, observe=lambda group, notice: lab.notices.append((group, notice)))
            lab.server.desk = Desk(hall)
            _one, two = await pair(lab)
            die(two)
            await until(lambda: hall.watch.count_absent() == 1)
            time.pass_(SILENCE)
            with pytest.raises(CallRefused, match="joined already; its dispatcher is away, and never given up"):
                await client(lab.port, CLIENT, incarnation="again.").join("j")
            assert told(lab, "absent") == ["the dispatcher of 2 (client) has closed its connection"]

    in_time(scenario)


def test_a_group_in_which_a_dispatcher_stays_does_not_expire() -> None:
    async def scenario(lab: Lab) -> None:
        for dispatcher in await pair(lab):
            lab.clock.now += 3600
            lab.hall.expire()
            assert lab.hall.rooms
            die(dispatcher)
        await until(lambda: lab.hall.watch.count_absent() == 2)
        lab.clock.now += 3600
        lab.hall.expire()
        assert not lab.hall.rooms
        assert lab.hall.watch.count_absent() == 0

    in_lab(scenario)


def test_a_group_whose_dispatchers_are_away_for_a_moment_after_a_long_silence_does_not_expire() -> None:
    async def scenario(lab: Lab) -> None:
        for dispatcher in await pair(lab):
            lab.clock.now += 3600
            lab.hall.expire()
            die(dispatcher)
        taken = client(lab.port, SERVER, early=True)
        taken._place = Place("f", SERVER, 2)
        await taken.come("j3")
        await until(lambda: lab.counters.staying == 1)
        lab.clock.now += 3599
        lab.hall.expire()
        assert list(lab.hall.rooms) == ["g"]
        die(taken)
        await until(lambda: lab.hall.watch.count_absent() == 3)
        lab.clock.now += 0.5
        lab.hall.expire()
        assert list(lab.hall.rooms) == ["g"]
        lab.clock.now += 0.5
        lab.hall.expire()
        assert not lab.hall.rooms
        assert list(lab.hall.forming) == ["f"]

    in_lab(scenario)


# --- a group that forms ------------------------------------------------------------------------------------------


def test_one_that_dies_while_the_group_forms_frees_its_place() -> None:
    async def scenario(time: Time) -> None:
        async with serving() as lab:
            one = client(lab.port, SERVER)
            joining = asyncio.ensure_future(one.join("j1"))
            await until(lambda: lab.counters.staying == 1)
            two = client(lab.port, CLIENT, early=True)
            await two.come("j2")
            await until(lambda: lab.counters.staying == 2)
            die(two)
            await until(lambda: lab.hall.watch.count_absent() == 1)
            again = client(lab.port, CLIENT, incarnation="again.", early=True)
            with pytest.raises(CallRefused, match="has joined already; its dispatcher is away, and given up in 30 s"):
                await again.come("j2")
            time.pass_(ABSENCE)
            await until(lambda: len(lab.hall.forming["g"].members) == 1)
            await again.come("j2")
            assert await again.join("other") == await joining
            assert told(lab, "left") == ["2 (client) has left before the group was complete: its dispatcher has gone"]

    in_time(scenario)


def test_a_group_that_formed_of_dispatchers_that_died_is_forgotten() -> None:
    async def scenario(time: Time) -> None:
        async with serving() as lab:
            one = client(lab.port, SERVER)
            joining = asyncio.ensure_future(one.join("j1"))
            await until(lambda: lab.counters.held == lab.counters.staying == 1)
            die(one)
            await until(lambda: lab.hall.watch.count_absent() == 1)
            time.pass_(ABSENCE)
            with pytest.raises(CallRefused, match=r"1 \(server\) has left: its dispatcher has gone"):
                await joining
            assert not lab.hall.forming

    in_time(scenario)


def test_a_group_is_complete_when_those_who_took_a_place_have_joined() -> None:
    async def scenario(lab: Lab) -> None:
        one, two = client(lab.port, SERVER, early=True), client(lab.port, CLIENT, early=True)
        await asyncio.gather(one.come("j1"), two.come("j2"))
        joining = asyncio.ensure_future(one.join("later"))
        await until(lambda: lab.counters.held == 1)
        members = lab.server.desk.status()["forming"][0]["members"]
        assert {member["id"]: member["joined"] for member in members} == {"1": True, "2": False}
        late = wire.Join(wire.Caller("g", "1", "server", True, "j1"), 2, coming=True)
        lab.server.desk.answer(late)
        assert await two.join("later") == await joining

    in_lab(scenario)


def test_one_that_fails_before_it_joins_is_told_to_those_who_wait() -> None:
    async def scenario(lab: Lab) -> None:
        one, two = client(lab.port, SERVER), client(lab.port, CLIENT, early=True)
        await two.come("j2")
        joining = asyncio.ensure_future(one.join("j1"))
        await until(lambda: lab.counters.held == 1)
        await two.leave("l2", "no prompt came")
        reason = r"the group cannot be complete, for a member has left: 2 \(client\): no prompt came"
        with pytest.raises(CallRefused, match=reason):
            await joining
        late = lab.server.desk.answer(wire.Join(wire.Caller("g", "2", "client", True, "j2"), 2, coming=True))
        assert isinstance(late, bytes)
        assert b"no prompt came" in late
        await one.leave("l1", "the group is not complete")
        assert not lab.hall.forming

    in_lab(scenario)


def test_a_place_is_taken_again_where_the_coordinator_forgot_it() -> None:
    async def scenario(time: Time) -> None:
        async with serving() as lab:
            two = client(lab.port, CLIENT, early=True)
            await two.come("j2")
            await until(lambda: lab.counters.staying == 1)
        again = Lab(MemoryJournal(), None, None)
        await again.server.start("127.0.0.1", lab.port)
        time.pass_(10)
        await until(lambda: again.counters.staying == 1)
        assert [member.id for member in again.hall.forming["g"].members.values()] == ["2"]
        await again.server.stop()

    in_time(scenario)


# --- hostile and many --------------------------------------------------------------------------------------------


def test_who_may_not_stay() -> None:
    async def scenario(lab: Lab) -> None:
        await pair(lab)
        for member, join, group, reason in (
            ("2", None, "g", "a stay without the id of a join"),
            ("2", "j1", "g", "another dispatcher speaks for 2 (client)"),
            ("3", "j1", "g", "3 is no member of this group"),
            ("2", "j2", "h", "the group h is not open"),
        ):
            assert (await (await begin(lab, member, join, group)).answer()).reason == reason
        lab.hall.open("named", "run", (SERVER, CLIENT))
        reply = await (await begin(lab, "1", "j1", "named")).answer()
        assert reply.reason == "1 (server) has not joined yet"
        assert lab.counters.staying == 2
        assert told(lab, "absent") == []

    in_lab(scenario)


def test_of_a_thousand_stays_of_one_member_the_last_counts() -> None:
    async def scenario(lab: Lab) -> None:
        _one, two = await pair(lab)
        die(two)
        old = [await stay(lab, "2", "j2") for _ in range(1000)]
        last = old.pop()
        for each in old[::100]:
            assert (await each.answer()).reason == "another connection is kept for 2 (client)"
        await until(lambda: lab.counters.staying == 2)
        for each in old:
            each.writer.close()
        assert lab.hall.watch.absent("g", "2") is None
        last.writer.close()
        await until(lambda: lab.hall.watch.absent("g", "2") is not None)

    in_lab(scenario)


def test_the_end_of_a_clients_half_ends_its_stay() -> None:
    async def scenario(lab: Lab) -> None:
        _one, two = await pair(lab)
        die(two)
        half = await stay(lab, "2", "j2")
        half.writer.write_eof()
        assert await half.reader.read() == b""
        half.writer.close()
        await until(lambda: lab.hall.watch.absent("g", "2") is not None)

    in_lab(scenario)


def test_who_stays_leaves_room_for_others_and_who_finds_none_is_not_missed() -> None:
    async def scenario(time: Time) -> None:
        async with serving(limits=Limits(connections=4)) as lab:
            one, two = client(lab.port, SERVER), client(lab.port, CLIENT)
            await asyncio.gather(one.join("j1"), two.join("j2"))
            await until(lambda: lab.counters.staying == 2)
            refused = await (await begin(lab, "2", "j2")).answer()
            assert refused.reason == "too many members stay already; this one will not be missed"
            die(two)
            await until(lambda: lab.counters.open == 1)
            time.pass_(SILENCE)
            await one.send("s", "m", [])
            assert told(lab, "absent") == []

    in_time(scenario)


def test_nobody_is_given_up_while_some_are_turned_away() -> None:
    async def scenario(time: Time) -> None:
        async with serving(limits=Limits(connections=4)) as lab:
            one, two = await pair(lab)
            die(two)
            await until(lambda: lab.hall.watch.count_absent() == 1)
            time.pass_(ABSENCE - 1)
            waiting = [asyncio.ensure_future(one.wait(f"w{n}", Kind.WAIT, "m", None, timeout=None)) for n in range(3)]
            await until(lambda: lab.counters.held == 3)
            assert await lab.raw(b"") == b""
            time.pass_(1)
            assert await lab.raw(b"") == b""
            assert lab.hall.rooms["g"].group.presence("2") is Presence.HERE
            time.pass_(ABSENCE)
            for failed in await asyncio.gather(*waiting, return_exceptions=True):
                assert "2 (client): its dispatcher has gone" in str(failed)

    in_time(scenario)


def test_lavas_coordinator_is_not_asked_to_keep_a_connection() -> None:
    async def scenario(_time: Time) -> None:
        asked: list[str] = []

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            fields = wire.load(await reader.readexactly(wire.length(await reader.readexactly(wire.HEADER_SIZE))))
            asked.append(fields["request"])
            joined = {"response": "group_data", "roles": {"1": "server", "2": "client"}}
            writer.write(wire.frame(joined if fields["request"] == "group_data" else {"response": "ack"}))
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        one = client(server.sockets[0].getsockname()[1], SERVER)
        await one.join("j1")
        await one.send("s", "m", [])
        await one.leave("l", "done")
        assert asked == ["group_data", "lava_send", "clear_group"]
        server.close()

    in_time(scenario)
