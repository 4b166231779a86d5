"""What each call means, rule by rule, with the defects of LAVA that each rule avoids."""

from __future__ import annotations

import itertools

import pytest
from log_harness import fold

from dispatcher.errors import GroupError
from dispatcher.group.events import Event, Joined, Left, Member, Sent, Synced, WaitFailed
from dispatcher.group.needs import Kind, Need, Outcome, describe
from dispatcher.group.rendezvous import Rendezvous

CLIENT, SERVER, BACKEND1, BACKEND2 = "12345", "12346", "12347", "12348"
MEMBERS = (
    Member(CLIENT, "client"),
    Member(SERVER, "server"),
    Member(BACKEND1, "backend"),
    Member(BACKEND2, "backend"),
)


class Scene:
    """A group that everybody has joined, and the calls that its members make."""

    def __init__(self, members: tuple[Member, ...] = MEMBERS) -> None:
        self._requests = (f"r{number}" for number in itertools.count())
        self.members = members
        self.log: list[Event] = []
        self.group = Rendezvous(members)
        for member in members:
            self.join(member.id)

    def apply(self, event: Event) -> str:
        assert self.group.apply(event) is True
        self.log.append(event)
        return event.request

    def join(self, member: str) -> str:
        return self.apply(Joined(next(self._requests), member))

    def leave(self, member: str, reason: str = "test ended") -> str:
        return self.apply(Left(next(self._requests), member, reason))

    def send(self, member: str, message_id: str, **data: str) -> str:
        return self.apply(Sent(next(self._requests), member, message_id, tuple(data.items())))

    def sync(self, member: str, message_id: str) -> Need:
        self.apply(Synced(next(self._requests), member, message_id))
        round_ = self.group.sync_round(member, message_id)
        return Need(member, Kind.SYNC, message_id, round=round_)

    def wait(self, member: str, message_id: str) -> Need:
        return Need(member, Kind.WAIT, message_id)

    def wait_all(self, member: str, message_id: str, role: str | None = None) -> Need:
        return Need(member, Kind.WAIT_ALL, message_id, role)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def ids(members: tuple[Member, ...]) -> list[str]:
    return [member.id for member in members]


# --- the group ---------------------------------------------------------------------------------------------


def test_a_group_has_members_in_its_order(scene: Scene) -> None:
    assert scene.group.members == MEMBERS


@pytest.mark.parametrize("members", [(), (Member("1", "a"), Member("1", "b"))])
def test_a_group_without_members_or_with_two_of_one_id_is_refused(members: tuple[Member, ...]) -> None:
    with pytest.raises(GroupError):
        Rendezvous(members)


def test_the_group_is_complete_once_all_are_here_and_stays_so() -> None:
    group = Rendezvous(MEMBERS[:2])
    states = []
    for event in (
        Joined("1", CLIENT),
        Left("2", CLIENT, "console lost"),
        Joined("3", SERVER),
        Joined("4", CLIENT),
        Left("5", SERVER, "test ended"),
    ):
        group.apply(event)
        states.append(group.complete)
    assert states == [False, False, False, True, True]


@pytest.mark.parametrize("event", [Sent("x", "666", "id"), Joined("x", "666"), WaitFailed("x", "666", "why")])
def test_a_stranger_is_refused(scene: Scene, event: Event) -> None:
    with pytest.raises(GroupError, match="666 is no member"):
        scene.group.apply(event)
    assert not scene.group.satisfied(scene.wait(CLIENT, "id"))
    with pytest.raises(GroupError, match="666 is no member"):
        scene.group.presence("666")
    with pytest.raises(GroupError, match="666 is no member"):
        scene.group.stuck([scene.wait("666", "id")])


# --- send and wait -----------------------------------------------------------------------------------------


def test_wait_is_satisfied_by_any_member_now_or_earlier(scene: Scene) -> None:
    need = scene.wait(CLIENT, "ready")
    assert not scene.group.satisfied(need)
    assert scene.group.missing(need) == MEMBERS
    scene.send(BACKEND2, "ready")
    assert scene.group.satisfied(need)
    assert scene.group.missing(need) == ()
    assert scene.group.satisfied(scene.wait(SERVER, "ready"))


