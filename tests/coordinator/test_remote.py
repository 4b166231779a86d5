"""Our own clients against our own server: held calls, requests done once, restarts, and a coordinator that is away."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence

import pytest
from coordinator_lab import Clock, Lab, in_lab, serving, until

from dispatcher.coordinator.journal.memory import MemoryJournal
from dispatcher.coordinator.remote import PATIENCE, Address, Place, RemoteClient, ask_status
from dispatcher.errors import CallRefused, CoordinatorError
from dispatcher.group.events import Member, Sent, Synced
from dispatcher.group.needs import Kind

MEMBERS = (Member("1", "server"), Member("2", "client"))


def clients(lab: Lab, *, named: bool = True, run: str | None = "run") -> list[RemoteClient]:
    address = Address("127.0.0.1", lab.port)
    place = Place("g", MEMBERS[0], len(MEMBERS), MEMBERS if named else (), run if named else None)
    return [RemoteClient(address, dataclasses.replace(place, member=member)) for member in MEMBERS]


async def joined(lab: Lab, *, named: bool = True) -> Sequence[RemoteClient]:
    made = clients(lab, named=named)
    answers = await asyncio.gather(*(client.join(f"j{index}") for index, client in enumerate(made)))
    assert {frozenset(answer) for answer in answers} == {frozenset(MEMBERS)}
    return made


@pytest.mark.parametrize("named", [True, False])
def test_members_meet_and_bytes_arrive_as_they_were_sent(named: bool) -> None:
    async def scenario(lab: Lab) -> None:
        one, two = await joined(lab, named=named)
        value = b"\xff\xc3\xa9 '\"\\\r".decode("utf-8", "surrogateescape")
        waiting = asyncio.ensure_future(two.wait("w", Kind.WAIT, "m", None, timeout=None))
        await until(lambda: lab.counters.held == 1)
        await one.send("s", "m", [("k", "first"), ("empty", ""), ("k", value)])
        assert await waiting == {"1": {"k": value, "empty": ""}}
        assert await one.wait("w2", Kind.WAIT_ALL, "m", "server", timeout=None) == {"1": {"k": value, "empty": ""}}
        await asyncio.gather(one.leave("l1", "done"), two.leave("l2", "done"))
        assert not lab.hall.rooms
        await one.leave("l1", "done")  # its acknowledgement may have been lost

    in_lab(scenario)


def test_a_barrier_in_a_loop() -> None:
    async def scenario(lab: Lab) -> None:
        one, two = await joined(lab)
        for number in range(3):
            first = asyncio.ensure_future(one.wait(f"a{number}", Kind.SYNC, "s", None, timeout=None))
            await until(lambda: lab.counters.held == 1)
            assert await two.wait(f"b{number}", Kind.SYNC, "s", None, timeout=None) == {} == await first

    in_lab(scenario)


def test_a_deadline_says_how_far_it_got_and_leaves_the_arrival() -> None:
    async def scenario(lab: Lab) -> None:
        one, two = await joined(lab)
        with pytest.raises(CallRefused, match=r"timed out after 0 s; have 1 of 2, missing 2 \(client\)"):
            await one.wait("w", Kind.SYNC, "s", None, timeout=0.0)
        assert await two.wait("x", Kind.SYNC, "s", None, timeout=None) == {}

    in_lab(scenario)


def test_a_hold_that_ends_is_asked_for_again_and_is_the_same_wait() -> None:
    async def scenario(lab: Lab) -> None:
        one, _two = await joined(lab)
        two = RemoteClient(Address("127.0.0.1", lab.port), Place("g", MEMBERS[1], 2, MEMBERS, "run"), hold=0.01)
        await two.join("j1")
        waiting = asyncio.ensure_future(two.wait("w", Kind.WAIT, "m", None, timeout=None))
        await until(lambda: lab.counters.replies["wait"] >= 3)
        assert len(list(lab.hall.rooms["g"].group.calls())) == 1
        await one.send("s", "m", [])
        assert await waiting == {}

    in_lab(scenario)


def test_reasons_travel() -> None:
    async def scenario(lab: Lab) -> None:
        one, two = await joined(lab)
        with pytest.raises(CallRefused, match="no member has the role 'x'; the roles are server, client"):
            await one.wait("w", Kind.WAIT_ALL, "m", "x", timeout=None)
        waiting = asyncio.ensure_future(one.wait("w2", Kind.WAIT, "m", None, timeout=None))
        await until(lambda: lab.counters.held == 1)
        await two.leave("l", "its console was lost")
        with pytest.raises(CallRefused, match=r"every other member has left: 2 \(client\): its console was lost"):
            await waiting
        with pytest.raises(CallRefused, match="has left"):
            await two.send("s", "m", [])

    in_lab(scenario)


def test_a_wait_that_is_cancelled_is_withdrawn_and_can_be_made_again() -> None:
    async def scenario(lab: Lab) -> None:
        one, two = await joined(lab)
        group = lab.hall.rooms["g"].group
        waiting = asyncio.ensure_future(one.wait("w", Kind.SYNC, "s", None, timeout=None))
        await until(lambda: lab.counters.held == 1)
        waiting.cancel()
        await asyncio.wait([waiting])
        await until(lambda: not list(group.calls()))
        again = asyncio.ensure_future(one.wait("w", Kind.SYNC, "s", None, timeout=None))
        await until(lambda: bool(list(group.calls())))
        assert await two.wait("x", Kind.SYNC, "s", None, timeout=None) == {} == await again

    in_lab(scenario)


def test_a_call_is_withdrawn_by_its_own_member() -> None:
    async def scenario(lab: Lab) -> None:
        one, two = await joined(lab)
        group = lab.hall.rooms["g"].group
        waiting = asyncio.ensure_future(one.wait("w", Kind.WAIT, "m", None, timeout=None))
        await until(lambda: lab.counters.held == 1)
        for member, join, still_there in ((MEMBERS[1], "j1", True), (MEMBERS[0], "j0", False)):
            ours = {"id": "w", "join": join, "run": "run"}
            answer = await lab.stock(member.id, "withdraw", role=member.role, multinode=ours)
            assert answer["response"] == "ack"
            assert bool(list(group.calls())) is still_there
        waiting.cancel()
        gone = {"group": "another", "multinode": {"id": "w"}}
        assert (await lab.stock("1", "withdraw", **gone))["response"] == "ack", "a group that is not there any more"
        nameless = await lab.stock("1", "withdraw", multinode={})
        assert nameless["reason"] == "a call without an id cannot be withdrawn"
        await two.send("s", "m", [])

    in_lab(scenario)


def test_a_stuck_set_fails_after_the_grace() -> None:
    async def scenario(lab: Lab) -> None:
        one, two = await joined(lab)
        waits = [
            client.wait(request, Kind.WAIT, message_id, None, timeout=None)
            for client, request, message_id in ((one, "w1", "a"), (two, "w2", "b"))
        ]
        for failed in await asyncio.gather(*waits, return_exceptions=True):
            assert str(failed).startswith("stuck: ")

    in_lab(scenario, grace=0.0)


def test_who_may_not_join() -> None:
    async def scenario(lab: Lab) -> None:
        one, _two = await joined(lab)
        with pytest.raises(CallRefused, match=r"1 \(server\) has joined already"):
            await one.join("another console")
        other = clients(lab, run="another")[0]
        for act in (other.join("j9"), other.send("s9", "m", []), other.leave("l9", "done")):
            with pytest.raises(CallRefused, match="another run of g is live"):
                await act
        address = Address("127.0.0.1", lab.port)
        stranger = RemoteClient(address, Place("g", Member("3", "client"), 2))
        with pytest.raises(CallRefused, match="3 is no member of the group g"):
            await stranger.join("j3")
        liar = RemoteClient(address, Place("g", Member("1", "client"), 2))
        with pytest.raises(CallRefused, match=r"1 \(server\) cannot be client"):
            await liar.join("j4")

    in_lab(scenario)


@pytest.mark.parametrize("complete", [True, False])
def test_a_second_console_with_a_members_id_cannot_act_for_it(complete: bool) -> None:
    async def scenario(lab: Lab) -> None:
        one, two = clients(lab, named=False)
        joining = asyncio.ensure_future(one.join("j1"))
        await until(lambda: lab.counters.held == 1)
        if complete:
            await asyncio.gather(two.join("j2"), joining)
        address = Address("127.0.0.1", lab.port)
        again = RemoteClient(address, Place("g", MEMBERS[0], 2), incarnation="another.")
        with pytest.raises(CallRefused, match=r"1 \(server\) has joined already"):
            await again.join("j1")
        with pytest.raises(CallRefused, match=r"another dispatcher speaks for 1 \(server\)"):
            await again.leave("l", "it could not join")
        if not complete:
            await asyncio.gather(two.join("j2"), joining)
        with pytest.raises(CallRefused, match="another dispatcher speaks"):
            await again.send("s", "m", [])
        assert (await lab.stock("1", "lava_send", messageID="m"))[
            "reason"
        ] == "another dispatcher speaks for 1 (server)"
        await one.send("s", "m", [])

    in_lab(scenario)


def test_a_member_that_leaves_before_all_have_come_frees_who_waits_for_it() -> None:
    async def scenario(lab: Lab) -> None:
        address = Address("127.0.0.1", lab.port)
        one, two, three = (RemoteClient(address, Place("g", Member(name, "r"), 3)) for name in "123")
        joining = [asyncio.ensure_future(client.join(f"j{index}")) for index, client in enumerate((one, two))]
        await until(lambda: lab.counters.held == 2)
        with pytest.raises(CallRefused, match="the group g has 3 members, not 2"):
            await clients(lab, named=False)[0].join("j9")
        await one.leave("l1", "no prompt came")
        for task in joining:
            with pytest.raises(
                CallRefused, match=r"cannot be complete, for a member has left: 1 \(r\): no prompt came"
            ):
                await task
        with pytest.raises(CallRefused, match="cannot be complete"):
            await three.join("j3")
        for client, request in ((two, "l2"), (three, "l3")):
            await client.leave(request, "the group is not complete")
        assert not lab.hall.forming

    in_lab(scenario)


def test_everything_is_found_again_after_a_restart_and_done_once() -> None:
    journal = MemoryJournal()

    async def before(lab: Lab) -> None:
        one, two = await joined(lab)
        await one.send("s", "m", [("k", "v")])
        first = asyncio.ensure_future(one.wait("y1", Kind.SYNC, "x", None, timeout=None))
        await until(lambda: lab.counters.held == 1)
        await two.wait("y2", Kind.SYNC, "x", None, timeout=None)
        await first
        with pytest.raises(CallRefused, match="timed out"):
            await two.wait("open", Kind.SYNC, "x", None, timeout=0.0)

    async def after(lab: Lab) -> None:
        one, two = clients(lab)
        assert await asyncio.gather(one.join("j0"), two.join("j1")) == [MEMBERS, MEMBERS]
        await one.send("s", "m", [("k", "v")])
        assert await one.wait("y1", Kind.SYNC, "x", None, timeout=None) == {}, "its round is closed"
        with pytest.raises(CallRefused, match=r"timed out after 0 s; have 1 of 2 in round 2"):
            await two.wait("open", Kind.SYNC, "x", None, timeout=None)
        assert await two.wait("w", Kind.WAIT, "m", None, timeout=None) == {"1": {"k": "v"}}
        events = journal.read("g")
        assert sum(isinstance(event, Sent) for event in events) == 1
        assert sum(isinstance(event, Synced) for event in events) == 3

    in_lab(before, journal=journal)
    in_lab(after, journal=journal)


def test_stock_members_are_found_again_after_a_restart() -> None:
    journal = MemoryJournal()

    async def before(lab: Lab) -> None:
        await lab.gather("one", "two")
        for member in ("one", "two"):
            await lab.stock(member, "lava_sync", messageID="s")  # "one" does not learn that its round has closed

    async def after(lab: Lab) -> None:
        assert (await lab.stock("one", "lava_sync", messageID="s"))["response"] == "ack"
        assert (await lab.stock("one", "lava_sync", messageID="s"))["response"] == "wait", "round 2"
        assert (await lab.stock("two", "group_data", group_size=2))["response"] == "group_data"
        (group,) = (await lab.ask(request="status"))["message"]["groups"]
        assert [member["presence"] for member in group["members"]] == ["here", "here"]

    in_lab(before, journal=journal)
    in_lab(after, journal=journal)


def test_those_who_left_are_remembered_after_a_restart() -> None:
    journal = MemoryJournal()

    async def before(lab: Lab) -> None:
        one, two = clients(lab)
        joining = asyncio.ensure_future(one.join("j1"))
        await until(lambda: lab.counters.held == 1)
        await two.leave("l2", "no prompt came")
        with pytest.raises(CallRefused):
            await joining

    async def after(lab: Lab) -> None:
        with pytest.raises(CallRefused, match=r"a member has left: 2 \(client\): no prompt came"):
            await clients(lab)[0].join("j1")

    in_lab(before, journal=journal)
    in_lab(after, journal=journal)


def test_a_group_whose_members_vanished_expires() -> None:
    async def scenario(lab: Lab) -> None:
        await lab.gather("1", "2")
        await lab.stock("x", "group_data", group="f", group_size=2)
        lab.clock.now += 3599
        lab.hall.expire()
        assert lab.hall.rooms
        lab.clock.now += 1
        lab.hall.expire()
        assert not lab.hall.rooms
        assert not lab.hall.forming
        assert not lab.journal.groups()

    in_lab(scenario)


class Away:
    """Bears a coordinator that is away: time passes only in pauses, and at each of them somebody may act."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.pauses: list[float] = []
        self.told: list[str] = []
        self.slept = asyncio.Event()
        self.going = asyncio.Event()
        self.going.set()

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.clock.now += seconds
        self.slept.set()
        await self.going.wait()
        await asyncio.sleep(0)

    def client(self, port: int) -> RemoteClient:
        place = Place("g", MEMBERS[0], 2, MEMBERS, "run")
        return RemoteClient(
            Address("127.0.0.1", port), place, tell=self.told.append, sleep=self.sleep, clock=self.clock, patience=60.0
        )


