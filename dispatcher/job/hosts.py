"""Tells members that share a file system, because they are shells of one host, from those that have one of their own.

Such members cannot all keep their cache at ``/tmp/lava_multi_node_cache.txt``. A host is known by its kernel's boot
id (random(4), ``/proc/sys/kernel/random/boot_id``); a device that cannot say it counts as a host of its own.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from pathlib import Path

_BOOT_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Hosts:
    """Where the members of one run live; each says it once, or withdraws."""

    def __init__(self, members: Iterable[str]) -> None:
        self._awaited = set(members)
        self._boot_ids: dict[str, str] = {}
        self._all_said = asyncio.Event()
        self._here = _own_boot_id()

    async def shared(self, member: str, boot_id: str) -> bool:
        """Whether this member's host runs another member, or this process; waits until all members have said."""
        if _BOOT_ID.fullmatch(boot_id):
            self._boot_ids[member] = boot_id
        self.withdraw(member)
        await self._all_said.wait()
        mine = self._boot_ids.get(member)
        others = (other for name, other in self._boot_ids.items() if name != member)
        return mine is not None and (mine == self._here or mine in others)

    def withdraw(self, member: str) -> None:
        """Do not wait for a member any longer."""
        self._awaited.discard(member)
        if not self._awaited:
            self._all_said.set()

    def is_here(self, boot_id: str) -> bool:
        """Whether this is the host of this very process."""
        return self._here is not None and boot_id == self._here


def _own_boot_id() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
