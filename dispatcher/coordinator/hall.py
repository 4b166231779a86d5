"""All groups of one coordinator: how they are opened, found again, ended and forgotten.

LAVA's clients know the size of their group and themselves; a group of theirs *forms* until that many have named
themselves, in memory, as they ask until they are answered. Our own may name everybody at once. From then on a group
is in the journal.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from dispatcher.coordinator.journal import GroupRecord, Journal
from dispatcher.coordinator.live import GRACE, LiveGroup, Notice
from dispatcher.coordinator.watch import ABSENCE, GONE, Watch
from dispatcher.errors import CallRefused, GroupError
from dispatcher.group import deadends
from dispatcher.group.events import Member
from dispatcher.group.needs import Kind

EXPIRY = 24 * 3600.0
"""Seconds without a word from any member until a group is forgotten. Between two calls a test may work for hours."""

MEMBERS_LIMIT = 100_000
"""Members of all open groups; as many more may be in groups that form. Each costs some kilobyte."""

LINGER = 30.0
"""Seconds that a wait to which nobody listens counts as one that will be asked for again; LAVA's clients ask every
few seconds."""

Observer = Callable[[str, Notice], None]
"""Told of what a person should know: the group's name, and what happened there."""

Call = tuple[str, Kind, str, str | None]
"""A wait as a client without request ids repeats it: member, kind, ID, role."""


@dataclass(slots=True)
class Room:
    """A group that is open.

    :param touched: when a member last spoke, or a look found its dispatcher there, on the hall's clock.
    :param repeated: the requests of calls that their callers repeat without an id until they are answered.
    """

    record: GroupRecord
    group: LiveGroup
    touched: float
    repeated: dict[Call, str] = field(default_factory=dict)


@dataclass(slots=True)
class Forming:
    """A group of which not everybody has come yet.

    :param requests: the joins of the members, by member. :param waiting: the joins to be answered, by request.
    :param coming: who has only taken a place, and joins later.
    """

    name: str
    size: int
    run: str
    touched: float
    members: dict[str, Member] = field(default_factory=dict)
    requests: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    coming: set[str] = field(default_factory=set)
    waiting: dict[str, asyncio.Future[CallRefused | None]] = field(default_factory=dict)

    def refuse(self, reason: str) -> None:
        """Answer everybody who waits here that it is in vain."""
        for answer in self.waiting.values():
            if not answer.done():
                answer.set_result(CallRefused(reason))
        self.waiting.clear()

    def lost(self) -> str | None:
        """Why the group cannot become complete, None while it can."""
        return deadends.incomplete((self.members[member], why) for member, why in self.left.items())


def minted(request: str) -> bool:
    """Whether a request has its id from us, since its client has none."""
    return request.startswith("\n")


def check_speaker(member: Member, joined: str, join: str | None) -> None:
    """:raises CallRefused: whoever speaks for a member, by the id of a join, has not joined as it."""
    if join != (None if minted(joined) else joined):
        raise CallRefused(f"another dispatcher speaks for {member}")


