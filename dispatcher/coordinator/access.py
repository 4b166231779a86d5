"""Who may speak to a coordinator: this machine alone, whoever proves itself by TLS, whoever knows a group's token.

LAVA's coordinator listens on every address and asks nobody for anything. Here an address that others can reach needs
TLS, or a flag that says what it gives up.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
import ssl
import stat
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from dispatcher.coordinator import wire
from dispatcher.errors import FileError, UsageError
from dispatcher.wording import quoted

TOKENS_LIMIT: Final = 1024 * 1024
"""Bytes of a file of tokens."""

TOKEN_MINIMUM: Final = 16
TOKEN_MAXIMUM: Final = 128
"""Characters of a token."""

NO_TOKEN: Final = "-"  # noqa: S105 - the word for none
"""Stands where a token would in a line for groups that need none, such as those of stock LAVA clients."""


# --- addresses ---------------------------------------------------------------------------------------------------


def check_listening(host: str, *, tls: bool, insecure: bool) -> None:
    """Refuse an address that others can reach, unless it is guarded or somebody has said that it need not be.

    :raises UsageError: it is not guarded, or is no address.
    """
    if tls or insecure or is_loopback(host):
        return
    hint = "give it --tls-cert and --tls-key, or --insecure-listen if everybody who can reach it may do everything"
    raise UsageError(f"{quoted(host)} can be reached from other machines, and without TLS", hint=hint)


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine's alone. :raises UsageError: it is none."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no name"
        raise UsageError(f"{quoted(host)} is no address of this machine: {reason}") from error
    return all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)


# --- TLS ---------------------------------------------------------------------------------------------------------


def server_tls(certificate: Path, key: Path, client_ca: Path | None = None) -> ssl.SSLContext:
    """What a server needs for TLS 1.2 and newer.

    :param certificate: PEM, its issuers after it. :param key: its private key, PEM, unencrypted.
    :param client_ca: clients must show a certificate that one of these has signed; None: nobody need show any.
    :raises FileError: a file cannot be read, holds something else, or the two do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load_pair(context, certificate, key)
    if client_ca is not None:
        _load_authorities(context, client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_tls(
    authorities: Path | None = None, certificate: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """What a client needs; it checks the server's name.

    :param authorities: PEM, who may have signed the server's certificate; None: those that this machine trusts.
    :param certificate: and ``key``: what the client shows, where the server asks for it.
    :raises FileError: as above.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if authorities is None:
        context.load_default_certs()
    else:
        _load_authorities(context, authorities)
    if certificate is not None:
        _load_pair(context, certificate, key or certificate)
    return context


def _load_pair(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    _check_pem(certificate, "CERTIFICATE", "certificate")
    _check_pem(key, "PRIVATE KEY", "private key")
    _check_secret(key)

    def password() -> str:
        raise FileError(
            "the private key is encrypted, and nobody is there to be asked for its password", where=str(key)
        )

    try:
        context.load_cert_chain(certificate, key, password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise FileError(
                f"the private key does not belong to the certificate in {certificate}", where=str(key)
            ) from None
        what = f"the certificate and the key in {key} cannot be used: {error.reason or error}"
        raise FileError(what, where=str(certificate)) from error


def _load_authorities(context: ssl.SSLContext, path: Path) -> None:
    _check_pem(path, "CERTIFICATE", "certificate")
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise FileError(f"the certificates cannot be used: {error.reason or error}", where=str(path)) from error


def _check_pem(path: Path, label: str, what: str) -> None:
    if f"{label}-----".encode() not in _read(path, TOKENS_LIMIT):
        raise FileError(f"holds no {what} in PEM form", where=str(path), hint=f"it has a line -----BEGIN {label}-----")


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        raise FileError(f"cannot be read: {error.strerror or error}", where=str(path)) from error
    if len(data) > limit:
        raise FileError(f"is larger than {limit // 1024} KiB", where=str(path))
    return data


def _check_secret(path: Path) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        hint = f"chmod 640 {path}, and give it to the group of whoever runs this"
        raise FileError(f"holds a secret that others may read or change (mode {mode:04o})", where=str(path), hint=hint)


# --- tokens ------------------------------------------------------------------------------------------------------


def read_token(path: Path) -> str:
    """A client's token, from a file that holds nothing else.

    :raises FileError: the file cannot be read, or holds something else.
    """
    try:
        word = _read(path, TOKENS_LIMIT).decode().strip()
    except UnicodeDecodeError:
        word = ""
    if not word.isprintable() or not 0 < len(word.encode()) <= TOKEN_MAXIMUM:
        raise FileError(f"does not hold a token of 1 to {TOKEN_MAXIMUM} printable bytes", where=str(path))
    return word


@dataclass(frozen=True, slots=True)
class _Line:
    groups: str
    token: bytes | None


class Tokens:
    """The tokens of groups, from a file: one ``GROUPS TOKEN`` a line.

    ``GROUPS`` is a group's name or a pattern of names (``*``, ``?``, ``[…]``); ``-`` for the token lets these groups
    in without one. A token opens every group that a line with it names; a group that no line names is closed. Whoever
    asks for everything, as ``multinode status`` does, needs a token of ``*``. Empty lines and those that begin with
    ``#`` say nothing.

    :raises FileError: the file cannot be read or understood, or others may read it.
    """

    def __init__(self, path: Path) -> None:
        data = _read(path, TOKENS_LIMIT)
        _check_secret(path)
        self._lines = []
        for number, raw in enumerate(data.splitlines(), start=1):
            text = raw.decode("utf-8", "surrogateescape").strip()
            if text and not text.startswith("#"):
                self._lines.append(_token_line(text, f"{path}:{number}"))

    def check(self, group: str | None, token: str | None) -> str | None:
        """Why whoever shows this token may not speak to that group; None if it may.

        :param group: None for the whole coordinator.
        """
        given = b"" if token is None else token.encode("utf-8", "surrogateescape")
        named = [line for line in self._lines if line.groups == "*" or (group and fnmatchcase(group, line.groups))]
        # Each is compared, and each in the same time, so that nobody learns a token by measuring.
        matches = [line.token is None or hmac.compare_digest(line.token, given) for line in named]
        if any(matches):
            return None
        whom = "the whole coordinator" if group is None else f"the group {group}"
        if token is None:
            return f"{whom} asks for a token, and there is none"
        return f"the token is not that of {whom}"

    def gate(self, request: wire.Request) -> str | None:
        """Why a request may not be made; a gate of a :class:`~dispatcher.coordinator.desk.Desk`."""
        if isinstance(request, wire.Status):
            return self.check(None, request.token)
        return self.check(request.caller.group, request.caller.token)


def _token_line(text: str, where: str) -> _Line:
    words = text.rsplit(maxsplit=1)
    if len(words) != 2:
        hint = "write a group's name or a pattern, blanks, and the token"
        raise FileError("a line needs two words", where=where, hint=hint)
    groups, token = words
    if token == NO_TOKEN:
        return _Line(groups, None)
    if not token.isprintable() or not TOKEN_MINIMUM <= len(token.encode("utf-8", "surrogateescape")) <= TOKEN_MAXIMUM:
        hint = "openssl rand -hex 16 makes a good one"
        what = f"a token has {TOKEN_MINIMUM} to {TOKEN_MAXIMUM} printable bytes"
        raise FileError(what, where=where, hint=hint)
    return _Line(groups, token.encode("utf-8", "surrogateescape"))
