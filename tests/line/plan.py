"""Mixed calls from a seed: what the device runs, what its partner does meanwhile, and what must have come of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from linelab import PARTNER, Lab, quoted

from dispatcher.framing.lava import raw, text
from dispatcher.group.needs import Kind

LATE = 0.3
"""Seconds that a late partner takes: long enough for the device to be told to hold."""

SUITES = ("0_first", "1_second")

ANY = bytes(set(range(1, 256)) - {ord("\n")})
PLAIN = b"abcdefghijklmnopqrstuvwxyz0123456789.-_"

Pairs = dict[bytes, bytes]


@dataclass(slots=True)
class Step:
    """One call of the device.

    :param verb: ``SEND``, ``WAIT``, ``WAIT_ALL``, ``SYNC`` or ``TESTCASE``.
    :param pairs: what the device sends.
    :param answer: what the partner sends under the same ID.
    :param late: the partner acts only when the device has called, and then not at once.
    """

    verb: str
    id: str
    suite: str
    pairs: Pairs = field(default_factory=dict)
    answer: Pairs = field(default_factory=dict)
    late: bool = False

    @property
    def case(self) -> tuple[str, str, str]:
        """The suite, name and result that this leaves."""
        name = self.id if self.verb == "TESTCASE" else f"multinode-{self.verb.lower()}-{self.id}"
        return self.suite, name, "pass"

    @property
    def cache(self) -> bytes | None:
        """What must be in the cache file afterwards, None for no such file."""
        prefix = b"" if self.verb == "WAIT" else raw(f"{PARTNER.id}:")
        lines = b"".join(prefix + key + b"=" + value + b"\n" for key, value in self.answer.items())
        return lines or None

    def script(self, cache: bytes, kept: bytes) -> bytes:
        """The device's commands. The shell runs them with ``-e``: a call that fails ends the definition."""
        name = raw(self.id)
        keep = b"cp %s %s/%s\n" % (cache, kept, name) if self.answer else b""
        match self.verb:
            case "SEND":
                return b" ".join([b"lava-send", name, *(quoted(k + b"=" + v) for k, v in self.pairs.items())]) + b"\n"
            case "TESTCASE":
                return b"lava-test-case %s --result pass --measurement 1.5 --units s\n" % name
            case "WAIT_ALL":
                return b"lava-wait-all %s %s\n" % (name, raw(PARTNER.role)) + keep
            case _:
                return b"lava-%s %s\n" % (self.verb.lower().encode(), name) + keep


def mixed(seed: int, count: int) -> list[Step]:
    """Some calls of every kind, with values of any bytes; each ID occurs once."""
    generator = random.Random(f"{seed} plan")
    steps = []
    for number in range(count):
        verb = generator.choice(("SEND", "SEND", "WAIT", "WAIT", "WAIT_ALL", "SYNC", "TESTCASE"))
        step = Step(verb, f"{verb.lower()}-{number}", SUITES[number * len(SUITES) // count])
        if verb == "SEND":
            step.pairs = _pairs(generator)
        elif verb in {"WAIT", "WAIT_ALL"}:
            step.answer = _pairs(generator)
        step.late = generator.random() < 0.3
        steps.append(step)
    return steps


def _pairs(generator: random.Random) -> Pairs:
    return {
        b"k%d-%s" % (number, value(generator, 3, PLAIN)): value(generator, _size(generator))
        for number in range(generator.choice((0, 1, 1, 2, 3)))
    }


def _size(generator: random.Random) -> int:
    return generator.choice((0, 5, 12, 12, 30, 60, 200))


def value(generator: random.Random, size: int, alphabet: bytes | None = None) -> bytes:
    """A value of some bytes. Half of them are text, as most are."""
    alphabet = alphabet or generator.choice((ANY, PLAIN))
    return bytes(generator.choice(alphabet) for _ in range(size))


async def run(lab: Lab, steps: Sequence[Step], *, timeout: float = 240.0) -> None:
    """Run the calls on the device to their end, then check everything."""
    suites = scripts(lab, steps)
    argv = lab.board.add_stage(suites)
    partner = asyncio.create_task(act(lab, steps))
    try:
        async with asyncio.timeout(timeout):
            await lab.start(argv)
            await lab.finish(suites)
    except TimeoutError:
        raise AssertionError(f"it hangs: {lab.report()}\n{lab.device.shown()[-2000:]!r}") from None
    finally:
        partner.cancel()
    check(lab, steps)


def scripts(lab: Lab, steps: Sequence[Step]) -> dict[str, bytes]:
    """Each suite's commands."""
    found = dict.fromkeys((step.suite for step in steps), b"")
    for step in steps:
        # Output that ends in the middle of a line stands before the next frame.
        found[step.suite] += step.script(bytes(lab.board.cache), bytes(lab.board.kept))
        found[step.suite] += b"printf '%s <- ' " + raw(step.id) + b"\n"
    return found


async def act(lab: Lab, steps: Sequence[Step]) -> None:
    """Be the partner."""
    async with asyncio.TaskGroup() as group:
        for step in steps:
            if step.verb in {"WAIT", "WAIT_ALL", "SYNC"}:
                group.create_task(_act(lab, step))


async def _act(lab: Lab, step: Step) -> None:
    client = lab.clients[PARTNER.id]
    if step.late:
        await lab.device.noted("call", name=step.verb, args=arguments(step))
        await asyncio.sleep(LATE)
    if step.verb == "SYNC":
        await client.wait(f"partner {step.id}", Kind.SYNC, step.id, None, timeout=None)
    else:
        await client.send(f"partner {step.id}", step.id, [(text(k), text(v)) for k, v in step.answer.items()])


def arguments(step: Step) -> list[str]:
    """A waiting call's arguments, as the session tells them."""
    return [step.id, PARTNER.role] if step.verb == "WAIT_ALL" else [step.id]


def check(lab: Lab, steps: Sequence[Step]) -> None:
    """Every call was made once, in order, and every byte has arrived."""
    called = [(data["name"], data["args"][0]) for kind, data in lab.device.notes if kind == "call"]
    assert called == [(step.verb, step.id) for step in steps if step.verb != "TESTCASE"]
    assert [(kind, data) for kind, data in lab.device.notes if kind == "failed"] == []
    sent = [(event.message_id, {raw(k): raw(v) for k, v in event.data}) for event in lab.sent()]
    assert sent == [(step.id, step.pairs) for step in steps if step.verb == "SEND"]
    kept = {path.name: path.read_bytes() for path in lab.board.kept.iterdir()}
    assert kept == {step.id: step.cache for step in steps if step.cache}
    assert list(_cases(lab)) == list(_expected(steps))


def _cases(lab: Lab) -> list[tuple[str, str, str]]:
    return [(case.suite, case.name, case.result) for case in lab.device.cases]


def _expected(steps: Sequence[Step]) -> list[tuple[str, str, str]]:
    expected: list[tuple[str, str, str]] = []
    for suite in dict.fromkeys(step.suite for step in steps):
        expected += [step.case for step in steps if step.suite == suite]
        expected.append(("lava", suite, "pass"))
    return expected


def long(seed: int, size: int, alphabet: bytes = ANY) -> list[Step]:
    """A message of so many bytes each way, the one that is sent of an alphabet, the other of any."""
    generator = random.Random(f"{seed} long")
    return [
        Step("SEND", "long-send", SUITES[0], pairs={b"k": value(generator, size - 1, alphabet)}),
        Step("WAIT", "long-wait", SUITES[0], answer={b"k": value(generator, size - 1, ANY)}),
    ]
