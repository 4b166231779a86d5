"""What of a serial line's URL can be told to be wrong before anything is opened."""

from __future__ import annotations

import importlib.util
import re
from typing import Final
from urllib.parse import urlsplit

import serial

from dispatcher.errors import UserError
from dispatcher.wording import quoted

SEARCH: Final = "hwgrep://"
"""The search for a port by its description: pyserial opens the path that it finds as any other."""

_OF_HOSTS: Final = {"socket", "rfc2217"}
_PORT: Final = re.compile(r"(?:(?:socket|rfc2217|tcp|telnet):/*)?(?P<server>[^/:]+:[0-9]+)", re.IGNORECASE)


def check(url: str, device: str) -> None:
    """Refuse a URL that nothing could open, or that would be understood in part.

    :param url: may hold ``{KEY}``, which a request of the job fills in later.
    :raises UserError: it is none of pyserial's. It is not shown where it holds a password.
    """
    scheme = url.partition("://")[0].lower()
    if not _is_known(scheme):
        shown = f"console serial {quoted(url)}" if "@" not in url else "console serial"
        what = f"{shown}: pyserial knows no {scheme}://"
        raise UserError(what, where=device, hint="it knows rfc2217://, socket://, hwgrep:// and loop://, among others")
    if url.lower().startswith(SEARCH):
        _check_search(url, device)
    elif scheme in _OF_HOSTS and "{" not in url:
        _check_host(url, scheme, device)


def check_path(path: str, device: str) -> None:
    """Refuse a server's port that stands where a path is looked for. :raises UserError: it is ``HOST:PORT``."""
    if found := _PORT.fullmatch(path):
        what = f"console serial {quoted(path)} is neither a path nor a URL"
        server = found["server"]
        raise UserError(what, where=device, hint=f"write a server's port like socket://{server} or rfc2217://{server}")


def _is_known(scheme: str) -> bool:
    # With a dot it would be a module of a package that is imported for that.
    return "." not in scheme and any(
        importlib.util.find_spec(f"{each}.protocol_{scheme}") for each in serial.protocol_handler_packages
    )


def _check_search(url: str, device: str) -> None:
    expression, trouble = url[len(SEARCH) :].partition("&")[0], "would take the first port there is"
    try:
        if expression and re.compile(expression):
            return
    except re.error as error:
        trouble = f"is no regular expression: {error}"
    what = f"console serial {quoted(url)} {trouble}"
    raise UserError(what, where=device, hint="write it like hwgrep://0403:6001")


def _check_host(url: str, scheme: str, device: str) -> None:
    try:
        parts = urlsplit(url)
        complete = bool(parts.hostname) and parts.port is not None
    except ValueError:  # a port that is no number, or none that can be
        complete = False
    if "@" in url:
        hint = "a program can log in: console: {command: ssh …}, or telnet"
        raise UserError(f"console serial: {scheme}:// takes no user and no password", where=device, hint=hint)
    if not complete:
        what = f"console serial {quoted(url)} does not name a host and a port"
        raise UserError(what, where=device, hint=f"write it like {scheme}://HOST:PORT")
