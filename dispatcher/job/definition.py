"""The job: LAVA's MultiNode job file, read and checked before anything is opened.

:func:`load_job` returns the job or raises one :class:`~dispatcher.errors.FileError` that names file and line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from dispatcher.job import keys
from dispatcher.job.fields import AutoLogin, auto_login, character_delay, prompts, results_dir, variables
from dispatcher.job.hidden import read_secrets
from dispatcher.job.interactive import Script, read_interactive
from dispatcher.job.monitors import Monitor, read_monitors
from dispatcher.job.requests import Request, read_requests
from dispatcher.job.testdef import Definition, load_definitions, resolve
from dispatcher.job.yamlfile import Node, Skipped, read
from dispatcher.wording import nearest, quoted

ONE_NAMESPACE: Final = (
    "a member is one console, and its namespace one system; make the other a role with a device of its own"
)

MEMBERS_LIMIT: Final = 10_000
"""Members of one role."""

REPEAT_LIMIT: Final = 1000
"""How often one test action may run."""

JOB_TIMEOUT: Final = 3600.0
"""Seconds that a job may take if it does not say so itself (LAVA would refuse it)."""

DEFAULT_SHELL: Final = "/bin/sh"
_SHELLS: Final = {
    "android": "/system/bin/sh",
    **dict.fromkeys(("archlinux", "centos", "centos_installer", "debian"), "/bin/bash"),
    **dict.fromkeys(("debian_installer", "fedora", "slackware"), "/bin/bash"),
}
"""What runs the tests on a system that a deployment names as its ``os`` (LAVA's ``deployment_data.py``)."""

TESTS: Final = ("definitions", "monitors", "interactive")
"""What a test action may be made of."""

DEPLOY_SKIPPED: Final = "'deploy' is skipped, it is another tool's work"

__all__ = [
    "Action",
    "AutoLogin",
    "Boot",
    "Definition",
    "Deploy",
    "HostCommand",
    "Job",
    "Role",
    "Test",
    "Timeouts",
    "load_job",
    "resolve_job",
]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The job's ``timeouts:``, seconds. None where the job says nothing."""

    job: float = JOB_TIMEOUT
    action: float | None = None
    connection: float | None = None


@dataclass(frozen=True, slots=True)
class Role:
    """A part that ``count`` members play. With ``count`` 0 nobody does, and its actions run nowhere.

    :ivar timeout: seconds that a MultiNode call of its members may take, unless the test says otherwise.
    :ivar essential: whether the whole job ends when a member of it fails to start its tests.
    :ivar environment: set in the test shells of its members.
    :ivar character_delay: seconds between two characters sent, and ``results_dir``, the directory of the tests: its
        ``context``, None for the device's own.
    :ivar shell: what runs the tests of its members, where the device file does not say.
    :ivar starts_after: the role whose members must have sent ``lava_start`` before its members start, None for none.
    """

    name: str
    device_type: str
    count: int
    timeout: float | None
    essential: bool
    environment: Mapping[str, str]
    line: int
    starts_after: str | None = None
    character_delay: float | None = None
    results_dir: str | None = None
    shell: str = DEFAULT_SHELL


@dataclass(frozen=True, slots=True)
class Deploy:
    """Another tool's work; here only so that nobody thinks it was forgotten, for its requests and its ``os``."""

    roles: tuple[str, ...]
    line: int
    requests: tuple[Request, ...] = ()
    os: str | None = None


@dataclass(frozen=True, slots=True)
class Boot:
    """How the consoles of some roles get to a shell.

    :ivar prompts: regular expressions; empty where the device file says it.
    :ivar timeout: seconds, its own or the job's for an action.
    :ivar reset: False if the device's power commands are to be left alone.
    """

    roles: tuple[str, ...]
    prompts: tuple[str, ...]
    auto_login: AutoLogin | None
    timeout: float | None
    line: int
    reset: bool = True
    requests: tuple[Request, ...] = ()


@dataclass(frozen=True, slots=True)
class Test:
    """What the members of some roles run: definitions, monitors or scripts, and only one of these.

    :ivar timeout: seconds, its own or the job's for an action.
    :ivar call_timeout: seconds that one MultiNode call may take here; see :meth:`Job.call_timeout`.
    """

    roles: tuple[str, ...]
    definitions: tuple[Definition, ...]
    timeout: float | None
    call_timeout: float | None
    line: int
    requests: tuple[Request, ...] = ()
    monitors: tuple[Monitor, ...] = ()
    scripts: tuple[Script, ...] = ()


@dataclass(frozen=True, slots=True)
class HostCommand:
    """What is run on this host for the devices of some roles: one of the commands that the device file has for each.

    :ivar timeout: seconds, its own or the job's for an action.
    :ivar where: file and line of the action.
    """

    roles: tuple[str, ...]
    name: str
    timeout: float | None
    where: str
    requests: tuple[Request, ...] = ()


Action = Deploy | Boot | Test | HostCommand


@dataclass(frozen=True, slots=True)
class Job:
    """A job that is known to be sound.

    :ivar roles: in the file's order; so are ``actions``.
    :ivar group_timeout: seconds that a MultiNode call may take, unless role or test say otherwise.
    :ivar secrets: go to the devices, and nowhere else.
    :ivar ignored: keys that LAVA knows and this tool does not use, each once, with its first line.
    :ivar notes: what is allowed and perhaps not meant.
    """

    path: Path
    name: str
    roles: tuple[Role, ...]
    actions: tuple[Action, ...]
    timeouts: Timeouts
    group_timeout: float | None
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)

    def actions_of(self, role: str) -> Iterator[Action]:
        """The actions that the members of a role go through, in order."""
        return (action for action in self.actions if role in action.roles)

    def role(self, name: str) -> Role:
        """One of :attr:`roles`."""
        [role] = [known for known in self.roles if known.name == name]
        return role

    def call_timeout(self, test: Test | None, role: str) -> float | None:
        """Seconds that one MultiNode call may take: the test's word before the role's before the group's."""
        limits = (test.call_timeout if test else None, self.role(role).timeout, self.group_timeout)
        return next((value for value in limits if value is not None), None)


