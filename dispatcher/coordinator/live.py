"""A group while it runs: the fold of its log, and the calls that wait on it.

Every act that the fold accepts is appended to the journal before anybody is told, so that what was acknowledged is in
the log. Waits are no part of the log; only their failures are. An answer is a future whose *result* may be a refusal:
whoever asked may have gone meanwhile, and then nobody takes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from dispatcher.coordinator.journal import Journal
from dispatcher.errors import CallRefused, GroupError
from dispatcher.group import deadends
from dispatcher.group.events import REASON_LIMIT, Event, Joined, Left, Member, Sent, Synced, WaitFailed
from dispatcher.group.needs import Kind, Need, Outcome, describe
from dispatcher.group.presence import Presence
from dispatcher.group.rendezvous import Rendezvous

Data = dict[str, dict[str, str]]
"""Member id → key → value, members in the order of the group."""

KEPT_LIMIT = 256 * 1024 * 1024
"""Bytes of what its members did that a group keeps: one that never stops is not to fill a disk that others need."""

ACT_COST = 200
"""Bytes that an act costs beside its texts, about."""

GRACE = 30.0
"""Seconds between telling that members are stuck and failing their waits: a background job may still send."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something a person should be told of a group: ``left``, ``unmet``, ``stuck``, ``freed``."""

    kind: str
    text: str
    members: tuple[str, ...]


Observer = Callable[[Notice], None]


@dataclass(slots=True, eq=False)
class _Waiter:
    """One call that waits. ``since`` is a time of the event loop's clock."""

    need: Need
    patient: bool
    answer: asyncio.Future[Data | CallRefused]
    since: float
    lingering: asyncio.TimerHandle | None = None

    def keep(self) -> None:
        """Somebody listens (again)."""
        if self.lingering is not None:
            self.lingering.cancel()
            self.lingering = None


def _size(event: Event) -> int:
    """Bytes that an event costs, about."""
    texts = sum(len(key) + len(value) for key, value in event.data) if isinstance(event, Sent) else 0
    return ACT_COST + len(event.request) + texts


