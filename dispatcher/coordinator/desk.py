"""What the coordinator does with a request: from the wire's values to acts on a group, and to a reply.

Clients of our own give every act an id, and may be held until the answer is there. LAVA's do neither: they repeat a
call until it is answered with something else than ``wait``, so a call of theirs gets an id here, which its repeats
share until the answer has left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, assert_never

from dispatcher.coordinator import wire
from dispatcher.coordinator.hall import LINGER, Call, Hall, Room, check_speaker, minted
from dispatcher.coordinator.keepalive import is_silence
from dispatcher.coordinator.live import Data
from dispatcher.coordinator.watch import Post, Watch
from dispatcher.errors import CallRefused
from dispatcher.group.events import Member
from dispatcher.group.needs import Kind, Need, describe
from dispatcher.group.presence import Presence

CALLS_LIMIT = 64
"""Calls of one member that may wait at the same time."""


class Pending(Protocol):
    """An answer that may take its time. Whoever holds it calls :meth:`reply` when ``done``, or when it must answer."""

    @property
    def future(self) -> asyncio.Future[Any]:
        """Done when there is an answer; of whatever type."""

    def reply(self) -> bytes:
        """The reply as it stands: ``wait`` while there is none."""

    def let_go(self, error: Exception | None = None) -> None:
        """Nobody listens for the answer any more, for now. ``error`` is how the connection ended, None for closed."""

    def told(self) -> None:
        """The reply has left whole."""


@dataclass(slots=True, eq=False)
class _Joining:
    future: asyncio.Future[CallRefused | None]
    hall: Hall
    name: str

    def reply(self) -> bytes:
        if not self.future.done():
            return wire.WAIT
        refusal = self.future.result()
        if refusal is not None:
            return wire.nack(refusal.what)
        room = self.hall.rooms.get(self.name)
        return wire.group_data(room.record.members) if room else wire.nack(f"the group {self.name} has ended")

    def let_go(self, error: Exception | None = None) -> None:
        pass

    def told(self) -> None:
        pass


@dataclass(slots=True, eq=False)
class _Waiting:
    """:param call: what its caller repeats, where it has no ids of its own."""

    future: asyncio.Future[Data | CallRefused]
    desk: Desk
    room: Room
    request: str
    need: Need
    call: Call | None
    answered: bool = False

    def reply(self) -> bytes:
        if self.future.done():
            self.answered = True
            return self.desk.answer_wait(self.room, self.need, self.future.result())
        self.let_go()
        return wire.WAIT

    def let_go(self, error: Exception | None = None) -> None:
        self.room.group.linger(self.request, LINGER)

    def told(self) -> None:
        # Not future.done(): the answer may have come after the reply was "wait", before that had left.
        if self.call is not None and self.answered:
            self.room.repeated.pop(self.call, None)


@dataclass(slots=True, eq=False)
class Staying:
    """The answer to a stay, which comes when it is of no use any more."""

    watch: Watch
    post: Post

    @property
    def future(self) -> asyncio.Future[str | None]:
        return self.post.ended

    def reply(self) -> bytes:
        if not self.future.done():
            return wire.WAIT
        reason = self.future.result()
        return wire.ACK if reason is None else wire.nack(reason)

    def excuse(self) -> None:
        """No connection can be kept for the member; it is not missed for that."""
        self.watch.excuse(self.post)

    def let_go(self, error: Exception | None = None) -> None:
        self.watch.lose(self.post, silent=is_silence(error))

    def told(self) -> None:
        pass


class Desk:
    """Answers requests.

    :param gate: tells why a request may not be made, None where it may.
    """

    def __init__(self, hall: Hall, gate: Callable[[wire.Request], str | None] = lambda _request: None) -> None:
        self.hall = hall
        self.gate = gate
        self._encoded: tuple[Data | None, bytes] = (None, b"")

    def answer(self, request: wire.Request) -> bytes | Pending:
        """Do what is asked. Everything that goes wrong is a reply, too."""
        try:
            if refusal := self.gate(request):
                raise CallRefused(refusal)
            return self._act(request)
        except CallRefused as error:
            caller = None if isinstance(request, wire.Status) else request.caller
            self.hall.tell(caller.group if caller else "", "refused", error.what, *([caller.member] if caller else []))
            return wire.nack(error.what)

    def _act(self, request: wire.Request) -> bytes | Pending:
        match request:
            case wire.Join():
                return self._join(request)
            case wire.Send() | wire.Wait() | wire.Withdraw():
                return self._call(request)
            case wire.Stay():
                return self._stay(request.caller)
            case wire.Leave():
                return self._leave(request)
            case wire.Status():
                return wire.ack(self.status())
            case _:
                assert_never(request)

    # --- members ---------------------------------------------------------------------------------------------

    def _join(self, request: wire.Join) -> bytes | Pending:
        caller, hall = request.caller, self.hall
        room = hall.rooms.get(caller.group)
        if room is None and not request.members:
            member = Member(caller.member, caller.role)
            if not caller.role:
                raise CallRefused("role is missing")
            future = hall.gather(
                caller.group, caller.run or "", request.size, member, caller.request, coming=request.coming
            )
            room = hall.rooms.get(caller.group)
            if future is not None:
                return _Joining(future, hall, caller.group)
        elif room is None:
            if caller.group in hall.forming:
                raise CallRefused(f"another run of {caller.group} is gathering its members")
            _check_member(request.members, caller)
            room = hall.open(caller.group, caller.run or "", request.members)
        room = hall.room(caller.group)
        self._check(room, request)
        if request.coming and room.group.presence(caller.member) is Presence.EXPECTED:
            return wire.WAIT  # its place is known, and nobody else's
        try:
            return _Joining(room.group.enter(self._join_request(room, caller), caller.member), hall, caller.group)
        except CallRefused as error:
            raise CallRefused(f"{error.what}{hall.watch.hint(caller.group, caller.member)}") from None

    def _check(self, room: Room, request: wire.Join) -> None:
        caller, record = request.caller, room.record
        if caller.run is not None and caller.run != record.run:
            raise CallRefused(f"another run of {record.name} is live; give yours another name, or wait for its end")
        if request.members and request.members != record.members:
            raise CallRefused(f"the group {record.name} has other members")
        _check_member(record.members, caller)

    def _join_request(self, room: Room, caller: wire.Caller) -> str:
        """The id of a join. LAVA's clients repeat theirs, whereas who comes back after leaving joins anew."""
        if caller.request is not None:
            return caller.request
        room.group.only_tell()
        if room.group.presence(caller.member) is Presence.HERE:
            request = room.group.joined[caller.member]
            if not minted(request):
                raise CallRefused(f"{caller.member} has joined already")
            return request
        return self.hall.mint()

    def _stay(self, caller: wire.Caller) -> Staying:
        if caller.join is None:
            raise CallRefused("a stay without the id of a join")
        hall = self.hall
        forming = hall.forming.get(caller.group)
        if forming is not None and caller.member in forming.members and caller.member not in forming.left:
            member = forming.members[caller.member]
            check_speaker(member, forming.requests[caller.member], caller.join)
        else:
            room = self._room(caller)
            if (why_not := room.group.why_not_here(caller.member)) is not None:
                raise CallRefused(why_not)
            member = next(member for member in room.record.members if member.id == caller.member)
        return Staying(hall.watch, hall.watch.stay(caller.group, member))

    def _leave(self, request: wire.Leave) -> bytes:
        caller = request.caller
        self.hall.withdraw(caller.group, caller.member, caller.join, request.reason)
        room = self.hall.rooms.get(caller.group)
        if room is not None and (presence := room.group.presence(caller.member)) is not Presence.LEFT:
            _check_speaker(room, caller)
            if presence is Presence.EXPECTED and caller.run is None:
                raise CallRefused(f"{caller.member} has not joined, and only its own run can say that it will not")
            room.group.leave(caller.request or self.hall.mint(), caller.member, request.reason)
            self.hall.close_if_ended(room)
        self.hall.watch.forget(caller.group, [caller.member])
        return wire.ACK

    # --- calls -----------------------------------------------------------------------------------------------

    def _call(self, request: wire.Send | wire.Wait | wire.Withdraw) -> bytes | Pending:
        match request:
            case wire.Send():
                return self._send(request)
            case wire.Withdraw():
                return self._withdraw(request.caller)
            case wire.Wait():
                return self._wait(request) if request.why is None else self._give_up(request, request.why)

    def _room(self, caller: wire.Caller) -> Room:
        room = self.hall.room(caller.group)
        _check_speaker(room, caller)
        return room

    def _send(self, request: wire.Send) -> bytes:
        caller = request.caller
        room = self._room(caller)
        room.group.send(caller.request or self.hall.mint(), caller.member, request.message_id, request.data)
        return wire.ACK

    def _wait(self, request: wire.Wait) -> Pending:
        caller = request.caller
        room = self._room(caller)
        call: Call | None = None
        identity = caller.request
        if identity is None:
            call = (caller.member, request.kind, request.message_id, request.role)
            identity = room.repeated.get(call) or self.hall.mint()
        if room.group.count(caller.member) >= CALLS_LIMIT and not room.group.waits(identity):
            raise CallRefused(f"a member may wait in {CALLS_LIMIT} calls at once")
        need = self._need(room, request, identity)
        future = room.group.ask(identity, need, patient=request.patient)
        if call is not None:
            room.repeated[call] = identity
        return _Waiting(future, self, room, identity, need, call)

    def _need(self, room: Room, request: wire.Wait, identity: str) -> Need:
        caller = request.caller
        room.group.presence(caller.member)
        if request.kind is Kind.SYNC:
            return room.group.arrive(identity, caller.member, request.message_id, background=request.background)
        return Need(caller.member, request.kind, request.message_id, request.role, background=request.background)

    def _give_up(self, request: wire.Wait, why: str) -> bytes:
        caller = request.caller
        if caller.request is None:
            raise CallRefused("a call without an id cannot be given up")
        room = self._room(caller)
        need = self._need(room, request, caller.request)
        try:
            result: Data | CallRefused = room.group.give_up(caller.request, need, why)
        except CallRefused as error:
            result = error
        return self.answer_wait(room, need, result)

    def _withdraw(self, caller: wire.Caller) -> bytes:
        if caller.request is None:
            raise CallRefused("a call without an id cannot be withdrawn")
        if caller.group in self.hall.rooms:
            self._room(caller).group.withdraw(caller.request, caller.member)
        return wire.ACK

    def answer_wait(self, room: Room, need: Need, result: Data | CallRefused) -> bytes:
        """The reply to a wait that is answered; many are answered with one table, which is written once."""
        if isinstance(result, CallRefused):
            return wire.nack(result.what)
        known, encoded = self._encoded
        if known is not result:
            givers = room.group.givers(need.message_id) if need.round <= 1 else ()
            encoded = wire.ack({member: result.get(member, {}) for member in givers})
            self._encoded = (result, encoded)
        return encoded

    # --- looking ---------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """What ``multinode status`` shows, as JSON."""
        return {
            "groups": [_shown(room, self.hall.watch) for room in self.hall.rooms.values()],
            "forming": [
                {
                    "name": forming.name,
                    "size": forming.size,
                    "members": [
                        {
                            "id": member.id,
                            "role": member.role,
                            "joined": member.id not in forming.coming,
                            "absent": _rounded(self.hall.watch.absent(forming.name, member.id)),
                        }
                        for member in forming.members.values()
                    ],
                }
                for forming in self.hall.forming.values()
            ],
        }


