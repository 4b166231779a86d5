"""Test definitions: what goes to a device, from each of the places that it may come from."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from dispatcher.console.install import Entry
from dispatcher.errors import FileError
from dispatcher.job import definition, origin
from dispatcher.job.definition import Definition, load_job, resolve_job
from dispatcher.job.testdef import resolve

BASE = """\
job_name: a job
protocols: {lava-multinode: {roles: {server: {device_type: board, count: 1}}}}
actions:
- test:
    role: server
    definitions:
    - from: inline
      name: first
      repository:
        run:
          steps: [lava-send ready]
"""

Edits = dict[int, str | None]

BAD: list[tuple[str, Edits, int, str, str | None]] = [
    (
        "no definitions",
        {6: None, 7: None, 8: None, 9: None, 10: None, 11: None},
        4,
        "'test' needs the key 'definitions'",
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
    ("lava name", {8: "      name: lava"}, 8, "the definition name 'lava' is reserved", None),
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
    ("from url", {7: "    - from: url"}, 7, "'from: url' is not supported", "supported are inline, file, git"),
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
        "parse",
        {10: "        parse: {pattern: x}\n        run:"},
        10,
        "'parse' is not supported in a test definition",
        "record results with lava-test-case",
    ),
    (
        "expected",
        {10: "        expected: [x]\n        run:"},
        10,
        "'expected' is not supported in a test definition",
        "nothing checks it; record results with lava-test-case",
    ),
    (
        "install deps",
        {10: "        install: {deps: [vim]}\n        run:"},
        10,
        "'deps' is not supported in install",
        "install with commands under install: steps:, or leave it out with skip_install",
    ),
    (
        "install deps-debian",
        {10: "        install: {deps-debian: [vim]}\n        run:"},
        10,
        "'deps-debian' is not supported in install",
        "install with commands under install: steps:, or leave it out with skip_install",
    ),
    (
        "install unknown",
        {10: "        install: {step: [vim]}\n        run:"},
        10,
        "unknown key 'step'; did you mean 'steps'?",
        None,
    ),
    (
        "kmsg",
        {8: "      name: first\n      lava-signal: kmsg"},
        9,
        "only 'lava-signal: stdout' is supported: signals travel on the console",
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


def edited(edits: Edits) -> str:
    """The good job with some of its lines replaced, or taken away."""
    lines: list[str | None] = [*BASE.splitlines()]
    for number, line in edits.items():
        lines[number - 1] = line
    return "".join(f"{line}\n" for line in lines if line is not None)


def entry(text: str) -> str:
    """A job with one definition, given by its own lines."""
    lines = text.splitlines()
    return edited({7: f"    - {lines[0]}", **dict.fromkeys(range(8, 12))}) + "".join(f"      {x}\n" for x in lines[1:])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(text: str) -> Definition:
    """The first definition of the first test action."""
    Path("job.yaml").write_text(text)
    action = load_job(Path("job.yaml")).actions[0]
    assert isinstance(action, definition.Test)
    return action.definitions[0]


def refused(text: str) -> FileError:
    with pytest.raises(FileError) as caught:
        load(text)
    return caught.value


@pytest.mark.parametrize(("edits", "line", "what", "hint"), [bad[1:] for bad in BAD], ids=[bad[0] for bad in BAD])
def test_a_bad_definition_is_told_where_it_is_wrong(
    folder: Path, edits: Edits, line: int, what: str, hint: str | None
) -> None:
    error = refused(edited(edits))
    assert (error.where, error.what, error.hint) == (f"job.yaml:{line}", what, hint)


INLINE = """\
from: inline
name: first.test-1_x
path: inline/first.yaml
params: {B: job's, C: yes}
parameters: {D: 010}
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


def test_two_actions_may_run_a_definition_of_the_same_name(folder: Path) -> None:
    again = BASE.partition("actions:\n")[2]
    Path("job.yaml").write_text(BASE + again)
    assert len(load_job(Path("job.yaml")).actions) == 2


FILE = "from: file\nname: x\npath: tests/x.yaml\nparams: {A: job's}\n"
TESTDEF = "metadata: {name: of the file}\nparams: {A: file's, B: file's}\nrun: {steps: [./x.sh]}\n"


def put(path: str, content: str | bytes = b"", mode: int = 0o644) -> None:
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content.encode() if isinstance(content, str) else content)
    target.chmod(mode)


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
        ("run: {stepz: [a]}", "tests/x.yaml:1", "unknown key 'stepz'; did you mean 'steps'?"),
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


