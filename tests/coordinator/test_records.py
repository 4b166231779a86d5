"""The bytes that stand for groups and events in a stored journal."""

from __future__ import annotations

import pytest
from hypothesis import given
from journal_strategies import EVENTS, GROUPS

from dispatcher.coordinator.journal import GroupRecord
from dispatcher.coordinator.journal.records import read_event, read_group, write_event, write_group
from dispatcher.group.events import Event


@given(EVENTS)
def test_an_event_is_read_as_it_was_written(event: Event) -> None:
    assert read_event(write_event(event)) == event


@given(GROUPS)
def test_a_group_is_read_as_it_was_written(group: GroupRecord) -> None:
    assert read_group(write_group(group)) == group


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"\xff",
        b"{}",
        b'["joined","1"]',
        b'["joined","1",2]',
        b'["sent","1","2","x",[["a"]]]',
        b'["sent","1","2","x",[["a",1]]]',
        b'["group","g","r","yesterday",[]]',
        b"[" * 100_000,
    ],
)
def test_anything_else_is_refused(record: bytes) -> None:
    for read in (read_event, read_group):
        with pytest.raises(ValueError):  # noqa: PT011 - json's own errors are among them
            read(record)
