"""Tells systemd how the service fares (``Type=notify``); nothing where systemd did not start it.

The protocol is that of sd_notify(3): one datagram of ``NAME=value`` lines to the socket that ``NOTIFY_SOCKET`` names,
``@`` standing for the zero byte that an abstract socket's name begins with.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

from dispatcher.coordinator.logs import LOGGER


def ready(status: str, environment: Mapping[str, str] | None = None) -> None:
    """The service answers. ``status`` is a line that ``systemctl status`` shows."""
    _notify(f"READY=1\nSTATUS={status}\n", environment)


def stopping(environment: Mapping[str, str] | None = None) -> None:
    """The service has begun to end."""
    _notify("STOPPING=1\n", environment)


def _notify(state: str, environment: Mapping[str, str] | None) -> None:
    address = (os.environ if environment is None else environment).get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = f"\0{address[1:]}"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(state.encode("utf-8", "replace"), address)
    except OSError as error:
        # A service that serves is worth more than one that was heard to.
        logging.getLogger(LOGGER).warning("systemd cannot be told %r: %s", state.partition("\n")[0], error)
