"""The job file: what a good one becomes."""

from __future__ import annotations

from pathlib import Path

import pytest
from jobtext import JOB, Edits, edited

from dispatcher.errors import FileError
from dispatcher.group.needs import Kind
from dispatcher.job import definition
from dispatcher.job.definition import load_job
from dispatcher.job.fields import AutoLogin
from dispatcher.job.requests import Request


@pytest.fixture
def job_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("job.yaml")


def test_a_job_is_read_whole(job_file: Path) -> None:
    job_file.write_text(JOB)
    job = load_job(job_file)
    assert job.path == job_file
    assert job.name == "a job"
    assert [(role.name, role.device_type, role.count, role.line) for role in job.roles] == [
        ("server", "board", 1, 8),
        ("client", "board", 2, 9),
    ]
    assert job.timeouts == definition.Timeouts(600, 300, None)
    assert job.group_timeout == 180
    boot, first, second = job.actions
    assert boot == definition.Boot(("server", "client"), ("root@board:",), None, 300, 12)
    assert isinstance(first, definition.Test)
    assert (first.roles, first.timeout, first.call_timeout, first.line) == (("server",), 300, None, 15)
    assert isinstance(second, definition.Test)
    assert (second.roles, second.timeout, second.line) == (("client",), 120, 23)
    assert [each.steps for each in second.definitions] == [("lava-wait ready",)]
    assert (job.ignored, job.notes) == ((), ())


def test_actions_go_to_their_roles_in_order(job_file: Path) -> None:
    job_file.write_text(JOB)
    job = load_job(job_file)
    assert list(job.actions_of("server")) == [job.actions[0], job.actions[1]]
    assert list(job.actions_of("client")) == [job.actions[0], job.actions[2]]


def test_a_test_may_be_repeated(job_file: Path) -> None:
    job_file.write_text(edited(JOB, {16: "    role: server\n    repeat: 3"}))
    job = load_job(job_file)
    assert list(job.actions_of("server")) == [job.actions[0], *[job.actions[1]] * 3]


def test_a_role_that_is_a_connection_takes_devices_of_that_type(job_file: Path) -> None:
    guest = "{connection: ssh, count: 2, host_role: server, expect_role: server, request: lava-start}"
    job_file.write_text(edited(JOB, {9: f"      client: {guest}"}))
    client = load_job(job_file).roles[1]
    assert (client.device_type, client.starts_after) == ("ssh", "server")
    job_file.write_text(edited(JOB, {9: "      client: {connection: ssh, count: 2, expect_role: server}"}))
    assert load_job(job_file).roles[1].starts_after is None


def test_requests_are_read_in_every_action(job_file: Path) -> None:
    lines = [
        "- {action: a, request: lava-wait-all, role: client, messageID: m, message: {k: $v}, timeout: {seconds: 5}}",
        "- {request: lava-send, messageID: n, message: {k: '', l: 012}, poll_delay: 3}",
        "- {request: lava-sync, messageID: o, timeout: 90}",
    ]
    protocols = "    protocols:\n      lava-multinode:\n" + "".join(f"      {line}\n" for line in lines)
    job_file.write_text(edited(JOB, {13: "    role: server\n" + protocols.rstrip()}))
    action = load_job(job_file).actions[0]
    assert isinstance(action, definition.Boot)
    assert action.requests == (
        Request(Kind.WAIT_ALL, "m", "client", {"k": "$v"}, 5, "job.yaml:16"),
        Request(None, "n", None, {"k": "", "l": "012"}, None, "job.yaml:17"),
        Request(Kind.SYNC, "o", None, {}, 90, "job.yaml:18"),
    )
    asked = "{lava-multinode: {action: x, request: lava-sync, messageID: o}, timeout: {minutes: 5}}"
    alone = f"    role: server\n    protocols: {asked}"
    job_file.write_text(edited(JOB, {13: alone}))
    action = load_job(job_file).actions[0]
    assert isinstance(action, definition.Boot)
    assert action.requests == (Request(Kind.SYNC, "o", None, {}, None, "job.yaml:14"),)


def test_what_yaml_takes_for_something_else_may_name_a_role(job_file: Path) -> None:
    edits: Edits = {8: "      on: {device_type: 8250, count: 1}", 9: "      012: {device_type: yes, count: 2}"}
    job_file.write_text(
        edited(JOB, {**edits, 13: "    role: [on, 012]", 16: "    role: on", 24: "    role: [012, 012]"})
    )
    job = load_job(job_file)
    assert [(role.name, role.device_type) for role in job.roles] == [("on", "8250"), ("012", "yes")]
    assert job.actions[2].roles == ("012",)


def test_a_role_may_be_any_printable_text(job_file: Path) -> None:
    name = "$(reboot)'\\\"é`>"
    quoted_name = "'" + name.replace("'", "''") + "'"
    job_file.write_text(JOB.replace("server", quoted_name))
    assert load_job(job_file).roles[0].name == name


def test_a_role_keeps_all_that_is_said_of_it(job_file: Path) -> None:
    role = (
        "{device_type: board, count: 1, essential: yes, timeout: {hours: 2}, environment: {A: yes, B: 07, C: , D: x y}}"
    )
    job_file.write_text(edited(JOB, {8: f"      server: {role}"}))
    server = load_job(job_file).roles[0]
    assert (server.essential, server.timeout) == (True, 7200)
    assert server.environment == {"A": "yes", "B": "07", "C": "", "D": "x y"}


def test_timeouts_add_their_units_up(job_file: Path) -> None:
    job_file.write_text(
        edited(JOB, {3: "  job: {days: 1, hours: 1, minutes: 1, seconds: 1.5}", 4: "  connection: {seconds: 9}"})
    )
    assert load_job(job_file).timeouts == definition.Timeouts(90061.5, None, 9)