def test_wait_is_satisfied_by_a_send_of_the_caller_itself(scene: Scene) -> None:
    scene.send(CLIENT, "ready")
    assert scene.group.satisfied(scene.wait(CLIENT, "ready"))


def test_wait_is_satisfied_by_a_sync_without_data(scene: Scene) -> None:
    scene.sync(SERVER, "ready")
    need = scene.wait(CLIENT, "ready")
    assert scene.group.satisfied(need)
    assert scene.group.data(need) == {}


def test_a_message_satisfies_only_its_own_id(scene: Scene) -> None:
    scene.send(SERVER, "ready")
    assert not scene.group.satisfied(scene.wait(CLIENT, "read"))
    assert not scene.group.satisfied(scene.wait(CLIENT, "Ready"))


def test_data_stand_in_the_order_of_the_group_and_of_the_send(scene: Scene) -> None:
    scene.send(BACKEND1, "addr", z="1", a="2")
    scene.send(CLIENT, "addr", m="3")
    scene.send(SERVER, "addr")
    data = scene.group.data(scene.wait(SERVER, "addr"))
    assert list(data) == [CLIENT, BACKEND1]
    assert [list(pairs.items()) for pairs in data.values()] == [[("m", "3")], [("z", "1"), ("a", "2")]]


def test_any_value_and_a_dashed_key_come_through_whole(scene: Scene) -> None:
    """LAVA makes a dashed key part of the ID, cuts a value at ``>`` and splits ``a 12:30`` (API page's examples)."""
    pairs = {"server-ip": "10.0.0.1", "free-space": "a > b 12:30 x=y", "empty": "", "raw": "\udcff* $(id)"}
    scene.apply(Sent("own", SERVER, "server-ready", tuple(pairs.items())))
    need = scene.wait(CLIENT, "server-ready")
    assert scene.group.satisfied(need)
    assert scene.group.data(need) == {SERVER: pairs}


def test_a_second_send_replaces_the_data_of_its_sender_only(scene: Scene) -> None:
    scene.send(SERVER, "addr", a="1", b="2")
    scene.send(BACKEND1, "addr", a="3")
    scene.send(SERVER, "addr", c="4")
    assert scene.group.data(scene.wait(CLIENT, "addr")) == {SERVER: {"c": "4"}, BACKEND1: {"a": "3"}}
    scene.send(SERVER, "addr")
    assert scene.group.data(scene.wait(CLIENT, "addr")) == {BACKEND1: {"a": "3"}}


def test_of_one_key_twice_in_a_message_the_last_holds(scene: Scene) -> None:
    scene.apply(Sent("own", SERVER, "addr", (("a", "1"), ("b", "2"), ("a", "3"))))
    assert scene.group.data(scene.wait(CLIENT, "addr")) == {SERVER: {"a": "3", "b": "2"}}


def test_an_answer_is_the_callers_to_keep(scene: Scene) -> None:
    scene.send(SERVER, "addr", a="1")
    need = scene.wait(CLIENT, "addr")
    scene.group.data(need)[SERVER]["a"] = "2"
    assert scene.group.data(need) == {SERVER: {"a": "1"}}


# --- wait-all ----------------------------------------------------------------------------------------------


def test_wait_all_waits_for_every_member_the_caller_included(scene: Scene) -> None:
    need = scene.wait_all(CLIENT, "done")
    for sender in (SERVER, BACKEND1, BACKEND2):
        scene.send(sender, "done")
    assert not scene.group.satisfied(need)
    assert ids(scene.group.missing(need)) == [CLIENT]
    scene.send(CLIENT, "done")
    assert scene.group.satisfied(need)


def test_wait_all_before_anybody_has_sent_waits(scene: Scene) -> None:
    """LAVA refuses it at once."""
    need = scene.wait_all(CLIENT, "done")
    assert not scene.group.satisfied(need)
    assert scene.group.impossible(need) is None
    assert scene.group.progress(need).startswith("have 0 of 4, missing 12345 (client)")


