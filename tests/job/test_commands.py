"""``command`` actions: what job and device files may say, and when each is run."""

from __future__ import annotations

from pathlib import Path

import pytest
from jobtext import DEFINITION, Edits, edited

from dispatcher.errors import FileError
from dispatcher.job.commands import check, course
from dispatcher.job.definition import HostCommand, load_job
from dispatcher.job.devices import UserCommand, assign, load_devices

JOB = edited(
    DEFINITION,
    {2: DEFINITION.splitlines()[1] + "\ntimeouts: {job: {minutes: 9}, action: {minutes: 2}}"}
    | {3: "actions:\n- command: {role: server, name: relay, timeout: {seconds: 5}}"},
)
DEVICES = """\
devices:
  b:
    device_type: board
    console: {command: sh}
    commands:
      power_on: pdu on
      users:
        relay: {do: relay on, undo: relay off}
        beep: {do: beep}
"""


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def checked(job: str = JOB, devices: str = DEVICES) -> None:
    Path("job.yaml").write_text(job)
    Path("devices.yaml").write_text(devices)
    loaded = load_job(Path("job.yaml"))
    check(loaded, assign(loaded, load_devices(Path("devices.yaml"), {"command": {"command": ""}})))


def test_a_command_and_a_devices_commands_are_read() -> None:
    checked()
    job = load_job(Path("job.yaml"))
    assert job.actions[0] == HostCommand(("server",), "relay", 5.0, "job.yaml:5")
    (device,) = load_devices(Path("devices.yaml"), {"command": {"command": ""}}).devices
    assert device.commands == {"power_on": ("pdu on",)}
    assert device.user_commands == {"relay": UserCommand("relay on", "relay off"), "beep": UserCommand("beep")}
    assert (job.ignored, job.notes) == ((), ())


@pytest.mark.parametrize(
    ("name", "what", "hint"),
    [
        ("realy", "device 'b' has no command 'realy'; did you mean 'relay'?", "commands: users: {realy: ...}"),
        ("hard_reset", "device 'b' has no command 'hard_reset'; did you mean", "commands: {hard_reset: ...}"),
    ],
)
def test_a_command_that_a_device_has_not(name: str, what: str, hint: str) -> None:
    with pytest.raises(FileError) as caught:
        checked(JOB.replace("name: relay", f"name: {name}"))
    assert caught.value.where == "job.yaml:5"
    assert caught.value.what.startswith(what)
    assert caught.value.hint == f"set it in the device file: {hint}"


@pytest.mark.parametrize(
    ("edits", "line", "what"),
    [
        ({8: "        relay: {undo: x}"}, 8, "'relay' needs the key 'do'"),
        ({8: "        relay: relay on"}, 8, "'relay' must be a mapping (key: value), not 'relay on'"),
        ({8: "        relay: {do: x, redo: y}"}, 8, "unknown key 'redo'; did you mean 'do'?"),
        ({8: "        power_on: {do: x}"}, 8, "'power_on' is one of LAVA's own commands"),
    ],
)
def test_a_bad_user_command_is_told_with_its_line(edits: Edits, line: int, what: str) -> None:
    with pytest.raises(FileError) as caught:
        checked(devices=edited(DEVICES, edits))
    assert (caught.value.where, caught.value.what) == (f"devices.yaml:{line}", what)


def named(*actions: str) -> tuple[list[str], int, list[str]]:
    """The names of early and of later commands; ``boot`` and ``test`` are what they say."""
    tests = DEFINITION.splitlines()[3:]
    text = {"boot": "- boot: {role: server}", "test": "\n".join(tests)}
    lines = [text.get(action, f"- command: {{role: server, name: {action}}}") for action in actions]
    Path("job.yaml").write_text("\n".join([*DEFINITION.splitlines()[:3], *lines]))
    early, boots, rest = course(load_job(Path("job.yaml")).actions_of("server"))
    kinds = [type(each).__name__.lower() if not isinstance(each, HostCommand) else each.name for each in rest]
    return [each.name for each in early], len(boots), kinds


def test_commands_are_run_where_they_stand() -> None:
    assert named("a", "boot", "b", "test", "c", "test", "d") == (["a"], 1, ["b", "test", "c", "test", "d"])
    assert named("a", "b", "test") == (["a", "b"], 0, ["test"])
    assert named("boot", "boot", "test", "boot", "a", "test") == ([], 2, ["test", "boot", "a", "test"])
