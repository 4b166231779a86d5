"""The options that name a coordinator elsewhere, for the commands that speak to one."""

from __future__ import annotations

import argparse
import ssl
from pathlib import Path

from dispatcher.coordinator.access import client_tls, read_token
from dispatcher.coordinator.remote import DEFAULT_PORT, Address
from dispatcher.errors import FileError, UsageError


def add_options(command: argparse.ArgumentParser, default: Address | None, note: str | None = None) -> None:
    """Add the options that name a coordinator. ``note`` says what there is where none is named."""
    command.add_argument(
        "--coordinator",
        type=_address,
        metavar="HOST[:PORT]",
        default=default,
        help=f"the coordinator to meet at, LAVA's or ours (default: {note or default})",
    )
    command.add_argument(
        "--token-file",
        type=_token,
        dest="token",
        metavar="FILE",
        help="holds the word that shows the coordinator that we may speak for the group",
    )
    command.add_argument(
        "--tls-ca",
        type=Path,
        metavar="FILE|system",
        help="speak TLS to the coordinator, whose certificate one of these has signed; system: those trusted here",
    )
    command.add_argument("--tls-cert", type=Path, metavar="FILE", help="our own certificate, where it asks for one")
    command.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key (default: in the same file)")


def tls(arguments: argparse.Namespace) -> ssl.SSLContext | None:
    """What to speak TLS with, None for no TLS. :raises FileError: a file is wrong."""
    if arguments.tls_ca is None:
        if arguments.tls_cert or arguments.tls_key:
            raise UsageError("a certificate is of no use without TLS", where="--tls-ca", hint="give it, too")
        return None
    authorities = None if str(arguments.tls_ca) == "system" else arguments.tls_ca
    return client_tls(authorities, arguments.tls_cert, arguments.tls_key)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is no port: a number below 65536")
    return int(text)


def _address(text: str) -> Address:
    """``HOST``, ``HOST:PORT`` or ``[HOST]:PORT``, the last for addresses that hold colons."""
    host, colon, port = text.rpartition(":") if ":" in text and not text.endswith("]") else (text, "", "")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise argparse.ArgumentTypeError(f"{text!r} is no address: HOST:PORT, or [HOST]:PORT")
    host = host.removeprefix("[").removesuffix("]")
    if not host:
        raise argparse.ArgumentTypeError(f"{text!r} names no host")
    return Address(host, _port(port) if colon else DEFAULT_PORT)


def _token(path: str) -> str:
    try:
        return read_token(Path(path))
    except FileError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
