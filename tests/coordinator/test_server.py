"""The server's sockets: bounds, deadlines, and clients that behave badly."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

from coordinator_lab import Lab, in_lab, until
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.coordinator.server import Limits

CORPUS = Path(__file__).parents[2] / "fixtures" / "wire" / "malformed.json"


def spoken(case: dict[str, Any]) -> bytes:
    """The bytes of a case of the corpus."""
    body = (case["body"].replace("%", "x" * case.get("fill", 1)) * case.get("times", 1)).encode("latin-1")
    return case["header"].encode("latin-1") + body if "header" in case else b"%08X%b" % (len(body), body)


def test_every_malformed_request_is_refused_with_its_reason_and_counted() -> None:
    async def scenario(lab: Lab) -> None:
        await lab.gather("one", "two")
        cases = json.loads(CORPUS.read_text())
        del lab.hall.rooms["g"]  # the corpus speaks of a group of this name that is not open
        for case in cases:
            answer = await lab.raw(spoken(case), half_close=True)
            assert json.loads(answer[8:])["reason"] == case["reason"], case["what"]
        assert lab.counters.replies["nack"] == len(cases)
        refused_later = sum(lab.counters.requests.values()) - 2
        assert sum(lab.counters.malformed.values()) == len(cases) - refused_later
        assert lab.counters.open == 0
        assert not lab.hall.forming

    in_lab(scenario)


@settings(max_examples=15)
@given(st.lists(st.binary(max_size=40) | st.binary(max_size=40).map(lambda b: b"%08X%b" % (len(b), b)), max_size=20))
def test_whatever_is_said_the_server_goes_on(noise: list[bytes]) -> None:
    async def scenario(lab: Lab) -> None:
        await asyncio.gather(*(lab.raw(data, half_close=True) for data in noise))
        assert await lab.stock("1", "group_data", group_size=2) == {"response": "wait"}
        assert lab.counters.open == 0

    in_lab(scenario)


def test_a_request_may_come_byte_by_byte() -> None:
    async def scenario(lab: Lab) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", lab.port)
        with contextlib.closing(writer):
            for byte in b'00000014{"request":"status"}':
                writer.write(bytes([byte]))
                await asyncio.sleep(0)
            assert b'"ack"' in await reader.read()

    in_lab(scenario)


def test_a_client_that_says_nothing_stops_nobody() -> None:
    async def scenario(lab: Lab) -> None:
        silent = asyncio.ensure_future(lab.raw(b""))
        await until(lambda: lab.counters.open == 1)
        assert (await lab.stock("1", "group_data", group_size=2))["response"] == "wait"
        silent.cancel()

    in_lab(scenario)


def test_silence_ends_at_the_deadlines() -> None:
    async def scenario(lab: Lab) -> None:
        for answer in await asyncio.gather(lab.raw(b""), lab.raw(b"00000014{")):
            reply = json.loads(answer[8:])
            assert (reply["response"], reply["reason"]) == ("wait", "the request did not come in time")
        assert lab.counters.malformed == {"late": 2}

    in_lab(scenario, limits=Limits(header=0.05, body=0.05))


def test_who_has_not_asked_yet_gives_way_where_there_are_too_many() -> None:
    async def scenario(lab: Lab) -> None:
        idle = [asyncio.ensure_future(lab.raw(b"")) for _ in range(4)]
        await until(lambda: lab.counters.open == 4)
        assert (await lab.stock("1", "group_data", group_size=2))["response"] == "wait"
        assert lab.counters.turned_away == 1
        assert [task.done() for task in idle].count(False) == 3
        for task in idle:
            task.cancel()

    in_lab(scenario, limits=Limits(connections=4))


def test_who_is_held_does_not_give_way() -> None:
    async def scenario(lab: Lab) -> None:
        held = held_join(lab, "1")
        await until(lambda: lab.counters.held == 1)
        assert await lab.raw(b"00000014") == b""
        held.cancel()

    in_lab(scenario, limits=Limits(connections=1))


def held_join(lab: Lab, member: str) -> asyncio.Task[dict[str, Any]]:
    ours = {"id": f"j{member}", "hold": 60}
    asked = lab.ask(request="group_data", client_name=member, group_name="h", role="r", group_size=2, multinode=ours)
    return asyncio.ensure_future(asked)


def test_a_held_client_is_answered_when_the_answer_is_there() -> None:
    async def scenario(lab: Lab) -> None:
        first = held_join(lab, "1")
        await until(lambda: lab.counters.held == 1)
        roles = {"response": "group_data", "roles": {"1": "r", "2": "r"}}
        assert await held_join(lab, "2") == await first == roles
        assert lab.counters.held == 0

    in_lab(scenario)


def test_a_client_that_goes_away_while_it_is_held_hurts_nobody_and_finds_its_place_again() -> None:
    async def scenario(lab: Lab) -> None:
        gone = held_join(lab, "1")
        await until(lambda: lab.counters.held == 1)
        gone.cancel()
        await until(lambda: lab.counters.held == 0)
        assert lab.counters.lost == 1
        again = held_join(lab, "1")
        assert await held_join(lab, "2") == await again

    in_lab(scenario)


def test_a_stop_answers_who_waits() -> None:
    async def scenario(lab: Lab) -> None:
        held = held_join(lab, "1")
        await until(lambda: lab.counters.held == 1)
        await lab.server.stop()
        assert await held == {"response": "wait"}

    in_lab(scenario)


def test_a_gate_refuses_with_its_reason() -> None:
    async def scenario(lab: Lab) -> None:
        lab.server.desk.gate = lambda _request: "show your token"
        assert await lab.stock("1", "group_data", group_size=2) == {"response": "nack", "reason": "show your token"}
        assert (await lab.ask(request="status"))["reason"] == "show your token"
        refused = [(group, notice.kind, notice.text, notice.members) for group, notice in lab.notices]
        assert refused == [("g", "refused", "show your token", ("1",)), ("", "refused", "show your token", ())]

    in_lab(scenario)
