"""The coordinator on the network: one request a connection, and no client that can hurt another.

A connection has a deadline for its header, one for its body and one for taking its reply, and a bound on each. One
that is held until its answer is there costs a socket, a few small objects and a timer, and no task; one that stays, to
show that its dispatcher lives, not even the timer. Where there are
too many connections, the oldest that has not yet made its request gives way. A send that is there whole when its
client is accepted is answered at once, and never becomes a connection: nothing of it waits, so there is no deadline to
keep.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl as tls
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

from dispatcher.coordinator import wire
from dispatcher.coordinator.counters import Counters
from dispatcher.coordinator.desk import Desk, Pending, Staying
from dispatcher.coordinator.keepalive import keep_alive
from dispatcher.coordinator.listener import Listener, listen
from dispatcher.coordinator.phase import Phase
from dispatcher.errors import CoordinatorError, WireError

BACKLOG: Final = 4096
"""Connections that the kernel keeps for us; it may allow fewer (``net.core.somaxconn``)."""

AT_ONCE_LIMIT: Final = 4096
"""Bytes of a request that is answered at once; a longer one takes its time."""

SWEEP: Final = 60.0
"""Seconds between two looks for groups that have expired."""

FLUSH: Final = 2.0
"""Seconds that the last replies may take to leave when the server stops."""

_log = logging.getLogger("multinode.coordinator")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a client may ask of us.

    :param connections: open at the same time; half of them at most may stay.
    :param header: seconds for the first eight bytes; :param body: for the rest of the request; :param reply: for
        taking the reply.
    """

    connections: int = 16384
    header: float = 10.0
    body: float = 30.0
    reply: float = 30.0


