"""Test definitions: what goes to a device, from each of the places that it may come from."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from jobtext import DEFINITION, FILE, TESTDEF, Edits, edited, entry, load, put, refused

from dispatcher.console.install import Entry
from dispatcher.job import definition
from dispatcher.job.content import Repository
from dispatcher.job.definition import load_job
from dispatcher.job.testdef import resolve
from dispatcher.job.yamlfile import Skipped


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


BAD: list[tuple[str, Edits, int, str, str | None]] = [
    (
        "no definitions",
        {6: None, 7: None, 8: None, 9: None, 10: None, 11: None},
        4,
        "'test' needs one of the keys 'definitions', 'monitors', 'interactive'",
        None,
    ),
    (
        "definitions empty",
        {6: "    definitions: []", 7: None, 8: None, 9: None, 10: None, 11: None},
        6,
        "a test action needs at least one test definition",
        None,
    ),
    ("no name", {8: None}, 7, "a definition needs the key 'name'", None),
    (
        "bad name",
        {8: "      name: my test"},
        8,
        "a definition cannot be named 'my test'",
        "use at most 100 letters, digits, dots, dashes and underscores",
    ),
    ("lava name", {8: "      name: lava"}, 8, "the name 'lava' is reserved", None),
    (
        "name nl",
        {8: '      name: "a\\n"'},
        8,
        "a definition cannot be named 'a\\n'",
        "use at most 100 letters, digits, dots, dashes and underscores",
    ),
    (
        "dup names",
        {11: "          steps: [a]\n    - from: inline\n      name: first\n      repository: {run: {steps: [a]}}"},
        12,
        "two definitions are named 'first': in line 7 and in line 12",
        "names need to be unique within a test action",
    ),
    ("no from", {7: "    -"}, 8, "a definition needs the key 'from'", None),
    ("from url", {7: "    - from: url"}, 7, "a definition needs the key 'path'", None),
    ("from gti", {7: "    - from: gti"}, 7, "unknown origin 'gti'; did you mean 'git'?", None),
    ("no repository", {9: None, 10: None, 11: None}, 7, "a definition needs the key 'repository'", None),
    (
        "repository word",
        {9: "      repository: x", 10: None, 11: None},
        9,
        "'repository' must be a mapping (key: value), not 'x'",
        None,
    ),
    (
        "no run",
        {9: "      repository: {metadata: {name: x}}", 10: None, 11: None},
        9,
        "definition 'first' has no run steps",
        "list them under run: steps:",
    ),
    (
        "no steps",
        {10: "        run: {}", 11: None},
        10,
        "definition 'first' has no run steps",
        "list them under run: steps:",
    ),
    (
        "empty steps",
        {11: "          steps: []"},
        10,
        "definition 'first' has no run steps",
        "list them under run: steps:",
    ),
    (
        "null steps",
        {11: "          steps: [null, '']"},
        10,
        "definition 'first' has no run steps",
        "list them under run: steps:",
    ),
    ("word steps", {11: "          steps: lava-send ready"}, 11, "'steps' must be a list, not 'lava-send ready'", None),
    (
        "mapping step",
        {11: "          steps:\n          - echo this: that"},
        12,
        "a step must be one text, not a mapping",
        "quote a step that holds ': '",
    ),
    (
        "parse pattern",
        {10: "        parse: {pattern: '(?P<result>.+)'}\n        run:"},
        10,
        "'pattern' has no group named 'test_case_id'",
        "write the part of the line that says it as (?P<test_case_id>...)",
    ),
    (
        "parse fixupdict",
        {10: "        parse: {fixupdict: {OK: passed}}\n        run:"},
        10,
        "'OK' has the unknown value 'passed'; did you mean 'pass'?",
        None,
    ),
    ("expected", {10: "        expected: x\n        run:"}, 10, "'expected' must be a list, not 'x'", None),
    (
        "git-repos folder",
        {10: "        install: {git-repos: [{url: 'http://h/x', destination: ../y}]}\n        run:"},
        10,
        "'../y' cannot be the folder of a repository",
        "give it a destination: NAME",
    ),
    (
        "vland",
        {11: "          steps:\n          - echo lava-vland-self\n          - for i in $(lava-vland-self); do :; done"},
        13,
        "lava-vland-self is not supported",
        "there are no VLANs here",
    ),
    (
        "lava-signal",
        {8: "      name: first\n      lava-signal: stderr"},
        9,
        "'lava-signal' has the unknown value 'stderr'; did you mean 'stdout'?",
        None,
    ),
    (
        "skip_install",
        {8: "      name: first\n      skip_install: [dep]"},
        9,
        "'skip_install' has the unknown value 'dep'; did you mean 'deps'?",
        None,
    ),
    (
        "param name",
        {8: "      name: first\n      params: {a-b: 1}"},
        9,
        "'a-b' in 'params' is not a name that a shell gives a variable",
        "use letters, digits and underscores, and no digit first",
    ),
    (
        "param list",
        {8: "      name: first\n      params: {a: [1]}"},
        9,
        "'a' must be a word or a number, not a list",
        None,
    ),
    (
        "file missing",
        {7: "    - from: file", 8: "      name: first\n      path: nope.yaml", 9: None, 10: None, 11: None},
        7,
        "'nope.yaml' cannot be read: No such file or directory",
        None,
    ),
    (
        "file no path",
        {7: "    - from: file", 9: None, 10: None, 11: None},
        7,
        "a definition needs the key 'path'",
        None,
    ),
    ("file with repo", {7: "    - from: file"}, 9, "'repository' has no meaning in a definition 'from: file'", None),
    (
        "file dir",
        {7: "    - from: file", 8: "      name: first\n      path: .", 9: None, 10: None, 11: None},
        7,
        "'.' cannot be read: Is a directory",
        None,
    ),
    (
        "git no path",
        {7: "    - from: git", 9: "      repository: x", 10: None, 11: None},
        7,
        "a definition needs the key 'path'",
        None,
    ),
    (
        "git dotdot",
        {7: "    - from: git", 9: "      repository: x\n      path: ../x", 10: None, 11: None},
        10,
        "'path' must stay within the repository",
        None,
    ),
    (
        "git absolute",
        {7: "    - from: git", 9: "      repository: x\n      path: /x", 10: None, 11: None},
        10,
        "'path' must stay within the repository",
        None,
    ),
    (
        "git dash",
        {7: "    - from: git", 9: "      repository: x\n      path: x\n      revision: -x", 10: None, 11: None},
        11,
        "'revision' cannot start with a dash",
        None,
    ),
    (
        "branch inline",
        {7: "    - from: inline\n      branch: x"},
        8,
        "'branch' has no meaning in a definition 'from: inline'",
        None,
    ),
    (
        "surrogate",
        {11: '          steps: ["\\ud800"]'},
        11,
        "a step holds a NUL or half a character, which no device can be sent",
        None,
    ),
]


@pytest.mark.parametrize(("edits", "line", "what", "hint"), [bad[1:] for bad in BAD], ids=[bad[0] for bad in BAD])
def test_a_bad_definition_is_told_where_it_is_wrong(
    folder: Path, edits: Edits, line: int, what: str, hint: str | None
) -> None:
    error = refused(edited(DEFINITION, edits))
    assert (error.where, error.what, error.hint) == (f"job.yaml:{line}", what, hint)


INLINE = """\
from: inline
name: first.test-1_x
path: inline/first.yaml
params: {B: job's, C: yes}
parameters: {D: 010, C: no}
repository:
  metadata: {format: Lava-Test Test Definition 1.0, name: its own name, description: any, author: anybody}
  params: {A: definition's, B: definition's}
  parameters: {E: , A: last}
  install: {deps: [], steps: [one, two]}
  run:
    steps:
    - lava-send ready
    -
    - |
      for i in 1 2; do
        echo $i
      done
    - 7
"""


def test_an_inline_definition_is_read_whole(folder: Path) -> None:
    found = load(entry(INLINE))
    assert (found.name, found.origin, found.metadata_name) == ("first.test-1_x", "inline", "its own name")
    assert found.steps == ("lava-send ready", "for i in 1 2; do\n  echo $i\ndone\n", "7")
    assert found.install_steps == ("one", "two")
    assert found.params == {"A": "last", "B": "job's", "C": "yes", "D": "010", "E": ""}
    assert (found.folder, dict(found.files), found.path) == (None, {}, "inline/first.yaml")
    assert (found.line, found.where, found.resolved) == (7, "job.yaml:7", True)


@pytest.mark.parametrize(
    ("skip", "steps"), [("[deps]", ("one",)), ("all", ()), ("[deps, steps]", ()), ("[deps, keys]", ("one",))]
)
def test_what_skip_install_names_is_not_installed(folder: Path, skip: str, steps: tuple[str, ...]) -> None:
    install = "install: {deps: [vim], deps-debian: [vi], steps: [one]}"
    text = f"from: inline\nname: x\nskip_install: {skip}\nrepository: {{{install}, run: {{steps: [a]}}}}\n"
    assert load(entry(text)).install_steps == steps


INSTALL = """\
from: inline
name: x
lava-signal: kmsg
parameters: {URL: 'http://host/tests.git'}
repository:
  install:
    keys: [ABCD, archive-keyring]
    sources: ['ppa:x/y']
    deps: [vim, g++]
    deps-debian: [net-tools]
    deps-fedora: []
    git-repos:
    - http://host/a/tools.git
    - {url: URL, branch: main, destination: t, skip_by_default: False}
    steps: [cd tools]
  run: {steps: [true]}
"""


def test_what_is_installed_in_lavas_order(folder: Path) -> None:
    found = load(entry(INSTALL))
    assert found.install_steps == (
        "lava-add-keys ABCD",
        "lava-add-keys archive-keyring",
        "lava-add-sources ppa:x/y",
        '(set -- vim g++; case $(. /etc/os-release; printf %s "$ID") in debian) set -- "$@" net-tools;; esac; '
        '[ $# -eq 0 ] || lava-install-packages "$@")',
        "cd tools",
    )
    assert found.repositories == (
        Repository("http://host/a/tools.git", None, "tools", "job.yaml:19"),
        Repository("http://host/tests.git", "main", "t", "job.yaml:20"),
    )
    assert not found.resolved
    only = entry("from: inline\nname: x\nrepository: {install: {deps: [vim]}, run: {steps: [a]}}\n")
    assert load(only).install_steps == ("lava-install-packages vim",)


def test_git_repos_are_cloned_into_the_definitions_directory(folder: Path, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", "tools"], check=True)
    put("tools/run", "#!/bin/sh\n", 0o755)
    subprocess.run(["git", "-C", "tools", "add", "."], check=True)
    author = ["-c", "user.name=x", "-c", "user.email=x"]
    subprocess.run(["git", "-C", "tools", *author, "commit", "-q", "-m", "x"], check=True)
    url = f"file://{Path('tools').absolute()}"
    install = f"{{git-repos: [{{url: '{url}', destination: t}}]}}"
    found = load(entry(f"from: inline\nname: x\nrepository: {{install: {install}, run: {{steps: [t/run]}}}}\n"))
    (tmp_path / "clones").mkdir()
    resolved = resolve(found, tmp_path / "clones", Skipped())
    assert resolved.files == {"t/run": Entry(b"#!/bin/sh\n", executable=True)}
    assert resolved.resolved


def test_results_as_the_definition_words_them(folder: Path) -> None:
    parse = "parse: {pattern: '(?P<test_case_id>\\w+): (?P<result>OK|NOK)', fixupdict: {OK: pass, NOK: fail}}"
    text = f"from: inline\nname: x\nrepository:\n  {parse}\n  expected: [a, b, a]\n  run: {{steps: [a]}}\n"
    found = load(entry(text))
    assert found.pattern == r"(?P<test_case_id>\w+): (?P<result>OK|NOK)"
    assert (found.fixup, found.expected) == ({"OK": "pass", "NOK": "fail"}, ("a", "b"))
    without = text.replace(", fixupdict: {OK: pass, NOK: fail}", "").replace("name: x", "name: x\nexpected: [c]")
    found = load(entry(without))
    assert (found.fixup, found.expected) == ({}, ("c",))


def test_the_helpers_that_the_steps_call_are_known_with_their_lines(folder: Path) -> None:
    steps = ["lava-send ip=$(lava-target-ip)", "if lava-group x; then lava-test-case y --shell lava-os-build; fi"]
    text = "from: inline\nname: x\nrepository:\n  run:\n    steps:\n" + "".join(f"    - {step}\n" for step in steps)
    assert load(entry(text)).helpers == {
        "lava-send": "job.yaml:12",
        "lava-target-ip": "job.yaml:12",
        "lava-group": "job.yaml:13",
        "lava-test-case": "job.yaml:13",
        "lava-os-build": "job.yaml:13",
    }


def test_a_device_cannot_be_rebooted_while_something_is_installed(folder: Path) -> None:
    text = "from: inline\nname: x\nrepository:\n  install:\n    steps:\n    - test -e x || lava-reboot\n"
    error = refused(entry(text + "  run: {steps: [lava-reboot]}\n"))
    assert (error.where, error.what) == ("job.yaml:12", "lava-reboot cannot be called in install: steps:")


def test_two_actions_may_run_a_definition_of_the_same_name(folder: Path) -> None:
    again = DEFINITION.partition("actions:\n")[2]
    Path("job.yaml").write_text(DEFINITION + again)
    assert len(load_job(Path("job.yaml")).actions) == 2


def test_a_definition_from_a_file_brings_its_folder(folder: Path) -> None:
    put("tests/x.yaml", TESTDEF)
    put("tests/x.sh", "#!/bin/sh\n", 0o755)
    put("tests/data/a b.bin", bytes(range(256)))
    put("tests/.git/config", "secret")
    put("elsewhere", "not asked for")
    found = load(entry(FILE))
    assert (found.steps, found.params, found.metadata_name) == (
        ("./x.sh",),
        {"A": "job's", "B": "file's"},
        "of the file",
    )
    assert found.folder == Path("tests")
    assert found.files == {
        "data/a b.bin": Entry(bytes(range(256))),
        "x.sh": Entry(b"#!/bin/sh\n", executable=True),
        "x.yaml": Entry(TESTDEF.encode()),
    }


def test_a_path_starts_at_the_job_not_at_the_working_directory(folder: Path) -> None:
    put("jobs/tests/x.yaml", TESTDEF)
    put("jobs/job.yaml", entry(FILE))
    action = load_job(Path("jobs/job.yaml")).actions[0]
    assert isinstance(action, definition.Test)
    assert list(action.definitions[0].files) == ["x.yaml"]


@pytest.mark.parametrize(
    ("content", "where", "what"),
    [
        ("run: {stepz: [a]}", "tests/x.yaml:1", "definition 'x' has no run steps"),
        ("\n\nrun:\n  steps: []", "tests/x.yaml:3", "definition 'x' has no run steps"),
        ("a: [", "tests/x.yaml:1", "not valid YAML: expected the node content, but found '<stream end>'"),
        ("", "tests/x.yaml", "the file is empty"),
        (b"\xff", "tests/x.yaml:1", "byte 0xff is not UTF-8"),
    ],
)
def test_a_bad_file_is_named_itself(folder: Path, content: str | bytes, where: str, what: str) -> None:
    put("tests/x.yaml", content)
    error = refused(entry(FILE))
    assert (error.where, error.what) == (where, what)


def test_what_a_definition_holds_in_vain_is_told_with_its_file(folder: Path) -> None:
    old = "parse: {appendtodict: {a: b}}\nauthor: me\ninstall: {bzr-repos: [x], steps: [a], steps: [b]}\n"
    put("tests/x.yaml", f"{TESTDEF}{old}")
    put("job.yaml", entry(FILE))
    job = load_job(Path("job.yaml"))
    assert job.ignored == (
        "unknown key 'author' in a test definition is not used (tests/x.yaml:5)",
        "unknown key 'appendtodict' in parse is not used (tests/x.yaml:4)",
        "key 'steps' stands twice: the one in line 6 is not used (tests/x.yaml:6)",
        "unknown key 'bzr-repos' in install is not used (tests/x.yaml:6)",
    )
    action = job.actions[0]
    assert isinstance(action, definition.Test)
    assert action.definitions[0].install_steps == ("b",)


@pytest.mark.parametrize("name", ["run.sh", "install.sh", "uuid"])
def test_a_file_that_the_test_shell_writes_is_refused(folder: Path, name: str) -> None:
    put("tests/x.yaml", TESTDEF)
    put(f"tests/{name}")
    error = refused(entry(FILE))
    assert error.where == "job.yaml:7"
    assert error.what == f"definition 'x' brings a file {name!r}, which the test shell writes"
