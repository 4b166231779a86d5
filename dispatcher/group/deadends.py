"""Why a wait does not end: what to say about it, and which members hold each other for ever.

Pure functions over what :class:`dispatcher.group.rendezvous.Rendezvous` tells them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from dispatcher.group.events import Member
from dispatcher.group.needs import Kind, Need

NAMED: Final = 8
"""Members that one line names; of more it gives the number, as the line goes to a console."""


def _listing(names: Sequence[str], separator: str = ", ") -> str:
    extra = len(names) - NAMED
    return separator.join(names[:NAMED]) + (f"{separator}and {extra} more" if extra > 0 else "")


def _have(need: Need, missing: Sequence[Member], total: int) -> str:
    where = f" in round {need.round}" if need.round > 1 else ""
    return f"have {total - len(missing)} of {total}{where}"


def progress(need: Need, missing: Sequence[Member], total: int) -> str:
    """How far a call got: ``have 2 of 3, missing 12347 (backend)``.

    :param missing: whose act would still be needed, in the group's order.
    :param total: how many members the call needs in all.
    """
    if need.kind is Kind.WAIT:
        return f"nobody has sent {need.message_id} yet" if missing else f"{need.message_id} has been sent"
    have = _have(need, missing, total)
    return f"{have}, missing {_listing([str(member) for member in missing])}" if missing else have


def no_such_role(role: str, roles: Iterable[str]) -> str:
    """A ``lava-wait-all`` names a role that the job does not define."""
    return f"no member has the role {role!r}; the roles are {', '.join(roles)}"


def incomplete(left: Iterable[tuple[object, str]]) -> str | None:
    """A group cannot become complete, None while it can. ``left``: who has left and why, in the order of leaving.

    The first one only: who left later may have left for that.
    """
    return next((f"the group cannot be complete, for a member has left: {who}: {why}" for who, why in left), None)


def nobody_left(need: Need, gone: Mapping[Member, str]) -> str:
    """A ``lava-wait`` has nobody left to wait for. ``gone`` maps who left to the reason."""
    start = f"nobody has sent {need.message_id} yet"
    if not gone:
        return f"{start}, and the group has no other member"
    return f"{start}, and every other member has left: {_leavers(gone)}"


def somebody_left(need: Need, missing: Sequence[Member], total: int, left: Mapping[str, str]) -> str:
    """A ``lava-wait-all`` or ``lava-sync`` needs a member that left. ``left`` maps ids to reasons.

    Those who left stand first: they are the reason, and a long list is cut.
    """
    names = [f"{member}, who has left: {left[member.id]}" for member in missing if member.id in left]
    names += [str(member) for member in missing if member.id not in left]
    return f"{_have(need, missing, total)}, missing {_listing(names, '; ')}"


def _leavers(gone: Mapping[Member, str]) -> str:
    return _listing([f"{member}: {reason}" for member, reason in gone.items()], "; ")


def hold_each_other(lacking: Mapping[Need, frozenset[str]], members: Iterable[str]) -> frozenset[str]:
    """The largest set of these members in which nobody can go on unless another of the set does first.

    The greatest fixpoint: start with everybody, and take out a member as long as one of its needs can be met
    without the set. A ``lava-wait`` can, when one member outside may still send; the other two need *every*
    missing member, so they can only when no missing member is in the set. A member with several calls is in the
    set only with all of them, since whichever is released may make the rest of its test act. A larger set never
    releases more than a smaller one, therefore the order of the steps does not matter.

    :param lacking: every need of the members, and the ids that could still act for it.
    :param members: the callers to start with.
    """
    held = set(members)
    shrinking = True
    while shrinking:
        freed = {need.member for need, ids in lacking.items() if need.member in held and _open(need, ids, held)}
        held -= freed
        shrinking = bool(freed)
    return frozenset(held)


def _open(need: Need, ids: frozenset[str], held: set[str]) -> bool:
    return not ids <= held if need.kind is Kind.WAIT else ids.isdisjoint(held)
