"""A group while it runs: who is released, who fails and what everybody is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dispatcher.coordinator.client import EmbeddedClient
from dispatcher.coordinator.journal.memory import MemoryJournal
from dispatcher.coordinator.live import LiveGroup, Notice
from dispatcher.errors import CallRefused
from dispatcher.group.events import Left, Member, WaitFailed
from dispatcher.group.needs import Kind, Need

MEMBERS = (Member("1", "server"), Member("2", "client"), Member("3", "client"))


class Lab:
    """A group whose three members have joined."""

    def __init__(self, grace: float | None = None) -> None:
        self.notices: list[Notice] = []
        self.journal = MemoryJournal()
        self.group = LiveGroup("g", MEMBERS, self.journal, grace=grace, observe=self.notices.append)
        self.clients = {member.id: EmbeddedClient(self.group, member.id) for member in MEMBERS}
        self._requests = 0

    async def join(self) -> None:
        await asyncio.gather(*(client.join(f"j{member}") for member, client in self.clients.items()))

    def request(self) -> str:
        self._requests += 1
        return str(self._requests)

    def wait(
        self, member: str, kind: Kind, message_id: str, role: str | None = None, *, timeout: float | None = None
    ) -> asyncio.Task[Any]:
        call = self.clients[member].wait(self.request(), kind, message_id, role, timeout=timeout)
        return asyncio.ensure_future(call)

    async def send(self, member: str, message_id: str, **data: str) -> None:
        await self.clients[member].send(self.request(), message_id, data.items())

    async def leave(self, member: str, reason: str = "its tests have ended") -> None:
        await self.clients[member].leave(self.request(), reason)


async def turns(count: int = 5) -> None:
    """Let everything happen that can happen without time passing."""
    for _ in range(count):
        await asyncio.sleep(0)


def in_lab(scenario: Callable[[Lab], Awaitable[None]], grace: float | None = None) -> None:
    async def run() -> None:
        lab = Lab(grace)
        await lab.join()
        await scenario(lab)

    asyncio.run(run())


def test_a_wait_is_released_by_the_first_send_and_gets_its_data() -> None:
    async def scenario(lab: Lab) -> None:
        waiting = lab.wait("2", Kind.WAIT, "ready")
        await turns()
        assert not waiting.done()
        await lab.send("1", "ready", ip="10.0.0.1")
        assert await waiting == {"1": {"ip": "10.0.0.1"}}
        assert await lab.wait("3", Kind.WAIT, "ready") == {"1": {"ip": "10.0.0.1"}}

    in_lab(scenario)


def test_a_barrier_in_a_loop_releases_nobody_early() -> None:
    async def scenario(lab: Lab) -> None:
        for _ in range(3):
            first = [lab.wait("1", Kind.SYNC, "again"), lab.wait("2", Kind.SYNC, "again")]
            await turns()
            assert not any(task.done() for task in first)
            assert await lab.wait("3", Kind.SYNC, "again") == {}
            await asyncio.gather(*first)

    in_lab(scenario)


def test_nobody_starts_before_all_have_joined() -> None:
    async def run() -> None:
        lab = Lab()
        joining = [asyncio.ensure_future(lab.clients[m].join(f"j{m}")) for m in ("1", "2")]
        await turns()
        assert not any(task.done() for task in joining)
        assert await lab.clients["3"].join("j3") == MEMBERS
        await asyncio.gather(*joining)

    asyncio.run(run())


def test_a_member_that_leaves_before_the_group_is_complete_frees_those_who_joined() -> None:
    async def run() -> None:
        lab = Lab()
        joining = asyncio.ensure_future(lab.clients["1"].join("j1"))
        await turns()
        await lab.leave("3", "board7: no prompt came")
        with pytest.raises(CallRefused, match=r"cannot be complete.*3 \(client\): board7: no prompt came"):
            await joining
        await lab.leave("1", "the group cannot be complete, for a member has left: 3 (client): board7: no prompt came")
        with pytest.raises(CallRefused) as caught:
            await lab.clients["2"].join("j2")
        assert str(caught.value).count("cannot be complete") == str(caught.value).count("has left") == 1

    asyncio.run(run())


def test_a_wait_fails_when_the_member_that_it_needs_leaves() -> None:
    async def scenario(lab: Lab) -> None:
        waiting = lab.wait("1", Kind.WAIT_ALL, "done", "client")
        await turns()
        await lab.send("2", "done")
        await lab.leave("3", "console lost")
        with pytest.raises(CallRefused, match=r"have 1 of 2, missing 3 \(client\), who has left: console lost"):
            await waiting
        assert any(isinstance(event, WaitFailed) for event in lab.journal.read("g"))

    in_lab(scenario)


def test_a_wait_that_a_leaver_has_satisfied_before_is_not_failed() -> None:
    async def scenario(lab: Lab) -> None:
        waiting = lab.wait("1", Kind.WAIT, "done")
        await turns()
        await lab.send("3", "done", ok="yes")
        await lab.leave("3")
        await lab.leave("2")
        assert await waiting == {"3": {"ok": "yes"}}

    in_lab(scenario)


def test_the_deadline_is_the_callers_and_says_how_far_it_got() -> None:
    async def scenario(lab: Lab) -> None:
        other = lab.wait("2", Kind.SYNC, "s")
        await turns()
        with pytest.raises(CallRefused, match=r"timed out after 0 s; have 2 of 3, missing 3 \(client\)"):
            await lab.wait("1", Kind.SYNC, "s", timeout=0.0)
        # Its arrival still counts, and repeating it is the same arrival.
        again = lab.wait("1", Kind.SYNC, "s")
        await lab.wait("3", Kind.SYNC, "s")
        await asyncio.gather(other, again)

    in_lab(scenario)


def test_members_that_wait_for_each_other_are_told_at_once_and_fail_after_the_grace() -> None:
    async def scenario(lab: Lab) -> None:
        await lab.leave("3")
        waits = [lab.wait("1", Kind.WAIT, "a"), lab.wait("2", Kind.WAIT, "b")]
        await turns()
        told = [notice for notice in lab.notices if notice.kind == "stuck"]
        assert [notice.members for notice in told] == [("1", "2")]
        assert "1 (server) waits in lava-wait a" in told[0].text
        results = await asyncio.gather(*waits, return_exceptions=True)
        assert all("stuck: " in str(result) for result in results)
        unmet = {notice.members: notice.text for notice in lab.notices if notice.kind == "unmet"}
        assert sorted(unmet) == [("1",), ("2",)]
        assert unmet["1",].startswith("1 (server) waits no more in lava-wait a: stuck: ")

    in_lab(scenario, grace=0.0)


def test_without_a_grace_they_are_only_told_and_a_send_frees_them() -> None:
    async def scenario(lab: Lab) -> None:
        await lab.leave("3")
        waits = [lab.wait("1", Kind.WAIT, "a"), lab.wait("2", Kind.WAIT, "b")]
        await turns()
        await lab.send("1", "b")  # a background job of its test
        await lab.send("2", "a")
        await asyncio.gather(*waits)
        await turns()
        assert [notice.kind for notice in lab.notices] == ["left", "stuck", "freed"]

    in_lab(scenario)


def test_a_member_that_still_runs_keeps_the_others_from_being_stuck() -> None:
    async def scenario(lab: Lab) -> None:
        waits = [lab.wait("1", Kind.WAIT, "a"), lab.wait("2", Kind.WAIT, "b")]
        await turns()
        assert lab.notices == []
        for task in waits:
            task.cancel()

    in_lab(scenario, grace=0.0)


def test_what_a_member_that_left_asks_for_is_refused() -> None:
    async def scenario(lab: Lab) -> None:
        waiting = lab.wait("3", Kind.WAIT, "x")
        await turns()
        await lab.leave("3", "console lost")
        with pytest.raises(CallRefused, match="has left: console lost"):
            await waiting
        with pytest.raises(CallRefused, match="has left: console lost"):
            await lab.send("3", "x")
        assert isinstance(lab.journal.read("g")[-2], WaitFailed | Left)

    in_lab(scenario)


def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    async def scenario(lab: Lab) -> None:
        waiting = lab.wait("1", Kind.WAIT, "x")
        await turns()
        assert [need.message_id for need, _waited, _progress in lab.group.calls()] == ["x"]
        waiting.cancel()
        await turns()
        assert not list(lab.group.calls())

    in_lab(scenario)


def test_a_member_that_never_stops_is_refused_before_it_fills_the_disk() -> None:
    async def scenario() -> None:
        journal = MemoryJournal()
        group = LiveGroup("g", MEMBERS, journal, kept_limit=5000)
        await asyncio.gather(*(group.join(f"j{member.id}", member.id) for member in MEMBERS))
        for number in range(4):
            group.send(f"s{number}", "1", "x", [("k", "v" * 1000)])
        with pytest.raises(CallRefused, match=r"keeps 5,000 bytes .*, and takes no more"):
            group.send("s4", "1", "x", [("k", "v" * 1000)])
        for new in (
            lambda: group.arrive("a", "2", "y"),
            lambda: group.ask("b", Need("2", Kind.WAIT, "z", None)),
            lambda: group.give_up("c", Need("2", Kind.WAIT, "z", None), "timed out"),
            lambda: group.enter("d", "2"),
        ):
            with pytest.raises(CallRefused, match="takes no more"):
                new()
        # What was done is still answered, and everybody may go.
        group.send("s0", "1", "x", [("k", "v" * 1000)])
        assert (await group.ask("e", Need("2", Kind.WAIT, "x", None)))["1"]["k"] == "v" * 1000
        for member in MEMBERS:
            group.leave(f"l{member.id}", member.id, "its tests have ended")
        found = LiveGroup("g", MEMBERS, journal, kept_limit=5000)
        with pytest.raises(CallRefused, match="takes no more"):
            found.enter("f", "1")

    asyncio.run(scenario())
