"""Sockets to listen on, which answer what can be answered before a connection has cost anything.

A client that only sends has its request on the way as soon as it is connected. To build a transport for it, with its
callbacks and its place in the event loop, would cost more than all the rest that such a request needs.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Final

TURN: Final = 64
"""Clients answered in one turn of the event loop, so that those who are connected are served in between."""


class Listener(socket.socket):
    """A socket that listens, and hands out only those connections that were not answered at once.

    Whoever accepts from it must take :exc:`BlockingIOError` for "come back in the next turn", as asyncio does.

    :param at_once: answers a client and returns True, or leaves it as it is.
    """

    def __init__(self, listening: socket.socket, at_once: Callable[[socket.socket], bool]) -> None:
        super().__init__(listening.family, listening.type, listening.proto, fileno=listening.detach())
        self._at_once = at_once

    def accept(self) -> tuple[socket.socket, Any]:
        for _ in range(TURN):
            client, address = super().accept()
            answered = True
            try:
                answered = self._at_once(client)
            finally:
                if answered:
                    client.close()
            if not answered:
                return client, address
        raise BlockingIOError


async def listen(host: str, port: int, backlog: int) -> list[socket.socket]:
    """Sockets for all addresses of a host.

    :param backlog: connections that the kernel keeps; said at once, as not every kernel lets it grow later.
    :raises OSError: one of the addresses cannot be had.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, _type, _protocol, _name, address in dict.fromkeys(found):
            sockets.append(socket.create_server(address, family=family, backlog=backlog))
    except BaseException:
        for listening in sockets:
            listening.close()
        raise
    return sockets
