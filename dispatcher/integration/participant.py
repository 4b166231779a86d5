"""A member of a group without a console: a program that makes the calls itself, each of which blocks."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import ssl as tls
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import cast

from dispatcher.coordinator.background import Background
from dispatcher.coordinator.live import Data
from dispatcher.coordinator.remote import Address, Place, RemoteClient
from dispatcher.errors import CallRefused
from dispatcher.group.events import Member
from dispatcher.job.calls import Answer, Call, Send, Session, Sync, Wait, WaitAll

LEFT = "its test has ended"


class Participant:
    """One member. Its calls mean what the scripts' mean on a device, and refuse what those refuse.

    Timeouts are in seconds, None for no limit. Every call raises :class:`~dispatcher.errors.CallRefused`, whose text is
    the reason, and :class:`~dispatcher.errors.CoordinatorError` where the coordinator is away.
    """

    def __init__(
        self, background: Background, address: Address, place: Place, *, ssl: tls.SSLContext | None = None
    ) -> None:
        self._background = background
        self._where = (address, place)
        self._ssl = ssl
        self._member = place.member
        self._members: tuple[Member, ...] = ()
        self._client: RemoteClient | None = None
        # A coordinator remembers requests, those of an earlier test in the same group, too.
        self._ids = (f"{place.member.id}.{secrets.token_hex(4)}.{number}" for number in itertools.count(1))

    @property
    def id(self) -> str:
        """As ``lava-self`` prints it."""
        return self._member.id

    @property
    def role(self) -> str:
        """As ``lava-role`` prints it."""
        return self._member.role

    @property
    def members(self) -> Sequence[Member]:
        """Everybody in the group, as ``lava-group`` prints it; empty before :meth:`join`."""
        return self._members

    def join(self, timeout: float | None = None) -> None:
        """Come to the group, and wait until it is complete. Every other call does so first, if need be."""
        self._background.run(self._join(timeout))

    def send(self, message_id: str, data: Mapping[str, object] | None = None, /, **pairs: object) -> None:
        """Store a message; when this returns it is stored. Values are sent as their text.

        :param data: pairs whose keys are no Python names, such as ``{"server-ip": …}``.
        """
        words = [f"{key}={value}" for key, value in {**(data or {}), **pairs}.items()]
        self._background.run(self._call(Send(), [message_id, *words], None))

    def wait(self, message_id: str, timeout: float | None = None) -> Data:
        """Wait until somebody has sent a message: member id → its pairs, of each who sent some."""
        return self._wait(Wait(), [message_id], timeout)

    def wait_all(self, message_id: str, role: str | None = None, timeout: float | None = None) -> Data:
        """Wait until everybody, or everybody of a role, has sent a message. "Everybody" includes this member."""
        return self._wait(WaitAll(), [message_id] if role is None else [message_id, role], timeout)

    def sync(self, message_id: str, timeout: float | None = None) -> Data:
        """Wait until every member has come to this point."""
        return self._wait(Sync(), [message_id], timeout)

    def leave(self, reason: str = LEFT) -> None:
        """Leave the group; waits of others that only this member could have satisfied fail. Does no harm twice."""
        client, self._client = self._client, None
        if client is not None:
            self._background.run(client.leave(next(self._ids), reason))

    def __enter__(self) -> Participant:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave(LEFT if error is None else f"its test has failed: {type(error).__name__}")

    # ---------------------------------------------------------------------------------------------------------

    async def _join(self, timeout: float | None) -> RemoteClient:
        if self._client is not None:
            return self._client
        client = RemoteClient(*self._where, ssl=self._ssl)
        try:
            async with asyncio.timeout(timeout):
                self._members = await client.join(next(self._ids))
        except TimeoutError:
            reason = f"the group was not complete after {timeout:g} s"
            await client.leave(next(self._ids), reason)
            raise CallRefused(reason, where=str(self._member)) from None
        self._client = client
        return client

    def _wait(self, call: Call, words: list[str], timeout: float | None) -> Data:
        return cast(Data, self._background.run(self._call(call, words, timeout)))

    async def _call(self, call: Call, words: list[str], timeout: float | None) -> Answer:
        client = await self._join(timeout)
        session = Session(self._member, self._members, client, next(self._ids), timeout=None, own_timeout=timeout)
        try:
            return await call.answer(words, session)
        except CallRefused as error:
            name = call.kind.value if isinstance(call, Wait | WaitAll | Sync) else "lava-send"
            raise CallRefused(f"{name} {words[0]}: {error.what}", where=str(self._member)) from None
