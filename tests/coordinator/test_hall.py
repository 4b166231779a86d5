"""Groups among strangers: whose member may be ended, and how many there may be."""

from __future__ import annotations

import asyncio

import pytest
from coordinator_lab import Lab, in_lab, until

from dispatcher.coordinator.desk import Desk
from dispatcher.coordinator.hall import Hall
from dispatcher.coordinator.journal.memory import MemoryJournal
from dispatcher.coordinator.remote import Address, Place, RemoteClient
from dispatcher.errors import CallRefused
from dispatcher.group.events import Member
from dispatcher.group.presence import Presence

MEMBERS = (Member("1", "server"), Member("2", "client"))


def test_a_member_that_is_expected_is_ended_by_its_own_run_alone() -> None:
    async def scenario(lab: Lab) -> None:
        here, coming = (
            RemoteClient(Address("127.0.0.1", lab.port), Place("g", member, 2, MEMBERS, "run")) for member in MEMBERS
        )
        joining = asyncio.ensure_future(here.join("j"))
        await until(lambda: lab.counters.held == 1)
        group = lab.hall.rooms["g"].group
        reason = "2 has not joined, and only its own run can say that it will not"
        assert await lab.stock("2", "clear_group") == {"response": "nack", "reason": reason}
        assert group.presence("2") is Presence.EXPECTED
        await coming.leave("l", "its console is lost")
        with pytest.raises(CallRefused, match=r"a member has left: 2 \(client\): its console is lost"):
            await joining

    in_lab(scenario)


def bounded(lab: Lab, members: int) -> Hall:
    """Give a lab's server a hall with room for so many members."""
    hall = Hall(MemoryJournal(), members_limit=members, expiry=3600.0, clock=lab.clock)
    lab.server.desk = Desk(hall)
    return hall


def test_groups_that_form_are_bounded_and_those_that_are_open_go_on() -> None:
    async def scenario(lab: Lab) -> None:
        hall = bounded(lab, 2)
        assert (await lab.stock("1", "group_data", group="open", group_size=1))["response"] == "group_data"
        for name in ("a", "b"):
            assert await lab.stock("1", "group_data", group=name, group_size=2) == {"response": "wait"}
        full = "groups that form have 2 members at most, and there is no room for more now"
        for _ in range(2):
            assert (await lab.stock("1", "group_data", group="c", group_size=2)) == {"response": "nack", "reason": full}
        assert (list(hall.forming), hall.refused) == (["a", "b"], 2)
        assert await lab.stock("1", "group_data", group="a", group_size=2) == {"response": "wait"}
        assert await lab.stock("1", "lava_send", group="open", messageID="m") == {"response": "ack"}
        await lab.stock("1", "clear_group", group="a")
        assert await lab.stock("1", "group_data", group="c", group_size=2) == {"response": "wait"}
        lab.clock.now += 3600.0
        hall.expire()
        for name in ("d", "e"):
            assert await lab.stock("1", "group_data", group=name, group_size=2) == {"response": "wait"}

    in_lab(scenario)


def test_open_groups_are_bounded_and_a_group_that_finds_no_room_opens_when_there_is_some() -> None:
    async def scenario(lab: Lab) -> None:
        hall = bounded(lab, 3)
        for member in ("1", "2"):
            await lab.stock(member, "group_data", group="first", group_size=2)
        assert await lab.stock("1", "group_data", group="second", group_size=2) == {"response": "wait"}
        reply = await lab.stock("2", "group_data", group="second", group_size=2)
        full = "open groups have 3 members at most, and there is no room for more now"
        assert reply == {"response": "nack", "reason": full}
        with pytest.raises(CallRefused, match=full):
            hall.open("third", "", MEMBERS)
        assert (list(hall.rooms), list(hall.forming), hall.refused) == (["first"], ["second"], 2)
        for member in ("1", "2"):
            await lab.stock(member, "clear_group", group="first")
        for member in ("2", "1"):
            reply = await lab.stock(member, "group_data", group="second", group_size=2)
            assert reply["response"] == "group_data"
        assert not hall.forming

    in_lab(scenario)


def test_what_the_journal_brings_is_let_in_and_counts() -> None:
    async def scenario(_lab: Lab) -> None:
        journal = MemoryJournal()
        Hall(journal).open("g", "", MEMBERS)
        again = Hall(journal, members_limit=1)
        assert list(again.rooms) == ["g"]
        with pytest.raises(CallRefused, match="no room"):
            again.open("h", "", MEMBERS[:1])

    in_lab(scenario)