def load_job(path: Path) -> Job:
    """Reads a job file and the test definitions beside it. Definitions from elsewhere are left to be resolved.

    :raises FileError: the first thing that is wrong, with file and line and what to do.
    """
    skipped = Skipped()
    top = read(path, skipped)
    found = top.mapping(keys.JOB)
    protocols = found["protocols"].mapping(keys.PROTOCOLS) if "protocols" in found else {}
    if "lava-multinode" not in protocols:
        hint = "name the roles under protocols: lava-multinode: roles:, as LAVA does"
        raise top.error("this is no MultiNode job: it has no 'protocols: lava-multinode:'", hint)
    multinode = protocols["lava-multinode"].mapping(keys.MULTINODE)
    roles = _roles(protocols["lava-multinode"].need(multinode, "roles"))
    timeouts = _timeouts(found.get("timeouts"))
    reader = _Actions({role.name: role for role in roles}, timeouts, path.parent)
    actions = reader.read(top.need(found, "actions"))
    secrets = read_secrets(found.get("secrets"))
    return Job(
        path=path,
        name=top.need(found, "job_name").line_of_text(200),
        roles=tuple(replace(role, shell=_shell(role, actions)) for role in roles),
        actions=actions,
        timeouts=timeouts,
        group_timeout=_duration(multinode.get("timeout")),
        ignored=skipped.told(),
        notes=tuple(_notes(roles, actions)),
        secrets=secrets,
    )


def resolve_job(job: Job, workdir: Path) -> Job:
    """The same job with every definition that comes from elsewhere fetched and read.

    :param workdir: an existing folder for what is fetched; the caller removes it once the job has run.
    :raises FileError: git or a download failed, or a definition is not sound.
    """

    skipped = Skipped()

    def resolved(action: Action) -> Action:
        if not isinstance(action, Test):
            return action
        return replace(action, definitions=tuple(resolve(each, workdir, skipped) for each in action.definitions))

    # A test that is repeated stands there more than once, and is cloned once.
    each = {id(action): resolved(action) for action in {id(action): action for action in job.actions}.values()}
    actions = tuple(each[id(action)] for action in job.actions)
    return replace(job, actions=actions, ignored=job.ignored + skipped.told())


def _duration(node: Node | None, job: float | None = None) -> float | None:
    """A timeout, or None where there is none. Longer than the job's is an error, as in LAVA."""
    if node is None:
        return None
    seconds = node.duration()
    if job is not None and seconds > job:
        what = f"{node.name} is {seconds:g} s, longer than the job's timeout of {job:g} s"
        raise node.error(what, "the job's stands in timeouts: job:")
    return seconds


def _timeouts(node: Node | None) -> Timeouts:
    if node is None:
        return Timeouts()
    found = node.mapping(keys.TIMEOUTS)
    job = _duration(found.get("job")) or JOB_TIMEOUT
    return Timeouts(job, _duration(found.get("action"), job), _duration(found.get("connection"), job))


