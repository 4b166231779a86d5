"""The metrics, read by Prometheus's own parser, and their server among hostile clients."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from coordinator_lab import Lab, in_lab
from prometheus_client.parser import text_string_to_metric_families

from dispatcher.coordinator.counters import Counters
from dispatcher.coordinator.metrics import CONNECTIONS_LIMIT, REQUEST_LIMIT, Metric, MetricsServer, metrics, render


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Name and labels' values → value."""
    families = list(text_string_to_metric_families(text))
    assert all(family.documentation for family in families)
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def test_what_a_coordinator_counts() -> None:
    async def scenario(lab: Lab) -> None:
        await lab.gather("1", "2")
        await lab.stock("3", "group_data", group="other", group_size=2)
        await lab.stock("1", "lava_send", messageID="x", message={})
        await lab.stock("2", "clear_group")
        await lab.raw(b"rubbish!")
        found = samples(render(metrics(lab.counters, lab.hall)))
        name = "multinode_coordinator_"
        assert found[f"{name}connections_accepted_total",] == 6
        assert found[f"{name}requests_total", "join"] == 3
        assert found[f"{name}requests_total", "send"] == 1
        assert found[f"{name}malformed_total", "header"] == 1
        assert found[f"{name}replies_total", "nack"] == 1
        assert found[f"{name}groups",] == 1
        assert found[f"{name}groups_forming",] == 1
        assert found[f"{name}groups_stuck",] == 0
        assert found[f"{name}members", "here"] == 1
        assert found[f"{name}members", "left"] == 1

    in_lab(scenario)


def test_a_label_may_hold_anything() -> None:
    label = 'a "quoted" \\ line\nand another, ü'
    text = render(iter([Metric("x_total", "counter", "What it is.", {label: 2}, "name")]))
    assert samples(text) == {("multinode_coordinator_x_total", label): 2.0}


def test_every_counter_is_shown_and_every_metric_documented() -> None:
    documented = (Path(__file__).parents[2] / "docs" / "coordinator-admin.md").read_text()

    async def scenario(lab: Lab) -> None:
        for metric in metrics(Counters(), lab.hall):
            assert f"`{metric.name}" in documented
        counters = Counters(*range(1, 6))
        for index, table in enumerate((counters.requests, counters.replies, counters.malformed), start=6):
            table["one"] = index
        shown = set(samples(render(metrics(counters, lab.hall))).values())
        assert set(range(1, 9)) <= shown

    in_lab(scenario)


# --- the server --------------------------------------------------------------------------------------------------


async def ask(port: int, request: bytes, *, end: bool = False) -> bytes:
    """Send something, and read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.closing(writer), contextlib.suppress(ConnectionError):
        writer.write(request)
        if end:
            writer.write_eof()
        return await reader.read()
    return b""


def served(scenario: Callable[[int], Awaitable[None]], deadline: float = 30.0) -> None:
    async def run() -> None:
        server = MetricsServer(lambda: "metric 1\n", deadline=deadline)
        port = await server.start("127.0.0.1", 0)
        try:
            async with asyncio.timeout(30):
                await scenario(port)
        finally:
            await server.stop()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("request_", "status", "body"),
    [
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n", b"200 OK", b"metric 1\n"),
        (b"GET /metrics?x=1 HTTP/1.0\r\n\r\n", b"200 OK", b"metric 1\n"),
        (b"HEAD /metrics HTTP/1.1\r\n\r\n", b"200 OK", b""),
        (b"GET / HTTP/1.1\r\n\r\n", b"404 Not Found", b"the metrics are at /metrics\n"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405 Method Not Allowed", b"only GET and HEAD\n"),
        (b"\x16\x03\x01\r\n\r\n", b"400 Bad Request", b"this is no HTTP request\n"),
        (b"GET /metrics FTP\r\n\r\n", b"400 Bad Request", b"this is no HTTP request\n"),
        (b"GET /met", b"400 Bad Request", b"this is no HTTP request\n"),
        (b"\r\n\r\n", b"400 Bad Request", b"this is no HTTP request\n"),
    ],
)
def test_answers(request_: bytes, status: bytes, body: bytes) -> None:
    async def scenario(port: int) -> None:
        head, _, rest = (await ask(port, request_, end=not request_.endswith(b"\r\n\r\n"))).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 " + status + b"\r\n")
        assert b"text/plain; version=0.0.4" in head
        assert rest == body

    served(scenario)


def test_a_client_that_sends_without_end_is_let_go() -> None:
    async def scenario(port: int) -> None:
        assert (await ask(port, b"x" * 20 * REQUEST_LIMIT))[:12] in {b"", b"HTTP/1.1 400"}

    served(scenario)


def test_a_client_that_says_nothing_is_let_go() -> None:
    async def scenario(port: int) -> None:
        assert await ask(port, b"GET") == b""

    served(scenario, deadline=0.01)


def test_a_client_too_many_is_turned_away_and_the_others_stay() -> None:
    async def scenario(port: int) -> None:
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CONNECTIONS_LIMIT)]
        assert await ask(port, b"GET /metrics HTTP/1.1\r\n\r\n") == b""
        reader, writer = idle[0]
        writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
        for _, writer in idle:
            writer.close()

    served(scenario)
