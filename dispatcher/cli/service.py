"""The options of ``multinode coordinator``, and the settings that they and its file make together."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dispatcher.coordinator.journal.mark import unwritable
from dispatcher.coordinator.settings import READERS, File, Settings, default_journal, read_file, read_value
from dispatcher.errors import UsageError


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options; those that are not given leave no trace, so that the file's values stand."""
    default = Settings()

    def add(option: str, metavar: str, text: str) -> None:
        key = option.removeprefix("--").replace("-", "_")
        command.add_argument(option, type=reader(key), metavar=metavar, default=argparse.SUPPRESS, help=text)

    command.add_argument(
        "--config", type=Path, metavar="FILE", help="a lava-coordinator.conf; an option wins over what stands there"
    )
    add("--host", "ADDRESS", f"the address to listen on (default: {default.host})")
    add("--port", "PORT", f"the port, 0 for any that is free (default: {default.port})")
    add("--local-port", "PORT", "beside TLS, listen on 127.0.0.1 without it: for LAVA's clients on this machine")
    command.add_argument(
        "--insecure-listen",
        action="store_true",
        default=argparse.SUPPRESS,
        help="listen without TLS on an address that others can reach: whoever does can read all messages, send as any "
        "member and end any group, as with LAVA's coordinator",
    )
    add("--tls-cert", "FILE", "the server's certificate, PEM; with it only TLS is spoken")
    add("--tls-key", "FILE", "its private key (default: in the same file)")
    add("--tls-client-ca", "FILE", "who must have signed the certificate that every client has to show then")
    add("--tokens", "FILE", "lines of a group's name or pattern and the token that its members have to show")
    journal = str(default_journal()).replace("%", "%%")
    add("--journal", "FILE|memory", f"where groups are kept past a restart (default: {journal})")
    add(
        "--sync",
        "normal|full",
        f"full: a power cut costs nothing, each event a disk write (default: {default.sync.value})",
    )
    add("--stuck-grace", "SECONDS|never", f"as for run (default: {default.stuck_grace:g})")
    add(
        "--absence",
        "SECONDS|never",
        f"when a member leaves whose dispatcher has died (default: {default.absence:g})",
    )
    add(
        "--expiry",
        "SECONDS|never",
        f"when a group is forgotten whose members have all fallen silent (default: {default.expiry:g})",
    )
    add("--connections", "N", f"how many there may be at a time (default: {default.connections})")
    add(
        "--members",
        "N",
        f"how many there may be in all open groups, and again in those that form (default: {default.members})",
    )
    add("--metrics-port", "PORT", "serve metrics for Prometheus at http://127.0.0.1:PORT/metrics (default: no)")
    add("--log-format", "text|json", f"what a line of the log looks like (default: {default.log_format.value})")


def reader(key: str) -> Callable[[str], Any]:
    """What argparse makes a setting of the coordinator with, as its file does."""

    def read(text: str) -> Any:
        try:
            return read_value(key, text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def read_settings(arguments: argparse.Namespace) -> tuple[Settings, File]:
    """The settings of the command line, of the file and of nobody, in this order; and the file.

    :raises FileError: the file is wrong. :raises UsageError: two settings do not go together.
    """
    file = read_file(arguments.config) if arguments.config else File()
    chosen = {key: getattr(arguments, key) for key in READERS if hasattr(arguments, key)}
    values = {**file.values, **chosen}
    if "journal" not in values:
        values["journal"] = _made(default_journal())
    settings = Settings(**values)
    if settings.tls_cert is None and (settings.tls_key or settings.tls_client_ca):
        raise UsageError("a key or a client CA is of no use without a certificate", where="--tls-cert")
    if settings.tls_cert is None and settings.local_port is not None:
        hint = "without TLS there is --port; with --host localhost only this machine reaches it"
        raise UsageError("a port without TLS is of no use where no other has it", where="--local-port", hint=hint)
    return settings, file


def _made(journal: Path) -> Path:
    try:
        journal.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(journal, error) from error
    return journal