def test_wait_all_counts_members_not_messages(scene: Scene) -> None:
    for _ in range(4):
        scene.send(SERVER, "done")
    assert ids(scene.group.missing(scene.wait_all(CLIENT, "done"))) == [CLIENT, BACKEND1, BACKEND2]


def test_wait_all_with_a_role_waits_for_every_member_of_it(scene: Scene) -> None:
    """LAVA waits for the role's first member only."""
    need = scene.wait_all(CLIENT, "done", "backend")
    scene.send(BACKEND1, "done")
    assert not scene.group.satisfied(need)
    assert ids(scene.group.missing(need)) == [BACKEND2]
    scene.send(BACKEND2, "done")
    assert scene.group.satisfied(need)


def test_wait_all_with_a_role_answers_with_the_data_of_all(scene: Scene) -> None:
    for sender in (SERVER, BACKEND2, BACKEND1):
        scene.send(sender, "done", by=sender)
    data = scene.group.data(scene.wait_all(CLIENT, "done", "backend"))
    assert list(data.items()) == [(member, {"by": member}) for member in (SERVER, BACKEND1, BACKEND2)]


def test_wait_all_with_an_unknown_role_fails_at_once(scene: Scene) -> None:
    """LAVA's coordinator dies of it, and with it every group of the lab."""
    need = scene.wait_all(CLIENT, "done", "back.*")
    reason = "no member has the role 'back.*'; the roles are client, server, backend"
    assert scene.group.impossible(need) == reason
    assert scene.group.progress(need) == reason
    for member in MEMBERS:
        scene.send(member.id, "done")
    assert not scene.group.satisfied(need)
    assert scene.group.impossible(need) == reason


def test_wait_all_counts_syncs(scene: Scene) -> None:
    scene.send(CLIENT, "done")
    for member in (SERVER, BACKEND1, BACKEND2):
        scene.sync(member, "done")
    assert scene.group.satisfied(scene.wait_all(CLIENT, "done"))


# --- sync --------------------------------------------------------------------------------------------------


def sync_all(scene: Scene, message_id: str) -> list[Need]:
    return [scene.sync(member.id, message_id) for member in scene.members]


def test_sync_returns_when_the_last_has_arrived(scene: Scene) -> None:
    needs = [scene.sync(member.id, "go") for member in MEMBERS[:3]]
    assert not any(map(scene.group.satisfied, needs))
    assert ids(scene.group.missing(needs[0])) == [BACKEND2]
    needs.append(scene.sync(BACKEND2, "go"))
    assert all(map(scene.group.satisfied, needs))


def test_sync_again_is_a_new_barrier(scene: Scene) -> None:
    """In LAVA a second round returns before everybody has left the first."""
    first = sync_all(scene, "go")
    assert {need.round for need in first} == {1}
    again = scene.sync(CLIENT, "go")
    assert again.round == 2
    assert not scene.group.satisfied(again)
    assert all(map(scene.group.satisfied, first))
    assert scene.group.progress(again).startswith("have 1 of 4 in round 2, missing 12346 (server)")
    for member in (SERVER, BACKEND1, BACKEND2):
        assert not scene.group.satisfied(again)
        scene.sync(member, "go")
    assert scene.group.satisfied(again)


def test_nobody_is_in_a_round_before_the_one_before_it_has_closed(scene: Scene) -> None:
    scene.sync(CLIENT, "go")
    assert scene.group.missing(Need(CLIENT, Kind.SYNC, "go", round=2)) == MEMBERS


def test_sync_may_be_used_in_a_loop(scene: Scene) -> None:
    for round_ in range(1, 20):
        assert {need.round for need in sync_all(scene, "loop")} == {round_}


def test_a_sync_repeated_while_its_round_is_open_is_the_same_arrival(scene: Scene) -> None:
    first = scene.sync(CLIENT, "go")
    request = scene.log[-1].request
    scene.apply(WaitFailed(request, CLIENT, "timed out"))
    assert scene.sync(CLIENT, "go") == first
    for member in (SERVER, BACKEND1, BACKEND2):
        scene.sync(member, "go")
    assert scene.group.satisfied(first)
    assert scene.group.sync_round(CLIENT, "go") == 1