@pytest.mark.parametrize("name", ["run.sh", "install.sh", "uuid"])
def test_a_file_that_the_test_shell_writes_is_refused(folder: Path, name: str) -> None:
    put("tests/x.yaml", TESTDEF)
    put(f"tests/{name}")
    error = refused(entry(FILE))
    assert error.where == "job.yaml:7"
    assert error.what == f"definition 'x' brings a file {name!r}, which the test shell writes"


def test_links_that_stay_inside_are_followed(folder: Path) -> None:
    put("tests/x.yaml", TESTDEF)
    put("tests/real/data", "data", 0o755)
    os.symlink("real/data", "tests/link")
    os.symlink("../real", "tests/real-too")
    Path("tests/real-too").unlink()
    os.symlink("real", "tests/real-too")
    found = load(entry(FILE))
    assert sorted(found.files) == ["link", "real-too/data", "real/data", "x.yaml"]
    assert found.files["link"] == found.files["real/data"] == Entry(b"data", executable=True)


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        ("../elsewhere", "leads out of"),
        ("/dev/null", "leads out of"),
        ("nowhere", "leads nowhere"),
        ("link", "leads nowhere"),
        (".", "leads to a folder that it stands in"),
    ],
)
def test_other_links_are_refused(folder: Path, target: str, complaint: str) -> None:
    put("tests/x.yaml", TESTDEF)
    put("elsewhere", "secret")
    os.symlink(target, "tests/link")
    error = refused(entry(FILE))
    assert error.where == "job.yaml:7"
    assert error.what.startswith("the link 'tests/link' ")
    assert complaint in error.what


def test_what_is_no_file_stays_behind(folder: Path) -> None:
    put("tests/x.yaml", TESTDEF)
    Path("tests/empty").mkdir()
    os.mkfifo("tests/fifo")
    assert list(load(entry(FILE)).files) == ["x.yaml"]


def test_too_many_bytes_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origin, "BYTES_LIMIT", 2 * 1024**2)
    put("tests/x.yaml", TESTDEF)
    put("tests/big", b"x" * (2 * 1024**2 - len(TESTDEF)))
    assert len(load(entry(FILE)).files) == 2
    put("tests/one-more", "x")
    error = refused(entry(FILE))
    assert (error.where, error.what) == ("job.yaml:7", "'tests' holds more than 2 MiB with 'x.yaml'")
    assert error.hint is not None


def test_too_many_files_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origin, "FILES_LIMIT", 3)
    put("tests/x.yaml", TESTDEF)
    put("tests/a/b")
    assert len(load(entry(FILE)).files) == 2
    put("tests/c")
    error = refused(entry(FILE))
    assert (error.where, error.what) == ("job.yaml:7", "'tests' holds more than 3 files and directories")


def test_a_file_name_that_no_console_carries_is_refused(folder: Path) -> None:
    put("tests/x.yaml", TESTDEF)
    put("tests/a\nb")
    assert refused(entry(FILE)).what == "the file name 'a\\nb' cannot be sent to a device"


# --- git -----------------------------------------------------------------------------------------------------

GIT = "from: git\nname: x\nrepository: suite.git\npath: deep/x.yaml\nparams: {A: job's}\n"