class Hall:
    """The groups of one coordinator.

    :param members_limit: members of all open groups, and again of those that form. What the journal brings is let in.
    :param grace: seconds after which the waits of stuck members fail, None for never.
    :param absence: seconds that a member's dispatcher may be away once it has stayed, None for any time.
    :param expiry: seconds without a word after which a group is forgotten, None for never.
    :param clock: monotonic seconds, for ``expiry``; ``now`` is the time of day, for people.

    ``refused`` counts the joins for which there was no room; ``watch`` knows whose dispatchers are there.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        members_limit: int = MEMBERS_LIMIT,
        grace: float | None = GRACE,
        absence: float | None = ABSENCE,
        expiry: float | None = EXPIRY,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        observe: Observer = lambda _group, _notice: None,
    ) -> None:
        self.rooms: dict[str, Room] = {}
        self.forming: dict[str, Forming] = {}
        self.refused = 0
        self._members_limit = members_limit
        self._open_members = 0
        self._forming_members = 0
        self._journal = journal
        self._grace = grace
        self._expiry = expiry
        self._clock = clock
        self._now = now
        self._observe = observe
        self.watch = Watch(absence, self._lose, observe)
        # No client can write such a request, and another process has another nonce.
        self._minted = f"\n{secrets.token_hex(8)}\n"
        self._count = 0
        self._unusable: set[str] = set()
        for record in journal.groups():
            try:
                self._enter(record)
            except GroupError as error:
                self._unusable.add(record.name)
                self.tell(record.name, "damaged", f"its log contradicts itself and is left alone: {error.what}")

    def tell(self, group: str, kind: str, text: str, *members: str) -> None:
        """Tell whoever observes."""
        self._observe(group, Notice(kind, text, members))

    def mint(self) -> str:
        """A request id for a client that has none of its own."""
        self._count += 1
        return f"{self._minted}{self._count}"

    def _enter(self, record: GroupRecord) -> Room:
        def tell(notice: Notice) -> None:
            self._observe(record.name, notice)

        group = LiveGroup(record.name, record.members, self._journal, grace=self._grace, observe=tell)
        room = self.rooms[record.name] = Room(record, group, self._clock())
        self._open_members += len(record.members)
        for request, need in group.unanswered.items():
            if minted(request):
                room.repeated[need.member, need.kind, need.message_id, need.role] = request
        if any(minted(request) for request in group.joined.values()):
            group.only_tell()
        return room

    # --- opening and finding ---------------------------------------------------------------------------------

    def room(self, name: str) -> Room:
        """A group that is open. :raises CallRefused: there is none of this name."""
        room = self.rooms.get(name)
        if room is None:
            forming = self.forming.get(name)
            have = f" yet: {len(forming.members)} of {forming.size} have come" if forming else ""
            raise CallRefused(f"the group {name} is not open{have}")
        room.touched = self._clock()
        return room

    def open(self, name: str, run: str, members: tuple[Member, ...]) -> Room:
        """Open a group whose members are known.

        :raises CallRefused: the journal holds one of this name, unusable; or there are too many members already.
        """
        self._check_name(name)
        self._check_space(self._open_members + len(members), "open groups")
        record = GroupRecord(name, run, members, self._now())
        self._journal.open(record)
        room = self._enter(record)
        self.tell(name, "opened", f"the group has {len(members)} members")
        return room

    def gather(
        self, name: str, run: str, size: int | None, member: Member, request: str | None, *, coming: bool = False
    ) -> asyncio.Future[CallRefused | None] | None:
        """Take one more member of a group that forms; when it is the last one, open the group.

        :param request: the join's id; None from a client that has none.
        :param coming: the member takes its place only, and the group is not complete before it has joined.
        :return: the answer to come, None where it is here: the group is open.
        :raises CallRefused: another run, another size, a second console with a member's id, or too many members.
        """
        self._check_name(name)
        forming = self.forming.get(name)
        if forming is None:
            if size is None:
                raise CallRefused(f"the group {name} is not open, and the request does not say how many members it has")
            forming = Forming(name, size, run, self._clock())
        if request is None:
            known = forming.requests.get(member.id, "")
            request = known if minted(known) else self.mint()
        self._check(forming, run, size, member, request)
        if coming and member.id in forming.left and forming.requests[member.id] == request:
            raise CallRefused(forming.lost() or "")  # it was on its way when its member left
        self._admit(forming, member)
        if not coming:
            forming.coming.discard(member.id)
        elif forming.requests.get(member.id) != request:  # else it may have joined since, and this is late
            forming.coming.add(member.id)
        forming.touched = self._clock()
        forming.requests[member.id] = request
        forming.left.pop(member.id, None)
        if lost := forming.lost():
            raise CallRefused(lost)
        if len(forming.members) == forming.size and not forming.coming:
            self._check_space(self._open_members + forming.size, "open groups")
            self._complete(forming)
            return None
        answer = forming.waiting.get(request)
        if answer is None:
            answer = forming.waiting[request] = asyncio.get_running_loop().create_future()
        return answer

    def _check_name(self, name: str) -> None:
        if name in self._unusable:
            raise CallRefused(f"a group {name} is in the journal, and its log contradicts itself: take another name")

    def _check_space(self, members: int, where: str) -> None:
        if members <= self._members_limit:
            return
        self.refused += 1
        raise CallRefused(f"{where} have {self._members_limit} members at most, and there is no room for more now")

    def _admit(self, forming: Forming, member: Member) -> None:
        if member.id not in forming.members:
            self._check_space(self._forming_members + 1, "groups that form")
            self.forming[forming.name] = forming
            self._forming_members += 1
        forming.members[member.id] = member

    def _check(self, forming: Forming, run: str, size: int | None, member: Member, request: str) -> None:
        known = forming.requests.get(member.id, request)
        if forming.run != run:
            raise CallRefused(f"another run of {forming.name} is gathering its members")
        if size not in (None, forming.size):
            raise CallRefused(f"the group {forming.name} has {forming.size} members, not {size}")
        if known != request and member.id not in forming.left:
            hint = self.watch.hint(forming.name, member.id)
            raise CallRefused(f"{forming.members[member.id]} has joined already{hint}")

    def _complete(self, forming: Forming) -> None:
        self._take_away(forming)
        room = self.open(forming.name, forming.run, tuple(forming.members.values()))
        for member, request in forming.requests.items():
            if minted(request):
                room.group.only_tell()
            room.group.enter(request, member)
        for answer in forming.waiting.values():
            if not answer.done():
                answer.set_result(None)

    # --- the ends --------------------------------------------------------------------------------------------

    def withdraw(self, name: str, member: str, join: str | None, reason: str) -> None:
        """A member leaves a group that forms; who else has come is told.

        :raises CallRefused: the member has joined with another request.
        """
        forming = self.forming.get(name)
        if forming is None or member not in forming.members:
            return
        check_speaker(forming.members[member], forming.requests[member], join)
        forming.left[member] = reason
        forming.coming.discard(member)
        forming.refuse(forming.lost() or "")
        self._take_away_if_left(forming)

    def _take_away_if_left(self, forming: Forming) -> None:
        if len(forming.left) == len(forming.members):
            self._take_away(forming)

    def _take_away(self, forming: Forming) -> None:
        del self.forming[forming.name]
        self._forming_members -= len(forming.members)

    def _lose(self, name: str, member: str) -> None:
        """A member's dispatcher has gone: it leaves, or its place in a group that forms is free again."""
        room = self.rooms.get(name)
        if room is not None:
            room.group.leave(self.mint(), member, GONE)
            self.close_if_ended(room)
            return
        forming = self.forming[name]
        self.tell(name, "left", f"{forming.members[member]} has left before the group was complete: {GONE}", member)
        answer = forming.waiting.pop(forming.requests.pop(member), None)
        if answer is not None and not answer.done():
            answer.set_result(CallRefused(f"{forming.members[member]} has left: {GONE}"))
        forming.coming.discard(member)
        del forming.members[member]
        self._forming_members -= 1
        self._take_away_if_left(forming)

    def close_if_ended(self, room: Room) -> None:
        """Forget a group that everybody has left."""
        if room.group.ended:
            self._drop(room, "ended", "everybody has left")

    def _drop(self, room: Room, kind: str, text: str) -> None:
        name = room.record.name
        room.group.close()
        del self.rooms[name]
        self._open_members -= len(room.record.members)
        self._journal.drop(name)
        self.watch.forget(name, (member.id for member in room.record.members))
        self.tell(name, kind, text)

    def expire(self) -> None:
        """Forget the groups whose members have all vanished: for a whole expiry nobody spoke, and nobody is there."""
        if self._expiry is None:
            return
        now = self._clock()
        before = now - self._expiry
        text = f"nobody has spoken for {self._expiry:g} s"
        for room in list(self.rooms.values()):
            if self._attended(room):
                room.touched = now
            elif room.touched <= before:
                room.group.refuse_joins(text)
                self._drop(room, "expired", text)
        for forming in list(self.forming.values()):
            if self.watch.attended(forming.name, forming.members):
                forming.touched = now
            elif forming.touched <= before:
                forming.refuse(text)
                self.watch.forget(forming.name, forming.members)
                self._take_away(forming)
                self.tell(forming.name, "expired", text)

    def _attended(self, room: Room) -> bool:
        return any(room.group.calls()) or self.watch.attended(room.record.name, (m.id for m in room.record.members))

    def close(self) -> None:
        """Forget every timer; for the end of the process. The groups stay in the journal."""
        self.watch.close()
        for room in self.rooms.values():
            room.group.close()
