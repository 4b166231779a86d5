"""A member's side of a group whose coordinator runs elsewhere: ours, which holds a call until its answer is there, or
LAVA's, which has to be polled.

A member at ours keeps a connection open besides, from its coming to its leaving, by whose end the coordinator learns
that the dispatcher has died.

A coordinator that is away is borne: every act has an id of its own and is done once, so it is repeated with growing
pauses until the call's deadline, or until the coordinator has been away for too long.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import ssl as tls
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from dispatcher.coordinator import wire
from dispatcher.coordinator.keepalive import keep_alive
from dispatcher.coordinator.live import Data
from dispatcher.errors import CallRefused, CoordinatorError, UntrustedError, WireError
from dispatcher.group import deadends
from dispatcher.group.events import Member
from dispatcher.group.needs import Kind

DEFAULT_PORT: Final = 3079
PAUSES: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds between attempts to reach a coordinator that is away; the last one again and again."""

HOLD: Final = 60.0
"""Seconds that a call asks to be held; afterwards it is made again."""

MARGIN: Final = 15.0
"""Seconds more than it should take until an answer that does not come counts as a coordinator that is away."""

PATIENCE: Final = 300.0
"""Seconds that a coordinator may be away."""

PARTING: Final = 10.0
"""Seconds that a member tries to tell a coordinator that it leaves, or waits no more in a call."""

POLL: Final = 1.0
"""Seconds between two polls of a coordinator that holds nobody."""


_RUNNING: Final[set[asyncio.Task[None]]] = set()
"""Tasks that nobody waits for, as an event loop alone does not keep one alive."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a coordinator listens. ``str()`` is ``HOST:PORT``."""

    host: str
    port: int = DEFAULT_PORT

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Place:
    """A member's place in its group.

    :param size: how many members the group has.
    :param members: all of them, where they are known.
    :param run: the run that the group belongs to, where the run knows the whole group.
    :param token: what shows the coordinator that this is a member.
    """

    group: str
    member: Member
    size: int
    members: tuple[Member, ...] = ()
    run: str | None = None
    token: str | None = None


async def exchange(
    address: Address, request: bytes, *, timeout: float | None, ssl: tls.SSLContext | None = None
) -> wire.Reply:
    """Make one request and take its reply.

    :param timeout: seconds until the answer is there; None: as long as the coordinator lives.
    :raises CoordinatorError: the coordinator cannot be reached, or does not answer in time.
    """
    try:
        async with asyncio.timeout(timeout):
            return await _exchange(address, request, ssl, endless=timeout is None)
    except TimeoutError:
        raise CoordinatorError("the coordinator does not answer", where=str(address)) from None
    except asyncio.IncompleteReadError:
        raise CoordinatorError("the coordinator closed the connection", where=str(address)) from None
    except tls.SSLError as error:
        raise UntrustedError(f"TLS with the coordinator failed: {_reason(error)}", where=str(address)) from None
    except OSError as error:
        # asyncio puts the address, which stands before it already, into most of its texts.
        text = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
        raise CoordinatorError(f"the coordinator cannot be reached: {text}", where=str(address)) from None
    except WireError as error:
        raise CoordinatorError(f"that is no coordinator: {error.what}", where=str(address)) from None


def _reason(error: tls.SSLError) -> str:
    """OpenSSL's reason in words; for a bad certificate, what is bad about it."""
    if isinstance(error, tls.SSLCertVerificationError):
        return error.verify_message
    return (error.reason or str(error)).replace("_", " ").lower()


async def _exchange(address: Address, request: bytes, ssl: tls.SSLContext | None, *, endless: bool) -> wire.Reply:
    async with asyncio.timeout(MARGIN if endless else None):
        reader, writer = await asyncio.open_connection(address.host, address.port, ssl=ssl)
    try:
        if endless:
            keep_alive(writer.transport)
        writer.write(request)
        header = await reader.readexactly(wire.HEADER_SIZE)
        return wire.parse_reply(await reader.readexactly(wire.length(header, wire.REPLY_LIMIT)))
    finally:
        writer.close()


