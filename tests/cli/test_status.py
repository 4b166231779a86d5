"""The table of ``multinode status``."""

from __future__ import annotations

from typing import Any

from dispatcher.cli.status import table


def member(member_id: str, role: str, *calls: str) -> dict[str, Any]:
    waits = [{"call": call, "waited": 4.2, "progress": "nobody has sent it yet"} for call in calls]
    return {"id": member_id, "role": role, "presence": "here", "calls": waits}


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
    forming = {"name": "f", "size": 3, "members": [{"id": "7", "role": "a"}]}
    told = {"groups": [group("g", member("1", "r"), complete=False)], "forming": [forming]}
    assert list(table(told)) == [
        "g: 1 member, not complete yet",
        "  1  r  here      -",
        "f: forming, 1 of 3 have come: 7 (a)",
    ]
