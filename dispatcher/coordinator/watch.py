"""Which members' dispatchers are there: each keeps a connection from its join to its leave, and may be gone without.

All of it is in memory. A coordinator that starts again knows nobody's connection until it is made again, so it misses
only members that have stayed in its own life; LAVA's clients never stay, and are never missed.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from dispatcher.coordinator.live import Notice
from dispatcher.coordinator.phase import Phase
from dispatcher.group.events import Member

ABSENCE: Final = 30.0
"""Seconds that a dispatcher whose connection was closed may take to come back."""

SILENCE: Final = 450.0
"""Seconds that one may take from which nothing is heard: a client of ours that bears the same silence gives up first,
after its patience, a held call and an attempt to connect that runs into nothing."""

LATENESS: Final = 5.0
"""Seconds by which we may be late to give somebody up; by more, we have been stopped ourselves, and heard nobody."""

GONE: Final = "its dispatcher has gone"

Observer = Callable[[str, Notice], None]


@dataclass(slots=True, eq=False)
class Post:
    """The place of a member that stays.

    :param ended: done when the connection is of no use any more: None where the member has left, else why.
    :param since: when it went away, and :param until: when it counts as gone, on the event loop's clock; None for not,
        and for never.
    """

    group: str
    member: Member
    ended: asyncio.Future[str | None]
    since: float | None = None
    until: float | None = None

    def end(self, reason: str | None) -> None:
        if not self.ended.done():
            self.ended.set_result(reason)


class Watch:
    """Everybody who stays, and everybody who did and is away.

    :param absence: seconds that a dispatcher whose connection was closed may take to come back, None for any time.
    :param gone: told the group and the id of a member that did not come back.
    :param observe: told ``absent`` and ``back``.
    """

    def __init__(self, absence: float | None, gone: Callable[[str, str], None], observe: Observer) -> None:
        self._absence = absence
        self._gone = gone
        self._observe = observe
        self._posts: dict[tuple[str, str], Post] = {}
        self._deaf = -math.inf
        self._closed: Phase[Post] = Phase(absence or 0.0, self._give_up)
        self._silent: Phase[Post] = Phase(max(absence or 0.0, SILENCE), self._give_up)

    def stay(self, group: str, member: Member) -> Post:
        """A connection is kept for a member from now on; an older one is of no use any more."""
        old = self._posts.get((group, member.id))
        post = Post(group, member, asyncio.get_running_loop().create_future())
        self._posts[group, member.id] = post
        if old is not None:
            self._forget(old, f"another connection is kept for {member}")
            if old.since is not None:
                away = asyncio.get_running_loop().time() - old.since
                text = f"the dispatcher of {member} is back after {away:.0f} s"
                self._observe(group, Notice("back", text, (member.id,)))
        return post

    def lose(self, post: Post, *, silent: bool) -> None:
        """A connection has ended, closed by its dispatcher's side or in silence."""
        if self._posts.get((post.group, post.member.id)) is not post:
            return
        now = asyncio.get_running_loop().time()
        post.since = now
        text = f"the dispatcher of {post.member} {'is silent' if silent else 'has closed its connection'}"
        if self._absence is not None:
            seconds = max(self._absence, SILENCE) if silent else self._absence
            post.until = now + seconds
            (self._silent if silent else self._closed).enter(post)
            text += f", and is given up in {seconds:g} s"
        self._observe(post.group, Notice("absent", text, (post.member.id,)))

    def excuse(self, post: Post) -> None:
        """Do not miss a member, as no connection can be kept for it."""
        if self._posts.get((post.group, post.member.id)) is post:
            self.forget(post.group, [post.member.id])

    def forget(self, group: str, members: Iterable[str]) -> None:
        """Miss some members no more: they have left, or there is no group to be missed in."""
        for member in members:
            post = self._posts.pop((group, member), None)
            if post is not None:
                self._forget(post, None)

    def _forget(self, post: Post, reason: str | None) -> None:
        self._closed.leave(post)
        self._silent.leave(post)
        post.end(reason)

    def miss(self) -> None:
        """Somebody was not listened to, who may have wanted to stay again; nobody is given up soon after that."""
        self._deaf = asyncio.get_running_loop().time()

    def _give_up(self, post: Post) -> None:
        now = asyncio.get_running_loop().time()
        if self._absence is None or post.until is None:
            return
        if now - post.until > LATENESS or now - self._deaf < self._absence:
            post.until = now + self._absence
            self._closed.enter(post)
            return
        self.forget(post.group, [post.member.id])
        self._gone(post.group, post.member.id)

    # --- looking ---------------------------------------------------------------------------------------------

    def absent(self, group: str, member: str) -> float | None:
        """For how many seconds a member's dispatcher has been away, None where it is not."""
        post = self._posts.get((group, member))
        if post is None or post.since is None:
            return None
        return asyncio.get_running_loop().time() - post.since

    def attended(self, group: str, members: Iterable[str]) -> bool:
        """Whether any of these members' dispatchers is there."""
        posts = (self._posts.get((group, member)) for member in members)
        return any(post is not None and post.since is None for post in posts)

    def hint(self, group: str, member: str) -> str:
        """When the place of a member will be free, as the end of a line; nothing where its dispatcher is there."""
        post = self._posts.get((group, member))
        if post is None or post.since is None:
            return ""
        if post.until is None:
            return "; its dispatcher is away, and never given up"
        left = max(0.0, post.until - asyncio.get_running_loop().time())
        return f"; its dispatcher is away, and given up in {left:.0f} s"

    def count_absent(self) -> int:
        """How many members are away."""
        return sum(post.since is not None for post in self._posts.values())

    def close(self) -> None:
        """Nobody is missed any more; for the end of the process."""
        self._closed.close()
        self._silent.close()
        self._posts.clear()
