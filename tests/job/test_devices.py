"""The device file: what a good one becomes, what a bad one is told, and which device plays which role."""

from __future__ import annotations

from pathlib import Path

import pytest

from dispatcher.errors import FileError
from dispatcher.job.definition import Job, load_job
from dispatcher.job.devices import Device, Devices, assign, load_devices
from dispatcher.job.fields import AutoLogin

TRANSPORTS = {
    "serial": {"serial": "a path", "baudrate": "bits a second", "dtr": "a line", "rts": "a line", "hupcl": "a line"},
    "command": {"command": "a program"},
}


def load(text: str) -> Devices:
    Path("devices.yaml").write_text(text)
    return load_devices(Path("devices.yaml"), TRANSPORTS)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


WHOLE = """\
devices:
  panda01:
    device_type: panda
    console: {serial: /dev/ttyUSB0, baudrate: 115200, rts: off}
    prompts: ['root@panda:', '# $']
    auto_login: {login_prompt: 'login:', username: root, password_prompt: 'Password:', password: root}
    commands: {power_on: pdu on 1, hard_reset: [pdu off 1, pdu on 1], soft_reboot: reboot}
    character_delay: 5
    dtr: yes
    environment: {LANG: C, N: 07}
    lava_test_sh_cmd: /bin/bash
    lava_test_results_dir: /var/tmp/lava-%s
    console_loglevel: 4
    tags: [usb]
  local:
    device_type: shell
    count: 3
    console: {command: sh -i}
"""


def test_a_device_is_read_whole() -> None:
    devices = load(WHOLE)
    assert devices.path == Path("devices.yaml")
    assert devices.devices[0] == Device(
        name="panda01",
        device_type="panda",
        transport="serial",
        config={"serial": "/dev/ttyUSB0", "baudrate": 115200, "rts": False, "dtr": True},
        line=2,
        prompts=("root@panda:", "# $"),
        auto_login=AutoLogin("login:", "root", "Password:", "root"),
        commands={"power_on": ("pdu on 1",), "hard_reset": ("pdu off 1", "pdu on 1")},
        character_delay=0.005,
        environment={"LANG": "C", "N": "07"},
        lava_test_sh_cmd="/bin/bash",
        results_dir="/var/tmp/lava-%s",
        console_loglevel=4,
    )
    assert devices.ignored == (
        "'tags' in device is not used (line 14)",
        "'soft_reboot' in commands is not used (line 7)",
    )


def test_one_entry_may_stand_for_many_devices() -> None:
    _, *local = load(WHOLE).devices
    assert local == [
        Device(f"local-{number}", "shell", "command", {"command": "sh -i"}, line=15) for number in (1, 2, 3)
    ]
    assert (local[0].lava_test_sh_cmd, local[0].results_dir) == ("", "/tmp/lava-%s")


def entry(*lines: str) -> str:
    """A device file of one device with a console, and what else is said of it."""
    return "".join(f"{line}\n" for line in ("devices:", "  one:", "    device_type: board", *lines))


CONSOLE = "    console: {command: sh}"

