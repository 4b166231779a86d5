"""The table of ``multinode status``."""

from __future__ import annotations

from typing import Any

from dispatcher.cli.status import table


def member(member_id: str, role: str, *calls: str) -> dict[str, Any]:
    waits = [{"call": call, "waited": 4.2, "progress": "nobody has sent it yet"} for call in calls]
    return {"id": member_id, "role": role, "presence": "here", "absent": None, "calls": waits}


def group(name: str, *members: dict[str, Any], **state: bool) -> dict[str, Any]:
    return {"name": name, "stuck": False, "complete": True, "members": list(members), **state}


def test_columns_stand_below_each_other_whatever_the_names() -> None:
    told = {
        "groups": [group("g", member("1", "漢字", "lava-wait a", "lava-wait b"), member("12345", "x\x1b"), stuck=True)],
        "forming": [],
    }
    assert list(table(told)) == [
        "g: 2 members, stuck",
        "  1      漢字   here      lava-wait a for 4.2 s: nobody has sent it yet",
        "                          lava-wait b for 4.2 s: nobody has sent it yet",
        "  12345  x\\x1b  here      -",
    ]


def test_one_member_and_a_group_that_forms() -> None:
    members = [
        {"id": "7", "role": "a", "joined": True, "absent": None},
        {"id": "8", "role": "b", "joined": False, "absent": None},
        {"id": "9", "role": "c", "joined": False, "absent": 1.7},
    ]
    forming = {"name": "f", "size": 4, "members": members}
    told = {"groups": [group("g", member("1", "r"), complete=False)], "forming": [forming]}
    assert list(table(told)) == [
        "g: 1 member, not complete yet",
        "  1  r  here      -",
        "f: forming, 3 of 4 have come: 7 (a), 8 (b, getting ready), 9 (c, gone for 2 s)",
    ]


def test_a_member_whose_dispatcher_is_away() -> None:
    away = {**member("2", "b", "lava-wait a", "lava-wait b"), "absent": 12.3}
    assert list(table({"groups": [group("g", member("1", "a"), away)], "forming": []})) == [
        "g: 2 members, complete",
        "  1  a  here           -",
        "  2  b  gone for 12 s  lava-wait a for 4.2 s: nobody has sent it yet",
        "                       lava-wait b for 4.2 s: nobody has sent it yet",
    ]
