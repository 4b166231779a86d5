"""The coordinator's wire: LAVA's length-headed JSON, one request a connection, as values on either side.

Eight hexadecimal digits say how many bytes of JSON follow; ``docs/coordinator.md`` lists the fields. Those of our own
stand in one object, ``multinode``, which LAVA's coordinator and clients ignore. Nothing here does I/O, and nothing
that a peer sends raises anything but :class:`~dispatcher.errors.WireError`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn, assert_never

from dispatcher.errors import WireError
from dispatcher.framing.grammar import ID_LIMIT, MESSAGE_LIMIT, is_printable
from dispatcher.group.events import REASON_LIMIT, Member
from dispatcher.group.needs import Kind

HEADER_SIZE: Final = 8
REQUEST_LIMIT: Final = 1 << 19
"""Bytes of a request: a whole message of :data:`~dispatcher.framing.grammar.MESSAGE_LIMIT` bytes, each of which JSON
may have to escape in six. LAVA's own clients send at most 65,534."""

REPLY_LIMIT: Final = 1 << 28
"""Bytes of a reply: the messages of a whole group."""

GROUP_LIMIT: Final = 1024
"""Members of a group."""

HOLD_LIMIT: Final = 3600.0
VERSION: Final = 1


def _constant(name: str) -> NoReturn:
    """NaN and Infinity, which Python would take."""
    raise ValueError(name)


_ENCODER: Final = json.JSONEncoder(separators=(",", ":"))
_DECODER: Final = json.JSONDecoder(parse_constant=_constant)
_HEADER = re.compile(rb"[0-9A-Fa-f]{8}")
_FORBIDDEN = re.compile("[\0\n\ud800-\udc7f\udd00-\udfff]")
_BAD_KEY = re.compile("[=\\s\0-\x1f\x7f\ud800-\udc7f\udd00-\udfff]")

_CALLS: Final = {"lava_wait": Kind.WAIT, "lava_wait_all": Kind.WAIT_ALL, "lava_sync": Kind.SYNC}
_NAMES: Final = {kind: name for name, kind in _CALLS.items()}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who speaks, and how it wants to be answered.

    :param role: LAVA's clients name it with every request; only that of the first counts.
    :param ours: whether the request carried fields of our own.
    :param request: an id that is never used for another act of the group; repeated, the act is done once.
    :param hold: seconds that the answer may take before it is ``wait``.
    :param run: the run that the group belongs to.
    :param join: the id of the join by which the member is here, so that no second console can act for it.
    :param token: what the group's members have been given to prove that they are.
    """

    group: str
    member: str
    role: str = ""
    ours: bool = False
    request: str | None = None
    hold: float = 0.0
    run: str | None = None
    token: str | None = None
    join: str | None = None


@dataclass(frozen=True, slots=True)
class Join:
    """``group_data``. ``members`` are all of the group, where the caller knows them; else ``size`` says how many.

    :param coming: the member takes its place, and joins later with the same id.
    """

    caller: Caller
    size: int | None = None
    members: tuple[Member, ...] = ()
    coming: bool = False


@dataclass(frozen=True, slots=True)
class Send:
    """``lava_send``."""

    caller: Caller
    message_id: str
    data: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Wait:
    """``lava_wait``, ``lava_wait_all`` or ``lava_sync``; ``give_up``, where ``why`` says why it is given up."""

    caller: Caller
    kind: Kind
    message_id: str
    role: str | None = None
    patient: bool = True
    background: bool = False
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Withdraw:
    """``withdraw``: nobody waits in the call with this id any more, for now."""

    caller: Caller


@dataclass(frozen=True, slots=True)
class Stay:
    """``stay``: the member's dispatcher lives for as long as the connection does."""

    caller: Caller


@dataclass(frozen=True, slots=True)
class Leave:
    """``clear_group``."""

    caller: Caller
    reason: str = "its job has ended"


@dataclass(frozen=True, slots=True)
class Status:
    """``status``: what the coordinator knows."""

    token: str | None = None


Request = Join | Send | Wait | Withdraw | Stay | Leave | Status


# --- frames ------------------------------------------------------------------------------------------------------


def frame(message: Mapping[str, Any]) -> bytes:
    """A request or reply as it travels."""
    body = _ENCODER.encode(message).encode("ascii")
    return b"%08X%b" % (len(body), body)


def length(header: bytes, limit: int = REQUEST_LIMIT) -> int:
    """How many bytes follow a header. :raises WireError: it is none, or they are too many."""
    if not _HEADER.fullmatch(header):
        raise WireError("a request begins with its length as eight hexadecimal digits")
    size = int(header, 16)
    if not 0 < size <= limit:
        raise WireError(f"a length of {size} bytes is not between 1 and {limit}")
    return size


def load(body: bytes) -> dict[str, Any]:
    """The JSON object of a request or reply. :raises WireError: it is none."""
    try:
        value = _DECODER.decode(body.decode("utf-8"))
    except (ValueError, RecursionError):
        raise WireError("this is not JSON") from None
    if not isinstance(value, dict):
        raise WireError("this is no JSON object")
    return value