async def free_port() -> int:
    """A port on which nobody listens."""
    async with serving() as lab:
        return lab.port


def test_a_coordinator_that_stays_away_is_told_once_and_ends_the_call() -> None:
    async def run() -> None:
        away = Away()
        client = away.client(await free_port())
        with pytest.raises(CoordinatorError, match="cannot be reached: Connection refused, for 60 s now"):
            await client.send("s", "m", [])
        assert away.pauses[:6] == [0.1, 0.2, 0.5, 1.0, 2.0, 5.0]
        assert sum(away.pauses) < 70
        assert len(away.told) == 1
        with pytest.raises(CoordinatorError, match=r"refused$"):
            await away.client(await free_port()).wait("w", Kind.WAIT, "m", None, timeout=3.0)

    assert PATIENCE > 60
    asyncio.run(run())


def test_a_coordinator_that_comes_back_is_told_and_the_call_goes_on() -> None:
    async def run() -> None:
        away = Away()
        away.going.clear()  # lest its patience end before the coordinator is back
        client = away.client(await free_port())
        joining = asyncio.ensure_future(client.join("j1"))
        await away.slept.wait()
        lab = Lab(MemoryJournal(), None, None)
        port = client._address.port
        lab.port = await lab.server.start("127.0.0.1", port)
        away.going.set()
        (_one, two) = clients(lab)
        assert await two.join("j2") == await joining == MEMBERS
        assert [text.rpartition(": ")[2] for text in away.told][-1] == "the coordinator is back"
        await lab.server.stop()

    asyncio.run(run())


def test_the_status_of_what_is_no_coordinator() -> None:
    async def run() -> None:
        async def web(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            writer.close()

        server = await asyncio.start_server(web, "127.0.0.1", 0)
        with pytest.raises(CoordinatorError, match="that is no coordinator: a request begins"):
            await ask_status(Address("127.0.0.1", server.sockets[0].getsockname()[1]))
        server.close()

    asyncio.run(run())
