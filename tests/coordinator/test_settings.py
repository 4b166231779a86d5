"""The settings file: LAVA's own, ours beside it, and what is told of a bad one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dispatcher.coordinator.journal.sqlite import Sync
from dispatcher.coordinator.logs import LogFormat
from dispatcher.coordinator.settings import READERS, Settings, default_journal, read_file, read_value
from dispatcher.errors import FileError

LAVAS = """{
    "port": 3080,
    "blocksize": 4096,
    "poll_delay": 3,
    "coordinator_hostname": "lab-server"
}
"""


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "lava-coordinator.conf"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_lavas_own_file(tmp_path: Path) -> None:
    file = read_file(written(tmp_path, LAVAS))
    assert file.values == {"port": 3080}
    assert file.clients == {"blocksize": 4096, "poll_delay": 3, "coordinator_hostname": "lab-server"}


def test_every_setting_can_stand_in_the_file(tmp_path: Path) -> None:
    content: dict[str, Any] = {
        "host": "::1",
        "port": "0",
        "insecure_listen": True,
        "journal": "state/journal",
        "sync": "full",
        "stuck_grace": 0,
        "absence": "never",
        "expiry": None,
        "connections": 10,
        "members": 500,
        "header_timeout": 1,
        "body_timeout": 2.5,
        "reply_timeout": "3e1",
        "tls_cert": "/etc/ssl/cert.pem",
        "tls_key": "key.pem",
        "tls_client_ca": "ca.pem",
        "tokens": "tokens",
        "metrics_host": "::1",
        "metrics_port": 9100,
        "log_format": "json",
        "local_port": 3080,
    }
    assert set(content) == set(READERS)
    file = read_file(written(tmp_path, json.dumps(content)))
    assert Settings(**file.values) == Settings(
        *("::1", 0, 3080, True, tmp_path / "state/journal", Sync.FULL, 0.0, None, None, 10, 500, 1.0, 2.5, 30.0),
        *(Path("/etc/ssl/cert.pem"), tmp_path / "key.pem", tmp_path / "ca.pem", tmp_path / "tokens", "::1", 9100),
        LogFormat.JSON,
    )


def test_a_journal_may_be_in_memory_and_a_limit_may_be_never(tmp_path: Path) -> None:
    values = read_file(written(tmp_path, '{"journal": "memory", "stuck_grace": "never"}')).values
    assert values == {"journal": None, "stuck_grace": None}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{\n"port": 3079,\n"prot": 1\n}', ":3: unknown key 'prot'; did you mean 'port'?"),
        ('{\n"bloksize": 1}', ":2: unknown key 'bloksize'; did you mean 'blocksize'?"),
        ('{"port": 1,\n\n"port": 2}', ":3: key 'port' stands twice: in line 1 and in line 3"),
        ('{\n"x": [1,\n2],\n"port": 1}', ":2: unknown key 'x'"),
        ('{"port":\n 65536}', ":1: port must be a whole number from 0 to 65535, not 65536"),
        ('{"port": true}', ":1: port must be a whole number from 0 to 65535, not true"),
        ('{"port": 1.0}', ":1: port must be a whole number from 0 to 65535, not 1.0"),
        ('{"port": ' + "1" * 5000 + "}", ": not valid JSON: too long a number"),
        ('{"host": ""}', ":1: host must be a text, not ''"),
        ('{"host": "a\\u0000b"}', r":1: host must be a text, not 'a\x00b'"),
        ('{"expiry": 0}', ":1: expiry must be a number of seconds, more than 0 and at most a year, or never, not 0"),
        ('{"expiry": NaN}', ":1: expiry must be a number of seconds"),
        ('{"header_timeout": [1]}', ":1: header_timeout must be a number of seconds, more than 0 and at most a year"),
        ('{"insecure_listen": "yes"}', ":1: insecure_listen must be true or false, not 'yes'"),
        ('{"sync": "fulll"}', ":1: sync must be normal or full, not 'fulll'"),
        ('{"log_format": {}}', ":1: log_format must be text or json, not {}"),
        ('{\n"port": 3079,\n}', ":3: not valid JSON: "),
        ('{"port": 3079 # LAVA\'s\n}', ":1: not valid JSON: "),
        ("[]", ":1: must be one JSON object: {...}"),
        ("", ":1: not valid JSON: "),
        ("[" * 100_000, "is larger than 64 KiB"),
        ("[" * 60_000, ": not valid JSON: too long a number, or nested too deeply"),
        (b'{\n"host": "\xff"}', ":2: byte 0xff is not UTF-8"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(text: str | bytes, told: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    with pytest.raises(FileError) as error:
        read_file(path)
    first = str(error.value).splitlines()[0]
    assert first.startswith(str(path))
    assert told in first


def test_every_setting_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "coordinator-admin.md").read_text()
    assert [key for key in READERS if f"`{key}`" not in text] == []


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"nothing.conf' cannot be read: No such file"):
        read_file(tmp_path / "nothing.conf")


def test_the_command_lines_words_are_read_alike() -> None:
    assert read_value("port", "80") == 80
    assert read_value("expiry", "never") is None
    with pytest.raises(ValueError, match="port must be a whole number from 0 to 65535, not '080'"):
        read_value("port", "080")


@pytest.mark.parametrize(
    ("environment", "journal"),
    [
        ({"STATE_DIRECTORY": "/var/lib/m:/var/lib/n", "HOME": "/root"}, "/var/lib/m/journal.sqlite3"),
        ({"XDG_STATE_HOME": "/s", "HOME": "/root"}, "/s/multinode/journal.sqlite3"),
        ({"HOME": "/home/u"}, "/home/u/.local/state/multinode/journal.sqlite3"),
    ],
)
def test_where_the_journal_is_if_nobody_says_so(environment: dict[str, str], journal: str) -> None:
    assert default_journal(environment) == Path(journal)
