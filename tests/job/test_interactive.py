"""``test: interactive:``: what a job may say."""

from __future__ import annotations

from pathlib import Path

import pytest
from jobtext import DEFINITION, edited, job_of, refused

from dispatcher.job import definition
from dispatcher.job.interactive import Command, Delay, Failure, GroupCall, Script, filled

INTERACTIVE = (
    edited(DEFINITION, dict.fromkeys(range(6, 12)))
    + """\
    interactive:
    - name: network
      prompts: ['=> ']
      echo: discard
      script:
      - command: dhcp
        name: dhcp
        successes: [{message: 'address (?P<IP>[0-9.]+)'}]
        failures:
        - {message: TIMEOUT, exception: InfrastructureError, error: no network}
        - {message: abort}
      - command:
      - {lava-send: 'ready ip={IP}'}
      - {lava-wait-all: 'go role=server'}
      - {delay: 2}
      - {command: '', wait_for_prompt: false, successes: [{message: bye}]}
"""
)


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_script_is_read() -> None:
    job = job_of(INTERACTIVE)
    (test,) = job.actions
    assert isinstance(test, definition.Test)
    failures = (Failure("TIMEOUT", "InfrastructureError", "no network"), Failure("abort"))
    assert test.scripts == (
        Script(
            "network",
            ("=> ",),
            True,
            (
                Command("dhcp", "dhcp", ("address (?P<IP>[0-9.]+)",), failures, True),
                Command(None, None, (), (), True),
                GroupCall("lava-send", ("ready", "ip={IP}"), "job.yaml:18"),
                GroupCall("lava-wait-all", ("go", "role=server"), "job.yaml:19"),
                Delay(2.0),
                Command("", None, ("bye",), (), False),
            ),
        ),
    )
    assert (job.ignored, job.notes) == ((), ())


def test_what_lava_passes_over_is_told() -> None:
    job = job_of(edited(INTERACTIVE, {20: "      - {delay: 2, command: x, name: y}"}))
    assert job.ignored == (
        "'command' beside 'delay' is not used (line 20)",
        "'name' beside 'delay' is not used (line 20)",
    )


@pytest.mark.parametrize(
    ("edits", "line", "what"),
    [
        ({9: "      echo: keep"}, 9, "'echo' has the unknown value 'keep'; did you mean 'discard'?"),
        ({8: "      prompts: '=> '"}, 8, "'prompts' must be a list, not '=> '"),
        ({8: "      prompts: ['[']"}, 8, "a prompt: '[' is not a regular expression"),
        ({8: "      prompts: []"}, 11, "this command waits for a prompt, of which its script has none"),
        (
            {8: "      prompts: []", 11: "      - command:", **dict.fromkeys(range(12, 17))},
            11,
            "this command waits for nothing",
        ),
        ({11: "      - comand: dhcp"}, 11, "unknown key 'comand'; did you mean 'command'?"),
        ({11: "      - name: x", 12: None}, 11, "an entry of a script does nothing"),
        ({11: "      - command: 'ping {SERVER_IP}'"}, 11, "'command' holds {SERVER_IP}, which is not known here"),
        ({15: "        - {message: T, exception: Error}"}, 15, "'exception' has the unknown value 'Error'; did you"),
        ({18: "      - {lava-send: 'ready ip'}"}, 18, "lava-send: 'ip' is not key=value"),
        ({18: "      - {lava-send: ''}"}, 18, "lava-send: there is no message ID"),
        ({18: "      - {lava-wait: 'a b'}"}, 18, "lava-wait: it does not take 'b'"),
        ({19: "      - {lava-wait-all: 'go server'}"}, 19, "lava-wait-all: it does not take 'server'; write role=ROLE"),
        (
            {19: "      - {lava-wait-all: 'go role=sever'}"},
            19,
            "lava-wait-all: unknown role 'sever'; did you mean 'server'?",
        ),
        ({20: "      - {delay: -1}"}, 20, "'delay' must be a number from 0 to 86400, not '-1'"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(edits: dict[int, str | None], line: int, what: str) -> None:
    error = refused(edited(INTERACTIVE, edits))
    assert (error.where, error.what[: len(what)]) == (f"job.yaml:{line}", what)


def test_what_is_known_takes_its_place() -> None:
    values = {"IP": "10.0.0.2 {JOB_ID}", "JOB_ID": "3", "EMPTY": ""}
    assert filled("ping {IP} ${x} {OTHER} {JOB_ID}[{EMPTY}] {", values) == "ping 10.0.0.2 {JOB_ID} ${x} {OTHER} 3[] {"
