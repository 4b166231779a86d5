"""Ports that a test gives up and takes again, or on which nobody is to listen, while other tests run beside it."""

from __future__ import annotations

import contextlib
import secrets
import socket
from pathlib import Path

_LOWEST, _HIGHEST = 10_000, 65_535


def lasting_port() -> int:
    """A free port that the kernel gives to nobody who takes any: see ip(7), ``ip_local_port_range``."""
    given = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = range(_LOWEST, given) or range(_LOWEST, _HIGHEST)
    while True:
        port = secrets.choice(ports)
        with contextlib.suppress(OSError), socket.create_server(("", port)):
            return port
