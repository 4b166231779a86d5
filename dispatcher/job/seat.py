"""Who takes part in a run and on what, and what is left of it for a person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dispatcher.console.transport import Transport
from dispatcher.group.events import Member
from dispatcher.job.devices import Device


@dataclass(frozen=True, slots=True)
class Seat:
    """What a member is made of: who it is in the group, and which device plays it."""

    member: Member
    device: Device
    transport: Transport
    environment: Mapping[str, str]
    essential: bool = False


@dataclass(frozen=True, slots=True)
class Kept:
    """A console that is left as a failure found it.

    :ivar command: how a person reaches it.
    :ivar directory: where on the device the member's files are, None where none were put there.
    :ivar held: it is there only as long as this process holds it.
    """

    member: Member
    device: str
    command: str
    directory: str | None
    held: bool