class RemoteClient:
    """A :class:`~dispatcher.coordinator.client.GroupClient` of a group in another process.

    :param incarnation: sets the ids of this process's requests apart from those that another one made for the same
        member before it.
    :param tell: told once when the coordinator is away, and once when it is back.
    :param hold: seconds that a call asks to be held.
    :param patience: seconds that the coordinator may be away.
    :param poll: seconds between polls of a coordinator that holds nobody.
    :param early: :meth:`come` takes the member's place; only a coordinator of ours has places to be taken.
    :param sleep: and ``clock``, the event loop's unless a test brings its own.
    """

    def __init__(
        self,
        address: Address,
        place: Place,
        *,
        incarnation: str = "",
        tell: Callable[[str], None] = lambda _text: None,
        ssl: tls.SSLContext | None = None,
        hold: float = HOLD,
        patience: float = PATIENCE,
        poll: float = POLL,
        early: bool = False,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._address = address
        self._place = place
        self._incarnation = incarnation
        self._tell = tell
        self._ssl = ssl
        self._hold = hold
        self._patience = patience
        self._poll = poll
        self._early = early
        self._sleep = sleep
        self._clock = clock or asyncio.get_running_loop().time
        self._away_since: float | None = None
        self._met = False
        self._members: tuple[Member, ...] = place.members
        self._join: str | None = None
        self._came: str | None = None
        self._complete = False
        self._staying: asyncio.Task[None] | None = None
        self._withdrawing: dict[str, asyncio.Task[None]] = {}
        self._ours = False

    # --- the four acts ---------------------------------------------------------------------------------------

    async def come(self, request: str) -> None:
        if self._early:
            self._came = self._join = self._incarnation + request
            # One answer is enough: it says either that the place is taken, or why it cannot be.
            self._accept(await self._insist(lambda _hold: self._joining(coming=True), math.inf, once=True))

    async def join(self, request: str) -> tuple[Member, ...]:
        if self._came is None:
            self._stay_no_more()
            self._join = self._incarnation + request
        self._came = None
        # Whose coordinator this is shows in its first answer, so that is not waited for.
        reply = await self._insist(lambda hold: self._joining(hold if self._staying else 0.0), math.inf)
        self._accept(reply)
        self._complete = True
        self._members = self._place.members or reply.members
        return self._members

    def _joining(self, hold: float = 0.0, *, coming: bool = False) -> wire.Join:
        caller = replace(self._caller("", hold), request=self._join)
        return wire.Join(caller, self._place.size, self._place.members, coming)

    async def send(self, request: str, message_id: str, data: Iterable[tuple[str, str]]) -> None:
        sent = wire.Send(self._caller(request), message_id, tuple(data))
        self._accept(await self._insist(lambda _hold: sent, math.inf))

    async def wait(
        self,
        request: str,
        kind: Kind,
        message_id: str,
        role: str | None,
        *,
        timeout: float | None,
        patient: bool = True,
        background: bool = False,
    ) -> Data:
        deadline = math.inf if timeout is None else self._clock() + timeout
        if withdrawing := self._withdrawing.get(request):
            await asyncio.wait([withdrawing])
        if role is not None and role not in (roles := dict.fromkeys(member.role for member in self._members)):
            raise CallRefused(deadends.no_such_role(role, roles))  # which would end LAVA's coordinator

        def call(hold: float) -> wire.Wait:
            return wire.Wait(self._caller(request, hold), kind, message_id, role, patient, background)

        try:
            reply = await self._insist(call, deadline, keep_on=lambda reply: _too_early(reply, kind, role))
            if reply.response == "wait":
                why = f"timed out after {timeout:g} s"
                reply = await self._insist(lambda _hold: replace(call(0.0), why=why), math.inf)
                if reply.response == "nack" and not reply.ours:
                    raise CallRefused(why)
        except asyncio.CancelledError:
            self._withdraw(request)
            raise
        self._accept(reply)
        return self._data(reply)

    def _withdraw(self, request: str) -> None:
        """Have the coordinator believe no longer that somebody waits in a call."""
        if self._ours:
            going = self._withdrawing[request] = self._start(self._tell_withdrawn(wire.Withdraw(self._caller(request))))
            going.add_done_callback(lambda _task: self._withdrawing.pop(request, None))

    async def _tell_withdrawn(self, withdraw: wire.Withdraw) -> None:
        # Once: a coordinator that is away forgets the wait by itself.
        with contextlib.suppress(CoordinatorError):
            await exchange(self._address, wire.dump(withdraw), timeout=PARTING, ssl=self._ssl)

    async def leave(self, request: str, reason: str) -> None:
        """Leave. A coordinator that is away is not waited for long: a run that ends has nothing more to say to it."""
        leaving = wire.Leave(self._caller(request), reason)
        try:
            self._accept(await self._insist(lambda _hold: leaving, self._clock() + PARTING))
        finally:
            self._stay_no_more()

    # --- staying ---------------------------------------------------------------------------------------------

    def _stay_from_now_on(self, reply: wire.Reply) -> None:
        if self._staying is None and self._join is not None and reply.ours and reply.response != "nack":
            self._staying = self._start(self._stay())

    def _stay_no_more(self) -> None:
        if self._staying is not None:
            self._staying.cancel()
            self._staying = None

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        _RUNNING.add(task)
        task.add_done_callback(_RUNNING.discard)
        return task

    async def _stay(self) -> None:
        """Keep a connection for as long as the member is in its group.

        A refusal is final once the group is complete; before, a coordinator that has been started again knows of the
        member only when it has come, or asked to join, again.
        """
        attempt = 0
        while True:
            began = self._clock()
            with contextlib.suppress(CoordinatorError):
                if self._came is not None and attempt:
                    await exchange(self._address, wire.dump(self._joining(coming=True)), timeout=MARGIN, ssl=self._ssl)
                stay = wire.Stay(replace(self._caller(""), request=None))
                reply = await exchange(self._address, wire.dump(stay), timeout=None, ssl=self._ssl)
                if reply.response == "ack" or (reply.response == "nack" and self._complete):
                    return
            if self._clock() - began > PAUSES[-1]:
                attempt = 0
            await self._sleep(PAUSES[min(attempt, len(PAUSES) - 1)])
            attempt += 1

    # --- asking ----------------------------------------------------------------------------------------------

    def _caller(self, request: str, hold: float = 0.0) -> wire.Caller:
        place = self._place
        identity = self._incarnation + request
        return wire.Caller(
            place.group, place.member.id, place.member.role, True, identity, hold, place.run, place.token, self._join
        )

    async def _insist(
        self,
        request: Callable[[float], wire.Request],
        deadline: float,
        *,
        keep_on: Callable[[wire.Reply], bool] = lambda _reply: False,
        once: bool = False,
    ) -> wire.Reply:
        """Ask until there is an answer other than ``wait``, or until the deadline; then that is the answer.

        :param request: the request for a hold of so many seconds.
        :param keep_on: whether a reply means to ask again, too.
        :param once: whether any answer will do.
        :raises CoordinatorError: the coordinator has been away for too long, or at the deadline, or one side's
            certificate is not the other's choice from the start, which no waiting cures.
        """
        attempt = 0
        while True:
            hold = max(0.0, min(self._hold, deadline - self._clock()))
            try:
                reply = await exchange(self._address, wire.dump(request(hold)), timeout=hold + MARGIN, ssl=self._ssl)
            except CoordinatorError as error:
                await self._bear(error, PAUSES[min(attempt, len(PAUSES) - 1)], deadline)
                attempt += 1
                continue
            self._back()
            self._ours = reply.ours
            self._stay_from_now_on(reply)
            attempt = 0
            if once:
                return reply
            open_ = reply.response == "wait" or keep_on(reply)
            if not open_ or self._clock() >= deadline:
                return replace(reply, response="wait") if open_ else reply
            if not reply.ours:
                await self._sleep(min(self._poll, deadline - self._clock()))

    async def _bear(self, error: CoordinatorError, pause: float, deadline: float) -> None:
        now = self._clock()
        if isinstance(error, UntrustedError) and not self._met:
            raise error
        if self._away_since is None:
            self._away_since = now
            self._tell(f"{error}; trying again")
        if now >= deadline:
            raise error
        if now - self._away_since >= self._patience:
            raise CoordinatorError(f"{error.what}, for {self._patience:g} s now", where=error.where) from None
        await self._sleep(min(pause, deadline - now))

    def _back(self) -> None:
        self._met = True
        if self._away_since is not None:
            self._tell(f"{self._address}: the coordinator is back")
            self._away_since = None

    def _accept(self, reply: wire.Reply) -> None:
        """:raises CallRefused: the coordinator said no."""
        if reply.response == "nack":
            raise CallRefused(reply.reason or "the coordinator refused it, and does not say why")

    def _data(self, reply: wire.Reply) -> Data:
        """The data of a reply, members in the order of the group; who sent none is not in it."""
        order = {member.id: index for index, member in enumerate(self._members)}
        message = reply.message
        return {
            member: {str(key): "" if value is None else str(value) for key, value in pairs.items()}
            for member in sorted(message, key=lambda member: order.get(member, len(order)))
            if isinstance(pairs := message[member], dict) and pairs
        }


def _too_early(reply: wire.Reply, kind: Kind, role: str | None) -> bool:
    """Whether LAVA's coordinator refuses a ``lava-wait-all`` only because nobody has sent yet."""
    return not reply.ours and reply.response == "nack" and kind is Kind.WAIT_ALL and role is None


async def ask_status(
    address: Address, *, token: str | None = None, timeout: float = MARGIN, ssl: tls.SSLContext | None = None
) -> wire.Reply:
    """What a coordinator knows. :raises CoordinatorError: it cannot be reached, or will not tell."""
    reply = await exchange(address, wire.dump(wire.Status(token)), timeout=timeout, ssl=ssl)
    if reply.response != "ack":
        reason = reply.reason or "LAVA's coordinator cannot tell"
        raise CoordinatorError(f"the coordinator does not tell its status: {reason}", where=str(address))
    return reply
