"""The pytest fixture: the example of its page, and what a user's mistakes look like."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```\w+\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MEETING = """\
job_name: meeting
timeouts: {job: {minutes: 4}}
protocols: {lava-multinode: {roles: {board: {device_type: board, count: 1}}}}
actions:
- test:
    role: board
    definitions:
    - name: meet
      from: inline
      path: inline/meet.yaml
      repository:
        metadata: {format: Lava-Test Test Definition 1.0, name: meet}
        run: {steps: [STEPS]}
"""


@pytest.fixture
def written(pytester: pytest.Pytester) -> pytest.Pytester:
    """A directory with the files of the page."""
    for name, content in BLOCK.findall((ROOT / "docs" / "pytest.md").read_text()):
        (pytester.path / name).write_text(content)
    return pytester


def run(pytester: pytest.Pytester, **tests: str) -> pytest.RunResult:
    if tests:
        pytester.makepyfile(**tests)
    return pytester.runpytest_subprocess("-W", "error", "-p", "no:cacheprovider")


@pytest.mark.slow
def test_the_example_of_the_page(written: pytest.Pytester) -> None:
    run(written).assert_outcomes(passed=2)


@pytest.mark.slow
def test_what_failed_is_shown(pytester: pytest.Pytester) -> None:
    (pytester.path / "job.yaml").write_text(MEETING.replace("STEPS", "lava-wait-all never nobody"))
    told = run(
        pytester,
        test_it="""
        from dispatcher.console.command import CommandTransport

        def test_it(multinode):
            results = multinode.run("job.yaml", {"board": CommandTransport("left", {"command": "sh"})})
            assert [case.name for case in results.failures] == ["multinode-wait_all-never", "0_meet"]
            results.check()
        """,
    )
    told.assert_outcomes(failed=1)
    told.stdout.fnmatch_lines(["E*1 0_meet multinode-wait_all-never: fail (no member has the role 'nobody'*"])


@pytest.mark.slow
def test_whoever_leaves_is_told_to_the_others(pytester: pytest.Pytester) -> None:
    """The board waits for what the test never sends; the test's end is the board's."""
    (pytester.path / "job.yaml").write_text(MEETING.replace("STEPS", "lava-send here n=1, lava-wait-all go"))
    run(
        pytester,
        test_it="""
        import pytest
        from dispatcher.console.command import CommandTransport
        from dispatcher.errors import CallRefused

        def test_it(multinode):
            board = CommandTransport("left", {"command": "sh"})
            with multinode.start("job.yaml", {"board": board}, play=["me"]) as job:
                me = job.member("me")
                assert me.wait("here", timeout=240) == {"1": {"n": "1"}}
                assert [str(member) for member in me.members] == ["1 (board)", "2 (me)"]
                assert (me.id, me.role) == ("2", "me")
                with pytest.raises(CallRefused, match="is no message ID"):
                    me.send("a=b")
                results = job.finish(timeout=240)
            reason = results.case("multinode-wait_all-go").metadata["reason"]
            assert "2 (me), who has left: its test has ended" in reason

        def test_the_boards_end_is_told(multinode):
            board = CommandTransport("left", {"command": "true"})
            with multinode.start("job.yaml", {"board": board}, play=["me"]) as job:
                with pytest.raises(CallRefused, match="'true' ended"):
                    job.member("me").wait("never")
                assert not job.finish().passed
        """,
    ).assert_outcomes(passed=2)


def test_mistakes_are_told_before_anything_is_opened(pytester: pytest.Pytester) -> None:
    (pytester.path / "job.yaml").write_text(MEETING.replace("STEPS", "lava-self"))
    run(
        pytester,
        test_it="""
        import pytest
        from dispatcher.console.command import CommandTransport
        from dispatcher.errors import UserError

        def test_it(multinode):
            console = CommandTransport("left", {"command": "true"})
            for devices, what in (
                ({"board": [console, console]}, "'board' has 1 members, and 2 consoles"),
                ({}, "'board' has 1 members, and 0 consoles"),
                ({"board": console, "plank": console}, "no role plank"),
                (None, "no device file"),
            ):
                with pytest.raises(UserError, match=what):
                    multinode.run("job.yaml", devices)
            with multinode.start("job.yaml", {"board": console}, play=["me"]) as job:
                with pytest.raises(UserError, match="does not play 'board' number 0; it plays 1 me"):
                    job.member("board")
                job.finish()
        """,
    ).assert_outcomes(passed=1)


def test_the_plugin_imports_nothing_before_it_is_asked() -> None:
    loaded = "[name for name in sys.modules if name.startswith('dispatcher') or name in ('yaml', 'pexpect', 'serial')]"
    program = f"import sys, pytest, dispatcher.integration.pytest_plugin; print({loaded})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "['dispatcher', 'dispatcher.integration', 'dispatcher.integration.pytest_plugin']\n"
