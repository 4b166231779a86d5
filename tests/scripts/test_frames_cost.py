"""What a call costs the device and the line: processes, and bytes."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from typing import Any

import pytest
from frame_host import Host, Later, frames_settings, start
from script_harness import Device

from dispatcher.framing.events import Request

pytestmark = pytest.mark.slow

FORK = re.compile(r"^[0-9]+ +(?:clone|clone3|fork|vfork)\(", re.MULTILINE)
ONE = {"5": {"key": "value"}}


@pytest.fixture
def forks(device: Device) -> Callable[..., int]:
    """Makes a call; how many processes it started. The options are those of :func:`frame_host.start`."""
    strace = shutil.which("strace")
    if strace is None:
        complain = pytest.fail if os.environ.get("CI") else pytest.skip
        complain("strace is not installed")

    def count(name: str, *args: str, noise: bytes = b"", **options: Any) -> int:
        device.settings(**frames_settings())
        trace = device.root / "trace"
        traced = ["-f", "-e", "trace=%process", "-o", str(trace), str(device.bin / name), *args]
        host = start(device, strace or "", *traced, **options)
        if noise:
            react, host.react = host.react, noisy(host, noise)
            host.until(lambda: host.requests)
            host.react = react
        assert host.finish() == 0
        text = trace.read_text()
        assert text.count("exited with 0") > 1
        return len(FORK.findall(text))

    return count


def noisy(host: Host, noise: bytes) -> Callable[[Request], None]:
    """Types noise before each answer."""

    def react(_request: Request) -> None:
        host.call.type(noise)

    return react


def test_a_call_that_fits_a_frame_starts_four_processes_at_most(device: Device, forks: Callable[..., int]) -> None:
    assert forks("lava-send", "ready") <= 3
    assert forks("lava-send", "ready", *(f"key-{n}=value" for n in range(8))) <= 3
    for answer in (ONE, Later(ONE), Later()):
        for script in ("lava-wait", "lava-sync"):
            device.cache.write_text("old\n")
            assert forks(script, "ready", react=lambda _, a=answer: a) <= 4
    assert forks("lava-test-case", "a", "--result", "pass", "--measurement", "1", "--units", "s") <= 3


def test_lines_that_are_not_ours_and_parts_start_none(forks: Callable[..., int]) -> None:
    noise = b"[    1.234567] usb 1-1: new device\n#ceijkmnqrsuvyzEF\n$(touch x)\r\n\xff\x01<LAVA_WAIT_COMPLETE>\n" * 20
    assert forks("lava-send", "ready", noise=noise) <= 3
    data = {"5": {"k": "v" * 1000}}
    assert forks("lava-wait", "ready", react=lambda _: data) <= 3
    # Every two thousand bytes or so of one word.
    assert forks("lava-send", "ready", "k=" + "v" * 1900) <= 3
    assert forks("lava-send", "ready", "k=" + "v" * 4096) <= 5


def test_a_send_and_its_acknowledgement_stay_under_200_bytes(device: Device) -> None:
    device.settings(**frames_settings())
    host = start(device, "lava-send", "server-ready", "server-ip=192.168.100.100")
    assert host.finish() == 0
    assert len(host.heard) + sum(map(len, host.typed)) < 120
