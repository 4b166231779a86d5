"""Random groups against a plain model that works everything out again from the list of events, every time."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from log_harness import fold

from dispatcher.errors import GroupError
from dispatcher.group.events import Event, Joined, Left, Member, Sent, Synced, WaitFailed
from dispatcher.group.needs import Kind, Need, Outcome
from dispatcher.group.rendezvous import Rendezvous

ROLES = ("client", "server", "backend")
IDS = st.sampled_from(("x", "y"))
DATA = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(("", "1", "2"))), max_size=3).map(tuple)


ALLOWED = {"expected": (Joined, Left), "here": (Sent, Synced, WaitFailed, Left), "left": (Joined, WaitFailed)}


class Model:
    """The rules of ``docs/semantics.md``, each as one look at the whole log."""

    def __init__(self, members: tuple[Member, ...]) -> None:
        self.members = members
        self.log: list[Event] = []

    def presence(self, member: str) -> str:
        moves = [e for e in self.log if isinstance(e, Joined | Left) and e.member == member]
        if not moves:
            return "expected"
        return "here" if isinstance(moves[-1], Joined) else "left"

    def verdict(self, event: Event) -> str:
        """What applying the event must do: "new", "repeat" or "refuse"."""
        earlier = [e for e in self.log if e.request == event.request]
        kinds = {type(e) for e in earlier}
        if earlier and earlier[0].member != event.member:
            return "refuse"
        if earlier and not (isinstance(event, WaitFailed) and kinds == {Synced}):
            same_call = type(event) in kinds or (isinstance(event, Synced) and kinds == {WaitFailed})
            return "repeat" if same_call else "refuse"
        return "new" if isinstance(event, ALLOWED[self.presence(event.member)]) else "refuse"

    def failed(self, request: str) -> bool:
        return any(isinstance(e, WaitFailed) and e.request == request for e in self.log)

    def gave(self, message_id: str) -> set[str]:
        return {e.member for e in self.log if isinstance(e, Sent | Synced) and e.message_id == message_id}

    def arrivals(self, message_id: str) -> dict[str, int]:
        """How many times each member has arrived: again only after its last round was everybody's."""
        counts = dict.fromkeys((member.id for member in self.members), 0)
        for event in self.log:
            if isinstance(event, Synced) and event.message_id == message_id:
                counts[event.member] = min(counts.values()) + 1
        return counts

    def missing(self, need: Need) -> set[str]:
        """Who is missing; whoever asks about a role that nobody has misses everybody."""
        everybody = {member.id for member in self.members}
        if need.kind is Kind.WAIT:
            return set() if self.gave(need.message_id) else everybody
        if need.kind is Kind.SYNC:
            return {m for m, count in self.arrivals(need.message_id).items() if count < need.round}
        asked = {member.id for member in self.members if need.role in (None, member.role)}
        return asked - self.gave(need.message_id) if asked else everybody

    def satisfied(self, need: Need) -> bool:
        return not self.missing(need)

    def data(self, need: Need) -> list[tuple[str, list[tuple[str, str]]]]:
        if need.kind is Kind.SYNC and need.round > 1:
            return []
        answer = []
        for member in self.members:
            sent = [
                e for e in self.log if isinstance(e, Sent) and e.member == member.id and e.message_id == need.message_id
            ]
            if sent and sent[-1].data:
                answer.append((member.id, list(dict(sent[-1].data).items())))
        return answer

    def unbound(self, need: Need) -> set[str]:
        """Who could still do something for this need, nobody coming back."""
        able = {member.id for member in self.members if self.presence(member.id) != "left"}
        return able if need.kind is not Kind.WAIT or need.background else able - {need.member}

    def hopeless(self, need: Need) -> bool:
        missing, unbound = self.missing(need), self.unbound(need)
        if need.role is not None and need.role not in {member.role for member in self.members}:
            return True
        if need.kind is Kind.WAIT:
            return bool(missing) and not unbound
        return not missing <= unbound

    def stuck(self, needs: list[Need]) -> set[Need]:
        """Try every set of members; the union of those that hold each other holds itself."""
        able = {member.id for member in self.members if self.presence(member.id) != "left"}
        missing = {need: self.missing(need) for need in needs}
        free = {need.member for need in needs if not missing[need] or self.hopeless(need)}
        callers = {need.member for need in needs if not need.background} & able - free
        held: set[str] = set()
        for size in range(1, len(callers) + 1):
            for several in map(set, itertools.combinations(callers, size)):
                theirs = [need for need in needs if need.member in several]
                if all(able <= several if n.kind is Kind.WAIT else missing[n] & several for n in theirs):
                    held |= several
        return {need for need in needs if need.member in held and not need.background}


def with_help(model: Model, need: Need) -> bool:
    """Whether the need is met when all who may still act do what helps, nobody coming back."""
    group = fold(model.members, model.log)
    act = Synced if need.kind is Kind.SYNC else Sent
    for member in sorted(model.unbound(need)):
        if model.presence(member) == "expected":
            group.apply(Joined(f"come {member}", member))
        group.apply(act(f"help {member}", member, need.message_id))
    return group.satisfied(need)


