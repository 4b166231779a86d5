"""Waits that cannot end: what is said about them, at once, and members that hold each other."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from log_harness import fold

from dispatcher.group.events import Event, Joined, Left, Member, Sent, Synced
from dispatcher.group.needs import Kind, Need
from dispatcher.group.rendezvous import Rendezvous

A, B, C, D = (Member(name, role) for name, role in (("1", "client"), ("2", "server"), ("3", "back"), ("4", "back")))


def group(*members: Member, sent: str = "", left: str = "") -> Rendezvous:
    """A group of these members; those in ``sent`` have sent "x", those in ``left`` are gone again."""
    log: list[Event] = [Joined(f"j{member.id}", member.id) for member in members]
    log += [Sent(f"s{name}", name, "x") for name in sent]
    log += [Left(f"l{name}", name, f"reason {name}") for name in left]
    return fold(members, log)


def wait(member: Member, message_id: str = "x", *, background: bool = False) -> Need:
    return Need(member.id, Kind.WAIT, message_id, background=background)


def wait_all(member: Member, role: str | None = None, *, message_id: str = "x", background: bool = False) -> Need:
    return Need(member.id, Kind.WAIT_ALL, message_id, role, background=background)


def sync(state: Rendezvous, member: Member, message_id: str = "x") -> Need:
    state.apply(Synced(f"y{member.id}{message_id}", member.id, message_id))
    return Need(member.id, Kind.SYNC, message_id, round=state.sync_round(member.id, message_id))


# --- progress ----------------------------------------------------------------------------------------------


def test_progress_says_who_is_missing() -> None:
    assert group(A, B, C, sent="12").progress(wait_all(A)) == "have 2 of 3, missing 3 (back)"
    assert group(A, B, C, D, sent="3").progress(wait_all(A, "back")) == "have 1 of 2, missing 4 (back)"
    assert group(A, B).progress(wait(A)) == "nobody has sent x yet"


def test_progress_of_what_is_satisfied() -> None:
    assert group(A, B, sent="12").progress(wait_all(A)) == "have 2 of 2"
    assert group(A, B, sent="2").progress(wait(A)) == "x has been sent"


def test_a_line_stays_short_in_a_large_group() -> None:
    crowd = [Member(str(number), "peer") for number in range(100, 120)]
    state = fold(crowd, [Joined("j", "100"), Sent("s", "100", "x"), *(Left(m.id, m.id, "no") for m in crowd[18:])])
    named = ", ".join(f"{number} (peer)" for number in range(101, 109))
    need = wait_all(crowd[0])
    assert state.progress(need) == f"have 1 of 20, missing {named}, and 11 more"
    assert str(state.impossible(need)).startswith("have 1 of 20, missing 118 (peer), who has left: no; 119 (peer), who")


# --- impossible --------------------------------------------------------------------------------------------


def test_wait_all_fails_when_a_member_that_it_needs_has_left() -> None:
    reason = "have 2 of 3, missing 3 (back), who has left: reason 3"
    assert group(A, B, C, sent="12", left="3").impossible(wait_all(A)) == reason


def test_who_left_is_told_before_who_may_still_come() -> None:
    reason = "have 1 of 4, missing 3 (back), who has left: reason 3; 4 (back), who has left: reason 4; 2 (server)"
    assert group(A, B, C, D, sent="1", left="34").impossible(wait_all(A)) == reason


def test_a_member_that_left_is_no_loss_to_a_wait_that_does_not_need_it() -> None:
    assert group(A, B, C, sent="3", left="3").impossible(wait_all(A)) is None
    assert group(A, B, C, left="3").impossible(wait_all(A, "server")) is None
    assert group(A, B, C, left="3").impossible(wait(A)) is None


def test_what_is_satisfied_is_not_impossible() -> None:
    state = group(A, B, sent="12", left="2")
    assert state.impossible(wait_all(A)) is None
    assert state.impossible(wait(A)) is None


def test_sync_fails_when_a_member_left_without_it() -> None:
    state = group(A, B, sent="2", left="2")
    assert state.impossible(sync(state, A)) == "have 1 of 2, missing 2 (server), who has left: reason 2"


def test_wait_fails_when_everybody_else_has_left() -> None:
    reason = "nobody has sent x yet, and every other member has left: 2 (server): reason 2; 3 (back): reason 3"
    assert group(A, B, C, left="23").impossible(wait(A)) == reason
    assert group(A).impossible(wait(A)) == "nobody has sent x yet, and the group has no other member"


def test_a_background_wait_may_be_met_by_the_rest_of_its_own_test() -> None:
    assert group(A, B, left="2").impossible(wait(A, background=True)) is None
    assert group(A, B, left="12").impossible(wait(A, background=True)) is not None


def test_a_member_that_has_not_joined_may_still_come() -> None:
    state = fold((A, B), [Joined("j1", A.id)])
    assert state.impossible(wait(A)) is None
    assert state.impossible(wait_all(A)) is None
    assert state.stuck([wait(A)]) == ()


def test_a_member_lost_before_it_joined_is_lost() -> None:
    state = fold((A, B), [Joined("j1", A.id), Left("l2", B.id, "no prompt")])
    assert state.impossible(wait(A)) == "nobody has sent x yet, and every other member has left: 2 (server): no prompt"


def test_who_comes_back_gives_hope_again() -> None:
    state = group(A, B, left="2")
    assert state.impossible(wait_all(A)) is not None
    state.apply(Joined("back", B.id))
    assert state.impossible(wait_all(A)) is None


# --- stuck -------------------------------------------------------------------------------------------------


def test_two_that_wait_for_each_other_are_stuck() -> None:
    needs = (wait_all(A, "server"), wait_all(B, "client"))
    assert group(A, B).stuck(needs) == needs
    assert group(A, B).stuck(needs[:1]) == ()


def test_stuck_need_not_be_the_whole_group() -> None:
    needs = (wait_all(A, "server"), wait_all(B, "client"))
    assert group(A, B, C).stuck(needs) == needs


def test_all_that_wait_for_any_message_are_stuck_only_together() -> None:
    needs = (wait(A), wait(B, "y"), wait(C, "z"))
    assert group(A, B, C).stuck(needs) == needs
    assert group(A, B, C).stuck(needs[:2]) == ()
    assert group(A, B, C, D, left="4").stuck(needs) == needs


def test_one_that_forgot_its_own_send_is_stuck_alone() -> None:
    state = group(A, B, sent="2")
    assert state.stuck([wait_all(A)]) == (wait_all(A),)
    assert state.impossible(wait_all(A)) is None


def test_a_sync_beside_a_wait_for_its_member_is_stuck() -> None:
    state = group(A, B)
    needs = (sync(state, A, "go"), wait_all(B, "client"))
    assert state.stuck(needs) == needs


def test_syncs_under_different_ids_are_stuck() -> None:
    state = group(A, B)
    needs = (sync(state, A, "go"), sync(state, B, "goo"))
    assert state.stuck(needs) == needs


def test_who_waits_for_a_stuck_member_is_stuck_with_it() -> None:
    needs = (wait_all(A, "server"), wait_all(B, "client"), wait_all(C, "client"))
    assert group(A, B, C, D).stuck(needs) == needs


def test_a_chain_that_ends_in_a_free_member_is_not_stuck() -> None:
    needs = (wait_all(A, "server"), wait_all(B, "back"))
    assert group(A, B, C).stuck(needs) == ()


def test_satisfied_and_impossible_needs_let_their_members_go_on() -> None:
    assert group(A, B, sent="2").stuck([wait_all(A, "server"), wait_all(B, "client")]) == ()
    assert group(A, B, C, left="3").stuck([wait_all(A, "server"), wait_all(B, "back")]) == ()
    assert group(A, B).stuck([wait_all(A, "server"), wait_all(B, "nobody")]) == ()


def test_who_has_left_is_not_blocked() -> None:
    own = wait_all(B, "server")
    assert group(A, B, left="1").stuck([wait_all(A, "server"), own]) == (own,)


def test_a_member_with_two_calls_is_blocked_only_by_both() -> None:
    needs = (wait_all(A, "server"), wait_all(B, "client"))
    free = wait_all(A, "back")
    assert group(A, B, C).stuck([*needs, free]) == ()
    assert group(A, B, C).stuck([*needs, wait(A, "y")]) == ()
    assert group(A, B).stuck([*needs, wait(A, "y")]) == (*needs, wait(A, "y"))


def test_a_background_call_blocks_nobody_and_may_free_its_member() -> None:
    held = (wait_all(A, "server"), wait_all(B, "client"))
    assert group(A, B, C).stuck([wait_all(A, "server", background=True), held[1]]) == ()
    assert group(A, B, C).stuck([*held, wait_all(A, "back", background=True)]) == ()
    assert group(A, B, C).stuck([*held, wait_all(A, "client", background=True)]) == held


# --- stuck, by playing on ----------------------------------------------------------------------------------


@st.composite
def blocked_groups(draw: st.DrawFn) -> tuple[tuple[Member, ...], list[Event], list[Need]]:
    """A group in which some have acted, some have left, and some stand in one foreground call each."""
    roles = draw(st.lists(st.sampled_from("abc"), min_size=1, max_size=5))
    members = tuple(Member(str(number), role) for number, role in enumerate(roles))
    log: list[Event] = [Joined(f"j{member.id}", member.id) for member in members]
    for member in members:
        log += [
            Sent(f"s{member.id}{name}", member.id, name) for name in draw(st.sets(st.sampled_from("xyz"), max_size=2))
        ]
    syncs = {}
    for member in members:
        kind = draw(st.sampled_from(["left", "free", *Kind, *Kind]))
        name = draw(st.sampled_from("xyzw"))
        if kind == "left":
            log.append(Left(f"l{member.id}", member.id, "gone"))
        elif kind is Kind.SYNC:
            log.append(Synced(f"y{member.id}", member.id, name))
            syncs[member.id] = Need(member.id, kind, name, round=1)
        elif isinstance(kind, Kind):
            role = draw(st.sampled_from([None, "a", "b", "c"])) if kind is Kind.WAIT_ALL else None
            syncs[member.id] = Need(member.id, kind, name, role)
    return members, log, list(syncs.values())


def play_on(state: Rendezvous, needs: list[Need]) -> list[Need]:
    """Let all who are free do everything that anybody asks, again and again; return who never got away."""
    waiting = dict.fromkeys(needs)
    gone = {member.id for member in state.members if state.presence(member.id).name == "LEFT"}
    turn = 0
    while True:
        for need in [n for n in waiting if state.satisfied(n) or state.impossible(n)]:
            del waiting[need]
        held = {need.member for need in waiting}
        before = [state.satisfied(need) for need in waiting]
        for member in state.members:
            if member.id in held | gone:
                continue
            for need in waiting:
                turn += 1
                if need.kind is not Kind.SYNC:
                    state.apply(Sent(f"play{turn}", member.id, need.message_id))
                elif state.sync_round(member.id, need.message_id) < need.round:
                    state.apply(Synced(f"play{turn}", member.id, need.message_id))
        if [state.satisfied(need) for need in waiting] == before:
            return list(waiting)


@settings(
    max_examples=300, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(blocked_groups())
def test_stuck_are_exactly_those_whom_no_help_of_the_others_releases(
    case: tuple[tuple[Member, ...], list[Event], list[Need]],
) -> None:
    members, log, needs = case
    assert fold(members, log).stuck(needs) == tuple(play_on(fold(members, log), needs))