def test_a_send_is_no_arrival_and_a_sync_after_it_is_sound(scene: Scene) -> None:
    """LAVA's coordinator dies when an ID that was sent is synced."""
    scene.send(BACKEND2, "go", a="1")
    needs = [scene.sync(member.id, "go") for member in MEMBERS[:3]]
    assert not any(map(scene.group.satisfied, needs))
    assert scene.group.sync_round(BACKEND2, "go") == 0
    assert scene.group.sync_round(BACKEND2, "unheard-of") == 0
    needs.append(scene.sync(BACKEND2, "go"))
    assert all(map(scene.group.satisfied, needs))


def test_only_a_first_round_carries_data_and_a_sync_erases_none(scene: Scene) -> None:
    scene.send(SERVER, "go", a="1")
    first = sync_all(scene, "go")
    second = sync_all(scene, "go")
    assert scene.group.data(first[0]) == {SERVER: {"a": "1"}}
    assert scene.group.data(second[0]) == {}
    assert scene.group.data(scene.wait(CLIENT, "go")) == {SERVER: {"a": "1"}}


# --- leaving and coming back -------------------------------------------------------------------------------


def test_who_comes_back_finds_all_that_was_sent(scene: Scene) -> None:
    scene.send(SERVER, "addr", a="1")
    scene.sync(CLIENT, "go")
    scene.leave(CLIENT, "console lost")
    scene.leave(SERVER)
    assert scene.group.satisfied(scene.wait(BACKEND1, "addr"))
    scene.join(CLIENT)
    assert scene.group.data(scene.wait(CLIENT, "addr")) == {SERVER: {"a": "1"}}
    assert scene.group.sync_round(CLIENT, "go") == 1
    scene.join(SERVER)
    needs = [scene.sync(member, "go") for member in (SERVER, BACKEND1, BACKEND2)]
    assert all(map(scene.group.satisfied, needs))


def test_who_left_can_neither_send_nor_sync_until_it_is_back(scene: Scene) -> None:
    scene.leave(SERVER, "console lost")
    for event in (Sent("x", SERVER, "id"), Synced("x", SERVER, "id")):
        with pytest.raises(GroupError, match="has left: console lost"):
            scene.group.apply(event)
    assert not scene.group.satisfied(scene.wait(CLIENT, "id"))
    scene.join(SERVER)
    assert scene.group.apply(Sent("x", SERVER, "id")) is True


# --- requests ----------------------------------------------------------------------------------------------


def test_a_request_seen_twice_is_done_once(scene: Scene) -> None:
    scene.send(SERVER, "addr", a="1")
    scene.send(SERVER, "addr", a="2")
    for event in scene.log:
        assert scene.group.apply(event) is False
    assert scene.group.data(scene.wait(CLIENT, "addr")) == {SERVER: {"a": "2"}}


def test_a_repeated_sync_does_not_arrive_in_the_next_round(scene: Scene) -> None:
    sync_all(scene, "go")
    for event in scene.log:
        assert scene.group.apply(event) is False
    assert scene.group.sync_round(CLIENT, "go") == 1


def test_a_repeat_by_one_who_has_left_meanwhile_is_a_repeat(scene: Scene) -> None:
    scene.send(SERVER, "addr", a="1")
    sent = scene.log[-1]
    scene.leave(SERVER)
    assert scene.group.apply(sent) is False


@pytest.mark.parametrize("event", [Sent("r0", SERVER, "id"), Sent("r0", CLIENT, "id"), WaitFailed("r0", CLIENT, "why")])
def test_one_request_id_is_not_two_acts(scene: Scene, event: Event) -> None:
    with pytest.raises(GroupError, match=r"the request r0 of 12345 \(client\) cannot be used again"):
        scene.group.apply(event)
    assert not scene.group.satisfied(scene.wait(CLIENT, "id"))
    assert scene.group.failure("r0") is None


def test_a_refused_event_leaves_its_request_unused(scene: Scene) -> None:
    scene.leave(SERVER)
    with pytest.raises(GroupError):
        scene.group.apply(Sent("later", SERVER, "id"))
    assert scene.group.apply(Sent("later", CLIENT, "id")) is True


# --- failures ----------------------------------------------------------------------------------------------


