"""What LAVA's own tests pin of its coordinator, over the wire, save what ``docs/coordinator.md`` names."""

from __future__ import annotations

from typing import Any

import pytest
from coordinator_lab import Lab, in_lab

from dispatcher.coordinator import wire
from dispatcher.group.needs import Kind

ACK, NACK, WAIT = {"response": "ack"}, "nack", {"response": "wait"}


def test_an_empty_message_is_refused() -> None:
    async def scenario(lab: Lab) -> None:
        assert (await lab.ask())["response"] == NACK

    in_lab(scenario)


@pytest.mark.parametrize("lacking", ["client_name", "group_name", "group_size", "role", "request"])
def test_a_request_for_a_new_group_that_lacks_a_field_is_refused(lacking: str) -> None:
    async def scenario(lab: Lab) -> None:
        fields: dict[str, Any] = {
            "request": "group_data", "client_name": "one", "group_name": "g", "group_size": 2, "role": "tester"
        }  # fmt: skip
        del fields[lacking]
        assert (await lab.ask(**fields))["response"] == NACK
        assert not lab.hall.forming

    in_lab(scenario)


def test_a_group_that_stays_incomplete_is_cleared_by_who_came() -> None:
    async def scenario(lab: Lab) -> None:
        assert await lab.stock("incomplete", "group_data", group_size=2) == WAIT
        assert await lab.stock("incomplete", "clear_group", group_size=2) == ACK
        assert not lab.hall.forming

    in_lab(scenario)


def test_a_group_completes_and_everybody_learns_it_then_clears() -> None:
    async def scenario(lab: Lab) -> None:
        assert await lab.stock("1", "group_data", group_size=2, role="server") == WAIT
        assert await lab.stock("1", "group_data", group_size=2, role="server") == WAIT
        complete = {"response": "group_data", "roles": {"1": "server", "2": "client"}}
        assert await lab.stock("2", "group_data", group_size=2, role="client") == complete
        assert await lab.stock("1", "group_data", group_size=2, role="server") == complete
        for member in ("1", "2"):
            assert await lab.stock(member, "clear_group", group_size=2) == ACK
        assert not lab.hall.rooms
        assert not lab.journal.groups()

    in_lab(scenario)


def test_an_unknown_request_is_refused_and_hurts_nobody() -> None:
    async def scenario(lab: Lab) -> None:
        await lab.gather("node one", "node two")
        assert (await lab.stock("node one", "lava-send", messageID="typo", message=None))["response"] == NACK
        assert (await lab.stock("node one", "aggregate", bundle={}, sub_id="1.0"))["response"] == NACK
        assert await lab.stock("node one", "lava_send", messageID="sending_test", message=None) == ACK

    in_lab(scenario)


def test_a_wait_brings_what_was_sent_by_sender() -> None:
    async def scenario(lab: Lab) -> None:
        await lab.gather("one", "two")
        assert await lab.stock("one", "lava_wait", messageID="missing message", message=None) == WAIT
        assert await lab.stock("two", "lava_send", messageID="m", message={"key": "value"}) == ACK
        for member in ("one", "two"):
            assert await lab.stock(member, "lava_wait", messageID="m", nodeID=member) == {
                **ACK,
                "message": {"two": {"key": "value"}},
            }

    in_lab(scenario)


def test_a_wait_for_all_waits_for_the_last() -> None:
    async def scenario(lab: Lab) -> None:
        await lab.gather("one", "two")
        assert await lab.stock("two", "lava_wait_all", messageID="m") == WAIT  # LAVA's: nack
        await lab.stock("two", "lava_send", messageID="m", message=None)
        for member in ("one", "two", "two"):
            assert await lab.stock(member, "lava_wait_all", messageID="m") == WAIT
        await lab.stock("one", "lava_send", messageID="m", message={})
        assert await lab.stock("one", "lava_wait_all", messageID="m") == {**ACK, "message": {"one": {}, "two": {}}}

    in_lab(scenario)


def test_a_wait_for_a_role_waits_for_every_member_of_it_and_brings_everybodys_data() -> None:
    async def scenario(lab: Lab) -> None:
        await lab.gather(c1="client", c2="client", s="server")
        wait = {"messageID": "m", "waitrole": "client"}
        data = {"key": "value"}
        await lab.stock("c2", "lava_send", messageID="m", message=data)
        for member in ("s", "c2"):
            assert await lab.stock(member, "lava_wait_all", **wait) == WAIT
        await lab.stock("c1", "lava_send", messageID="m", message=data)
        assert (await lab.stock("c1", "lava_wait_all", **wait))["message"] == {"c1": data, "c2": data}
        assert await lab.stock("s", "lava_send", messageID="m", message=data) == ACK
        assert (await lab.stock("s", "lava_wait_all", **wait))["message"] == {"c1": data, "c2": data, "s": data}

    in_lab(scenario)


