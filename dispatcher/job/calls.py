"""The calls that a device can make, each as a handler between the framing and the group's coordinator.

A plugin adds a call of its own by subclassing :class:`Call` (entry point group ``multinode.calls``; see
``fixtures/example-plugin``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from dispatcher.coordinator.client import GroupClient
from dispatcher.errors import CallRefused
from dispatcher.framing import grammar
from dispatcher.framing.conversation import Answer
from dispatcher.group.events import Member
from dispatcher.group.needs import Kind

__all__ = ["Answer", "Call", "Send", "Session", "Sync", "Wait", "WaitAll"]


@dataclass(frozen=True, slots=True)
class Session:
    """Who makes a call, and how it reaches the group.

    :param request: an id for this request, never used again in the group.
    :param timeout: seconds that the job allows a call, None for no limit.
    :param own_timeout: seconds that the call was told to wait (``--timeout``), None where it was not.
    :param background: a background job of the test made the call, so that the rest of the test goes on.
    """

    member: Member
    members: Sequence[Member]
    client: GroupClient
    request: str
    timeout: float | None
    own_timeout: float | None = None
    background: bool = False


class Call(ABC):
    """One kind of call. One object serves all consoles."""

    SCRIPTS: ClassVar[Mapping[str, bytes]] = {}
    """Scripts to be put beside ours on every device: name → content, POSIX sh over ``lava-multi-node.lib``."""

    waits: ClassVar[bool] = True
    """Whether it may wait for other members. Calls that do not are done in the order that the device made them."""

    def case(self, name: str, args: Sequence[str]) -> str | None:
        """The name of the test case that this call leaves, in the current suite; None for none.

        LAVA's: ``multinode-``, the call, and the message ID if there is one, all in lower case.
        """
        return "-".join(["multinode", name, *args[:1]]).lower()

    @abstractmethod
    async def answer(self, args: Sequence[str], session: Session) -> Answer:
        """Do it. :raises CallRefused: it failed; the reason, one line."""


class Send(Call):
    """``lava-send ID k=v…``: returns when the coordinator has stored it."""

    waits = False

    async def answer(self, args: Sequence[str], session: Session) -> Answer:
        message_id = checked_id(args)
        pairs = []
        for word in args[1:]:
            key, equals, value = word.partition("=")
            if not equals or not key:
                raise CallRefused(f"{word!r} is not key=value")
            pairs.append((key, value))
        if sum(len(key) + len(value) for key, value in pairs) > grammar.MESSAGE_LIMIT:
            raise CallRefused(f"a message holds at most {grammar.MESSAGE_LIMIT} bytes")
        await session.client.send(session.request, message_id, pairs)
        return None


class _Waiting(Call):
    kind: ClassVar[Kind]
    most: ClassVar[int] = 1

    async def answer(self, args: Sequence[str], session: Session) -> Answer:
        message_id = checked_id(args)
        if len(args) > self.most:
            raise CallRefused(f"{self.kind.value} does not take {args[self.most]!r}")
        role = args[1] if len(args) > 1 else None
        return await session.client.wait(
            session.request,
            self.kind,
            message_id,
            role,
            timeout=min((limit for limit in (session.timeout, session.own_timeout) if limit is not None), default=None),
            patient=session.own_timeout is None,
            background=session.background,
        )


class Wait(_Waiting):
    """``lava-wait ID``."""

    kind = Kind.WAIT


class WaitAll(_Waiting):
    """``lava-wait-all ID [ROLE]``."""

    kind = Kind.WAIT_ALL
    most = 2


class Sync(_Waiting):
    """``lava-sync ID``."""

    kind = Kind.SYNC


def checked_id(args: Sequence[str]) -> str:
    """The message ID, checked as ``docs/semantics.md`` says."""
    if not args:
        raise CallRefused("there is no message ID")
    message_id = args[0]
    if len(message_id.encode("utf-8", "surrogateescape")) > grammar.ID_LIMIT:
        raise CallRefused(f"a message ID has at most {grammar.ID_LIMIT} bytes")
    if "=" in message_id or " " in message_id or not grammar.is_printable(message_id):
        raise CallRefused(f"{message_id!r} is no message ID: printable characters without blanks and '='")
    return message_id
