"""A group while it runs: the fold of its log, and the calls that wait on it.

Every act that the fold accepts is appended to the journal before anybody is told, so that what was acknowledged is in
the log. Waits are no part of the log; only their failures are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from dispatcher.coordinator.journal import Journal
from dispatcher.errors import CallRefused, GroupError
from dispatcher.group.events import Event, Joined, Left, Member, Sent, Synced, WaitFailed
from dispatcher.group.needs import Kind, Need, Outcome, describe
from dispatcher.group.rendezvous import fold

Data = dict[str, dict[str, str]]
"""Member id → key → value, members in the order of the group."""

GRACE = 30.0
"""Seconds between telling that members are stuck and failing their waits: a background job may still send."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something a person should be told of a group: ``stuck``, ``freed``, ``left``."""

    kind: str
    text: str
    members: tuple[str, ...]


Observer = Callable[[Notice], None]


@dataclass(slots=True)
class _Waiter:
    need: Need
    patient: bool
    answer: asyncio.Future[Data] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class LiveGroup:
    """One group of one run.

    :param grace: seconds until the waits of stuck members fail; None: they are only told.
    :param observe: told of what a person should know.
    :raises GroupError: the members are no group, or the journal's log contradicts them.
    """

    def __init__(
        self,
        name: str,
        members: Sequence[Member],
        journal: Journal,
        *,
        grace: float | None = GRACE,
        observe: Observer = lambda _notice: None,
    ) -> None:
        self.name = name
        self._journal = journal
        self._state = fold(members, journal.read(name))
        self._grace = grace
        self._observe = observe
        self._waiting: dict[str, _Waiter] = {}
        self._syncs: dict[str, Need] = {}
        self._changed = asyncio.Event()
        self._looking = False
        self._stuck: frozenset[str] = frozenset()
        self._grace_timer: asyncio.TimerHandle | None = None
        self._departures: dict[str, str] = {}

    @property
    def members(self) -> tuple[Member, ...]:
        """Everybody, in the order of the group."""
        return self._state.members

    def _record(self, event: Event) -> None:
        """Keep an event, then act on it. :raises CallRefused: the group's rules forbid it; nothing was kept."""
        try:
            if not self._state.apply(event):
                return
        except GroupError as error:
            raise CallRefused(error.what) from None
        self._journal.append(self.name, event)

    # --- members -------------------------------------------------------------------------------------------

    async def join(self, request: str, member: str) -> None:
        """Join, and wait until every member has.

        :raises CallRefused: the group cannot become complete, because a member left before it was.
        """
        self._record(Joined(request, member))
        self._departures.pop(member, None)
        self._announce()
        while not self._state.complete:
            if self._departures:
                gone = "; ".join(f"{self._named(gone)}: {why}" for gone, why in self._departures.items())
                raise CallRefused(f"the group cannot be complete, for a member has left: {gone}")
            await self._changed.wait()

    def leave(self, request: str, member: str, reason: str) -> None:
        """Leave. Waits that only this member could have satisfied fail at once."""
        self._record(Left(request, member, reason))
        self._departures[member] = reason
        self._observe(Notice("left", f"{self._named(member)} has left: {reason}", (member,)))
        for waiting_request in [r for r, waiter in self._waiting.items() if waiter.need.member == member]:
            self._fail(waiting_request, f"{self._named(member)} has left: {reason}")
        self._fail_impossible()
        self._announce()
        self._look_for_stuck_soon()

    def _announce(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _named(self, member: str) -> str:
        return next((str(m) for m in self.members if m.id == member), member)

    # --- calls ---------------------------------------------------------------------------------------------

    def send(self, request: str, member: str, message_id: str, data: Iterable[tuple[str, str]]) -> None:
        """Store a message; when this returns it is stored. :raises CallRefused: the group's rules forbid it."""
        self._record(Sent(request, member, message_id, tuple(data)))
        self._release(message_id)

    def arrive(self, request: str, member: str, message_id: str) -> Need:
        """Arrive at a sync; the need to :meth:`wait` for."""
        known = self._syncs.get(request)
        if known is not None:
            return known
        self._record(Synced(request, member, message_id))
        need = Need(member, Kind.SYNC, message_id, round=self._state.sync_round(member, message_id))
        self._syncs[request] = need
        self._release(message_id)
        return need

    async def wait(self, request: str, need: Need, *, patient: bool = True) -> Data:
        """Wait until a need is satisfied, and give the data that it gives.

        :param patient: the caller has no time limit of its own, so that it may be stuck.
        :raises CallRefused: the wait failed; the reason says who is missing.
        """
        outcome = self._state.outcome(request, need)
        if outcome is Outcome.SATISFIED:
            return self._state.data(need)
        if outcome is Outcome.FAILED:
            raise CallRefused(self._state.failure(request) or "")
        waiter = self._waiting[request] = _Waiter(need, patient)
        try:
            if reason := self._state.impossible(need):
                self._fail(request, reason)
            self._look_for_stuck_soon()
            return await waiter.answer
        finally:
            self._waiting.pop(request, None)
            self._look_for_stuck_soon()

    def give_up(self, request: str, need: Need, why: str) -> Data:
        """End a wait for a reason of the caller's own, such as its deadline.

        :return: the data, where the log satisfied it first.
        :raises CallRefused: it has failed; ``why`` and how far it got.
        """
        if self._state.outcome(request, need) is Outcome.SATISFIED:
            return self._state.data(need)
        reason = f"{why}; {self._state.progress(need)}"
        self._record(WaitFailed(request, need.member, reason))
        raise CallRefused(reason)

    def waits(self) -> list[Need]:
        """What is waited for now."""
        return [waiter.need for waiter in self._waiting.values()]

    def _release(self, message_id: str) -> None:
        for waiter in self._waiting.values():
            if waiter.need.message_id == message_id and not waiter.answer.done() and self._state.satisfied(waiter.need):
                waiter.answer.set_result(self._state.data(waiter.need))
        self._look_for_stuck_soon()

    # --- dead ends -----------------------------------------------------------------------------------------

    def _fail(self, request: str, reason: str) -> None:
        waiter = self._waiting[request]
        if waiter.answer.done():
            return
        self._record(WaitFailed(request, waiter.need.member, reason))
        waiter.answer.set_exception(CallRefused(reason))

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
        waiting = {r: w for r, w in self._waiting.items() if w.patient and not w.answer.done()}
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

    def who_waits(self, needs: Iterable[Need]) -> str:
        """Who waits for what, and who has left, one line."""
        waits = [
            f"{self._named(need.member)} waits in {describe(need)}: {self._state.progress(need)}" for need in needs
        ]
        left = [f"{self._named(member)} has left: {why}" for member, why in self._departures.items()]
        return "; ".join([*waits, *left])

    def close(self) -> None:
        """Forget the group's timers; for its end."""
        if self._grace_timer is not None:
            self._grace_timer.cancel()
