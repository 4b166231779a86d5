"""What a line of the log says, and that no client can forge one."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest

from dispatcher.coordinator import logs
from dispatcher.coordinator.live import Notice
from dispatcher.coordinator.logs import LOGGER, LogFormat

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    before = {name: logging.getLogger(name).__dict__.copy() for name in (LOGGER, "asyncio")}
    handlers = {name: logging.getLogger(name).handlers[:] for name in before}
    yield io.StringIO()
    for name, attributes in before.items():
        logging.getLogger(name).__dict__.update(attributes)
        logging.getLogger(name).handlers[:] = handlers[name]


def test_a_line_of_text(stream: io.StringIO) -> None:
    logs.configure(LogFormat.TEXT, stream)
    logs.tell("nightly", Notice("stuck", "1 (server) waits in sync x", ("1", "2")))
    logs.tell("two wörds", Notice("opened", "the group has 2 members", ()))
    logging.getLogger(LOGGER).info("refused: %s", "no JSON", extra={"peer": ("127.0.0.1", 4711)})
    stamps, rest = zip(*(line.split(" ", 1) for line in stream.getvalue().splitlines()), strict=True)
    assert all(re.fullmatch(STAMP, stamp) for stamp in stamps)
    assert rest == (
        "WARNING group=nightly members=1,2 stuck: 1 (server) waits in sync x",
        'INFO group="two wörds" opened: the group has 2 members',
        "INFO peer=127.0.0.1:4711 refused: no JSON",
    )


def test_a_line_of_json(stream: io.StringIO) -> None:
    logs.configure(LogFormat.JSON, stream)
    logs.tell("nightly \udcff", Notice("left", "2 (client) has left: ü\n", ("2",)))
    line = json.loads(stream.getvalue())
    assert re.fullmatch(STAMP, line.pop("time"))
    assert line == {
        "level": "info",
        "group": "nightly \udcff",
        "members": ["2"],
        "kind": "left",
        "message": "2 (client) has left: ü\n",
    }


@pytest.mark.parametrize("form", LogFormat)
def test_a_client_cannot_forge_a_line_nor_stop_the_log(form: LogFormat, stream: io.StringIO) -> None:
    stream.write("")
    raw = io.BytesIO()
    logs.configure(form, io.TextIOWrapper(raw, encoding="utf-8", write_through=True))
    logs.tell("g\nINFO group=x", Notice("left", "bye\r\n2026 ERROR \x1b[31m \udcff", ("1\n2",)))
    assert raw.getvalue().count(b"\n") == 1
    assert b"\x1b" not in raw.getvalue()
    assert b"udcff" in raw.getvalue()


@pytest.mark.parametrize("form", LogFormat)
def test_a_traceback_stands_in_it(form: LogFormat, stream: io.StringIO) -> None:
    logs.configure(form, stream)
    try:
        raise ValueError("oh")
    except ValueError:
        logging.getLogger("asyncio").exception("a task failed")
    assert "ValueError: oh" in stream.getvalue()
    assert "a task failed" in stream.getvalue()