def git(*arguments: str) -> None:
    settings = ("-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "init.defaultBranch=main")
    subprocess.run(("git", *settings, *arguments), check=True, capture_output=True)


@pytest.fixture
def repository(folder: Path) -> Path:
    put("suite.git/deep/x.yaml", TESTDEF)
    put("suite.git/x.sh", "old", 0o755)
    git("init", "suite.git")
    git("-C", "suite.git", "add", ".")
    git("-C", "suite.git", "commit", "-m", "old")
    git("-C", "suite.git", "tag", "v1")
    put("suite.git/x.sh", "new", 0o755)
    git("-C", "suite.git", "commit", "-a", "-m", "new")
    git("-C", "suite.git", "branch", "side", "v1")
    Path("work").mkdir()
    return folder / "suite.git"


def test_git_waits_until_it_is_resolved(repository: Path) -> None:
    found = load(entry(GIT))
    assert (found.resolved, found.steps, dict(found.files)) == (False, (), {})
    assert (found.repository, found.branch, found.revision) == (str(repository), None, None)


@pytest.mark.parametrize(
    ("more", "content"),
    [("", b"new"), ("branch: side\n", b"old"), ("revision: v1\n", b"old"), ("branch: v1\n", b"old")],
)
def test_a_definition_from_git_brings_the_repository(repository: Path, more: str, content: bytes) -> None:
    found = resolve(load(entry(GIT + more)), Path("work"))
    assert found.resolved
    assert (found.steps, found.params, found.metadata_name) == (
        ("./x.sh",),
        {"A": "job's", "B": "file's"},
        "of the file",
    )
    assert found.files == {"deep/x.yaml": Entry(TESTDEF.encode()), "x.sh": Entry(content, executable=True)}


def test_a_whole_job_is_resolved(repository: Path) -> None:
    Path("job.yaml").write_text(
        entry(GIT) + "    - from: inline\n      name: y\n      repository: {run: {steps: [a]}}\n"
    )
    job = resolve_job(load_job(Path("job.yaml")), Path("work"))
    action = job.actions[0]
    assert isinstance(action, definition.Test)
    assert [each.steps for each in action.definitions] == [("./x.sh",), ("a",)]
    assert resolve_job(job, Path("nowhere")) == job


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (("suite.git", "nowhere.git"), "'{0}/nowhere.git' cannot be cloned"),
        (("path:", "branch: nope\npath:"), "'{0}/suite.git' cannot be cloned"),
        (("path:", "revision: nope\npath:"), "'{0}/suite.git' has no revision 'nope'"),
        (("deep/x.yaml", "deep/y.yaml"), "'deep/y.yaml of {0}/suite.git' cannot be read: No such file or directory"),
    ],
)
def test_what_git_cannot_give_is_told(repository: Path, edit: tuple[str, str], what: str) -> None:
    wanted = load(entry(GIT.replace(*edit)))
    with pytest.raises(FileError) as caught:
        resolve(wanted, Path("work"))
    assert (caught.value.where, caught.value.what) == ("job.yaml:7", what.format(repository.parent))
    assert len(str(caught.value).splitlines()) <= 2


def test_a_bad_definition_from_git_is_named_with_its_repository(repository: Path) -> None:
    put("suite.git/deep/x.yaml", "run: {steps: []}")
    git("-C", "suite.git", "commit", "-a", "-m", "bad")
    with pytest.raises(FileError) as caught:
        resolve(load(entry(GIT)), Path("work"))
    assert str(caught.value.where) == f"deep/x.yaml of {repository}:1"


def test_a_link_cannot_lead_out_of_a_repository(repository: Path) -> None:
    put("secret.yaml", TESTDEF)
    Path("suite.git/deep/x.yaml").unlink()
    os.symlink("../../secret.yaml", "suite.git/deep/x.yaml")
    git("-C", "suite.git", "commit", "-a", "-m", "link")
    put("work/secret.yaml", TESTDEF)
    with pytest.raises(FileError) as caught:
        resolve(load(entry(GIT)), Path("work"))
    assert caught.value.what == "'deep/x.yaml' leads out of the repository"


def test_missing_git_is_told(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(repository / "no-such-folder"))
    with pytest.raises(FileError) as caught:
        resolve(load(entry(GIT)), Path("work"))
    assert (caught.value.where, caught.value.what) == ("job.yaml:7", "git cannot be started: No such file or directory")


def test_a_git_that_hangs_is_ended(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put("bin/git", "#!/bin/sh\nexec sleep 1000\n", 0o755)
    monkeypatch.setenv("PATH", f"{repository.parent}/bin:{os.environ['PATH']}")
    monkeypatch.setattr(origin, "CLONE_TIMEOUT", 0.01)
    with pytest.raises(FileError) as caught:
        resolve(load(entry(GIT)), Path("work"))
    assert caught.value.what == f"'{repository}' cannot be cloned: git took more than 0.01 s"


def test_a_hooks_variables_do_not_lead_git_astray(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", str(repository.parent / "elsewhere"))
    assert resolve(load(entry(GIT)), Path("work")).steps == ("./x.sh",)


@pytest.mark.parametrize(
    ("repository_key", "expected"),
    [
        ("https://example.org/a.git", "https://example.org/a.git"),
        ("git@example.org:a.git", "git@example.org:a.git"),
        ("/srv/a.git", "/srv/a.git"),
        ("../a.git", "{0}/../a.git"),
    ],
)
def test_only_a_path_is_relative_to_the_job(folder: Path, repository_key: str, expected: str) -> None:
    assert load(entry(GIT.replace("suite.git", repository_key))).repository == expected.format(folder)