def _check_member(members: Iterable[Member], caller: wire.Caller) -> None:
    """:raises CallRefused: the caller is none of them, or is told to play another role."""
    known = next((member for member in members if member.id == caller.member), None)
    if known is None:
        raise CallRefused(f"{caller.member} is no member of the group {caller.group}")
    if caller.role and caller.role != known.role:
        raise CallRefused(f"{known} cannot be {caller.role}")


def _check_speaker(room: Room, caller: wire.Caller) -> None:
    """:raises CallRefused: the caller belongs to another run, or another console is this member."""
    if caller.run is not None and caller.run != room.record.run:
        raise CallRefused(f"another run of {room.record.name} is live")
    joined = room.group.joined.get(caller.member)
    if joined is not None:
        member = next(member for member in room.record.members if member.id == caller.member)
        check_speaker(member, joined, caller.join)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _shown(room: Room, watch: Watch) -> dict[str, Any]:
    group, record = room.group, room.record
    calls: dict[str, list[dict[str, Any]]] = {}
    for need, waited, progress in group.calls():
        shown = {"call": describe(need), "waited": round(waited, 3), "progress": progress}
        calls.setdefault(need.member, []).append(shown)
    return {
        "name": record.name,
        "run": record.run,
        "opened": record.opened,
        "complete": group.complete,
        "stuck": group.stuck,
        "members": [
            {
                "id": member.id,
                "role": member.role,
                "presence": group.presence(member.id).name.lower(),
                "absent": _rounded(watch.absent(record.name, member.id)),
                "calls": calls.get(member.id, []),
            }
            for member in record.members
        ],
    }
