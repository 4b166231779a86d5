"""TCP's keepalive (tcp(7)), by which a connection ends whose other side has vanished without closing it.

It asks only where nothing is under way. What was sent and not acknowledged is sent again for a quarter of an hour,
unless TCP_USER_TIMEOUT is set: to as long as the keepalive takes.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Keepalive:
    """When the other side is asked whether it is still there.

    :param idle: seconds without a word before it is asked.
    :param interval: seconds between two such questions.
    :param count: questions without an answer that end the connection.
    """

    idle: int
    interval: int
    count: int

    def set(self, connection: socket.socket) -> None:
        """Have this done on a connection of TCP's."""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, self.idle)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, self.interval)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, self.count)
        seconds = self.idle + self.interval * self.count
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, seconds * 1000)