def test_the_last_to_arrive_in_a_sync_is_answered_at_once() -> None:
    async def scenario(lab: Lab) -> None:
        await lab.gather("one", "two")
        assert await lab.stock("two", "lava_sync", messageID="s", message=None) == WAIT
        assert await lab.stock("two", "lava_sync", messageID="s", message=None) == WAIT
        assert (await lab.stock("one", "lava_sync", messageID="s", message=None))["response"] == "ack"  # LAVA's: wait
        # Who has its answer and asks again has come to the next round, though the other has not left this one.
        assert await lab.stock("one", "lava_sync", messageID="s", message=None) == WAIT
        assert (await lab.stock("two", "lava_sync", messageID="s", message=None))["response"] == "ack"
        assert (await lab.stock("two", "lava_sync", messageID="s", message=None))["response"] == "ack"
        assert (await lab.stock("one", "lava_sync", messageID="s", message=None))["response"] == "ack"

    in_lab(scenario)


def test_an_answer_that_comes_while_a_wait_leaves_is_kept_for_the_next_poll() -> None:
    async def scenario(lab: Lab) -> None:
        await lab.gather("one", "two")
        sync = [wire.Wait(wire.Caller("g", member, "tester"), Kind.SYNC, "s") for member in ("one", "two")]
        first = lab.server.desk.answer(sync[0])
        assert not isinstance(first, bytes)
        assert first.reply() == wire.WAIT
        lab.server.desk.answer(sync[1])
        first.told()
        assert (await lab.stock("one", "lava_sync", messageID="s"))["response"] == "ack"

    in_lab(scenario)


def test_a_sync_of_an_id_that_was_sent() -> None:
    async def scenario(lab: Lab) -> None:
        await lab.gather("one", "two")
        await lab.stock("one", "lava_send", messageID="x", message={"k": "v"})
        assert await lab.stock("one", "lava_sync", messageID="x") == WAIT  # LAVA's coordinator ends here
        assert (await lab.stock("two", "lava_sync", messageID="x"))["message"]["one"] == {"k": "v"}

    in_lab(scenario)


def test_the_addresses_of_lava_network_are_collected() -> None:
    async def scenario(lab: Lab) -> None:
        await lab.gather(**{"imx53-02": "network", "imx53-04": "network"})
        sent = {
            name: {"hostname-full": f"{name}.localdomain", "netmask": "Mask:255.255.0.0", "ipv6": "addr:", "ipv4": ip}
            for name, ip in (("imx53-02", "addr:192.168.106.189"), ("imx53-04", "addr:192.168.106.180"))
        }
        for member, message in sent.items():
            await lab.stock(member, "lava_send", messageID="network_info", message=message)
        assert (await lab.stock("imx53-02", "lava_wait_all", messageID="network_info"))["message"] == sent

    in_lab(scenario)


def test_a_role_that_nobody_has_is_refused_with_the_roles_there_are() -> None:
    async def scenario(lab: Lab) -> None:
        await lab.gather(a="server", b="client")
        reply = await lab.stock("a", "lava_wait_all", messageID="m", waitrole="srever")
        assert reply == {"response": NACK, "reason": "no member has the role 'srever'; the roles are server, client"}

    in_lab(scenario)


def test_stuck_stock_members_are_only_told() -> None:
    async def scenario(lab: Lab) -> None:
        await lab.gather("one", "two")
        for member, message_id in (("one", "a"), ("two", "b"), ("one", "a")):
            assert await lab.stock(member, "lava_wait", messageID=message_id) == WAIT
        assert [notice.kind for _group, notice in lab.notices].count("stuck") == 1
        (group,) = (await lab.ask(request="status"))["message"]["groups"]
        assert group["stuck"]
        assert [call["call"] for member in group["members"] for call in member["calls"]] == [
            "lava-wait a",
            "lava-wait b",
        ]
        await lab.stock("one", "lava_send", messageID="b")
        assert (await lab.stock("two", "lava_wait", messageID="b"))["message"] == {"one": {}}

    in_lab(scenario, grace=0.0)
