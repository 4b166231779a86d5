"""What a coordinator has counted since it started; whoever shows it reads the attributes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Counters:
    """One coordinator's numbers.

    :param accepted: connections that came, :param open: those that are there now, :param held: those of them that
        wait for an answer, :param staying: those that show that a dispatcher lives.
    :param turned_away: connections closed unread, as there were too many; :param lost: clients that went away before
        they had their answer.
    :param requests: by name. :param replies: by response. :param malformed: by what was wrong: ``header``,
        ``request``, ``cut`` (the client ended early), ``late`` (it did not send in time).
    """

    accepted: int = 0
    open: int = 0
    held: int = 0
    staying: int = 0
    turned_away: int = 0
    lost: int = 0
    requests: Counter[str] = field(default_factory=Counter)
    replies: Counter[str] = field(default_factory=Counter)
    malformed: Counter[str] = field(default_factory=Counter)
