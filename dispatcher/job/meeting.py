"""Where the members of a run meet: a group in this process, or one at a coordinator elsewhere."""

from __future__ import annotations

import re
import secrets
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from dispatcher.coordinator import wire
from dispatcher.coordinator.client import EmbeddedClient, GroupClient
from dispatcher.coordinator.journal import GroupRecord
from dispatcher.coordinator.journal.memory import MemoryJournal
from dispatcher.coordinator.live import LiveGroup, Observer
from dispatcher.coordinator.remote import MARGIN, Address, Place, RemoteClient, exchange
from dispatcher.group.events import Member

_NAME_LIMIT = 64


class Meeting(Protocol):
    """A group, as this process sees it."""

    name: str

    def client(self, member: Member) -> GroupClient:
        """How a member reaches the group."""

    def close(self) -> None:
        """The run is over."""


class EmbeddedMeeting:
    """A group in this process.

    :param run: an id that no other run has.
    """

    def __init__(
        self, job_name: str, run: str, members: Sequence[Member], *, grace: float | None, observe: Observer
    ) -> None:
        self.name = f"{job_name}-{run}"
        journal = MemoryJournal()
        journal.open(GroupRecord(self.name, run, tuple(members), time.time()))
        self._group = LiveGroup(self.name, members, journal, grace=grace, observe=observe)

    def client(self, member: Member) -> GroupClient:
        return EmbeddedClient(self._group, member.id)

    def close(self) -> None:
        self._group.close()


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A coordinator that was named.

    :param group: the group to take part in with members of other processes, None for one of this run alone.
    :param size: how many members it has.
    :param token: what shows the coordinator that we are members.
    :param tls: what it is spoken to with; None: in the clear.
    :param run: the run that ``group`` was opened for, which may say of a member of its own that it will not come.
    """

    address: Address
    size: int
    group: str | None = None
    token: str | None = None
    tls: ssl.SSLContext | None = None
    run: str | None = None


class RemoteMeeting:
    """A group at a coordinator elsewhere. Where all members are ours, the coordinator is told who they are."""

    def __init__(
        self, job_name: str, run: str, members: Sequence[Member], there: Elsewhere, tell: Callable[[str], None]
    ) -> None:
        self.name = there.group or f"{re.sub('[^A-Za-z0-9._-]', '-', job_name)[:_NAME_LIMIT]}-{run}"
        self._run = run if there.group is None else there.run
        self._members = tuple(members) if there.group is None else ()
        self._there = there
        self._tell = tell
        self._ours = False

    async def check(self) -> None:
        """Find out whether somebody is there, before any console is opened.

        :raises CoordinatorError: nobody is, or nobody who speaks our language.
        """
        there = self._there
        reply = await exchange(there.address, wire.dump(wire.Status(there.token)), timeout=MARGIN, ssl=there.tls)
        self._ours = reply.ours

    def client(self, member: Member) -> GroupClient:
        there = self._there
        place = Place(self.name, member, there.size, self._members, self._run, there.token)
        incarnation = f"{secrets.token_hex(4)}."
        # A group that was opened for a run knows its members, and learns of those that fail before they join.
        early = self._ours and there.group is not None and there.run is None
        return RemoteClient(there.address, place, incarnation=incarnation, tell=self._tell, ssl=there.tls, early=early)

    def close(self) -> None:
        pass