def _roles(node: Node) -> tuple[Role, ...]:
    roles = tuple(_role(key, value) for key, value in node.items())
    if not any(role.count for role in roles):
        raise node.error("the group has no members", "name at least one role with a count of 1 or more")
    _check_starts(node, {role.name: role for role in roles})
    return roles


def _shell(role: Role, actions: Sequence[Action]) -> str:
    """Definitions written for LAVA's Debian are bash's: LAVA runs them so wherever the job says ``os: debian``."""
    systems = [each.os for each in actions if isinstance(each, Deploy) and role.name in each.roles and each.os]
    return _SHELLS.get(systems[-1], DEFAULT_SHELL) if systems else DEFAULT_SHELL


def _check_starts(node: Node, roles: Mapping[str, Role]) -> None:
    """Sees to it that whoever waits for a role's ``lava_start`` does not wait for itself, or for nobody."""
    found = {key.word(): value for key, value in node.items()}
    for name, value in found.items():
        host = next((host for key, host in value.items() if key.word() == "host_role"), None)
        if host is not None and host.string() not in roles:
            raise host.error(f"role {quoted(name)} has the unknown 'host_role' {quoted(host.string())}")
    for role in roles.values():
        seen, other = {role.name}, role.starts_after
        while other is not None:
            if other not in roles:
                raise found[role.name].error(
                    f"'expect_role' is the unknown role {quoted(other)}{nearest(other, roles)}"
                )
            if other in seen:
                what = f"role {quoted(role.name)} starts after {quoted(other)}, which would wait for itself"
                raise found[role.name].error(what, "name a role in 'expect_role' that starts before")
            if not roles[other].count:
                raise found[role.name].error(f"'expect_role' is {quoted(other)}, which has no members")
            seen.add(other)
            other = roles[other].starts_after


def _role(key: Node, value: Node) -> Role:
    name = key.word()
    if not name.isprintable() or any(char.isspace() for char in name):
        what = f"a role cannot be named {quoted(name)}"
        raise key.error(what, "use any printable characters but white space")
    found = value.mapping(keys.ROLE)
    environment = found.get("environment")
    context = _context(found.get("context"))
    # A connection has no device in LAVA; here it is one more console, of a type of its own.
    device_type = found["connection"] if "connection" in found and "device_type" not in found else None
    return Role(
        name=name,
        device_type=(device_type or value.need(found, "device_type")).line_of_text(200),
        count=value.need(found, "count").integer(0, MEMBERS_LIMIT),
        timeout=_duration(found.get("timeout")),
        essential="essential" in found and found["essential"].boolean(),
        environment={} if environment is None or environment.is_null else variables(environment),
        line=key.line,
        starts_after=_starts_after(value, found),
        character_delay=character_delay(context["test_character_delay"]) if "test_character_delay" in context else None,
        results_dir=results_dir(context["lava_test_results_dir"]) if "lava_test_results_dir" in context else None,
    )


def _context(node: Node | None) -> dict[str, Node]:
    found: dict[str, Node] = {}
    for key, value in node.items() if node is not None and not node.is_null else ():
        if key.word() in keys.CONTEXT:
            found[key.word()] = value
        else:
            key.skip(f"{quoted(key.word())} in context is not used")
    return found


def _starts_after(role: Node, found: Mapping[str, Node]) -> str | None:
    if "request" not in found:
        return None
    found["request"].choice(("lava-start",))
    return role.need(found, "expect_role").string()


