"""lava-reboot: what it tells, in which order, and that no step begins behind it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from frame_host import Fail, Host, frames_settings, start
from script_harness import Device

BOOT_ID = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
STEP = {"LAVA_STEP": "3", "TESTRUN_ID": "0_x"}


@pytest.fixture(autouse=True)
def framing(device: Device) -> None:
    device.settings(**frames_settings())


def told(host: Host) -> list[tuple[str, ...]]:
    return [(request.name, *request.args) for request in host.requests]


def test_the_reboot_is_told_before_it_comes_and_then_nothing_else_happens(device: Device) -> None:
    device.add("zreboot", '#!/bin/sh\necho "rebooting $*"\n')
    text = "set -e\nlava-reboot zreboot\necho the next step >next\n"
    script = device.root / "test.sh"
    script.write_text(text)
    host = start(device, device.shell[0], *device.shell[1:], str(script), env=STEP)
    host.shows(b"rebooting \r\n")
    assert told(host) == [("REBOOT", "0_x", "3", BOOT_ID)]
    host.call.settle()
    assert host.call.process.poll() is None
    os.killpg(host.call.process.pid, signal.SIGKILL)  # ^C would be lost on a shell that is about to start a program
    assert host.finish() != 0
    assert told(host) == [("REBOOT", "0_x", "3", BOOT_ID)]
    assert not (device.work / "next").exists()


def test_without_a_command_it_is_reboot(device: Device) -> None:
    if "busybox" in device.shell[0]:
        pytest.skip("its shell has a reboot of its own, which would be done")
    device.add("reboot", "#!/bin/sh\nexit 9\n")
    assert start(device, "lava-reboot", env=STEP).finish() == 9


def test_a_command_that_fails_is_told_and_fails_the_step(device: Device) -> None:
    host = start(device, "lava-reboot", "sh", "-c", 'test -t 1; echo "$1" >&2; exit 7', "x", "a  b *", env=STEP)
    assert host.finish() == 7
    assert told(host) == [("REBOOT", "0_x", "3", BOOT_ID), ("REBOOT",)]
    assert host.printed == b"a  b *\nlava-reboot: the device does not reboot: status 7 of: sh\n"


def test_a_boot_that_has_no_id_is_told_without(device: Device) -> None:
    host = start(device, "lava-reboot", "false", env={**STEP, "LAVA_PROC": "/nonexistent"})
    assert host.finish() == 1
    assert told(host) == [("REBOOT", "0_x", "3"), ("REBOOT",)]


def test_what_the_dispatcher_refuses_is_not_done(device: Device) -> None:
    refusal = {"REBOOT 0_x": Fail("the device reboots already")}
    host = start(device, "lava-reboot", "touch", "rebooted", react=refusal, env=STEP)
    assert (host.finish(), host.printed) == (1, b"lava-reboot: the device reboots already\n")
    assert not (device.work / "rebooted").exists()


@pytest.mark.parametrize(
    ("framing", "step", "why"),
    [
        ("2", {}, b"only a step under run: can reboot the device"),
        ("2", {"LAVA_STEP": "two"}, b"only a step under run: can reboot the device"),
        ("1", STEP, b"this dispatcher does not go on after a reboot"),
    ],
)
def test_where_no_test_would_go_on_it_refuses_at_once(
    device: Device, framing: str, step: dict[str, str], why: bytes
) -> None:
    device.settings(**frames_settings(FRAMING=framing))
    assert device.run("lava-reboot", "touch", "rebooted", env=step) == (1, b"lava-reboot: " + why + b"\n")
    assert not (device.work / "rebooted").exists()