BAD = [
    ("", None, "the file is empty", None),
    ("device: {}", 1, "unknown key 'device'; did you mean 'devices'?", None),
    ("devices:\n  a: {}\n  a: {}", 3, "key 'a' stands twice: in line 2 and in line 3", None),
    ("devices:", 1, "the file needs the key 'devices'", None),
    ("devices: {}", 1, "the file has no devices", None),
    ("devices: [a]", 1, "'devices' must be a mapping (key: value), not a list", None),
    ("devices: {one: }", 1, "'one' must be a mapping (key: value), not empty", None),
    (entry(), 2, "'one' needs the key 'console'", None),
    (f"devices:\n  one:\n{CONSOLE}\n", 2, "'one' needs the key 'device_type'", None),
    (entry(CONSOLE, "    promts: x"), 5, "unknown key 'promts'; did you mean 'prompts'?", None),
    (entry("    console: sh"), 4, "'console' must be a mapping (key: value), not 'sh'", None),
    (entry("    console: {}"), 4, "'console' names no transport", "name one of: command, serial"),
    (entry("    console: {baudrate: 9600}"), 4, "'console' names no transport", "name one of: command, serial"),
    (
        entry("    console:", "      baudrate: 9600", "      serail: /dev/ttyS0"),
        6,
        "unknown transport 'serail'; did you mean 'serial'?",
        "installed are: command, serial",
    ),
    (
        entry("    console:", "      serial: x", "      command: y"),
        6,
        "'console' names two transports, 'serial' and 'command'",
        "a console is reached in one way",
    ),
    (
        entry("    console: {serial: x, baudrat: 1}"),
        4,
        "unknown option 'baudrat' of 'serial'; did you mean 'baudrate'?",
        None,
    ),
    (
        entry("    console: {command: sh, baudrate: 1}"),
        4,
        "unknown option 'baudrate' of 'command'; did you mean 'command'?",
        None,
    ),
    (entry("    console: {serial: }"), 4, "'serial' is empty", None),
    (entry("    console: {serial: [x]}"), 4, "'serial' must be a word or a number, not a list", None),
    (entry("    console: {serial: x, baudrate: }"), 4, "'baudrate' is empty", None),
    (entry("    console: {serial: x, baudrate: [9600]}"), 4, "'baudrate' must be a word or a number, not a list", None),
    (entry(CONSOLE, "    dtr: on"), 5, "a console with the transport 'command' has no 'dtr'", None),
    (
        entry("    console: {serial: x, rts: on}", "    rts: off"),
        5,
        "'rts' stands inside 'console' and beside it",
        "remove one of the two",
    ),
    (entry(CONSOLE, "    count: 0"), 5, "'count' must be a whole number from 1 to 1000, not '0'", None),
    (entry(CONSOLE, "    count: 1001"), 5, "'count' must be a whole number from 1 to 1000, not '1001'", None),
    (
        entry(CONSOLE, "    prompts: ['ok', '*']"),
        5,
        "'prompts': '*' is not a regular expression: nothing to repeat at position 0",
        "put a backslash before a bracket, star or plus that means itself",
    ),
    (
        entry(CONSOLE, "    prompts: 'a*'"),
        5,
        "'prompts': 'a*' matches before anything is printed",
        "name some text that must be there",
    ),
    (
        entry(CONSOLE, "    character_delay: -1"),
        5,
        "'character_delay' must be a number from 0 to 10000, not '-1'",
        None,
    ),
    (
        entry(CONSOLE, "    console_loglevel: 0"),
        5,
        "'console_loglevel' must be a whole number from 1 to 8, not '0'",
        None,
    ),
    (entry(CONSOLE, "    commands: {poweron: x}"), 5, "unknown key 'poweron'; did you mean 'power_on'?", None),
    (entry(CONSOLE, "    commands: {power_on: []}"), 5, "'power_on' is empty", None),
    (
        entry(CONSOLE, "    environment: {1A: x}"),
        5,
        "'1A' in 'environment' is not a name that a shell gives a variable",
        "use letters, digits and underscores, and no digit first",
    ),
    (
        entry(CONSOLE, "    lava_test_sh_cmd: sh -x"),
        5,
        "'sh -x' is not the path of a shell",
        "write it like /bin/sh, without arguments",
    ),
    (
        entry(CONSOLE, "    lava_test_results_dir: /tmp/lava"),
        5,
        "'/tmp/lava' cannot be the directory of a test",
        "write it like /tmp/lava-%s, with letters, digits, and one %s for the member's id",
    ),
    (
        f"devices:\n  a b:\n    device_type: x\n{CONSOLE}\n",
        2,
        "a device cannot be named 'a b'",
        "use any printable characters but white space",
    ),
    (
        "devices:\n  a-1: &a {device_type: x, console: {command: sh}}\n  a: {<<: *a, count: 2}\n",
        3,
        "two devices are named 'a-1': in line 2 and in line 3",
        None,
    ),
]


@pytest.mark.parametrize(("text", "line", "what", "hint"), BAD)
def test_a_bad_device_file_is_told_where_it_is_wrong(text: str, line: int | None, what: str, hint: str | None) -> None:
    with pytest.raises(FileError) as caught:
        load(text)
    where = "devices.yaml" if line is None else f"devices.yaml:{line}"
    assert (caught.value.where, caught.value.what, caught.value.hint) == (where, what, hint)


@pytest.mark.parametrize("path", ["/a b", "/tmp/%s%s", "/tmp/%d", "tmp/%s", "/tmp/'%s", "/tmp/$x%s", "/tmp/%s\\n"])
def test_a_results_directory_needs_no_quotes(path: str) -> None:
    with pytest.raises(FileError) as caught:
        load(entry(CONSOLE, f"    lava_test_results_dir: {path!r}"))
    assert caught.value.where == "devices.yaml:5"


