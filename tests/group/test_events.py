"""The events are plain values, and the table of presence answers every event in every state."""

from __future__ import annotations

import dataclasses
import typing

import pytest

from dispatcher.errors import GroupError
from dispatcher.group.events import Event, Joined, Left, Member, Sent, Synced, WaitFailed
from dispatcher.group.presence import AFTER, Presence
from dispatcher.group.rendezvous import Rendezvous

EVENTS: dict[type[Event], Event] = {
    Joined: Joined("r1", "1"),
    Sent: Sent("r1", "1", "id", (("k", "v"),)),
    Synced: Synced("r1", "1", "id"),
    WaitFailed: WaitFailed("r1", "1", "timed out"),
    Left: Left("r1", "1", "test ended"),
}


def in_state(presence: Presence) -> Rendezvous:
    group = Rendezvous([Member("1", "client"), Member("2", "server")])
    if presence is not Presence.EXPECTED:
        group.apply(Joined("before 1", "1"))
    if presence is Presence.LEFT:
        group.apply(Left("before 2", "1", "console lost"))
    assert group.presence("1") is presence
    return group


def test_a_member_reads_as_id_and_role() -> None:
    assert str(Member("12347", "backend")) == "12347 (backend)"


@pytest.mark.parametrize("event", EVENTS.values(), ids=lambda event: type(event).__name__)
def test_an_event_is_a_value(event: Event) -> None:
    assert event == dataclasses.replace(event)
    assert hash(event) == hash(dataclasses.replace(event))
    assert event != dataclasses.replace(event, request="r2")
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.member = "2"  # type: ignore[misc]
    assert not hasattr(event, "__dict__")


def test_every_kind_of_event_is_tried_here() -> None:
    assert set(EVENTS) == set(typing.get_args(Event))


@pytest.mark.parametrize("kind", EVENTS)
@pytest.mark.parametrize("before", Presence)
def test_every_event_in_every_state(before: Presence, kind: type[Event]) -> None:
    group = in_state(before)
    after = AFTER.get((before, kind))
    if after is None:
        with pytest.raises(GroupError, match=r"^1 \(client\) has "):
            group.apply(EVENTS[kind])
        assert group.presence("1") is before
    else:
        assert group.apply(EVENTS[kind]) is True
        assert group.presence("1") is after


@pytest.mark.parametrize(
    ("before", "event", "text"),
    [
        (Presence.EXPECTED, Sent("r1", "1", "id"), "1 (client) has not joined yet"),
        (Presence.HERE, Joined("r1", "1"), "1 (client) has joined already"),
        (Presence.LEFT, Synced("r1", "1", "id"), "1 (client) has left: console lost"),
    ],
)
def test_a_refusal_says_why(before: Presence, event: Event, text: str) -> None:
    with pytest.raises(GroupError) as refused:
        in_state(before).apply(event)
    assert refused.value.what == text