# --- requests ----------------------------------------------------------------------------------------------------


def parse(body: bytes) -> Request:
    """The request in a body. :raises WireError: it is none; the reason says what is wrong."""
    fields = load(body)
    ours = fields.get("multinode")
    if ours is not None and not isinstance(ours, dict):
        raise WireError("multinode is no object")
    name = _name(fields, "request")
    if name == "status":
        return Status(_optional(ours or {}, "token"))
    caller = _caller(fields, ours)
    ours = ours or {}
    match name:
        case "group_data":
            coming = _flag(ours, "coming", default=False)
            return Join(caller, _size(fields.get("group_size")), _members(ours.get("members")), coming)
        case "lava_send":
            return Send(caller, _name(fields, "messageID"), _data(fields.get("message")))
        case "lava_wait" | "lava_wait_all" | "lava_sync" | "give_up" | "withdraw":
            return _wait(caller, name, fields, ours)
        case "stay":
            return Stay(caller)
        case "clear_group":
            return Leave(caller, _reason(ours, "its job has ended"))
        case "aggregate":
            raise WireError("bundles are gone from LAVA, and there is nothing to aggregate")
        case _:
            raise WireError(f"there is no request {name!r}")


def _caller(fields: Mapping[str, Any], ours: Mapping[str, Any] | None) -> Caller:
    role = fields.get("role")
    who = (_name(fields, "group_name"), _name(fields, "client_name"), "" if role is None else _name(fields, "role"))
    if ours is None:
        return Caller(*who)
    return Caller(
        *who,
        ours=True,
        request=_optional(ours, "id"),
        hold=_hold(ours.get("hold", 0.0)),
        run=_optional(ours, "run"),
        token=_optional(ours, "token"),
        join=_optional(ours, "join"),
    )


def _wait(caller: Caller, name: str, fields: Mapping[str, Any], ours: Mapping[str, Any]) -> Wait | Withdraw:
    if name == "withdraw":
        return Withdraw(caller)
    call, why = (_name(ours, "call"), _reason(ours, "given up")) if name == "give_up" else (name, None)
    kind = _CALLS.get(call)
    if kind is None:
        raise WireError(f"there is no call {call!r} to give up")
    role = _optional(fields, "waitrole") if kind is Kind.WAIT_ALL else None
    patient, background = _flag(ours, "patient", default=True), _flag(ours, "background", default=False)
    return Wait(caller, kind, _name(fields, "messageID"), role, patient, background, why)


def _name(fields: Mapping[str, Any], key: str) -> str:
    """A name of something: 1 to :data:`ID_LIMIT` printable bytes. LAVA's clients may write a job's id as a number."""
    if key not in fields:
        raise WireError(f"{key} is missing")
    value = fields[key]
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63:
        value = str(value)
    if not isinstance(value, str):
        raise WireError(f"{key} is no text")
    if (
        not 0 < len(value) <= ID_LIMIT
        or not is_printable(value)
        or len(value.encode("utf-8", "surrogateescape")) > ID_LIMIT
    ):
        raise WireError(f"{key} is not 1 to {ID_LIMIT} printable bytes")
    return value


def _optional(fields: Mapping[str, Any], key: str) -> str | None:
    return None if fields.get(key) is None else _name(fields, key)


def _reason(ours: Mapping[str, Any], default: str) -> str:
    reason = ours.get("reason", default)
    if not isinstance(reason, str) or not is_printable(reason):
        raise WireError("reason is no line of text")
    return reason[:REASON_LIMIT]


def _flag(ours: Mapping[str, Any], key: str, *, default: bool) -> bool:
    value = ours.get(key, default)
    if not isinstance(value, bool):
        raise WireError(f"{key} is neither true nor false")
    return value