def picture(group: Rendezvous, calls: dict[str, Need]) -> list[object]:
    """Everything that a group tells."""
    needs = list(calls.values())
    state: list[object] = [group.complete, group.stuck(needs)]
    state += [(group.presence(m.id), [group.sync_round(m.id, name) for name in "xy"]) for m in group.members]
    for request, need in calls.items():
        state += [group.satisfied(need), group.missing(need), group.data(need), group.progress(need)]
        state += [group.impossible(need), group.failure(request), group.outcome(request, need)]
    return state


WHO = st.integers(0, 4)
WHICH = st.integers(0, 99)


class Groups(RuleBasedStateMachine):
    """One group, and every call that was made in it, asked about after every step."""

    @initialize(
        roles=st.sampled_from((3, 2, 4, 5, 1)).flatmap(lambda size: st.tuples(*[st.sampled_from(ROLES)] * size)),
        late=st.sets(WHO, max_size=2),
    )
    def begin(self, roles: tuple[str, ...], late: set[int]) -> None:
        self.model = Model(tuple(Member(str(100 + number), role) for number, role in enumerate(roles)))
        self.group = Rendezvous(self.model.members)
        self.numbers = itertools.count()
        self.calls: dict[str, Need] = {}
        self.settled: dict[str, Outcome] = {}
        self.doomed: set[Need] = set()
        for number in set(range(len(roles))) - late:
            self.submit(Joined(self.request(), self.member(number)))

    def request(self) -> str:
        return f"r{next(self.numbers)}"

    def member(self, who: int) -> str:
        return self.model.members[who % len(self.model.members)].id

    def submit(self, event: Event) -> bool:
        verdict = self.model.verdict(event)
        if verdict == "new":
            self.reconsider(event)
            assert self.group.apply(event) is True
            self.model.log.append(event)
            return True
        before = picture(self.group, self.calls)
        if verdict == "repeat":
            assert self.group.apply(event) is False
        else:
            with pytest.raises(GroupError):
                self.group.apply(event)
        assert picture(self.group, self.calls) == before
        return False

    def reconsider(self, event: Event) -> None:
        """Forget what was said to be impossible if somebody comes back, or the caller did not stand still."""
        if isinstance(event, Joined) and self.model.presence(event.member) == "left":
            self.doomed.clear()
        if isinstance(event, Sent | Synced):
            acted_itself = {n for n in self.doomed if n.member == event.member and n.kind is Kind.WAIT}
            self.doomed -= acted_itself

    @rule(who=WHO, reason=st.sampled_from(("test ended", "console lost")))
    def come_or_go(self, who: int, reason: str) -> None:
        member = self.member(who)
        here = self.model.presence(member) == "here"
        self.submit(Left(self.request(), member, reason) if here else Joined(self.request(), member))

    @rule(who=WHO)
    def come_twice_or_go_twice(self, who: int) -> None:
        member = self.member(who)
        here = self.model.presence(member) == "here"
        self.submit(Joined(self.request(), member) if here else Left(self.request(), member, "console lost"))

    @rule(who=WHO, message_id=IDS, data=DATA)
    def send(self, who: int, message_id: str, data: tuple[tuple[str, str], ...]) -> None:
        self.submit(Sent(self.request(), self.member(who), message_id, data))

    @rule(who=WHO, message_id=IDS)
    def sync(self, who: int, message_id: str) -> None:
        request, member = self.request(), self.member(who)
        if self.submit(Synced(request, member, message_id)):
            number = self.model.arrivals(message_id)[member]
            assert self.group.sync_round(member, message_id) == number
            self.calls[request] = Need(member, Kind.SYNC, message_id, round=number)

    @rule(message_id=IDS, first=WHO, send=st.booleans())
    def everybody(self, message_id: str, first: int, send: bool) -> None:
        """From any member on, all in turn do one thing."""
        for who in range(first, first + len(self.model.members)):
            if send:
                self.send(who, message_id, (("by", str(who)),))
            else:
                self.sync(who, message_id)

    @rule(who=WHO, message_id=IDS, background=st.booleans())
    def wait(self, who: int, message_id: str, background: bool) -> None:
        self.calls[self.request()] = Need(self.member(who), Kind.WAIT, message_id, background=background)

    @rule(who=WHO, message_id=IDS, role=st.sampled_from((None, None, *ROLES, "nobody's")), background=st.booleans())
    def wait_all(self, who: int, message_id: str, role: str | None, background: bool) -> None:
        need = Need(self.member(who), Kind.WAIT_ALL, message_id, role, background=background)
        self.calls[self.request()] = need

    @precondition(lambda self: self.calls)
    @rule(which=WHICH)
    def fail(self, which: int) -> None:
        request = sorted(self.calls)[which % len(self.calls)]
        self.submit(WaitFailed(request, self.calls[request].member, "timed out"))

    @precondition(lambda self: self.model.log)
    @rule(which=WHICH)
    def repeat(self, which: int) -> None:
        assert self.submit(self.model.log[which % len(self.model.log)]) is False

    @precondition(lambda self: self.model.log)
    @rule(which=WHICH, who=WHO, kind=st.sampled_from((Joined, Sent, Synced, WaitFailed)))
    def use_a_request_again(self, which: int, who: int, kind: type[Event]) -> None:
        request, member = self.model.log[which % len(self.model.log)].request, self.member(who)
        self.submit(Joined(request, member) if kind is Joined else kind(request, member, "x"))

    @invariant()
    def nobody_is_released_early_and_nobody_who_may_go_stays(self) -> None:
        roles = {None, *(member.role for member in self.model.members)}
        for need in set(self.calls.values()):
            missing = self.model.missing(need)
            assert self.group.satisfied(need) is not bool(missing)
            expected = [member for member in self.model.members if member.id in missing and need.role in roles]
            assert list(self.group.missing(need)) == expected

    @invariant()
    def what_came_first_decides(self) -> None:
        for request, need in self.calls.items():
            if request not in self.settled and self.model.failed(request):
                self.settled[request] = Outcome.FAILED
            if request not in self.settled and not self.model.missing(need):
                self.settled[request] = Outcome.SATISFIED
            assert self.group.outcome(request, need) is self.settled.get(request, Outcome.OPEN)

    @invariant()
    def answers_carry_what_was_sent_in_order(self) -> None:
        for need in dict.fromkeys(self.calls.values()):
            answer = [(member, list(pairs.items())) for member, pairs in self.group.data(need).items()]
            assert answer == self.model.data(need)

    @invariant()
    def what_is_impossible_stays_so(self) -> None:
        for need in set(self.calls.values()):
            reason = self.group.impossible(need)
            assert (reason is not None) is self.model.hopeless(need)
            if reason is not None:
                assert "\n" not in reason
                self.doomed.add(need)
        assert not any(self.group.satisfied(need) for need in self.doomed)

    @invariant()
    def the_stuck_are_the_largest_set_that_holds_itself(self) -> None:
        needs = [need for request, need in self.calls.items() if request not in self.settled]
        assert set(self.group.stuck(needs)) == self.model.stuck(needs)

    def teardown(self) -> None:
        if not hasattr(self, "model"):
            return
        members, log, needs = self.model.members, self.model.log, list(self.calls.values())
        for need in needs:
            assert with_help(self.model, need) is (self.group.impossible(need) is None)
        whole = picture(self.group, self.calls)
        assert picture(fold(members, log), self.calls) == whole
        assert picture(fold(members, [event for event in log for _ in range(2)]), self.calls) == whole
        assert picture(fold(members, log + log), self.calls) == whole
        prefix = Rendezvous(members)
        for event in log:
            self.a_prefix_never_contradicts(prefix)
            prefix.apply(event)

    def a_prefix_never_contradicts(self, prefix: Rendezvous) -> None:
        for request, need in self.calls.items():
            assert not prefix.satisfied(need) or self.group.satisfied(need)
            outcome = prefix.outcome(request, need)
            assert outcome in (Outcome.OPEN, self.group.outcome(request, need))
        for member in self.model.members:
            for name in "xy":
                assert prefix.sync_round(member.id, name) <= self.group.sync_round(member.id, name)


