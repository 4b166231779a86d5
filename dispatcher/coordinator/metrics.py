"""What a coordinator counts, for Prometheus: its text format, over a minimal HTTP of our own.

The format is that of prometheus.io/docs/instrumenting/exposition_formats, version 0.0.4. The client library of
Prometheus would bring a registry of process-wide state and a threaded server for some thirty lines of text, and every
lab host would have to have it; the tests read what is written here with that library's own parser.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Final

from dispatcher.coordinator.counters import Counters
from dispatcher.coordinator.hall import Hall
from dispatcher.errors import CoordinatorError

PREFIX: Final = "multinode_coordinator_"
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
REQUEST_LIMIT: Final = 8192
"""Bytes of a request for the metrics, its headers included."""

CONNECTIONS_LIMIT: Final = 32
"""Connections to the metrics at the same time."""

DEADLINE: Final = 5.0
"""Seconds from a connection's coming to its end."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One name with its values: by one label, or by none.

    :param label: the label's name; empty where there is one value.
    :param values: by the label's value.
    """

    name: str
    kind: str
    help: str
    values: Mapping[str, float]
    label: str = ""


def metrics(counters: Counters, hall: Hall) -> Iterator[Metric]:
    """A coordinator's metrics as they are now."""
    yield Metric("build_info", "gauge", "The version.", {metadata.version("multinode-dispatcher"): 1}, "version")
    for name, value, text in (
        ("connections_accepted", counters.accepted, "Connections that came."),
        ("connections_turned_away", counters.turned_away, "Connections closed unread, as there were too many."),
        ("clients_lost", counters.lost, "Clients that went away before they had their answer."),
        ("joins_refused", hall.refused, "Joins refused, as there were too many members."),
    ):
        yield Metric(f"{name}_total", "counter", text, {"": value})
    for name, values, text, label in (
        ("requests", counters.requests, "Requests that were understood, by name.", "request"),
        ("replies", counters.replies, "Replies, by response.", "response"),
        ("malformed", counters.malformed, "Requests that were refused, by what was wrong.", "reason"),
    ):
        yield Metric(f"{name}_total", "counter", text, values, label)
    rooms = [room.group for room in hall.rooms.values()]
    presence = Counter(group.presence(member.id).name.lower() for group in rooms for member in group.members)
    for name, value, text in (
        ("connections", counters.open, "Connections that are there."),
        ("connections_held", counters.held, "Connections that wait for an answer."),
        ("connections_staying", counters.staying, "Connections that show that a dispatcher lives."),
        ("members_absent", hall.watch.count_absent(), "Members whose dispatchers are away, and may come back."),
        ("groups", len(rooms), "Groups that are open."),
        ("groups_forming", len(hall.forming), "Groups of which not everybody has come."),
        ("groups_stuck", sum(bool(group.stuck) for group in rooms), "Groups with members that wait for each other."),
    ):
        yield Metric(name, "gauge", text, {"": value})
    yield Metric("members", "gauge", "Members of open groups, by presence.", presence, "presence")


def render(found: Iterator[Metric]) -> str:
    """Metrics in Prometheus's text format."""
    lines: list[str] = []
    for metric in found:
        name = PREFIX + metric.name
        lines += [f"# HELP {name} {metric.help}", f"# TYPE {name} {metric.kind}"]
        for label, value in metric.values.items():
            labels = f'{{{metric.label}="{_escaped(label)}"}}' if metric.label else ""
            lines.append(f"{name}{labels} {value}")
    return "\n".join(lines) + "\n"


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


class MetricsServer:
    """Serves what a function renders at ``/metrics``, one request a connection.

    :param deadline: seconds that a client has for all of it.
    """

    def __init__(self, rendered: Callable[[], str], *, deadline: float = DEADLINE) -> None:
        self._rendered = rendered
        self._deadline = deadline
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> int:
        """Listen; the port. :raises CoordinatorError: that address cannot be listened on."""
        try:
            self._server = await asyncio.start_server(self._accept, host, port, limit=REQUEST_LIMIT)
        except OSError as error:
            what = f"cannot listen there for metrics: {error.strerror or error}"
            raise CoordinatorError(what, where=f"{host}:{port}") from None
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop listening, and end whoever is being served."""
        if self._server is not None:
            self._server.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._clients) >= CONNECTIONS_LIMIT:
            writer.transport.abort()
            return
        client = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._clients.add(client)
        client.add_done_callback(self._clients.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(self._deadline):
                writer.write(self._reply(await _request(reader)))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError):
            pass
        finally:
            writer.transport.abort()

    def _reply(self, request: list[bytes]) -> bytes:
        match request:
            case [b"GET" | b"HEAD" as method, target, version] if version.startswith(b"HTTP/1."):
                if target.partition(b"?")[0] != b"/metrics":
                    return _response("404 Not Found", "the metrics are at /metrics\n")
                return _response("200 OK", self._rendered(), head=method == b"HEAD")
            case [_, _, version] if version.startswith(b"HTTP/1."):
                return _response("405 Method Not Allowed", "only GET and HEAD\n", "Allow: GET, HEAD\r\n")
        return _response("400 Bad Request", "this is no HTTP request\n")


async def _request(reader: asyncio.StreamReader) -> list[bytes]:
    """The words of the request's first line; none where there is no request."""
    try:
        data = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return []
    return data.partition(b"\r\n")[0].split(b" ")


def _response(status: str, text: str, headers: str = "", *, head: bool = False) -> bytes:
    body = text.encode("utf-8", "backslashreplace")
    lines = f"HTTP/1.1 {status}\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {len(body)}\r\n{headers}"
    return f"{lines}Connection: close\r\n\r\n".encode("ascii") + (b"" if head else body)
