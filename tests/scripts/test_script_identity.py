"""lava-self, lava-role, lava-group: what the settings say, byte for byte."""

from __future__ import annotations

import subprocess

from script_harness import TARGET_SCRIPTS, Device

from dispatcher.resources import ALWAYS, target_scripts

HOSTILE = """$(touch$IFS'X')`touch${IFS}X`*?[a-z]"\\;&|~#!%s\\n<>{}=:é"""


def test_each_prints_what_the_settings_say(device: Device) -> None:
    assert device.run("lava-self") == (0, b"12346\n")
    assert device.run("lava-role") == (0, b"server\n")
    assert device.run("lava-role", "list") == (0, b"client\nserver\nclient\n")
    assert device.run("lava-group") == (0, b"12345\tclient\n12346\tserver\n12347\tclient\n")
    assert device.run("lava-group", "client") == (0, b"12345\n12347\n")


def test_they_print_to_stdout_for_a_command_substitution(device: Device) -> None:
    call = device.test('echo "[$(lava-self)][$(lava-role)][$(lava-role list | wc -l)]" >out')
    assert call.finish() == 0
    assert call.output == b""
    assert (device.work / "out").read_text().replace(" ", "") == "[12346][server][3]\n"


def test_a_role_that_nobody_has_gives_status_1_and_no_output(device: Device) -> None:
    for role in ("backend", "clien", "client.", "c.*", "*", "", "12345", "server\n12347"):
        assert device.run("lava-group", role) == (1, b""), role


def test_hostile_roles_are_plain_text(device: Device) -> None:
    role = HOSTILE.encode()
    for name in ("client", "2\t.x", "3\tx"):
        (device.work / name).touch()
    device.settings(ROLE=HOSTILE, GROUP=f"1\t{HOSTILE}\n2\t.*\n3\t*\n4\t5")
    assert device.run("lava-role") == (0, role + b"\n")
    assert device.run("lava-role", "list") == (0, role + b"\n.*\n*\n5\n")
    assert device.run("lava-group") == (0, b"1\t" + role + b"\n2\t.*\n3\t*\n4\t5\n")
    assert device.run("lava-group", HOSTILE) == (0, b"1\n")
    assert device.run("lava-group", ".*") == (0, b"2\n")
    assert device.run("lava-group", "*") == (0, b"3\n")
    assert not (device.work / "X").exists()


def test_the_environment_overrides_the_settings(device: Device) -> None:
    env = {"LAVA_JOB_ID": "7", "LAVA_ROLE": "$(id) '\"", "LAVA_GROUP": "7\tsolo", "IFS": "l7"}
    assert device.run("lava-self", env=env) == (0, b"7\n")
    assert device.run("lava-role", env=env) == (0, b"$(id) '\"\n")
    assert device.run("lava-group", "solo", env=env) == (0, b"7\n")


def test_the_library_is_found_beside_the_script(device: Device) -> None:
    command, *arguments = device.shell
    env = {"PATH": "/usr/bin:/bin"}
    for name, cwd in (
        ("lava-self", device.bin),
        ("./lava-self", device.bin),
        ("bin/lava-self", device.root),
        (str(device.bin / "lava-self"), device.work),
    ):
        assert device.run(command, *arguments, name, cwd=cwd, env=env) == (0, b"12346\n"), name


USAGES = [
    (("lava-self", "x"), b"usage: lava-self \n"),
    (("lava-role", "lists"), b"usage: lava-role [list]\n"),
    (("lava-role", "list", "x"), b"usage: lava-role [list]\n"),
    (("lava-group", "client", "x"), b"usage: lava-group [ROLE]\n"),
]


def test_other_arguments_are_told_how_it_is_called(device: Device) -> None:
    for words, usage in USAGES:
        assert device.run(*words) == (1, usage)


def test_make_install_brings_all_that_a_root_file_system_needs(device: Device) -> None:
    destination = device.root / "rootfs"
    subprocess.run(["make", "-s", "-C", TARGET_SCRIPTS, "install", f"DESTDIR={destination}", "PREFIX=/usr"], check=True)
    installed = destination / "usr" / "bin"
    names = {path.name for path in TARGET_SCRIPTS.glob("lava-*")} | {"lava-multi-node.version"}
    assert {path.name for path in installed.iterdir()} == names
    status, output = device.run(*device.shell, str(installed / "lava-self"), env={"LAVA_JOB_ID": "7"})
    assert (status, output) == (0, b"7\n")
    assert (installed / "lava-send").stat().st_mode & 0o777 == 0o755


def test_the_scripts_are_small_enough_for_a_serial_console() -> None:
    sizes = {name: len(content) for name, content in target_scripts().items()}
    assert sum(sizes[name] for name in ALWAYS) < 21 * 1024
    assert max(size for name, size in sizes.items() if name not in ALWAYS) < 1024


def test_the_first_line_is_the_one_that_an_installation_rewrites() -> None:
    for path in TARGET_SCRIPTS.glob("lava-*"):
        assert path.suffix == ".lib" or path.read_text().startswith("#!/bin/sh\n"), path.name