@dataclass(slots=True)
class _Actions:
    """Reads ``actions:``, with what an action is checked against."""

    roles: Mapping[str, Role]
    timeouts: Timeouts
    folder: Path
    namespaces: dict[str, str] = field(default_factory=dict)

    def read(self, node: Node) -> tuple[Action, ...]:
        actions = tuple(action for entry in node.sequence("an action") for action in self._action(entry))
        tested = {role for action in actions if isinstance(action, Test) for role in action.roles}
        if not any(self.roles[role].count for role in tested):
            hint = "give at least one role that has members a test: with definitions:"
            raise node.error("there is no test action for any member", hint)
        return actions

    def _action(self, entry: Node) -> Sequence[Action]:
        found = entry.mapping(keys.ACTIONS)
        if len(found) != 1:
            words = " and ".join(found) or "nothing"
            what = f"an action must be one of boot, command, deploy and test, not {words}"
            raise entry.error(what, "start each with a dash")
        if "deploy" in found:
            return [self._deploy(found["deploy"])]
        if "command" in found:
            return [self._command(found["command"])]
        return [self._boot(found["boot"])] if "boot" in found else self._test(found["test"])

    def _deploy(self, node: Node) -> Deploy:
        # One word for the whole action: its keys say nothing about consoles, and there are many.
        node.skip(DEPLOY_SKIPPED)
        found = node.mapping(keys.DEPLOY, told_as=DEPLOY_SKIPPED)
        system = found["os"].text() if "os" in found else None
        return Deploy(self._roles_of(node, found), node.line, self._requests(found), system)

    def _requests(self, found: Mapping[str, Node]) -> tuple[Request, ...]:
        return read_requests(found.get("protocols"), self.roles)

    def _boot(self, node: Node) -> Boot:
        found = node.mapping(keys.BOOT)
        roles = self._roles_of(node, found)
        self._one_namespace("boot", roles, found)
        return Boot(
            roles=roles,
            prompts=prompts(found["prompts"]) if "prompts" in found else (),
            auto_login=auto_login(found["auto_login"]) if "auto_login" in found else None,
            timeout=self._timeout(found),
            line=node.line,
            reset=found["reset"].boolean() if "reset" in found else True,
            requests=self._requests(found),
        )

    def _command(self, node: Node) -> HostCommand:
        found = node.mapping(keys.COMMAND)
        roles = self._roles_of(node, found)
        self._one_namespace("command", roles, found)
        name = node.need(found, "name").line_of_text(100)
        return HostCommand(roles, name, self._timeout(found), node.where, self._requests(found))

    def _test(self, node: Node) -> Sequence[Test]:
        found = node.mapping(keys.TEST)
        roles = self._roles_of(node, found)
        self._one_namespace("test", roles, found)
        calls = found["lava-multinode"].mapping(keys.TEST_MULTINODE) if "lava-multinode" in found else {}
        kind = _kind_of_test(node, found)
        test = Test(
            roles=roles,
            definitions=load_definitions(found[kind], self.folder) if kind == "definitions" else (),
            monitors=read_monitors(found[kind]) if kind == "monitors" else (),
            scripts=read_interactive(found[kind], self.roles) if kind == "interactive" else (),
            timeout=self._timeout(found),
            call_timeout=_duration(calls.get("timeout"), self.timeouts.job),
            line=node.line,
            requests=self._requests(found),
        )
        return [test] * (found["repeat"].integer(1, REPEAT_LIMIT) if "repeat" in found else 1)

    def _timeout(self, found: Mapping[str, Node]) -> float | None:
        return _duration(found.get("timeout"), self.timeouts.job) or self.timeouts.action

    def _roles_of(self, action: Node, found: Mapping[str, Node]) -> tuple[str, ...]:
        if "role" not in found:
            raise action.error(f"{action.name} names no role", "every action of a MultiNode job needs role:")
        named: dict[str, None] = {}
        for node in found["role"].one_or_more():
            name = node.string()
            if name not in self.roles:
                raise node.error(f"unknown role {quoted(name)}{nearest(name, self.roles)}")
            named[name] = None
        return tuple(named)

    def _one_namespace(self, kind: str, roles: tuple[str, ...], found: Mapping[str, Node]) -> None:
        """A namespace is a second system behind one device. One for all that a member does is no different."""
        for word in ("namespace", "connection-namespace"):
            if word not in found:
                continue
            namespace = found[word].string()
            for role in roles:
                first = self.namespaces.setdefault(role, namespace)
                if first != namespace:
                    what = f"role {quoted(role)} is in namespace {quoted(namespace)}, and before in {quoted(first)}"
                    raise found[word].error(what, ONE_NAMESPACE)
            found[word].skip(f"{word!r} in {kind} is not used")


def _kind_of_test(node: Node, found: Mapping[str, Node]) -> str:
    kinds = [kind for kind in TESTS if kind in found]
    if len(kinds) > 1:
        what = f"a test action has either {kinds[0]!r} or {kinds[1]!r}, not both"
        raise found[kinds[1]].error(what, "give each a test action of its own")
    if not kinds:
        raise node.error(f"'test' needs one of the keys {', '.join(repr(kind) for kind in TESTS)}")
    return kinds[0]


def _notes(roles: tuple[Role, ...], actions: tuple[Action, ...]) -> Iterator[str]:
    tested = {role for action in actions if isinstance(action, Test) for role in action.roles}
    for role in roles:
        if not role.count:
            yield f"role {quoted(role.name)} has no members (line {role.line})"
        elif role.name not in tested:
            yield f"role {quoted(role.name)} has no test action: its members leave at once (line {role.line})"
