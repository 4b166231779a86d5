"""What the calls of a group mean: the fold of its log, and the questions that a waiting call asks of it.

The state is a pure function of the events in their order. Nothing here knows a clock, a socket or a file, so a
restart is a replay, and two coordinators that read one log cannot disagree. ``docs/semantics.md`` tells the rules
to users; each is argued where it is implemented, here and in :mod:`.topic` and :mod:`.deadends`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, assert_never

from dispatcher.errors import GroupError
from dispatcher.group import deadends
from dispatcher.group.events import Event, Joined, Left, Member, Sent, Synced, WaitFailed
from dispatcher.group.needs import Kind, Need, Outcome
from dispatcher.group.presence import AFTER, Presence
from dispatcher.group.topic import Topic


class Rendezvous:
    """The state of one group.

    :param members: everybody, in the order of the group, which is the order of every answer.
    :raises GroupError: no members, or two of one id.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self.members: Final = tuple(members)
        self._by_id: Final = {member.id: member for member in self.members}
        if not self.members:
            raise GroupError("a group needs at least one member")
        if len(self._by_id) != len(self.members):
            raise GroupError("two members of a group cannot have one id")
        self._sizes: Final[dict[str | None, int]] = {None: len(self.members)}
        self._sizes.update(Counter(member.role for member in self.members))
        self._presence: Final = dict.fromkeys(self._by_id, Presence.EXPECTED)
        self._left: Final[dict[str, str]] = {}
        self._absent = len(self.members)
        self._complete = False
        self._topics: Final[dict[str, Topic]] = {}
        self._requests: Final[dict[str, tuple[type[Event], str]]] = {}
        self._failures: Final[dict[str, tuple[int, str]]] = {}
        self._position = 0

    # --- the fold ------------------------------------------------------------------------------------------

    def knows(self, request: str) -> bool:
        """Whether something was done under this request."""
        return request in self._requests

    def apply(self, event: Event) -> bool:
        """Take the next event of the log.

        :return: False if its request was seen before: it was done once already and nothing changes. The failure
            of a sync's wait carries the request of the arrival and is no repeat of it; a sync whose request has
            failed is one.
        :raises GroupError: the event contradicts the log (a stranger, a send before the join or after the
            leaving, one request id for two acts); nothing changes.
        """
        member = self._known(event.member)
        if self._is_repeat(event):
            return False
        before = self._presence[member.id]
        after = AFTER.get((before, type(event)))
        if after is None:
            reason = f": {self._left[member.id]}" if member.id in self._left else ""
            raise GroupError(f"{member} {before.value}{reason}")
        self._position += 1
        self._requests.setdefault(event.request, (type(event), member.id))
        self._presence[member.id] = after
        self._absent += (before is Presence.HERE) - (after is Presence.HERE)
        self._complete = self._complete or not self._absent
        self._note(event, member)
        return True

    def _note(self, event: Event, member: Member) -> None:
        match event:
            case Joined():
                self._left.pop(member.id, None)
            case Left():
                self._left[member.id] = event.reason
            case Sent():
                self._topic(event.message_id).send(member, event.data, self._position)
            case Synced():
                self._topic(event.message_id).arrive(member, self._position)
            case WaitFailed():
                self._failures[event.request] = (self._position, event.reason)
            case _:
                assert_never(event)

    def _is_repeat(self, event: Event) -> bool:
        first = self._requests.get(event.request)
        if first is None:
            return False
        kind, member = first
        of_one_call = kind is type(event) or {kind, type(event)} == {Synced, WaitFailed}
        if member != event.member or not of_one_call:
            raise GroupError(f"the request {event.request} of {self._known(member)} cannot be used again")
        return not isinstance(event, WaitFailed) or event.request in self._failures

    def _topic(self, message_id: str) -> Topic:
        topic = self._topics.get(message_id)
        if topic is None:
            topic = self._topics[message_id] = Topic(self._sizes)
        return topic

    def _known(self, member: str) -> Member:
        known = self._by_id.get(member)
        if known is None:
            raise GroupError(f"{member} is no member of this group")
        return known

    # --- members -------------------------------------------------------------------------------------------

    @property
    def complete(self) -> bool:
        """Whether all members have been here at one time, so that test shells may start. Stays true."""
        return self._complete

    def presence(self, member: str) -> Presence:
        """Where the member is. :raises GroupError: a stranger."""
        return self._presence[self._known(member).id]

    @property
    def left(self) -> Mapping[str, str]:
        """Who has left and not come back, with the reasons, in the order they left."""
        return self._left

    # --- one wait ------------------------------------------------------------------------------------------

    def sync_round(self, member: str, message_id: str) -> int:
        """The round that the member's newest sync of this ID belongs to, from 1 on; 0 if it made none.

        A member's n-th sync is one that it makes after its (n-1)-th round has closed; until then a sync is the
        same arrival again, after a timeout too. :raises GroupError: a stranger.
        """
        topic = self._topics.get(message_id)
        return topic.round_of(self._known(member).id) if topic else 0

    def satisfied(self, need: Need) -> bool:
        """Whether the call may return. Once true it stays true, whatever the log brings.

        A ``WAIT`` needs any member, the caller included, to have sent or synced the ID at any time; a
        ``WAIT_ALL`` every member, or every one of its role; the n-th ``SYNC`` needs the n-th of everybody, and no
        send counts as one.
        """
        return self._satisfied_at(need) is not None

    def missing(self, need: Need) -> tuple[Member, ...]:
        """Whose act is still needed, in the group's order: all of them, but for a ``WAIT`` any one.

        Empty when satisfied, and when the role is nobody's, which :meth:`satisfied` and :meth:`impossible` tell.
        """
        if self.satisfied(need):
            return ()
        topic = self._topics.get(need.message_id)
        acted = topic.acted(need) if topic else ()
        return tuple(m for m in self.members if need.role in {None, m.role} and m.id not in acted)

    def data(self, need: Need) -> dict[str, dict[str, str]]:
        """The answer's data by sender, as it stands now: members in the group's order, keys in the order sent.

        A role narrows the wait, not the data. Only a first round of a sync carries any (the page: a sync is a
        send and a wait-all; later rounds would tell old data as new).
        """
        topic = self._topics.get(need.message_id)
        if topic is None or need.round > 1:
            return {}
        return {member.id: dict(topic.data[member.id]) for member in self.members if member.id in topic.data}

    def givers(self, message_id: str) -> tuple[str, ...]:
        """Who has sent or synced this ID, with data or without, in the group's order."""
        topic = self._topics.get(message_id)
        return tuple(member.id for member in self.members if member.id in topic.given) if topic else ()

    def failure(self, request: str) -> str | None:
        """The reason recorded against this wait, None if there is none; :meth:`outcome` says whether it counts."""
        failed = self._failures.get(request)
        return failed[1] if failed else None

    def outcome(self, request: str, need: Need) -> Outcome:
        """How the wait that this request made stands: the log's order decides between success and failure."""
        satisfied = self._satisfied_at(need)
        failed = self._failures.get(request)
        if failed is not None and (satisfied is None or failed[0] < satisfied):
            return Outcome.FAILED
        return Outcome.OPEN if satisfied is None else Outcome.SATISFIED

    def _satisfied_at(self, need: Need) -> int | None:
        topic = self._topics.get(need.message_id)
        return topic.satisfied_at(need) if topic else None

    # --- dead ends -----------------------------------------------------------------------------------------

    def progress(self, need: Need) -> str:
        """How far the call got, for people: ``have 2 of 3, missing 12347 (backend)``."""
        if need.role not in self._sizes:
            return self._no_such_role(need.role)
        return deadends.progress(need, self.missing(need), self._sizes[need.role])

    def impossible(self, need: Need) -> str | None:
        """Why the call can never be satisfied unless somebody who left comes back, as one line; None if it can.

        A ``WAIT_ALL`` or ``SYNC`` is lost when one member that it needs has left, a ``WAIT`` when all but the
        caller have: the caller stands still in this very call (unless it is a background job's), and the one way
        out, another process of its own test that sends to nobody but it, is not worth a grace to everybody whose
        only partner died. The same caller missing from its own ``WAIT_ALL`` is not impossible but *stuck*: there
        ``lava-send x & lava-wait-all x`` is sound, and needs a moment.
        """
        if self.satisfied(need):
            return None
        if need.role not in self._sizes:
            return self._no_such_role(need.role)
        missing = self.missing(need)
        if not self._hopeless(need, frozenset(member.id for member in missing)):
            return None
        if need.kind is not Kind.WAIT:
            return deadends.somebody_left(need, missing, self._sizes[need.role], self._left)
        gone = {m: self._left[m.id] for m in self.members if m.id in self._left and m.id != need.member}
        return deadends.nobody_left(need, gone)

    def _hopeless(self, need: Need, missing: frozenset[str]) -> bool:
        if need.kind is not Kind.WAIT:
            return not self._left.keys().isdisjoint(missing)
        stands_still = self.presence(need.member) is not Presence.LEFT and not need.background
        return len(self.members) - len(self._left) - stands_still == 0

    def stuck(self, needs: Iterable[Need]) -> tuple[Need, ...]:
        """The needs of the largest set of members that can only be released by each other, in the given order.

        :param needs: every open need of members that are blocked, that is, that make no call of their own accord
            until this one returns. Of a member that waits with a time limit of its own pass none: it will go on.
            Needs of background jobs may be among them: a member is in the set only with all its needs, as the
            job, once released, may send; they alone do not block it, and they are not in the answer.

        Satisfied and impossible needs end by themselves, so their members are not in the set, and neither is who
        has left. A member that is expected may still come and do anything. The set may be one member, which
        waits for a send of its own. :raises GroupError: a stranger's need.
        """
        lacking = self._lacking(needs)
        free = {need.member for need, missing in lacking.items() if self._goes_on(need, missing)}
        blocked = {need.member for need in lacking if not need.background} - free
        able = self._by_id.keys() - self._left.keys()
        by_blocked = {need: missing & able for need, missing in lacking.items() if need.member in blocked}
        held = deadends.hold_each_other(by_blocked, blocked)
        return tuple(need for need in lacking if need.member in held and not need.background)

    def _lacking(self, needs: Iterable[Need]) -> dict[Need, frozenset[str]]:
        # Many members wait for the same thing, and what it lacks costs a look at every member.
        wants: dict[Need, frozenset[str]] = {}
        lacking = {}
        for need in needs:
            want = replace(need, member="", background=False)
            if want not in wants:
                wants[want] = frozenset(member.id for member in self.missing(want))
            lacking[need] = wants[want]
        return lacking

    def _goes_on(self, need: Need, missing: frozenset[str]) -> bool:
        # Nothing is missing where the need is satisfied, and where its role is nobody's: it ends either way.
        return self.presence(need.member) is Presence.LEFT or not missing or self._hopeless(need, missing)

    def _no_such_role(self, role: str | None) -> str:
        return deadends.no_such_role(str(role), (name for name in self._sizes if name is not None))
