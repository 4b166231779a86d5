"""The calls that a job makes for its members while their actions run: ``protocols: lava-multinode:`` of an action.

LAVA makes each when one part of its own of that action starts, which ``action`` names; here they are all made, in
order, before the action starts. What a wait receives can be used by everything of the member that comes later: as
``$NAME`` in later requests, in parameters of test definitions, and in its device's ``console``.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from dispatcher.coordinator.client import GroupClient
from dispatcher.errors import CallRefused, MultinodeError
from dispatcher.framing import grammar
from dispatcher.group.needs import Kind
from dispatcher.job import keys
from dispatcher.job.calls import checked_id
from dispatcher.job.results import printable
from dispatcher.job.testdef import Definition
from dispatcher.job.yamlfile import DURATION_LIMIT, Node
from dispatcher.wording import nearest, quoted

START: Final = "lava_start"
"""The message that members with a delayed start wait for, LAVA's."""

_KINDS: Final = {"lava-wait": Kind.WAIT, "lava-wait-all": Kind.WAIT_ALL, "lava-sync": Kind.SYNC, "lava-send": None}
CALLS: Final = ("lava-send", "lava-wait", "lava-wait-all", "lava-sync")
"""What an interactive script may call, in the order in which LAVA looks for it."""

_NAME = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:%-]{0,254}")


@dataclass(frozen=True, slots=True)
class Request:
    """One call.

    :ivar kind: None for a send.
    :ivar message: of a send, the data; of a wait, key → ``$NAME`` for the values that are wanted.
    :ivar timeout: seconds, None for what the job allows a call.
    """

    kind: Kind | None
    message_id: str
    role: str | None
    message: Mapping[str, str]
    timeout: float | None
    where: str


def read_requests(node: Node | None, roles: Iterable[str]) -> tuple[Request, ...]:
    """``protocols:`` of an action."""
    found = {} if node is None else node.mapping(keys.ACTION_PROTOCOLS)
    if "lava-multinode" not in found:
        return ()
    requests = found["lava-multinode"]
    # LAVA's documentation shows one request without a dash, too.
    entries = [requests] if requests.is_mapping else requests.sequence("a request")
    return tuple(_request(entry, frozenset(roles)) for entry in entries)


def _request(entry: Node, roles: frozenset[str]) -> Request:
    found = entry.mapping(keys.REQUEST)
    call = entry.need(found, "request")
    kind = _KINDS[call.choice(_KINDS)]
    message_id = entry.need(found, "messageID").line_of_text(grammar.ID_LIMIT)
    if any(char.isspace() or char == "=" for char in message_id):
        raise found["messageID"].error(f"a message ID is one word without '=', not {quoted(message_id)}")
    role = None
    if "role" in found and not found["role"].is_null:
        role = found["role"].string()
        if kind is not Kind.WAIT_ALL:
            raise found["role"].error("'role' has a meaning for 'lava-wait-all' only")
        if role not in roles:
            raise found["role"].error(f"unknown role {quoted(role)}{nearest(role, roles)}")
    return Request(kind, message_id, role, _message(found.get("message")), _timeout(found.get("timeout")), entry.where)


def _message(node: Node | None) -> dict[str, str]:
    if node is None or node.is_null:
        return {}
    message: dict[str, str] = {}
    for key, value in node.items():
        word = key.word()
        if any(char.isspace() or char == "=" for char in word):
            raise key.error(f"the key of a message is one word without '=', not {quoted(word)}")
        message[word] = value.text()
        if "\n" in message[word]:
            raise value.error(f"{value.name} cannot hold a newline")
    return message


def _timeout(node: Node | None) -> float | None:
    """Seconds, which LAVA takes here without their unit too."""
    if node is None:
        return None
    return node.duration() if node.is_mapping else float(node.integer(1, DURATION_LIMIT))


def check_template(call: str, words: Sequence[str], roles: Collection[str]) -> None:
    """Check the words of a call in which ``{KEY}`` stands for what is not known yet, as far as it can be.

    :param call: one of :data:`CALLS`.
    :param roles: those of the job.
    :raises CallRefused: they will not do; the reason.
    """
    request = request_of(call, [re.sub(r"\{[^{}]*\}", "x", word) for word in words], "")
    role = next((word for word in words[1:] if call == "lava-wait-all" and "{" not in word), None)
    if role is not None and request.role not in roles:
        raise CallRefused(f"unknown role {quoted(request.role or '')}{nearest(request.role or '', roles)}")


