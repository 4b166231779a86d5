"""How a dispatcher speaks for one member of a group: the same four acts, wherever the coordinator runs.

The dispatcher owns every call's deadline (on the event loop's monotonic clock); the coordinator only waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

from dispatcher.coordinator.live import Data, LiveGroup
from dispatcher.group.events import Member
from dispatcher.group.needs import Kind, Need


class GroupClient(Protocol):
    """One member's side of a group. ``request`` is an id that is never used for another act of the group.

    Every method raises :class:`~dispatcher.errors.CallRefused` with the reason, and
    :class:`~dispatcher.errors.CoordinatorError` where the coordinator cannot be reached.
    """

    async def come(self, request: str) -> None:
        """Take the member's place, where that can be, so that the others learn if it fails before it joins."""

    async def join(self, request: str) -> tuple[Member, ...]:
        """Join, and wait until the group is complete; its members."""

    async def send(self, request: str, message_id: str, data: Iterable[tuple[str, str]]) -> None:
        """Store a message."""

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
        """Wait as ``lava-wait``, ``lava-wait-all`` or ``lava-sync`` does, at most ``timeout`` seconds.

        :param patient: the call has no time limit of its own, so that its member may be stuck in it.
        :param background: the rest of the member's test goes on meanwhile.
        """

    async def leave(self, request: str, reason: str) -> None:
        """Leave the group."""


class EmbeddedClient:
    """A :class:`GroupClient` of a group in this process."""

    def __init__(self, group: LiveGroup, member: str) -> None:
        self._group = group
        self._member = member

    async def come(self, request: str) -> None:
        """Its group knows all members, and who leaves it is told."""

    async def join(self, request: str) -> tuple[Member, ...]:
        await self._group.join(request, self._member)
        return self._group.members

    async def send(self, request: str, message_id: str, data: Iterable[tuple[str, str]]) -> None:
        self._group.send(request, self._member, message_id, data)

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
        if kind is Kind.SYNC:
            need = self._group.arrive(request, self._member, message_id, background=background)
        else:
            need = Need(self._member, kind, message_id, role, background=background)
        try:
            async with asyncio.timeout(timeout):
                return await self._group.wait(request, need, patient=patient)
        except TimeoutError:
            return self._group.give_up(request, need, f"timed out after {timeout:g} s")

    async def leave(self, request: str, reason: str) -> None:
        self._group.leave(request, self._member, reason)
