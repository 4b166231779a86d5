"""Who may speak: addresses, certificates over real connections, and tokens."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from pki_harness import Pki

from dispatcher.coordinator import wire
from dispatcher.coordinator.access import Tokens, check_listening, client_tls, is_loopback, server_tls
from dispatcher.coordinator.desk import Desk
from dispatcher.coordinator.hall import Hall
from dispatcher.coordinator.journal.memory import MemoryJournal
from dispatcher.coordinator.remote import Address, Place, RemoteClient, ask_status
from dispatcher.coordinator.server import Limits, Server
from dispatcher.errors import CoordinatorError, FileError, UsageError
from dispatcher.group.events import Member

# --- addresses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "alone"), [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("0.0.0.0", False)]
)
def test_loopback_is_known(host: str, alone: bool) -> None:
    assert is_loopback(host) is alone


def test_an_address_that_others_reach_needs_tls_or_a_word() -> None:
    check_listening("localhost", tls=False, insecure=False)
    check_listening("0.0.0.0", tls=True, insecure=False)
    check_listening("192.0.2.1", tls=False, insecure=True)
    with pytest.raises(UsageError, match=r"'192\.0\.2\.1' can be reached from other machines.*\n.*--insecure-listen"):
        check_listening("192.0.2.1", tls=False, insecure=False)
    with pytest.raises(UsageError, match="is no address of this machine"):
        check_listening("no such host", tls=False, insecure=False)


# --- TLS ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


def talk(server: ssl.SSLContext, client: ssl.SSLContext | None, name: str = "localhost") -> bytes:
    """Connect for real; what the client reads."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(2))
        writer.close()

    async def run() -> bytes:
        listening = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=server)
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
        port = listening.sockets[0].getsockname()[1]
        try:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=client, server_hostname=name if client else None
            )
            try:
                writer.write(b"hi" * 20)
                return await reader.read()
            finally:
                writer.transport.abort()
        finally:
            listening.close()

    return asyncio.run(run())


def test_a_server_with_a_certificate_is_spoken_to(pki: Pki) -> None:
    assert talk(server_tls(pki.server, pki.key("server")), client_tls(pki.ca)) == b"hi"


def test_both_in_one_file(pki: Pki, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(pki.key("server").read_bytes() + pki.server.read_bytes())
    both.chmod(0o600)
    assert talk(server_tls(both, both), client_tls(pki.ca)) == b"hi"


def test_a_client_does_not_speak_to_a_server_that_it_cannot_check(pki: Pki) -> None:
    server = server_tls(pki.server, pki.key("server"))
    with pytest.raises(ssl.SSLCertVerificationError):
        talk(server, client_tls(pki.other_ca))
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        talk(server, client_tls(pki.ca), name="elsewhere.example")


def test_a_server_can_ask_clients_for_certificates(pki: Pki) -> None:
    def server() -> ssl.SSLContext:
        return server_tls(pki.server, pki.key("server"), pki.ca)

    assert talk(server(), client_tls(pki.ca, pki.client, pki.key("client"))) == b"hi"
    for client in (client_tls(pki.ca), client_tls(pki.ca, pki.stranger, pki.key("stranger"))):
        # In TLS 1.3 a client may think itself connected until it reads (RFC 8446, section 4.4.2.4 and appendix E).
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            assert talk(server(), client) == b""


def test_who_speaks_no_tls_gets_nothing(pki: Pki) -> None:
    assert not talk(server_tls(pki.server, pki.key("server"), pki.ca), None).startswith(b"hi")


def test_who_never_begins_tls_is_let_go(pki: Pki) -> None:
    async def run() -> bytes:
        tls = server_tls(pki.server, pki.key("server"))
        server = Server(Desk(Hall(MemoryJournal())), limits=Limits(header=0.01))
        port = await server.start("127.0.0.1", 0, ssl=tls)
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.closing(writer):
                return await reader.read()
        finally:
            await server.stop()

    assert asyncio.run(run()) == b""


def test_a_member_speaks_over_tls_with_its_token(pki: Pki, tokens: Tokens) -> None:
    async def run() -> None:
        server = Server(Desk(Hall(MemoryJournal()), tokens.gate))
        port = await server.start("127.0.0.1", 0, ssl=server_tls(pki.server, pki.key("server"), pki.ca))
        try:
            address, tls = Address("localhost", port), client_tls(pki.ca, pki.client, pki.key("client"))
            member = Member("1", "server")
            place = Place("nightly", member, 1, token=NIGHTLY)
            client = RemoteClient(address, place, tell=print, ssl=tls)
            assert await client.join("a") == (member,)
            await client.send("b", "x", [("key", "value")])
            told = await ask_status(address, token=ADMIN, ssl=tls)
            assert [group["name"] for group in told.message["groups"]] == ["nightly"]
            with pytest.raises(CoordinatorError, match="the token is not that of the whole coordinator"):
                await ask_status(address, token=NIGHTLY, ssl=tls)
        finally:
            await server.stop()

    asyncio.run(run())


Spoil = Callable[[Pki, Path], tuple[Path, Path, Path | None]]


def changed(path: Path, data: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


def _encrypted(pki: Pki, folder: Path) -> tuple[Path, Path, None]:
    pki.openssl("ec", "-in", "server.key", "-aes256", "-passout", "pass:x", "-out", str(folder / "key.pem"))
    return pki.server, folder / "key.pem", None


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda pki, d: (d / "none", pki.key("server"), None), "none: cannot be read: No such file or directory"),
        (lambda pki, d: (pki.server, d, None), "cannot be read: Is a directory"),
        (lambda pki, d: (changed(d / "cert.pem", b"hello"), pki.key("server"), None), "cert.pem: holds no certificate"),
        (lambda pki, d: (pki.server, pki.server, None), "server.pem: holds no private key in PEM form"),
        (lambda pki, d: (pki.server, pki.key("client"), None), "client.key: the private key does not belong to the"),
        (
            lambda pki, d: (
                changed(d / "cert.pem", pki.server.read_bytes().replace(b"M", b"N", 1)),
                pki.key("server"),
                None,
            ),
            "cert.pem: the certificate and the key in ",
        ),
        (
            lambda pki, d: (pki.server, changed(d / "key.pem", pki.key("server").read_bytes(), 0o644), None),
            "key.pem: holds a secret that others may read or change (mode 0644)",
        ),
        (_encrypted, "key.pem: the private key is encrypted, and nobody is there"),
        (
            lambda pki, d: (pki.server, pki.key("server"), changed(d / "ca.pem", b"-----BEGIN CERTIFICATE-----\nx")),
            "ca.pem: the certificates cannot be used",
        ),
    ],
)
def test_a_bad_file_is_named(spoil: Spoil, told: str, pki: Pki, tmp_path: Path) -> None:
    files = spoil(pki, tmp_path)
    with pytest.raises(FileError) as error:
        server_tls(*files)
    assert told in str(error.value).splitlines()[0]