# --- who plays what ------------------------------------------------------------------------------------------


def job(*roles: tuple[str, str, int]) -> Job:
    lines = "".join(f"      {name}: {{device_type: {kind}, count: {count}}}\n" for name, kind, count in roles)
    test = "- test: {role: [%s], definitions: [{from: inline, name: x, repository: {run: {steps: [a]}}}]}\n"
    names = ", ".join(name for name, _, _ in roles)
    head = "job_name: x\nprotocols:\n  lava-multinode:\n    roles:\n"
    Path("job.yaml").write_text(f"{head}{lines}actions:\n{test % names}")
    return load_job(Path("job.yaml"))


def boards(*types: str) -> Devices:
    return load(
        "devices:\n" + "".join(f"  d{n}: {{device_type: {t}, console: {{command: sh}}}}\n" for n, t in enumerate(types))
    )


def test_roles_take_devices_of_their_type_in_the_files_order() -> None:
    placements = assign(job(("b", "y", 1), ("a", "x", 2), ("nobody", "z", 0), ("c", "y", 1)), boards(*"xyxyx"))
    assert [(each.role.name, each.device.name) for each in placements] == [
        ("b", "d1"),
        ("a", "d0"),
        ("a", "d2"),
        ("c", "d3"),
    ]


@pytest.mark.parametrize(
    ("roles", "types", "line", "what", "hint"),
    [
        (
            [("a", "x", 3)],
            "xyx",
            5,
            "role 'a' needs 3 of type 'x', and there are only 2",
            "devices.yaml has 2 of that type",
        ),
        (
            [("a", "x", 1), ("b", "x", 2)],
            "xx",
            6,
            "role 'b' needs 2 of type 'x', and there are only 1",
            "devices.yaml has 2 of that type, of which other roles take 1",
        ),
        (
            [("a", "boad", 1)],
            ["board", "b"],
            5,
            "role 'a' needs a device of the unknown type 'boad'; did you mean 'board'?",
            "the devices are in devices.yaml",
        ),
        (
            [("a", "x", 10_000)],
            "x",
            5,
            "role 'a' needs 10000 of type 'x', and there are only 1",
            "devices.yaml has 1 of that type",
        ),
    ],
)
def test_too_few_devices_are_told(
    roles: list[tuple[str, str, int]], types: str | list[str], line: int, what: str, hint: str
) -> None:
    with pytest.raises(FileError) as caught:
        assign(job(*roles), boards(*types))
    assert (caught.value.where, caught.value.what, caught.value.hint) == (f"job.yaml:{line}", what, hint)


@pytest.mark.parametrize(
    ("system", "said", "shell"),
    [
        ("os: debian", "", "/bin/bash"),
        ("os: android", "", "/system/bin/sh"),
        ("os: oe", "", "/bin/sh"),
        ("to: nfs", "", "/bin/sh"),
        ("os: debian", "lava_test_sh_cmd: /bin/dash", "/bin/dash"),
    ],
)
def test_the_system_that_is_deployed_chooses_the_shell_of_the_tests(system: str, said: str, shell: str) -> None:
    text = job(("a", "shell", 1)).path.read_text()
    Path("job.yaml").write_text(text.replace("actions:\n", f"actions:\n- deploy: {{role: a, {system}}}\n"))
    [placed] = assign(load_job(Path("job.yaml")), load(entry(CONSOLE, f"    {said}").replace("board", "shell")))
    assert placed.device.lava_test_sh_cmd == shell


def test_a_roles_context_changes_its_devices() -> None:
    context = "{test_character_delay: 30, lava_test_results_dir: /data/lava-%s, arch: amd64}"
    placed = job(("a", "shell", 1), ("b", "shell", 1))
    text = placed.path.read_text()
    placed.path.write_text(text.replace("count: 1", f"count: 1, context: {context}", 1))
    changed = load_job(placed.path)
    assert [note.split(" (")[0] for note in changed.ignored] == ["'arch' in context is not used"]
    first, second = assign(changed, load(WHOLE))
    assert (first.device.character_delay, first.device.results_dir) == (0.03, "/data/lava-%s")
    assert (second.device.character_delay, second.device.results_dir) == (0.0, "/tmp/lava-%s")