class LiveGroup:
    """One group of one run.

    :param grace: seconds until the waits of stuck members fail; None: they are only told.
    :param observe: told of what a person should know.
    :param kept_limit: bytes of what its members did, as journalled, after which nothing new is taken but their leaving.
    :raises GroupError: the members are no group, or the journal's log contradicts them.

    ``joined`` holds the requests of the members' last joins; ``unanswered`` the needs of the syncs, by request, that
    were their member's last act in the log that was found, so that it may not know their answer yet.
    """

    def __init__(
        self,
        name: str,
        members: Sequence[Member],
        journal: Journal,
        *,
        grace: float | None = GRACE,
        observe: Observer = lambda _notice: None,
        kept_limit: int = KEPT_LIMIT,
    ) -> None:
        self.name = name
        self._kept, self._kept_limit = 0, kept_limit
        self._journal = journal
        self._state = Rendezvous(members)
        self._grace = grace
        self._observe = observe
        self._joining: dict[str, asyncio.Future[CallRefused | None]] = {}
        self._waiting: dict[str, _Waiter] = {}
        self._syncs: dict[str, Need] = {}
        self._looking = False
        self._stuck: frozenset[str] = frozenset()
        self._grace_timer: asyncio.TimerHandle | None = None
        self.joined: dict[str, str] = {}
        last: dict[str, Event] = {}
        for event in journal.read(name):
            self._state.apply(event)
            self._kept += _size(event)
            last[event.member] = event
            if isinstance(event, Synced):
                self._note_sync(event)
            elif isinstance(event, Joined):
                self.joined[event.member] = event.request
        syncs = (event.request for event in last.values() if isinstance(event, Synced))
        self.unanswered = {request: self._syncs[request] for request in syncs}

    def _note_sync(self, event: Synced) -> Need:
        round_ = self._state.sync_round(event.member, event.message_id)
        need = self._syncs[event.request] = Need(event.member, Kind.SYNC, event.message_id, round=round_)
        return need

    @property
    def members(self) -> tuple[Member, ...]:
        """Everybody, in the order of the group."""
        return self._state.members

    @property
    def complete(self) -> bool:
        """Whether all members have been here at one time."""
        return self._state.complete

    @property
    def ended(self) -> bool:
        """Whether everybody has left."""
        return len(self._state.left) == len(self.members)

    def _record(self, event: Event) -> bool:
        """Keep an event, then act on it; False where its request was done before.

        :raises CallRefused: the group's rules forbid it; nothing was kept.
        """
        try:
            if not self._state.apply(event):
                return False
        except GroupError as error:
            raise CallRefused(error.what) from None
        self._journal.append(self.name, event)
        self._kept += _size(event)
        return True

    def _check_room(self, request: str) -> None:
        """:raises CallRefused: the group keeps so much already that nothing new may be done."""
        if self._kept > self._kept_limit and not self._state.knows(request):
            raise CallRefused(f"the group keeps {self._kept_limit:,} bytes of what its members did, and takes no more")

    # --- members -------------------------------------------------------------------------------------------

    def presence(self, member: str) -> Presence:
        """Where a member is. :raises CallRefused: a stranger."""
        try:
            return self._state.presence(member)
        except GroupError as error:
            raise CallRefused(error.what) from None

    def why_not_here(self, member: str) -> str | None:
        """Why a member cannot act, None where it is here. :raises CallRefused: a stranger."""
        presence = self.presence(member)
        if presence is Presence.HERE:
            return None
        reason = self._state.left.get(member)
        return f"{self._named(member)} {presence.value}" + (f": {reason}" if reason else "")

    def enter(self, request: str, member: str) -> asyncio.Future[CallRefused | None]:
        """Join; the answer comes when every member has, or cannot any more.

        :raises CallRefused: a stranger, or the member is here already.
        """
        self._check_room(request)
        if self._record(Joined(request, member)):
            self.joined[member] = request
        answer = self._joining.get(request)
        if answer is None:
            answer = self._joining[request] = asyncio.get_running_loop().create_future()
        self._announce()
        return answer

    async def join(self, request: str, member: str) -> None:
        """Join, and wait until every member has.

        :raises CallRefused: the group cannot become complete, because a member left before it was.
        """
        answer = self.enter(request, member)
        try:
            refusal = await answer
        finally:
            self._joining.pop(request, None)
        if refusal is not None:
            raise refusal

    def refuse_joins(self, reason: str) -> None:
        """Answer everybody who waits for the group to become complete that it is in vain."""
        for answer in self._joining.values():
            if not answer.done():
                answer.set_result(CallRefused(reason))
        self._joining.clear()

    def leave(self, request: str, member: str, reason: str) -> None:
        """Leave. Waits that only this member could have satisfied fail at once."""
        reason = reason[:REASON_LIMIT]
        if not self._record(Left(request, member, reason)):
            return
        self._observe(Notice("left", f"{self._named(member)} has left: {reason}", (member,)))
        for waiting_request in [r for r, waiter in self._waiting.items() if waiter.need.member == member]:
            self._fail(waiting_request, f"{self._named(member)} has left: {reason}")
        self._fail_impossible()
        self._announce()
        self._look_for_stuck_soon()

    def _announce(self) -> None:
        """Answer those who joined, as soon as there is an answer."""
        refusal = None
        if not self.complete:
            lost = deadends.incomplete((self._named(member), why) for member, why in self._state.left.items())
            if lost is None:
                return
            refusal = CallRefused(lost)
        for answer in self._joining.values():
            if not answer.done():
                answer.set_result(refusal)
        self._joining.clear()

    def _named(self, member: str) -> str:
        return next((str(m) for m in self.members if m.id == member), member)

    # --- calls ---------------------------------------------------------------------------------------------

    def send(self, request: str, member: str, message_id: str, data: Iterable[tuple[str, str]]) -> None:
        """Store a message; when this returns it is stored. :raises CallRefused: the group's rules forbid it."""
        self._check_room(request)
        if self._record(Sent(request, member, message_id, tuple(data))):
            self._release(message_id)

    def arrive(self, request: str, member: str, message_id: str, *, background: bool = False) -> Need:
        """Arrive at a sync; the need to :meth:`wait` for. A request that arrived before has that arrival's.

        :raises CallRefused: the group's rules forbid it.
        """
        need = self._syncs.get(request)
        self._check_room(request)
        if need is None and self._record(event := Synced(request, member, message_id)):
            need = self._note_sync(event)
            self._release(message_id)
        if need is None or (need.member, need.message_id) != (member, message_id):
            raise CallRefused(f"the request {request} cannot be used again")
        return replace(need, background=background)

    def ask(self, request: str, need: Need, *, patient: bool = True) -> asyncio.Future[Data | CallRefused]:
        """Wait until a need is satisfied; the data that it gives, or why it failed: who is missing.

        Asked again with the same request, while the first still waits, it is the same wait.

        :param patient: the caller has no time limit of its own, so that it may be stuck.
        """
        waiter = self._waiting.get(request)
        if waiter is not None and waiter.need == need:
            waiter.keep()
            return waiter.answer
        settled = self._settled(request, need)
        if settled is None and waiter is not None:
            settled = CallRefused(f"the request {request} cannot be used again")
        if settled is not None:
            answer: asyncio.Future[Data | CallRefused] = asyncio.get_running_loop().create_future()
            answer.set_result(settled)
            return answer
        self._check_room(request)
        loop = asyncio.get_running_loop()
        waiter = self._waiting[request] = _Waiter(need, patient, loop.create_future(), loop.time())
        if reason := self._state.impossible(need):
            self._fail(request, reason)
        self._look_for_stuck_soon()
        return waiter.answer

    def _settled(self, request: str, need: Need) -> Data | CallRefused | None:
        outcome = self._state.outcome(request, need)
        if outcome is Outcome.SATISFIED:
            return self._state.data(need)
        if outcome is Outcome.FAILED:
            return CallRefused(self._state.failure(request) or "")
        why_not = self.why_not_here(need.member)
        return None if why_not is None else CallRefused(why_not)

    def forget(self, request: str) -> None:
        """Nobody listens to this wait any more."""
        waiter = self._waiting.pop(request, None)
        if waiter is not None:
            waiter.keep()
            self._look_for_stuck_soon()

    def withdraw(self, request: str, member: str) -> None:
        """:meth:`forget` a wait, if it is the member's."""
        waiter = self._waiting.get(request)
        if waiter is not None and waiter.need.member == member:
            self.forget(request)

    def linger(self, request: str, seconds: float) -> None:
        """Nobody listens to this wait now; forget it unless it is asked for again within some seconds."""
        waiter = self._waiting.get(request)
        if waiter is not None:
            waiter.keep()
            waiter.lingering = asyncio.get_running_loop().call_later(seconds, self.forget, request)

    async def wait(self, request: str, need: Need, *, patient: bool = True) -> Data:
        """:meth:`ask`, and wait for the answer. :raises CallRefused: the wait failed."""
        answer = self.ask(request, need, patient=patient)
        try:
            result = await answer
        finally:
            self.forget(request)
        if isinstance(result, CallRefused):
            raise result
        return result

    def give_up(self, request: str, need: Need, why: str) -> Data:
        """End a wait for a reason of the caller's own, such as its deadline.

        :return: the data, where the log satisfied it first.
        :raises CallRefused: it has failed; ``why`` and how far it got.
        """
        self.forget(request)
        settled = self._settled(request, need)
        if settled is None:
            self._check_room(request)
            reason = f"{why}; {self._state.progress(need)}"
            self._record_failure(request, need, reason)
            settled = CallRefused(reason)
        if isinstance(settled, CallRefused):
            raise settled
        return settled

    def waits(self, request: str) -> bool:
        """Whether this wait is open."""
        return request in self._waiting

    def count(self, member: str) -> int:
        """How many waits of a member are open."""
        return sum(waiter.need.member == member for waiter in self._waiting.values())

    def givers(self, message_id: str) -> tuple[str, ...]:
        """Who has sent or synced this ID, with data or without."""
        return self._state.givers(message_id)

    def calls(self) -> Iterator[tuple[Need, float, str]]:
        """What is waited for now: the call, the seconds that it has waited, and how far it got."""
        now = asyncio.get_running_loop().time()
        for waiter in self._waiting.values():
            yield waiter.need, now - waiter.since, self._state.progress(waiter.need)

    def _release(self, message_id: str) -> None:
        """Answer everybody whom this ID has satisfied; one table of data serves all of them."""
        asked = {r: w for r, w in self._waiting.items() if w.need.message_id == message_id}
        answers: dict[bool, Data] = {}
        satisfied: dict[Need, bool] = {}
        for request, waiter in asked.items():
            want = replace(waiter.need, member="", background=False)
            if want not in satisfied:
                satisfied[want] = self._state.satisfied(want)
            if not satisfied[want]:
                continue
            later = want.round > 1
            if later not in answers:
                answers[later] = self._state.data(want)
            self._answer(request, answers[later])
        self._look_for_stuck_soon()

    def _answer(self, request: str, result: Data | CallRefused) -> None:
        waiter = self._waiting.pop(request)
        waiter.keep()
        if not waiter.answer.done():
            waiter.answer.set_result(result)

    # --- dead ends -----------------------------------------------------------------------------------------

    def only_tell(self) -> None:
        """Never fail the waits of stuck members: somebody here may act without asking us, as LAVA's clients may."""
        self._grace = None
        if self._grace_timer is not None:
            self._grace_timer.cancel()
            self._grace_timer = None

    def _fail(self, request: str, reason: str) -> None:
        self._record_failure(request, self._waiting[request].need, reason)
        self._answer(request, CallRefused(reason))

    def _record_failure(self, request: str, need: Need, reason: str) -> None:
        if self._record(WaitFailed(request, need.member, reason)):
            text = f"{self._named(need.member)} waits no more in {describe(need)}: {reason}"
            self._observe(Notice("unmet", text, (need.member,)))

    def _fail_impossible(self) -> None:
        for request, waiter in list(self._waiting.items()):
            if reason := self._state.impossible(waiter.need):
                self._fail(request, reason)

    def _look_for_stuck_soon(self) -> None:
        """Look once after all that happens in this turn of the loop, whatever the number of events."""
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_soon(self._look_for_stuck)

    def _look_for_stuck(self) -> None:
        self._looking = False
        waiting = {r: w for r, w in self._waiting.items() if w.patient}
        impatient = {w.need.member for w in self._waiting.values() if not w.patient}
        needs = {r: w.need for r, w in waiting.items() if w.need.member not in impatient}
        held = self._state.stuck(needs.values())
        now = frozenset(request for request, need in needs.items() if need in held)
        if now == self._stuck:
            return
        if self._grace_timer is not None:
            self._grace_timer.cancel()
            self._grace_timer = None
        self._stuck = now
        members = tuple(need.member for need in held)
        if not now:
            self._observe(Notice("freed", "nobody is stuck any more", members))
            return
        self._observe(Notice("stuck", self.who_waits(held), members))
        if self._grace is not None:
            self._grace_timer = asyncio.get_running_loop().call_later(self._grace, self._end_stuck, now, held)

    def _end_stuck(self, requests: frozenset[str], held: tuple[Need, ...]) -> None:
        self._stuck = frozenset()
        reason = f"stuck: {self.who_waits(held)}"
        for request in requests:
            if request in self._waiting:
                self._fail(request, reason)

    @property
    def stuck(self) -> bool:
        """Whether there are members that only wait for each other."""
        return bool(self._stuck)

    def who_waits(self, needs: Iterable[Need]) -> str:
        """Who waits for what, and who has left, one line."""
        waits = [
            f"{self._named(need.member)} waits in {describe(need)}: {self._state.progress(need)}" for need in needs
        ]
        left = [f"{self._named(member)} has left: {why}" for member, why in self._state.left.items()]
        return "; ".join([*waits, *left])

    def close(self) -> None:
        """Forget the group's timers; for its end."""
        for waiter in self._waiting.values():
            waiter.keep()
        if self._grace_timer is not None:
            self._grace_timer.cancel()