TestGroups = Groups.TestCase
TestGroups.settings = settings(
    max_examples=80,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@pytest.mark.parametrize("seed", range(100))
def test_a_walk(seed: int) -> None:
    """A group in which much happens: Hypothesis tries odd corners, and seldom many different calls in one run."""
    chance = random.Random(seed)
    groups = Groups()
    size = chance.choice((2, 3, 3, 4, 4, 5))
    groups.begin(tuple(chance.choice(ROLES) for _ in range(size)), {chance.randrange(10)})
    for _ in range(chance.randrange(10, 50)):
        who, which, name = chance.randrange(size), chance.randrange(100), chance.choice("xy")
        pairs = tuple((chance.choice("abc"), chance.choice("12")) for _ in range(chance.randrange(3)))
        role = chance.choice((None, *ROLES))
        steps = [
            (2, groups.come_or_go, (who, "test ended")),
            (5, groups.send, (who, name, pairs)),
            (5, groups.sync, (who, name)),
            (1, groups.everybody, (name, who, chance.random() < 0.5)),
            (3, groups.wait, (who, name, chance.random() < 0.2)),
            (4, groups.wait_all, (who, name, role, chance.random() < 0.2)),
        ]
        if groups.calls:
            steps.append((2, groups.fail, (which,)))
        if groups.model.log:
            kind = chance.choice((Joined, Sent, Synced, WaitFailed))
            steps += [(2, groups.repeat, (which,)), (1, groups.use_a_request_again, (which, who, kind))]
        _weight, act, arguments = chance.choices(steps, [step[0] for step in steps])[0]
        act(*arguments)
        groups.nobody_is_released_early_and_nobody_who_may_go_stays()
        groups.what_came_first_decides()
        groups.answers_carry_what_was_sent_in_order()
        groups.what_is_impossible_stays_so()
        groups.the_stuck_are_the_largest_set_that_holds_itself()
    groups.teardown()
