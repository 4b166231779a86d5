"""The job file: what a good one becomes, and what a bad one is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from dispatcher.errors import FileError
from dispatcher.job import definition
from dispatcher.job.definition import load_job
from dispatcher.job.fields import AutoLogin

BASE = """\
job_name: a job
timeouts:
  job: {minutes: 10}
  action: {minutes: 5}
protocols:
  lava-multinode:
    roles:
      server: {device_type: board, count: 1}
      client: {device_type: board, count: 2}
    timeout: {minutes: 3}
actions:
- boot:
    role: [server, client]
    prompts: ['root@board:']
- test:
    role: server
    definitions:
    - from: inline
      name: first
      repository:
        run:
          steps: [lava-send ready]
- test:
    role: client
    timeout: {minutes: 2}
    definitions:
    - from: inline
      name: second
      repository:
        run:
          steps: [lava-wait ready]
"""

Edits = dict[int, str | None]

BAD: list[tuple[str, Edits, int, str, str | None]] = [
    ("misspelt key", {2: "timeuots:"}, 2, "unknown key 'timeuots'; did you mean 'timeouts'?", None),
    (
        "misspelt key 2",
        {8: "      server: {devicetype: board, count: 1}"},
        8,
        "unknown key 'devicetype'; did you mean 'device_type'?",
        None,
    ),
    ("far key", {1: "job_name: a\nxyz: 1"}, 2, "unknown key 'xyz'; did you mean 'notify'?", None),
    (
        "no protocols",
        {5: None, 6: None, 7: None, 8: None, 9: None, 10: None},
        1,
        "this is no MultiNode job: it has no 'protocols: lava-multinode:'",
        "name the roles under protocols: lava-multinode: roles:, as LAVA does",
    ),
    (
        "no multinode",
        {6: "  lava-lxc:"},
        1,
        "this is no MultiNode job: it has no 'protocols: lava-multinode:'",
        "name the roles under protocols: lava-multinode: roles:, as LAVA does",
    ),
    ("no roles", {7: None, 8: None, 9: None}, 6, "'lava-multinode' needs the key 'roles'", None),
    (
        "role twice",
        {9: "      server: {device_type: board, count: 2}"},
        9,
        "key 'server' stands twice: in line 8 and in line 9",
        None,
    ),
    ("unknown role", {16: "    role: sever"}, 16, "unknown role 'sever'; did you mean 'server'?", None),
    (
        "unknown role list",
        {13: "    role:\n    - server\n    - clinet"},
        15,
        "unknown role 'clinet'; did you mean 'client'?",
        None,
    ),
    (
        "no role",
        {16: "    timeout: {minutes: 1}"},
        15,
        "'test' names no role",
        "every action of a MultiNode job needs role:",
    ),
    ("empty role", {16: "    role: []"}, 16, "'role' is empty", None),
    ("null role", {16: "    role:"}, 16, "'role' is empty", None),
    (
        "role ws",
        {8: "      'my server': {device_type: board, count: 1}"},
        8,
        "a role cannot be named 'my server'",
        "use any printable characters but white space",
    ),
    (
        "role ctrl",
        {8: '      "a\\eb": {device_type: board, count: 1}'},
        8,
        "a role cannot be named 'a\\x1bb'",
        "use any printable characters but white space",
    ),
    (
        "role nbsp",
        {8: '      "a\\_b": {device_type: board, count: 1}'},
        8,
        "a role cannot be named 'a\\xa0b'",
        "use any printable characters but white space",
    ),
    (
        "role list",
        {8: "      [a]: {device_type: board, count: 1}"},
        8,
        "a key must be a word",
        "quote a key that starts with a special character",
    ),
    (
        "role empty",
        {8: '      "": {device_type: board, count: 1}'},
        8,
        "a key must be a word",
        "quote a key that starts with a special character",
    ),
    ("no count", {8: "      server: {device_type: board}"}, 8, "'server' needs the key 'count'", None),
    (
        "count word",
        {8: "      server: {device_type: board, count: two}"},
        8,
        "'count' must be a whole number from 0 to 10000, not 'two'",
        None,
    ),
    (
        "count neg",
        {8: "      server: {device_type: board, count: -1}"},
        8,
        "'count' must be a whole number from 0 to 10000, not '-1'",
        None,
    ),
    (
        "count bool",
        {8: "      server: {device_type: board, count: yes}"},
        8,
        "'count' must be a whole number from 0 to 10000, not 'yes'",
        None,
    ),
    (
        "count octal",
        {8: "      server: {device_type: board, count: 010}"},
        8,
        "'count' must be a whole number from 0 to 10000, not '010'",
        None,
    ),
    (
        "count huge",
        {8: "      server: {device_type: board, count: 99999999999}"},
        8,
        "'count' must be a whole number from 0 to 10000, not '99999999999'",
        None,
    ),
    (
        "count list",
        {8: "      server: {device_type: board, count: [1]}"},
        8,
        "'count' must be a word or a number, not a list",
        None,
    ),
    (
        "no members",
        {8: "      server: {device_type: board, count: 0}", 9: "      client: {device_type: board, count: 0}"},
        7,
        "the group has no members",
        "name at least one role with a count of 1 or more",
    ),
    ("no device type", {8: "      server: {count: 1}"}, 8, "'server' needs the key 'device_type'", None),
    ("role is word", {8: "      server: board"}, 8, "'server' must be a mapping (key: value), not 'board'", None),
    (
        "lava start",
        {8: "      server: {device_type: board, count: 1, request: lava-start, expect_role: client}"},
        8,
        "'request' is not supported in role",
        "all members start together; let the test of one role lava-wait for the other",
    ),
    (
        "env bad name",
        {8: "      server: {device_type: board, count: 1, environment: {A-B: 1}}"},
        8,
        "'A-B' in 'environment' is not a name that a shell gives a variable",
        "use letters, digits and underscores, and no digit first",
    ),
    (
        "env nested",
        {8: "      server: {device_type: board, count: 1, environment: {A: {B: 1}}}"},
        8,
        "'A' must be a word or a number, not a mapping",
        None,
    ),
    (
        "essential",
        {8: "      server: {device_type: board, count: 1, essential: perhaps}"},
        8,
        "'essential' must be true or false, not 'perhaps'",
        None,
    ),
    (
        "top env",
        {1: "job_name: a\ndevice_type: board"},
        2,
        "'device_type' is not supported here",
        "in a MultiNode job it stands in each role, under protocols: lava-multinode: roles:",
    ),
    ("timeout number", {3: "  job: 10"}, 3, "'job' must name its unit", "write it as {minutes: 5}"),
    ("timeout unit", {3: "  job: {minute: 10}"}, 3, "unknown key 'minute'; did you mean 'minutes'?", None),
    (
        "timeout zero",
        {3: "  job: {minutes: 0}"},
        3,
        "'job' must be more than nothing and at most a year",
        "write it as {minutes: 5}",
    ),
    (
        "timeout long",
        {3: "  job: {days: 400}"},
        3,
        "'job' must be more than nothing and at most a year",
        "write it as {minutes: 5}",
    ),
    (
        "timeout empty",
        {3: "  job: {}"},
        3,
        "'job' must be more than nothing and at most a year",
        "write it as {minutes: 5}",
    ),
    ("timeout word", {3: "  job: {minutes: ten}"}, 3, "'minutes' must be a number from 0 to 1000000, not 'ten'", None),
    (
        "timeout > job",
        {25: "    timeout: {hours: 1}"},
        25,
        "'timeout' is 3600 s, longer than the job's timeout of 600 s",
        "the job's stands in timeouts: job:",
    ),
    (
        "action > job",
        {4: "  action: {hours: 1}"},
        4,
        "'action' is 3600 s, longer than the job's timeout of 600 s",
        "the job's stands in timeouts: job:",
    ),
    (
        "no actions",
        {
            11: None,
            12: None,
            13: None,
            14: None,
            15: None,
            16: None,
            17: None,
            18: None,
            19: None,
            20: None,
            21: None,
            22: None,
            23: None,
            24: None,
            25: None,
            26: None,
            27: None,
            28: None,
            29: None,
            30: None,
            31: None,
        },
        1,
        "the file needs the key 'actions'",
        None,
    ),
    (
        "actions empty",
        {
            11: "actions: []",
            12: None,
            13: None,
            14: None,
            15: None,
            16: None,
            17: None,
            18: None,
            19: None,
            20: None,
            21: None,
            22: None,
            23: None,
            24: None,
            25: None,
            26: None,
            27: None,
            28: None,
            29: None,
            30: None,
            31: None,
        },
        11,
        "there is no test action for any member",
        "give at least one role that has members a test: with definitions:",
    ),
    (
        "actions mapping",
        {
            11: "actions: {}",
            12: None,
            13: None,
            14: None,
            15: None,
            16: None,
            17: None,
            18: None,
            19: None,
            20: None,
            21: None,
            22: None,
            23: None,
            24: None,
            25: None,
            26: None,
            27: None,
            28: None,
            29: None,
            30: None,
            31: None,
        },
        11,
        "'actions' must be a list, not a mapping",
        None,
    ),
    (
        "no test",
        {
            15: None,
            16: None,
            17: None,
            18: None,
            19: None,
            20: None,
            21: None,
            22: None,
            23: None,
            24: None,
            25: None,
            26: None,
            27: None,
            28: None,
            29: None,
            30: None,
            31: None,
        },
        11,
        "there is no test action for any member",
        "give at least one role that has members a test: with definitions:",
    ),
    (
        "test for nobody",
        {
            8: "      server: {device_type: board, count: 0}",
            23: None,
            24: None,
            25: None,
            26: None,
            27: None,
            28: None,
            29: None,
            30: None,
            31: None,
        },
        11,
        "there is no test action for any member",
        "give at least one role that has members a test: with definitions:",
    ),
    ("action unknown", {12: "- boost:"}, 12, "unknown key 'boost'; did you mean 'boot'?", None),
    (
        "action two",
        {15: "  test:"},
        12,
        "an action must be one of boot, deploy and test, not boot and test",
        "start each with a dash",
    ),
    (
        "action empty",
        {12: "- {}\n- boot:"},
        12,
        "an action must be one of boot, deploy and test, not nothing",
        "start each with a dash",
    ),
    (
        "action command",
        {12: "- command: {name: x, role: server}\n- boot:"},
        12,
        "'command' is not supported in actions",
        "put the command into the device file, or into a test step",
    ),
    (
        "action protocols",
        {16: "    role: server\n    protocols: {lava-multinode: []}"},
        17,
        "'protocols' is not supported in test",
        "make the call in a test definition: lava-send, lava-wait, lava-wait-all, lava-sync",
    ),
    (
        "repeat",
        {16: "    role: server\n    repeat: 3"},
        17,
        "'repeat' is not supported in test",
        "write the action as often as it shall run",
    ),
    (
        "interactive",
        {16: "    role: server\n    interactive: []"},
        17,
        "'interactive' is not supported in test",
        "write the commands as steps of a test definition",
    ),
    (
        "docker",
        {16: "    role: server\n    docker: {image: x}"},
        17,
        "'docker' is not supported in test",
        "tests run in the shell of the device's console",
    ),
    (
        "monitors",
        {16: "    role: server\n    monitors: []"},
        17,
        "'monitors' is not supported in test",
        "record results with lava-test-case in a test definition",
    ),
    ("boot key", {14: "    prompt: x"}, 14, "unknown key 'prompt'; did you mean 'prompts'?", None),
    (
        "prompt regex",
        {14: "    prompts: ['[']"},
        14,
        "'prompts': '[' is not a regular expression: unterminated character set at position 0",
        "put a backslash before a bracket, star or plus that means itself",
    ),
    (
        "prompt empty match",
        {14: "    prompts: ['.*']"},
        14,
        "'prompts': '.*' matches before anything is printed",
        "name some text that the prompt always shows",
    ),
    ("prompt empty", {14: "    prompts: []"}, 14, "'prompts' is empty", None),
    (
        "auto_login no user",
        {14: "    auto_login: {login_prompt: 'login:'}"},
        14,
        "'auto_login' needs the key 'username'",
        None,
    ),
    (
        "auto_login pw",
        {14: "    auto_login: {login_prompt: 'login:', username: root, password: x}"},
        14,
        "'auto_login' needs both 'password_prompt' and 'password', or neither",
        None,
    ),
    (
        "auto_login cmds",
        {14: "    auto_login: {login_prompt: 'login:', username: root, login_commands: [su]}"},
        14,
        "'login_commands' is not supported in auto_login",
        "run them as the first steps of a test definition",
    ),
    (
        "namespace",
        {14: "    namespace: a", 16: "    role: server\n    namespace: b"},
        17,
        "role 'server' is in namespace 'b', and before in 'a'",
        "one namespace a role is supported: a member is one console",
    ),
    (
        "nul",
        {1: 'job_name: "a\\0b"'},
        1,
        "'job_name' holds a NUL or half a character, which no device can be sent",
        None,
    ),
    (
        "multi line name",
        {1: 'job_name: "a\\nb"'},
        1,
        "'job_name' must be one line of printable text, not 'a\\nb'",
        None,
    ),
    ("no job name", {1: None}, 1, "the file needs the key 'job_name'", None),
    (
        "custom tag",
        {1: "job_name: !foo x"},
        1,
        "'job_name' has the unknown tag '!foo'",
        "write the value without a tag",
    ),
    (
        "python tag",
        {1: "job_name: !!python/object:x {}"},
        1,
        "'job_name' must be a word or a number, not a mapping",
        None,
    ),
]


def edited(edits: Edits) -> str:
    """The good job with some of its lines replaced, or taken away."""
    lines: list[str | None] = [*BASE.splitlines()]
    for number, line in edits.items():
        lines[number - 1] = line
    return "".join(f"{line}\n" for line in lines if line is not None)


@pytest.fixture
def job_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("job.yaml")


@pytest.mark.parametrize(("edits", "line", "what", "hint"), [bad[1:] for bad in BAD], ids=[bad[0] for bad in BAD])
def test_a_bad_job_is_told_where_it_is_wrong(
    job_file: Path, edits: Edits, line: int, what: str, hint: str | None
) -> None:
    job_file.write_text(edited(edits))
    with pytest.raises(FileError) as caught:
        load_job(job_file)
    assert (caught.value.where, caught.value.what, caught.value.hint) == (f"job.yaml:{line}", what, hint)
    assert len(str(caught.value).splitlines()) <= 2


def test_a_job_is_read_whole(job_file: Path) -> None:
    job_file.write_text(BASE)
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
    job_file.write_text(BASE)
    job = load_job(job_file)
    assert list(job.actions_of("server")) == [job.actions[0], job.actions[1]]
    assert list(job.actions_of("client")) == [job.actions[0], job.actions[2]]


def test_what_yaml_takes_for_something_else_may_name_a_role(job_file: Path) -> None:
    edits: Edits = {8: "      on: {device_type: 8250, count: 1}", 9: "      012: {device_type: yes, count: 2}"}
    job_file.write_text(edited({**edits, 13: "    role: [on, 012]", 16: "    role: on", 24: "    role: [012, 012]"}))
    job = load_job(job_file)
    assert [(role.name, role.device_type) for role in job.roles] == [("on", "8250"), ("012", "yes")]
    assert job.actions[2].roles == ("012",)


def test_a_role_may_be_any_printable_text(job_file: Path) -> None:
    name = "$(reboot)'\\\"é`>"
    quoted_name = "'" + name.replace("'", "''") + "'"
    job_file.write_text(BASE.replace("server", quoted_name))
    assert load_job(job_file).roles[0].name == name


def test_a_role_keeps_all_that_is_said_of_it(job_file: Path) -> None:
    role = (
        "{device_type: board, count: 1, essential: yes, timeout: {hours: 2}, environment: {A: yes, B: 07, C: , D: x y}}"
    )
    job_file.write_text(edited({8: f"      server: {role}"}))
    server = load_job(job_file).roles[0]
    assert (server.essential, server.timeout) == (True, 7200)
    assert server.environment == {"A": "yes", "B": "07", "C": "", "D": "x y"}


def test_timeouts_add_their_units_up(job_file: Path) -> None:
    job_file.write_text(
        edited({3: "  job: {days: 1, hours: 1, minutes: 1, seconds: 1.5}", 4: "  connection: {seconds: 9}"})
    )
    assert load_job(job_file).timeouts == definition.Timeouts(90061.5, None, 9)


def test_a_job_without_timeouts_has_an_hour(job_file: Path) -> None:
    job_file.write_text(edited({2: None, 3: None, 4: None}))
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
    job_file.write_text(edited(edits))
    job = load_job(job_file)
    action = job.actions[1]
    assert isinstance(action, definition.Test)
    assert job.call_timeout(action, "server") == expected
    assert job.call_timeout(action, "client") == (expected if test or not role else 3)


def test_boot_keeps_how_to_log_in(job_file: Path) -> None:
    login = "{login_prompt: 'login:', username: root, password_prompt: 'word:', password: 0123}"
    job_file.write_text(edited({14: f"    prompts: '# $'\n    auto_login: {login}\n    reset: off"}))
    boot = load_job(job_file).actions[0]
    assert isinstance(boot, definition.Boot)
    assert boot.prompts == ("# $",)
    assert boot.auto_login == AutoLogin("login:", "root", "word:", "0123")
    assert not boot.reset


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
    job_file.write_text(edited(edits))
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
    job_file.write_text(edited(edits))
    assert load_job(job_file).ignored == (
        "'namespace' in boot is not used (line 14)",
        "'namespace' in test is not used (line 17)",
    )


def test_roles_that_have_nothing_to_do_are_noted(job_file: Path) -> None:
    nobody = "      nobody: {device_type: board, count: 0}"
    idle = "      idle: {device_type: board, count: 1}"
    job_file.write_text(edited({9: f"      client: {{device_type: board, count: 2}}\n{nobody}\n{idle}"}))
    assert load_job(job_file).notes == (
        "role 'nobody' has no members (line 10)",
        "role 'idle' has no test action: its members leave at once (line 11)",
    )