def _hold(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= HOLD_LIMIT:
        raise WireError(f"hold is no number of seconds up to {HOLD_LIMIT:g}")
    return float(value)


def _size(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 9:
        value = int(value)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= GROUP_LIMIT:
        raise WireError(f"group_size is no number from 1 to {GROUP_LIMIT}")
    return value


def _members(value: object) -> tuple[Member, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not 0 < len(value) <= GROUP_LIMIT:
        raise WireError(f"members is no list of 1 to {GROUP_LIMIT}")
    members = []
    for pair in value:
        if not isinstance(pair, list) or len(pair) != 2:
            raise WireError("a member is not [id, role]")
        named = {"a member's id": pair[0], "a member's role": pair[1]}
        members.append(Member(*(_name(named, key) for key in named)))
    if len({member.id for member in members}) != len(members):
        raise WireError("two members have one id")
    return tuple(members)


def _data(value: object) -> tuple[tuple[str, str], ...]:
    """The pairs of a message. What LAVA's clients send beside text is taken as JSON writes it, null as nothing."""
    if value is None:
        return ()
    if not isinstance(value, dict):
        raise WireError("message is no object")
    pairs = tuple((key, _value(key, held)) for key, held in value.items())
    size = 0
    for key, text in pairs:
        if not key or _BAD_KEY.search(key):
            raise WireError(f"{key[:ID_LIMIT]!r} is no key: no blanks, control characters or '='")
        if _FORBIDDEN.search(text):
            raise WireError(f"the value of {key[:ID_LIMIT]!r} holds a NUL, a newline or half a surrogate pair")
        size += len(key.encode("utf-8", "surrogateescape")) + len(text.encode("utf-8", "surrogateescape"))
    if size > MESSAGE_LIMIT:
        raise WireError(f"a message holds at most {MESSAGE_LIMIT} bytes")
    return pairs


def _value(key: str, value: object) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool | int | float):
        try:
            return json.dumps(value)
        except ValueError:  # more digits than Python writes
            raise WireError(f"the value of {key[:ID_LIMIT]!r} is too large a number") from None
    raise WireError(f"the value of {key[:ID_LIMIT]!r} is no text")


# --- what a client sends -----------------------------------------------------------------------------------------


def dump(request: Request) -> bytes:
    """A request as our clients send it, with the fields that LAVA's coordinator needs."""
    if isinstance(request, Status):
        return frame({"request": "status", "multinode": _given(token=request.token)})
    caller = request.caller
    ours = _given(id=caller.request, hold=caller.hold or None, run=caller.run, token=caller.token, join=caller.join)
    fields: dict[str, Any] = {
        "client_name": caller.member,
        "group_name": caller.group,
        "role": caller.role or None,
        "hostname": "multinode",
        "multinode": ours,
    }
    match request:
        case Join():
            fields |= {"request": "group_data"} | _given(group_size=request.size)
            if request.members:
                ours["members"] = [[member.id, member.role] for member in request.members]
            if request.coming:
                ours["coming"] = True
        case Send():
            fields |= {"request": "lava_send", "messageID": request.message_id, "message": dict(request.data)}
        case Wait():
            fields |= {"messageID": request.message_id} | _given(waitrole=request.role)
            ours |= {"patient": request.patient, "background": request.background}
            fields["request"] = name = _NAMES[request.kind]
            if request.why is not None:
                fields["request"] = "give_up"
                ours |= {"call": name, "reason": request.why}
        case Withdraw():
            fields["request"] = "withdraw"
        case Stay():
            fields["request"] = "stay"
        case Leave():
            fields["request"] = "clear_group"
            ours["reason"] = request.reason
        case _:
            assert_never(request)
    return frame(fields)


def _given(**fields: object) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not None}


# --- replies -----------------------------------------------------------------------------------------------------

_OURS: Final = {"multinode": {"version": VERSION}}


ACK: Final = frame({"response": "ack", **_OURS})
"""Done."""


def ack(message: Mapping[str, Any]) -> bytes:
    """Done, with an answer: of a call that waited the data by member, which LAVA's clients look through."""
    return frame({"response": "ack", "message": message, **_OURS})


def nack(reason: str) -> bytes:
    """Refused, or failed for good. LAVA's clients do not read the reason."""
    return frame({"response": "nack", "reason": reason, **_OURS})


WAIT: Final = frame({"response": "wait", **_OURS})
"""Not yet; ask again."""


def unheard(reason: str) -> bytes:
    """``wait``, as the request has not come whole. Whoever asks again gets its answer; nobody reads the reason but
    a person."""
    return frame({"response": "wait", "reason": reason, **_OURS})


def group_data(members: Sequence[Member]) -> bytes:
    """The group is complete: everybody's role by id, in the order of the group."""
    return frame({"response": "group_data", "roles": {member.id: member.role for member in members}, **_OURS})


def response(reply: bytes) -> str:
    """Which response one of our replies is, for counting."""
    return reply.split(b'"', 4)[3].decode("ascii")


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply as a client reads it. ``ours`` is False where LAVA's coordinator gave it."""

    response: str
    message: Mapping[str, Any]
    reason: str | None
    members: tuple[Member, ...]
    ours: bool


def parse_reply(body: bytes) -> Reply:
    """What the coordinator answered. :raises WireError: nonsense."""
    fields = load(body)
    response, message, reason, roles = (fields.get(key) for key in ("response", "message", "reason", "roles"))
    if response not in ("ack", "nack", "wait", "group_data"):
        raise WireError(f"there is no response {str(response)[:ID_LIMIT]!r}")
    if not isinstance(roles, dict):
        roles = {}
    if not all(isinstance(role, str) for role in roles.values()):
        raise WireError("a role is no text")
    return Reply(
        response,
        message if isinstance(message, dict) else {},
        reason if isinstance(reason, str) else None,
        tuple(Member(member, role) for member, role in roles.items()),
        isinstance(fields.get("multinode"), dict),
    )