def request_of(call: str, words: Sequence[str], where: str) -> Request:
    """The request that an interactive script makes, from its words as LAVA has them: ``ID``, then ``KEY=VALUE`` of a
    send, ``role=ROLE`` of a wait-all.

    :raises CallRefused: they will not do; the reason.
    """
    name, more = checked_id(words), words[1:]
    role, message = None, {}
    if call == "lava-send":
        for word in more:
            key, equals, value = word.partition("=")
            if not key or not equals:
                raise CallRefused(f"{word!r} is not key=value")
            if not grammar.is_printable(word):  # a success may match several lines, a cache file's line is one
                raise CallRefused(f"{quoted(word)} holds a newline or another control character")
            message[key] = value
    elif call == "lava-wait-all" and len(more) == 1 and more[0].startswith("role="):
        role = more[0].removeprefix("role=")
    elif more:
        raise CallRefused(f"it does not take {more[0]!r}{'; write role=ROLE' if call == 'lava-wait-all' else ''}")
    return Request(_KINDS[call], name, role, message, None, where)


@dataclass(slots=True)
class Requester:
    """Makes one member's requests.

    :param number: gives a request an id, never used again in the group.
    :param note: records an event of the member: its kind, then data by name.
    :ivar received: the values that waits have brought, by the names that their requests gave them.
    """

    client: GroupClient
    number: Callable[[], str]
    note: Callable[..., None]
    received: dict[str, str] = field(default_factory=dict)

    async def make(self, requests: Iterable[Request], timeout: float | None) -> None:
        """Make some requests, in order.

        :param timeout: seconds that the job allows a call.
        :raises MultinodeError: one failed; ``where`` is its line in the job.
        """
        for request in requests:
            await self.call(request, timeout)

    async def call(self, request: Request, timeout: float | None) -> Mapping[str, Mapping[str, str]]:
        """Make one request; the data that came, by member. Otherwise as :meth:`make`."""
        try:
            return await self._make(request, timeout if request.timeout is None else request.timeout)
        except CallRefused as error:
            raise CallRefused(error.what, where=request.where) from None

    async def start_after(self, role: str, timeout: float | None) -> None:
        """Wait until every member of a role has sent that others may start. :raises MultinodeError: they never will."""
        what = f"the delayed start waits for {START} of role {role!r}"
        try:
            await self._make(Request(Kind.WAIT_ALL, START, role, {}, None, ""), timeout)
        except CallRefused as error:
            raise CallRefused(f"{what}: {error.what}") from None

    async def _make(self, request: Request, timeout: float | None) -> Mapping[str, Mapping[str, str]]:
        message = {key: self.filled(value) for key, value in request.message.items()}
        name = "SEND" if request.kind is None else request.kind.name
        args = [request.message_id, *([request.role] if request.role else [])]
        if request.kind is None:
            args += [f"{key}={value}" for key, value in message.items()]
        shown = [printable(arg) for arg in args]
        self.note("call", name=name, args=shown, request=0)
        began = asyncio.get_running_loop().time()
        data: Mapping[str, Mapping[str, str]] = {}
        try:
            if request.kind is None:
                await self.client.send(self.number(), request.message_id, message.items())
            else:
                data = await self.client.wait(
                    self.number(), request.kind, request.message_id, request.role, timeout=timeout
                )
                self._keep(request, data)
        except MultinodeError as error:
            waited = round(asyncio.get_running_loop().time() - began, 6)
            self.note("failed", name=name, args=shown, request=0, waited=waited, reason=error.what)
            raise
        waited = round(asyncio.get_running_loop().time() - began, 6)
        told = {member: {key: printable(value) for key, value in pairs.items()} for member, pairs in data.items()}
        self.note("answered", name=name, args=shown, request=0, waited=waited, data=told)
        return data

    def _keep(self, request: Request, data: Mapping[str, Mapping[str, str]]) -> None:
        for key, value in request.message.items():
            wanted = _NAME.fullmatch(value)
            if wanted is None:
                continue
            found = next((pairs[key] for pairs in data.values() if key in pairs), None)
            if found is None:
                raise CallRefused(f"{request.message_id} has come without the key {key!r}")
            self.received[wanted[1]] = found

    # --- what was received ---------------------------------------------------------------------------------

    def filled(self, text: str) -> str:
        """A text with ``$NAME`` replaced where something was received under that name."""
        return _NAME.sub(lambda found: self.received.get(found[1], found[0]), text)

    def filled_config(self, config: Mapping[str, str | int | bool]) -> dict[str, str | int | bool]:
        """A console's options likewise.

        :raises CallRefused: a value could be more than a host's name or address. A device has sent it, and it is to
            stand in a command of this host.
        """
        for name, value in self.received.items():
            used = any(name in _NAME.findall(option) for option in config.values() if isinstance(option, str))
            if used and not _HOST.fullmatch(value):
                raise CallRefused(f"the console's ${name} would be {value!r}, which is no host's name or address")
        return {key: self.filled(value) if isinstance(value, str) else value for key, value in config.items()}

    def filled_definition(self, definition: Definition) -> Definition:
        """A test definition's parameters likewise."""
        params = {key: self.filled(value) for key, value in definition.params.items()}
        return replace(definition, params=params)
