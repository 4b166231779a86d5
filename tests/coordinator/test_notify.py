"""What systemd is told, and that nobody is hurt where it does not listen."""

from __future__ import annotations

import contextlib
import logging
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher.coordinator import notify


@contextlib.contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address)
        sock.settimeout(30)
        yield sock


def test_a_socket_in_the_file_system(tmp_path: Path) -> None:
    address = str(tmp_path / "socket")
    with listening(address) as systemd:
        notify.ready("3 groups", {"NOTIFY_SOCKET": address})
        assert systemd.recv(1000) == b"READY=1\nSTATUS=3 groups\n"
        notify.stopping({"NOTIFY_SOCKET": address})
        assert systemd.recv(1000) == b"STOPPING=1\n"


def test_an_abstract_socket() -> None:
    name = f"multinode-test-{secrets.token_hex(8)}"
    with listening(f"\0{name}") as systemd:
        notify.ready("", {"NOTIFY_SOCKET": f"@{name}"})
        assert systemd.recv(1000).startswith(b"READY=1\n")


def test_nobody_listens(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    notify.ready("", {})
    with caplog.at_level(logging.WARNING):
        notify.ready("", {"NOTIFY_SOCKET": str(tmp_path / "none")})
        notify.ready("", {"NOTIFY_SOCKET": "x" * 200})
    assert [record.getMessage()[:36] for record in caplog.records] == ["systemd cannot be told 'READY=1': [E"] * 1 + [
        "systemd cannot be told 'READY=1': AF"
    ]