# --- tokens ------------------------------------------------------------------------------------------------------

NIGHTLY, FARM, ADMIN = "nightly-token-0001", "farm-token-00000001", "admin-token-0000001"


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    path = tmp_path / "tokens"
    text = (
        f"# ours\n\nnightly  {NIGHTLY}\nnightly {FARM}\nfarm-[ab]-*\t{FARM}\nlava-* -\ntwo words {NIGHTLY}\n* {ADMIN}\n"
    )
    path.write_text(text)
    path.chmod(0o640)
    return Tokens(path)


@pytest.mark.parametrize(
    ("group", "token", "allowed"),
    [
        ("nightly", NIGHTLY, True),
        ("nightly", FARM, True),
        ("nightly", ADMIN, True),
        ("nightly", None, False),
        ("nightly", NIGHTLY[:-1], False),
        ("nightly2", NIGHTLY, False),
        ("farm-a-1", FARM, True),
        ("farm-c-1", FARM, False),
        ("FARM-a-1", FARM, False),
        ("lava-1", None, True),
        ("lava-1", "whatever", True),
        ("two words", NIGHTLY, True),
        ("*", NIGHTLY, False),
        ("unheard-of", ADMIN, True),
        ("unheard-of", "\udcff", False),
        (None, ADMIN, True),
        (None, NIGHTLY, False),
        (None, None, False),
    ],
)
def test_a_token_opens_its_groups(group: str | None, token: str | None, allowed: bool, tokens: Tokens) -> None:
    refusal = tokens.check(group, token)
    assert (refusal is None) is allowed
    if refusal:
        assert token is None or token not in refusal


def test_it_guards_a_desk(tokens: Tokens) -> None:
    assert tokens.gate(wire.Status(ADMIN)) is None
    assert tokens.gate(wire.Status()) == "the whole coordinator asks for a token, and there is none"
    assert tokens.gate(wire.Leave(wire.Caller("nightly", "1", token=NIGHTLY))) is None
    wrong = wire.Leave(wire.Caller("nightly", "1", token="x"))
    assert tokens.gate(wrong) == "the token is not that of the group nightly"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"a {NIGHTLY}\nb\n", ":2: a line needs two words"),
        ("a short\n", ":1: a token has 16 to 128 printable bytes"),
        (f"a {'x' * 129}\n", ":1: a token has 16 to 128 printable bytes"),
        ("a 0123456789abcdef\0\n", ":1: a token has 16 to 128 printable bytes"),
    ],
)
def test_a_bad_line_is_told_without_its_secret(text: str, told: str, tmp_path: Path) -> None:
    path = changed(tmp_path / "tokens", text.encode())
    with pytest.raises(FileError) as error:
        Tokens(path)
    assert str(error.value).startswith(f"{path}{told}")


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o660, 0o602])
def test_a_file_that_others_read_is_refused(mode: int, tmp_path: Path) -> None:
    path = changed(tmp_path / "tokens", f"a {NIGHTLY}\n".encode(), mode)
    with pytest.raises(FileError, match=rf"others may read or change \(mode {mode:04o}\)\n  chmod 640"):
        Tokens(path)
    with pytest.raises(FileError, match="cannot be read: No such file"):
        Tokens(tmp_path / os.fsdecode(b"\xff"))
