"""``command`` actions of a job, run on this host."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from .conftest import Multinode, job_text

pytestmark = pytest.mark.slow

Write = Callable[[str, str], Path]


def job(*actions: str | dict[str, object], said: Path) -> str:
    """A job of one role; an action that is a word is a command, ``test`` a test that says so."""
    document = yaml.safe_load(job_text({"a": [f"echo test >>{said}"]}))
    (test,) = document["actions"]
    document["actions"] = [
        test if action == "test" else {"command": {"role": "a", "name": action}} if isinstance(action, str) else action
        for action in actions
    ]
    return str(yaml.safe_dump(document, sort_keys=False))


def devices(said: Path, **more: object) -> str:
    commands = {name: f"echo {name} >>{said}" for name in ("power_on", "power_off", "hard_reset")} | {
        "users": {
            name: {"do": f"echo {name} >>{said}", "undo": f"echo un{name} >>{said}"} for name in ("relay", "light")
        }
        | more
    }
    device = {"device_type": "board", "console": {"command": "sh"}, "commands": commands}
    return str(yaml.safe_dump({"devices": {"d": device}}))


def test_commands_are_run_in_their_place_and_undone_at_the_end(
    multinode: Multinode, write: Write, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    text = job("relay", {"boot": {"role": "a", "method": "minimal"}}, "light", "test", said=said)
    ran = multinode("run", write("job.yaml", text), "--devices", write("d.yaml", devices(said)))
    assert ran.status == 0, ran.out + ran.err
    order = ["relay", "hard_reset", "light", "test", "power_off", "unlight", "unrelay"]
    assert said.read_text().split() == order


def test_a_reset_between_tests_has_the_shell_looked_for_again(
    multinode: Multinode, write: Write, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    text = job("test", "hard_reset", "test", said=said)
    ran = multinode("run", write("job.yaml", text), "--devices", write("d.yaml", devices(said)))
    assert ran.status == 0, ran.out + ran.err
    assert said.read_text().split() == ["test", "hard_reset", "test", "power_off"]
    assert ran.out.count("a shell answers on the console") == 2


def test_a_command_that_fails_ends_the_member_and_is_undone(multinode: Multinode, write: Write, tmp_path: Path) -> None:
    said = tmp_path / "said"
    broken = {"do": "echo no such relay; exit 3", "undo": f"echo undone >>{said}; false"}
    text = job("broken", "test", said=said)
    ran = multinode("run", write("job.yaml", text), "--devices", write("d.yaml", devices(said, broken=broken)))
    assert ran.status == 3
    assert "d: broken: 'echo no such relay; exit 3' ended with status 3: no such relay" in ran.err
    assert "undo of broken: " in ran.out
    assert said.read_text().split() == ["undone"]


def test_an_unknown_command_is_told_before_anything_is_opened(
    multinode: Multinode, write: Write, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    text = job("test", "rely", said=said)
    ran = multinode("check", write("job.yaml", text), "--devices", write("d.yaml", devices(said)))
    line = next(number for number, line in enumerate(text.splitlines(), 1) if "command:" in line)
    assert ran.status == 2
    assert f"job.yaml:{line}: device 'd' has no command 'rely'; did you mean 'relay'?" in ran.err