def test_a_failure_is_recorded_once(scene: Scene) -> None:
    assert scene.group.failure("w") is None
    assert scene.group.apply(WaitFailed("w", CLIENT, "timed out")) is True
    assert scene.group.apply(WaitFailed("w", CLIENT, "something else")) is False
    assert scene.group.failure("w") == "timed out"


def test_the_order_of_the_log_decides_whether_a_wait_failed(scene: Scene) -> None:
    need = scene.wait(CLIENT, "ready")
    assert scene.group.outcome("early", need) is Outcome.OPEN
    scene.apply(WaitFailed("early", CLIENT, "timed out"))
    assert scene.group.outcome("early", need) is Outcome.FAILED
    scene.send(SERVER, "ready")
    assert scene.group.outcome("late", need) is Outcome.SATISFIED
    scene.apply(WaitFailed("late", CLIENT, "timed out"))
    assert scene.group.outcome("early", need) is Outcome.FAILED
    assert scene.group.outcome("late", need) is Outcome.SATISFIED


def test_the_order_decides_for_roles_and_rounds_too(scene: Scene) -> None:
    scene.send(BACKEND1, "done")
    scene.apply(WaitFailed("early", CLIENT, "timed out"))
    scene.send(BACKEND2, "done")
    backends = scene.wait_all(CLIENT, "done", "backend")
    assert scene.group.outcome("early", backends) is Outcome.FAILED
    first = sync_all(scene, "go")[0]
    scene.apply(WaitFailed("between", CLIENT, "timed out"))
    second = sync_all(scene, "go")[0]
    assert scene.group.outcome("between", first) is Outcome.SATISFIED
    assert scene.group.outcome("between", second) is Outcome.FAILED


def test_a_sync_whose_wait_failed_stays_an_arrival_and_its_request_failed(scene: Scene) -> None:
    need = scene.sync(CLIENT, "go")
    synced = scene.log[-1]
    scene.apply(WaitFailed(synced.request, CLIENT, "timed out"))
    for member in (SERVER, BACKEND1, BACKEND2):
        scene.sync(member, "go")
    assert scene.group.apply(synced) is False
    assert scene.group.outcome(synced.request, need) is Outcome.FAILED
    assert scene.group.outcome("another", need) is Outcome.SATISFIED


# --- the log -----------------------------------------------------------------------------------------------


def test_a_replay_gives_the_same_group(scene: Scene) -> None:
    scene.send(SERVER, "addr", a="1")
    needs = [scene.wait_all(CLIENT, "addr"), *sync_all(scene, "go"), scene.sync(CLIENT, "go")]
    scene.leave(BACKEND1)
    again = fold(MEMBERS, scene.log)
    for need in needs:
        assert again.satisfied(need) is scene.group.satisfied(need)
        assert again.data(need) == scene.group.data(need)
        assert again.impossible(need) == scene.group.impossible(need)


def test_a_log_that_contradicts_itself_is_told() -> None:
    with pytest.raises(GroupError, match="has not joined yet"):
        fold(MEMBERS, [Sent("1", CLIENT, "id")])


# --- needs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("need", "text"),
    [
        (Need(CLIENT, Kind.WAIT, "ready"), "lava-wait ready"),
        (Need(CLIENT, Kind.WAIT_ALL, "ready"), "lava-wait-all ready"),
        (Need(CLIENT, Kind.WAIT_ALL, "ready", "server"), "lava-wait-all ready server"),
        (Need(CLIENT, Kind.SYNC, "ready", round=2), "lava-sync ready"),
    ],
)
def test_a_need_reads_as_it_was_typed(need: Need, text: str) -> None:
    assert describe(need) == text


@pytest.mark.parametrize(
    ("kind", "role", "round_"),
    [(Kind.WAIT, "a", 0), (Kind.SYNC, "a", 1), (Kind.SYNC, None, 0), (Kind.WAIT, None, 1), (Kind.WAIT_ALL, "a", 1)],
)
def test_a_need_that_no_call_has_cannot_be_made(kind: Kind, role: str | None, round_: int) -> None:
    with pytest.raises(ValueError, match="lava-"):
        Need(CLIENT, kind, "id", role, round_)