def test_an_action_may_take_as_long_as_its_job(job_file: Path) -> None:
    job_file.write_text(edited(JOB, {25: "    timeout: {minutes: 10}"}))
    action = load_job(job_file).actions[2]
    assert isinstance(action, definition.Test)
    assert action.timeout == 600


def test_a_job_without_timeouts_has_an_hour(job_file: Path) -> None:
    job_file.write_text(edited(JOB, {2: None, 3: None, 4: None}))
    job = load_job(job_file)
    assert job.timeouts == definition.Timeouts(3600, None, None)
    assert job.actions[0] == definition.Boot(("server", "client"), ("root@board:",), None, None, 9)


@pytest.mark.parametrize(
    ("test", "role", "group", "expected"),
    [
        ("{seconds: 1}", "{seconds: 2}", "{seconds: 3}", 1),
        (None, "{seconds: 2}", "{seconds: 3}", 2),
        (None, None, "{seconds: 3}", 3),
        (None, None, None, None),
    ],
)
def test_the_nearest_word_on_a_calls_timeout_holds(
    job_file: Path, test: str | None, role: str | None, group: str | None, expected: float | None
) -> None:
    of_role = f", timeout: {role}" if role else ""
    edits: Edits = {
        8: f"      server: {{device_type: board, count: 1{of_role}}}",
        10: f"    timeout: {group}" if group else None,
        16: "    role: server" + (f"\n    lava-multinode: {{timeout: {test}}}" if test else ""),
    }
    job_file.write_text(edited(JOB, edits))
    job = load_job(job_file)
    action = job.actions[1]
    assert isinstance(action, definition.Test)
    assert job.call_timeout(action, "server") == expected
    assert job.call_timeout(action, "client") == (expected if test or not role else 3)


def test_boot_keeps_how_to_log_in(job_file: Path) -> None:
    login = "{login_prompt: 'login:', username: root, password_prompt: 'word:', password: 0123, login_commands: [su]}"
    job_file.write_text(edited(JOB, {14: f"    prompts: '# $'\n    auto_login: {login}\n    reset: off"}))
    boot = load_job(job_file).actions[0]
    assert isinstance(boot, definition.Boot)
    assert boot.prompts == ("# $",)
    assert boot.auto_login == AutoLogin("login:", "root", "word:", "0123", ("su",))
    assert not boot.reset


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("prompts: '(?u)x'", "'prompts': '(?u)x' is not a regular expression: "),
        ("prompts: 'a{99999999999}'", "'prompts': 'a{99999999999}' is not a regular expression: "),
        ("prompts: ['x', '(?:)']", "'prompts': '(?:)' matches before anything is printed"),
        ("auto_login: {login_prompt: '.*', username: x}", "'login_prompt': '.*' matches before anything is printed"),
        (
            'auto_login: {login_prompt: x, username: x, password_prompt: x, password: "x\\ny"}',
            "'password' must be one line of printable text",
        ),
    ],
)
def test_a_prompt_or_password_that_cannot_work_is_refused(job_file: Path, line: str, what: str) -> None:
    job_file.write_text(edited(JOB, {14: f"    {line}"}))
    with pytest.raises(FileError) as caught:
        load_job(job_file)
    assert caught.value.where == "job.yaml:14"
    assert caught.value.what.startswith(what)


def test_a_prompt_that_python_warns_of_is_no_error(job_file: Path) -> None:
    job_file.write_text(edited(JOB, {14: "    prompts: '[[a]b'"}))
    boot = load_job(job_file).actions[0]
    assert isinstance(boot, definition.Boot)
    assert boot.prompts == ("[[a]b",)


def test_what_is_known_and_not_used_is_told_once(job_file: Path) -> None:
    deploy = "- deploy:\n    role: server\n    to: tftp\n    kernel: {url: 'http://x/y', anything: goes}"
    other = "- deploy: {role: client, to: nfs}"
    edits: Edits = {
        1: "job_name: a job\nvisibility: public\nmetadata: {any: thing}",
        11: f"actions:\n{deploy}\n{other}",
        14: "    method: minimal\n    timeout: {seconds: 5, skip: true}",
        16: "    role: server\n    failure_retry: 2",
        24: "    role: client\n    failure_retry: 2",
    }
    job_file.write_text(edited(JOB, edits))
    job = load_job(job_file)
    assert job.ignored == (
        "'visibility' is not used (line 2)",
        "'metadata' is not used (line 3)",
        "'deploy' is skipped, it is another tool's work (line 14)",
        "'method' in boot is not used (line 21)",
        "'skip' in timeout is not used (line 22)",
        "'failure_retry' in test is not used (line 25)",
    )
    assert job.actions[:2] == (definition.Deploy(("server",), 14), definition.Deploy(("client",), 18))


def test_one_namespace_a_role_changes_nothing(job_file: Path) -> None:
    edits: Edits = {
        14: "    namespace: a",
        16: "    role: server\n    namespace: a",
        24: "    role: client\n    namespace: a",
    }
    job_file.write_text(edited(JOB, edits))
    assert load_job(job_file).ignored == (
        "'namespace' in boot is not used (line 14)",
        "'namespace' in test is not used (line 17)",
    )


def test_roles_that_have_nothing_to_do_are_noted(job_file: Path) -> None:
    nobody = "      nobody: {device_type: board, count: 0}"
    idle = "      idle: {device_type: board, count: 1}"
    job_file.write_text(edited(JOB, {9: f"      client: {{device_type: board, count: 2}}\n{nobody}\n{idle}"}))
    assert load_job(job_file).notes == (
        "role 'nobody' has no members (line 10)",
        "role 'idle' has no test action: its members leave at once (line 11)",
    )