class Server:
    """Answers a desk's requests on a port.

    :param limits: what a client may ask of us.
    :param counters: where it counts.
    :param sweep: seconds between two looks for groups that have expired.
    """

    def __init__(
        self, desk: Desk, *, limits: Limits | None = None, counters: Counters | None = None, sweep: float = SWEEP
    ) -> None:
        self.desk = desk
        self.limits = limits or Limits()
        self.counters = counters or Counters()
        self.connections: dict[_Connection, None] = {}
        self.asking: Phase[_Connection] = Phase(self.limits.header, _Connection.late)
        self.reading: Phase[_Connection] = Phase(self.limits.body, _Connection.late)
        self.replying: Phase[_Connection] = Phase(self.limits.reply, _Connection.abort)
        self._sweep = sweep
        self._servers: list[asyncio.Server] = []
        self._sweeping: asyncio.TimerHandle | None = None
        self._empty: asyncio.Event | None = None

    async def start(self, host: str, port: int, *, ssl: tls.SSLContext | None = None) -> int:
        """Listen, perhaps there too; the port, which is another one where 0 was asked for.

        :raises CoordinatorError: that address cannot be listened on.
        """
        loop = asyncio.get_running_loop()
        first = len(self._servers)
        try:
            for listening in await listen(host, port, BACKLOG):
                server = await loop.create_server(
                    lambda: _Connection(self, half_close=ssl is None),
                    sock=listening if ssl else Listener(listening, self._at_once),
                    ssl=ssl,
                    backlog=BACKLOG,
                    # Until this is over there is no connection for us to bound.
                    ssl_handshake_timeout=self.limits.header if ssl else None,
                )
                self._servers.append(server)
        except OSError as error:
            where = f"{host}:{port}"
            raise CoordinatorError(f"cannot listen there: {error.strerror or error}", where=where) from None
        if self._sweeping is None:
            self._sweeping = loop.call_later(self._sweep, self._expire)
        return int(self._servers[first].sockets[0].getsockname()[1])

    def _at_once(self, client: socket.socket) -> bool:
        """Answer a client whose request is here whole, and whose answer is one line that the kernel takes at once."""
        try:
            data = client.recv(AT_ONCE_LIMIT, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            size = wire.HEADER_SIZE + wire.length(data[: wire.HEADER_SIZE])
            request = wire.parse(data[wire.HEADER_SIZE : size]) if len(data) >= size else None
        except (OSError, WireError):
            return False
        if not isinstance(request, wire.Send):
            return False
        self.counters.accepted += 1
        reply = cast(bytes, self.act(request))  # nothing about a send has to be waited for
        self.counters.replies[wire.response(reply)] += 1
        try:
            client.recv(size)  # what is left unread when a socket closes resets the connection, reply and all
            taken = client.send(reply, socket.MSG_DONTWAIT)
        except OSError:
            taken = 0
        self.counters.lost += taken < len(reply)
        return True

    def act(self, request: wire.Request) -> bytes | Pending:
        """Do what is asked, and count it."""
        self.counters.requests[type(request).__name__.lower()] += 1
        return self.desk.answer(request)

    def _expire(self) -> None:
        self.desk.hall.expire()
        self._sweeping = asyncio.get_running_loop().call_later(self._sweep, self._expire)

    async def stop(self) -> None:
        """Stop listening, answer everybody who is held with ``wait``, and close."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        self.desk.hall.watch.close()  # nobody is missed for a connection that we end
        for server in self._servers:
            server.close()
        for connection in list(self.connections):
            connection.end()
        self._empty = asyncio.Event()
        self.left()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH):
                await self._empty.wait()
        for connection in list(self.connections):
            connection.abort()
        for phase in (self.asking, self.reading, self.replying):
            phase.close()
        self.desk.hall.close()

    def left(self) -> None:
        """A connection has gone."""
        if self._empty is not None and not self.connections:
            self._empty.set()

    def make_room(self) -> bool:
        """Whether one more connection may stay; the oldest that has not asked yet goes for it."""
        if len(self.connections) < self.limits.connections:
            return True
        self.counters.turned_away += 1
        self.desk.hall.watch.miss()
        oldest = self.asking.oldest() or self.reading.oldest()
        if oldest is not None:
            oldest.abort()
        return oldest is not None


class _Connection(asyncio.Protocol):
    """One client, from its coming to its going."""

    __slots__ = ("_answered", "_buffer", "_half_close", "_hold", "_pending", "_phase", "_server", "_size", "_transport")

    def __init__(self, server: Server, *, half_close: bool) -> None:
        self._server = server
        self._half_close = half_close
        self._buffer: bytearray | None = bytearray()
        self._size = 0
        self._pending: Pending | None = None
        self._answered: Pending | None = None
        self._phase: Phase[_Connection] | None = None
        self._hold: asyncio.TimerHandle | None = None
        self._transport = cast(asyncio.Transport, None)

    # --- coming and going ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        server = self._server
        server.counters.accepted += 1
        if not server.make_room():
            self._buffer = None
            self._transport.abort()
            return
        server.counters.open += 1
        server.connections[self] = None
        self._enter(server.asking)

    def connection_lost(self, error: Exception | None) -> None:
        self._enter(None)
        server = self._server
        if self not in server.connections:
            return
        server.connections.pop(self)
        server.counters.open -= 1
        pending, self._pending = self._pending, None
        answered, self._answered = self._answered, None
        if pending is not None:
            self._release(pending)
            pending.let_go(error)
        if isinstance(pending, Staying):
            pass  # it was let go, and had nothing to be told
        elif pending is not None or error is not None:
            server.counters.lost += 1
        elif answered is not None:
            answered.told()
        server.left()

    def _enter(self, phase: Phase[_Connection] | None) -> None:
        if self._phase is not None:
            self._phase.leave(self)
        self._phase = phase
        if phase is not None:
            phase.enter(self)

    def abort(self) -> None:
        """Close at once; what has not been sent is lost."""
        self._answered = None
        self._enter(None)
        self._transport.abort()

    # --- the request -----------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        if buffer is None:
            return  # one request a connection
        buffer += data
        try:
            if not self._size and len(buffer) >= wire.HEADER_SIZE:
                self._size = wire.HEADER_SIZE + wire.length(bytes(buffer[: wire.HEADER_SIZE]))
                if len(buffer) < self._size:
                    self._enter(self._server.reading)
        except WireError as error:
            self._malformed("header", error.what)
            return
        if self._size and len(buffer) >= self._size:
            body = bytes(buffer[wire.HEADER_SIZE : self._size])
            self._buffer = None
            self._request(body)

    def eof_received(self) -> bool:
        if self._buffer is not None:
            self._malformed("cut", "the request ended early")
            return self._half_close
        # LAVA's clients close their half once they have asked. One that is held has no reason to, but to go away.
        return self._half_close and self._pending is None

    def late(self) -> None:
        """The request has not come whole in time; the network may be to blame, so it may be made again."""
        self._malformed("late", "the request did not come in time", wire.unheard)

    def _malformed(self, kind: str, reason: str, reply: Callable[[str], bytes] = wire.nack) -> None:
        self._server.counters.malformed[kind] += 1
        _log.info("refused: %s", reason, extra={"peer": self._transport.get_extra_info("peername")})
        self._buffer = None
        self._reply(reply(reason))

    def _request(self, body: bytes) -> None:
        server = self._server
        self._enter(None)
        try:
            request = wire.parse(body)
        except WireError as error:
            self._malformed("request", error.what)
            return
        answer = server.act(request)
        if isinstance(answer, bytes):
            self._reply(answer)
            return
        if isinstance(answer, Staying):
            self._stay(answer)
            return
        hold = 0.0 if isinstance(request, wire.Status) else request.caller.hold
        if answer.future.done() or not hold:
            self._answer(answer)
            return
        self._pending = answer
        server.counters.held += 1
        answer.future.add_done_callback(self._done)
        self._hold = asyncio.get_running_loop().call_later(hold, self.end)

    def _stay(self, staying: Staying) -> None:
        counters = self._server.counters
        if counters.staying >= self._server.limits.connections // 2:
            staying.excuse()
            self._reply(wire.nack("too many members stay already; this one will not be missed"))
            return
        self._pending = staying
        counters.staying += 1
        staying.future.add_done_callback(self._done)
        keep_alive(self._transport)

    # --- the reply -------------------------------------------------------------------------------------------

    def _done(self, _future: asyncio.Future[Any]) -> None:
        self.end()

    def end(self) -> None:
        """Answer who is held, with what there is; who has not asked yet is let go."""
        pending = self._pending
        if pending is None:
            if self._buffer is not None:
                self.abort()
            return
        self._pending = None
        self._release(pending)
        self._answer(pending)

    def _release(self, pending: Pending) -> None:
        if isinstance(pending, Staying):
            self._server.counters.staying -= 1
        else:
            self._server.counters.held -= 1
        if self._hold is not None:
            self._hold.cancel()
        pending.future.remove_done_callback(self._done)

    def _answer(self, pending: Pending) -> None:
        self._answered = pending
        self._reply(pending.reply())

    def _reply(self, reply: bytes) -> None:
        self._server.counters.replies[wire.response(reply)] += 1
        self._enter(self._server.replying)
        self._transport.write(reply)
        self._transport.close()
