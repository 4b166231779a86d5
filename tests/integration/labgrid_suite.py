"""The tests of a labgrid user. They run in an environment that has labgrid, with ``--lg-env`` for the targets."""

from __future__ import annotations

from typing import Any

import pytest

TARGETS = ("left", "right")


@pytest.fixture
def shells(env: Any) -> dict[str, Any]:
    """Both targets, switched on and brought to a shell by labgrid's own drivers."""
    for target in map(env.get_target, TARGETS):
        if any(type(driver).__name__ == "QEMUDriver" for driver in target.drivers):
            target.get_driver("QEMUDriver").on()
    return {name: env.get_target(name).get_driver("ShellDriver") for name in TARGETS}


def test_targets_meet(env: Any, shells: dict[str, Any], multinode: Any) -> None:
    assert [shell.run_check("echo before") for shell in shells.values()] == [["before"], ["before"]]
    consoles = {name: env.get_target(name).get_driver("MultinodeDriver").transport for name in TARGETS}
    with multinode.start("job.yaml", consoles, play=["controller"]) as job:
        controller = job.member("controller")
        controller.send("go")
        controller.sync("end", timeout=240)
        results = job.finish()
    results.check()
    assert results.case("left-is-known", of="right").result == "pass"
    # labgrid gives a console to one driver at a time; its own gets it back at a prompt.
    again = [env.get_target(name).get_driver("ShellDriver") for name in TARGETS]
    assert [shell.run_check("echo after") for shell in again] == [["after"], ["after"]]


def test_a_console_that_is_lost_says_why(env: Any, shells: dict[str, Any], multinode: Any) -> None:
    """The left target's console ends under our run, as when a relay is pulled."""
    consoles = {name: env.get_target(name).get_driver("MultinodeDriver").transport for name in TARGETS}
    with multinode.start("job.yaml", consoles, play=["controller"]) as job:
        job.member("controller").join(timeout=240)
        console = env.get_target("left").get_driver("ConsoleProtocol")
        console._child.kill()
        console._child.communicate()
        console.status = 0  # its own close() would complain that it has gone
        results = job.finish()
    assert any("left: labgrid's console ended: " in error for error in results.errors)
