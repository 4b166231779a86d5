"""Groups and events of every kind for Hypothesis, with text that no sane device sends."""

from __future__ import annotations

from hypothesis import strategies as st

from dispatcher.coordinator.journal import GroupRecord
from dispatcher.group.events import Event, Joined, Left, Member, Sent, Synced, WaitFailed

# Surrogates stand for bytes that were no UTF-8; a pair of them must not become one character.
TEXT = st.text(st.characters(exclude_categories=()), max_size=8) | st.sampled_from(
    ("\udcff", "\ud83d\ude00", "\0", "😀")
)

EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(Joined, TEXT, TEXT),
    st.builds(Sent, TEXT, TEXT, TEXT, st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple)),
    st.builds(Synced, TEXT, TEXT, TEXT),
    st.builds(WaitFailed, TEXT, TEXT, TEXT),
    st.builds(Left, TEXT, TEXT, TEXT),
)

GROUPS = st.builds(
    GroupRecord,
    TEXT,
    TEXT,
    st.lists(st.builds(Member, TEXT, TEXT), max_size=3).map(tuple),
    st.floats(allow_nan=False),
)
