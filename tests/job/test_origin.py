"""The files of a definition: which of a folder's go along, and what git brings."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from jobtext import FILE, TESTDEF, entry, load, put, refused

from dispatcher.console.install import Entry
from dispatcher.errors import FileError
from dispatcher.job import definition, origin
from dispatcher.job.definition import load_job, resolve_job
from dispatcher.job.testdef import resolve
from dispatcher.job.yamlfile import Skipped


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


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
    settings = (
        "-c",
        "user.name=x",
        "-c",
        "user.email=x@example.org",
        "-c",
        "init.defaultBranch=main",
        "-c",
        "commit.gpgsign=false",
    )
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
    found = resolve(load(entry(GIT + more)), Path("work"), Skipped())
    assert found.resolved
    assert (found.steps, found.params, found.metadata_name) == (
        ("./x.sh",),
        {"A": "job's", "B": "file's"},
        "of the file",
    )
    assert found.files == {"deep/x.yaml": Entry(TESTDEF.encode()), "x.sh": Entry(content, executable=True)}


def test_a_revision_is_found_behind_a_url_too(repository: Path) -> None:
    old = subprocess.run(("git", "-C", "suite.git", "rev-parse", "v1"), check=True, capture_output=True, text=True)
    text = GIT.replace("suite.git", f"file://{repository}") + f"revision: {old.stdout}"
    assert resolve(load(entry(text)), Path("work"), Skipped()).files["x.sh"].content == b"old"


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
        resolve(wanted, Path("work"), Skipped())
    assert (caught.value.where, caught.value.what) == ("job.yaml:7", what.format(repository.parent))
    assert len(str(caught.value).splitlines()) <= 2


def test_a_bad_definition_from_git_is_named_with_its_repository(repository: Path) -> None:
    put("suite.git/deep/x.yaml", "run: {steps: []}")
    git("-C", "suite.git", "commit", "-a", "-m", "bad")
    with pytest.raises(FileError) as caught:
        resolve(load(entry(GIT)), Path("work"), Skipped())
    assert str(caught.value.where) == f"deep/x.yaml of {repository}:1"


def test_a_link_cannot_lead_out_of_a_repository(repository: Path) -> None:
    put("secret.yaml", TESTDEF)
    Path("suite.git/deep/x.yaml").unlink()
    os.symlink("../../secret.yaml", "suite.git/deep/x.yaml")
    git("-C", "suite.git", "commit", "-a", "-m", "link")
    put("work/secret.yaml", TESTDEF)
    with pytest.raises(FileError) as caught:
        resolve(load(entry(GIT)), Path("work"), Skipped())
    assert caught.value.what == "'deep/x.yaml' leads out of the repository"


def test_missing_git_is_told(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(repository / "no-such-folder"))
    with pytest.raises(FileError) as caught:
        resolve(load(entry(GIT)), Path("work"), Skipped())
    assert (caught.value.where, caught.value.what) == ("job.yaml:7", "git cannot be started: No such file or directory")


def test_a_git_that_hangs_is_ended(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put("bin/git", "#!/bin/sh\nexec sleep 1000\n", 0o755)
    monkeypatch.setenv("PATH", f"{repository.parent}/bin:{os.environ['PATH']}")
    monkeypatch.setattr(origin, "CLONE_TIMEOUT", 0.01)
    with pytest.raises(FileError) as caught:
        resolve(load(entry(GIT)), Path("work"), Skipped())
    assert caught.value.what == f"'{repository}' cannot be cloned: git took more than 0.01 s"


def test_a_hooks_variables_do_not_lead_git_astray(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", str(repository.parent / "elsewhere"))
    found = resolve(load(entry(GIT + "revision: v1\n")), Path("work"), Skipped())
    assert found.files["x.sh"].content == b"old"


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
