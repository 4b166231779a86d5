"""The other helpers of a test definition: what they tell the dispatcher, and what they do on the device."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from script_harness import Device


def told(name: str, params: str) -> bytes:
    return f"<LAVA_SIGNAL_{name} {params}>\n".encode()


@pytest.mark.parametrize(
    ("call", "status", "expected"),
    [
        (["lava-test-set", "start", "net.1"], 0, told("TESTSET", "START net.1")),
        (["lava-test-set", "stop"], 0, told("TESTSET", "STOP")),
        (["lava-test-set", "stop", "net.1"], 0, told("TESTSET", "STOP")),
        (
            ["lava-test-reference", "doc", "--reference", "http://host/a?b=c", "--result", "skip"],
            0,
            told("TESTREFERENCE", "doc skip http://host/a?b=c"),
        ),
        (["lava-test-raise", "no", "network here"], 1, told("TESTRAISE", "no network here")),
        (["lava-test-event", "half way"], 0, told("TESTEVENT", "half way")),
        (["lava-test-feedback", "--namespace", "host"], 0, b""),
        (["lava-test-case", "x", "--result", "PASS"], 0, told("TESTCASE", "TEST_CASE_ID=x RESULT=PASS")),
    ],
)
def test_what_a_helper_tells(device: Device, call: list[str], status: int, expected: bytes) -> None:
    assert device.run(*call) == (status, expected)


WRONG = [
    ["lava-test-set"],
    ["lava-test-set", "start"],
    ["lava-test-set", "stop", "net", "x"],
    ["lava-test-reference", "doc", "--result", "pass"],
    ["lava-test-reference", "doc", "--result", "passed", "--reference", "u"],
    ["lava-test-reference", "doc", "--result", "pass", "--result", "pass"],
    ["lava-test-raise"],
    ["lava-test-raise", ""],
    ["lava-test-event"],
    ["lava-test-event", "a", "b"],
    ["lava-test-feedback", "host"],
    ["lava-background-process-start", "x", "sleep"],
    ["lava-background-process-stop"],
    ["lava-echo-config", "a", "b"],
    ["lava-target-ip", "eth0"],
    ["lava-target-storage", "a", "b"],
    ["lava-os-build", "x"],
    ["lava-install-packages"],
    ["lava-add-sources"],
    ["lava-add-keys"],
    ["lava-test-case", "x", "--result", "Pass"],
    ["lava-test-case", "x", "--result", "pass fail"],
]


def test_a_wrong_call_is_told_how_it_is_right_and_tells_nothing(device: Device) -> None:
    for name, *words in WRONG:
        status, output = device.run(name, *words)
        assert (status, output.startswith(f"usage: {name} ".encode())) == (1, True), output
        assert b"<LAVA" not in output


def test_the_result_words_of_a_definition_take_the_place_of_the_usual_ones(device: Device) -> None:
    words = {"LAVA_RESULT_WORDS": "OK NOK"}
    told_nok = told("TESTCASE", "TEST_CASE_ID=x RESULT=NOK")
    assert device.run("lava-test-case", "x", "--result", "NOK", env=words) == (0, told_nok)
    assert device.run("lava-test-case", "x", "--result", "PASS", env=words)[0] == 1
    assert device.run("lava-test-case", "x", "--result", "pass", env=words)[0] == 0


@pytest.mark.parametrize(
    ("script", "variable", "value"),
    [
        ("lava-target-ip", "TARGET_DEVICE_IP", "10.0.0.7"),
        ("lava-target-mac", "TARGET_DEVICE_MAC", "00:11:22:33:44:55"),
        ("lava-probe-ip", "PROBE_DEVICE_IP", "10.0.0.8"),
        ("lava-probe-channel", "PROBE_DEVICE_CHANNEL", "3"),
    ],
)
def test_what_the_device_file_says_is_printed(device: Device, script: str, variable: str, value: str) -> None:
    assert device.run(script, env={variable: value}) == (0, value.encode() + b"\n")
    status, output = device.run(script)
    assert status == 1
    assert variable.encode() in output


def test_the_shared_config_by_device(device: Device) -> None:
    env = {"LAVA_SHARED_CONFIG": "relay1 10.0.0.9 port *\nrelay10 x\nrelay1 more\\n"}
    assert device.run("lava-echo-config", env=env) == (0, env["LAVA_SHARED_CONFIG"].encode() + b"\n")
    assert device.run("lava-echo-config", "relay1", env=env) == (0, b"10.0.0.9 port *\nmore\\n\n")
    assert device.run("lava-echo-config", "relay", env=env)[0] == 1
    assert device.run("lava-echo-config")[0] == 1


def test_the_storage_by_method(device: Device) -> None:
    env = {"LAVA_STORAGE": "\tUMS\t/dev/disk/by-id/usb-1\n\tSATA\t/dev/sda"}
    assert device.run("lava-target-storage", "SATA", env=env) == (0, b"/dev/sda\n")
    assert device.run("lava-target-storage", "SAT.", env=env) == (1, b"")


def test_the_system_names_itself(device: Device) -> None:
    status, output = device.run("lava-os-build")
    assert status == 0
    assert output.strip()


def test_a_background_process_runs_until_it_is_stopped_with_all_that_it_started(device: Device) -> None:
    results = device.root / "results-of-test"
    results.mkdir()
    os.mkfifo(device.work / "alive")
    call = device.test(
        "lava-background-process-start server --cmd 'exec >alive; sleep 1000 & sleep 1000'\n"
        "read -r go; lava-background-process-stop server; lava-background-process-stop server\n"
        "lava-background-process-stop other; echo ended $?",
        env={"LAVA_RESULT_DIR": str(results)},
    )
    # Opens once the process has the other end open, so that it surely runs; ends once nobody has it any more.
    with (device.work / "alive").open("rb") as alive:
        call.type(b"\n")
        assert alive.read() == b""
    assert b"nothing was started under the name: other" in call.expect(b"ended 0\r\n")
    assert call.finish() == 0


def test_a_background_processes_name_stays_in_the_directory(device: Device) -> None:
    for name in ("../x", "", "a/../../x"):
        env = {"LAVA_RESULT_DIR": str(device.work)}
        assert device.run("lava-background-process-start", name, "--cmd", "true", env=env)[0] == 1
    assert device.run("lava-background-process-start", "x", "--cmd", "true")[0] == 1
    assert list(device.work.iterdir()) == []


FAKE = '#!/bin/sh\nprintf "%s\\n" "${0##*/} $*" >>"$LOG"\n'


@pytest.fixture
def log(device: Device) -> Path:
    """What the fake programs of the device were called with."""
    for name in ("apt-get", "add-apt-repository", "gpg", "dpkg-query"):
        device.add(name, FAKE)
    return device.root / "log"


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (["lava-install-packages", "vim", "g++"], ["apt-get update -q", "apt-get install -y -q vim g++"]),
        (["lava-add-sources", "ppa:x"], ["add-apt-repository -y ppa:x"]),
        (
            ["lava-add-keys", "ABCD"],
            [
                "gpg --batch --recv-keys ABCD",
                "gpg --batch --yes --output /etc/apt/trusted.gpg.d/lava.gpg --export ABCD",
            ],
        ),
        (["lava-installed-packages"], ["dpkg-query -W -f package:${package}:${version}\\n"]),
    ],
)
def test_the_package_manager_is_asked(device: Device, log: Path, call: list[str], expected: list[str]) -> None:
    assert device.run(*call, env={"LOG": str(log)})[0] == 0
    assert log.read_text().splitlines() == expected


def test_an_installation_that_fails_is_tried_five_times(device: Device, log: Path) -> None:
    device.add("apt-get", FAKE + '[ "$1" = update ]\n')
    status, output = device.run("lava-install-packages", "vim", env={"LOG": str(log), "LAVA_INSTALL_PAUSE": "0"})
    assert status == 1
    assert b"try 5 of 5 failed" in output
    assert log.read_text().splitlines().count("apt-get install -y -q vim") == 5


def test_a_system_without_a_package_manager_goes_on_without(device: Device) -> None:
    bare = device.root / "bare"
    bare.mkdir()
    (bare / "printf").symlink_to("/usr/bin/printf")  # mksh's is no builtin
    status, output = device.run("lava-install-packages", "vim", env={"PATH": str(bare)})
    assert status == 0
    assert b"are not installed unless the image brings them: vim" in output


def test_virtual_machines_meet_their_host(device: Device) -> None:
    call = device.start("lava-start-vms", env={"_LAVA_VM_GROUP_HOST_IP": "10.0.0.1"})
    assert call.finish() == 0
    assert b"<LAVA_MULTI_NODE> <LAVA_SEND lava_vm_start host_ip=10.0.0.1>" in call.output
    call = device.start("lava-wait-for-vms")
    call.expect(b"<LAVA_MULTI_NODE> <LAVA_SEND lava_vm_stop>\r\n")
    call.answer(b"WAIT_ALL lava_vm_stop", b"<LAVA_WAIT_ALL_COMPLETE>")
    assert call.finish() == 0
