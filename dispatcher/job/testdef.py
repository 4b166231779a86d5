"""Test definitions: what runs on a device, and the files that go there with it.

Four origins, as in LAVA. ``inline`` stands in the job. ``file`` is a YAML file beside the job; every file of its
folder goes to the device. ``git`` is a repository and ``url`` a tarball; loading only notes them, :func:`resolve` gets
and reads them, and all that they hold goes to the device.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from dispatcher.console.install import Entry
from dispatcher.errors import FileError
from dispatcher.job import keys
from dispatcher.job.archive import COMPRESSIONS, SCHEMES, download
from dispatcher.job.content import Content, Repository, expected, parameters, read_content
from dispatcher.job.origin import clone, read_folder
from dispatcher.job.yamlfile import Node, Skipped, read
from dispatcher.wording import nearest, quoted

NAME: Final = re.compile(r"[-_a-zA-Z0-9.]{1,100}")
"""LAVA's schema, ``test/definition.py``; it becomes a directory on the device and a suite in the results."""

RESERVED_NAME: Final = "lava"
"""The suite of the results that no definition reported."""

GENERATED: Final = ("run.sh", "install.sh", "uuid")
"""What the test shell reads in a definition's directory, and what a definition may therefore not bring."""

_ORIGINS = ("inline", "file", "git", "url")
_REMOTE = ("git", "url")


@dataclass(frozen=True, slots=True)
class Definition:
    """One test definition of a test action.

    :ivar origin: ``inline``, ``file``, ``git`` or ``url``.
    :ivar steps: shell code, one step each, in the order in which it runs.
    :ivar params: variables of the steps; the job's values have replaced those of the definition.
    :ivar folder: what ``files`` were read from; None for ``inline``, and for ``git`` and
        ``url`` until they are resolved.
    :ivar files: what goes to the device besides the steps, by path relative to the definition's directory.
    :ivar path: of the YAML file, relative to the job or the repository.
    :ivar metadata_name: the name that the definition gives itself, else ``name``.
    :ivar where: file and line of its entry in the job.
    :ivar install: what of ``install:`` is not wanted (LAVA's ``skip_install``).
    :ivar pattern: what in a line of output is a result; ``fixup`` translates its word, and that of any other result.
    :ivar expected: the test cases that have failed if they are not reported; None where nobody says.
    :ivar helpers: the ``lava-*`` commands of the steps → file and line of the first call.
    :ivar repositories: what is still to be cloned into the definition's directory.
    """

    name: str
    origin: str
    steps: tuple[str, ...]
    install_steps: tuple[str, ...]
    params: Mapping[str, str]
    folder: Path | None
    files: Mapping[str, Entry]
    path: str
    metadata_name: str
    line: int
    where: str
    install: frozenset[str] = frozenset()
    repository: str | None = None
    branch: str | None = None
    revision: str | None = None
    pattern: str | None = None
    fixup: Mapping[str, str] | None = None
    expected: tuple[str, ...] | None = None
    helpers: Mapping[str, str] = field(default_factory=dict)
    repositories: tuple[Repository, ...] = ()

    @property
    def resolved(self) -> bool:
        """Whether steps and files are known."""
        return not self.repositories and (self.origin not in _REMOTE or self.folder is not None)


def load_definitions(node: Node, folder: Path) -> tuple[Definition, ...]:
    """The ``definitions:`` of one test action.

    :param folder: the job file's; relative paths start there.
    :raises FileError: naming the line, for everything that is wrong with any of them.
    """
    entries = node.sequence("a definition")
    if not entries:
        raise node.error("a test action needs at least one test definition")
    definitions: dict[str, Definition] = {}
    for entry in entries:
        definition = _load(entry, folder)
        if definition.name in definitions:
            first = definitions[definition.name].line
            what = f"two definitions are named {quoted(definition.name)}: in line {first} and in line {entry.line}"
            raise entry.error(what, "names need to be unique within a test action")
        definitions[definition.name] = definition
    return tuple(definitions.values())


def _load(entry: Node, folder: Path) -> Definition:
    found = entry.mapping(keys.DEFINITION)
    name = suite_name(entry.need(found, "name"), "a definition")
    origin = _origin(entry.need(found, "from"))
    if "lava-signal" in found:
        # For kmsg there is no need: what another writer tears apart on the console is sent again.
        found["lava-signal"].choice(("kmsg", "stdout"))
    draft = Definition(
        name=name,
        origin=origin,
        steps=(),
        install_steps=(),
        params=parameters(found, "parameters", "params"),
        folder=None,
        files={},
        path=found["path"].line_of_text() if "path" in found else "",
        metadata_name=name,
        line=entry.line,
        where=entry.where,
        install=_skip_install(found),
        expected=expected(found),
    )
    if origin != "url" and "compression" in found:
        found["compression"].skip("'compression' in definitions is not used")
    if origin == "inline":
        _unwanted(found, origin, "branch", "revision")
        return _filled(draft, _content(entry.need(found, "repository"), draft), None, {})
    if origin == "file":
        _unwanted(found, origin, "repository", "branch", "revision")
        return _from_file(draft, entry, folder / entry.need(found, "path").line_of_text())
    if origin == "url":
        _unwanted(found, origin, "branch", "revision")
    return _from_elsewhere(draft, entry, found, folder)


def suite_name(node: Node, what: str) -> str:
    """The name of something whose results are a suite; ``what`` it is, for messages."""
    name = node.string()
    if not NAME.fullmatch(name):
        use = "use at most 100 letters, digits, dots, dashes and underscores"
        raise node.error(f"{what} cannot be named {quoted(name)}", use)
    if name == RESERVED_NAME:
        raise node.error(f"the name {quoted(name)} is reserved")
    return name


def _origin(node: Node) -> str:
    origin = node.string()
    if origin not in _ORIGINS:
        raise node.error(f"unknown origin {quoted(origin)}{nearest(origin, _ORIGINS)}")
    return origin


def _unwanted(found: Mapping[str, Node], origin: str, *names: str) -> None:
    for name in names:
        if name in found:
            raise found[name].error(f"{quoted(name)} has no meaning in a definition 'from: {origin}'")


def _skip_install(found: Mapping[str, Node]) -> frozenset[str]:
    if "skip_install" not in found:
        return frozenset()
    chosen = {value.choice(keys.SKIP_INSTALL) for value in found["skip_install"].one_or_more()}
    return keys.SKIP_INSTALL if "all" in chosen else frozenset(chosen)


def _content(node: Node, draft: Definition) -> Content:
    return read_content(node, draft.name, draft.params, draft.install)


def _filled(draft: Definition, content: Content, folder: Path | None, files: Mapping[str, Entry]) -> Definition:
    for name in GENERATED:
        if name in files:
            what = f"definition {quoted(draft.name)} brings a file {quoted(name)}, which the test shell writes"
            raise FileError(what, where=draft.where, hint=f"rename it; {', '.join(GENERATED)} are taken")
    for repository in content.repositories:
        if repository.destination in {*GENERATED, *(path.partition("/")[0] for path in files)}:
            what = f"the folder {quoted(repository.destination)} of a repository is there already"
            raise FileError(what, where=repository.where, hint="give it another destination")
    return dataclasses.replace(
        draft,
        steps=content.steps,
        install_steps=content.install_steps,
        params=content.params,
        metadata_name=content.metadata_name,
        folder=folder,
        files=files,
        pattern=content.pattern,
        fixup=content.fixup,
        expected=content.expected if draft.expected is None else draft.expected,
        helpers=content.helpers,
        repositories=content.repositories,
    )


def _from_file(draft: Definition, entry: Node, path: Path) -> Definition:
    content = _content(entry.file(path, draft.path), draft)
    return _filled(draft, content, path.parent, read_folder(path.parent, draft.where))


def _from_elsewhere(draft: Definition, entry: Node, found: Mapping[str, Node], folder: Path) -> Definition:
    path = entry.need(found, "path")
    if PurePosixPath(draft.path).is_absolute() or ".." in PurePosixPath(draft.path).parts:
        raise path.error("'path' must stay within the repository")
    repository = entry.need(found, "repository").line_of_text()
    if draft.origin == "url":
        _check_url(found["repository"], found.get("compression"))
        return dataclasses.replace(draft, repository=repository)
    repository = _located(repository, folder)
    branch, revision = _revision(found.get("branch")), _revision(found.get("revision"))
    return dataclasses.replace(draft, repository=repository, branch=branch, revision=revision)


def _check_url(url: Node, compression: Node | None) -> None:
    scheme = url.string().partition(":")[0].lower()
    if scheme not in SCHEMES:
        what = f"{url.name} of a definition 'from: url' is the URL of a tarball, not {quoted(url.string())}"
        raise url.error(what, f"it starts with one of {', '.join(f'{known}:' for known in SCHEMES)}")
    if compression is not None and compression.string() not in COMPRESSIONS:
        what = f"an archive with the compression {quoted(compression.string())} cannot be unpacked here"
        raise compression.error(what, f"pack it with one of {', '.join(COMPRESSIONS)}, or use 'from: git'")


def _located(repository: str, folder: Path) -> str:
    """A repository as git is told it: a path that is no URL starts at the job file."""
    if "://" in repository or re.match(r"[^/]+:", repository):
        return repository
    return str((folder / Path(repository).expanduser()).absolute())


def _revision(node: Node | None) -> str | None:
    if node is None:
        return None
    name = node.line_of_text()
    if name.startswith("-"):
        raise node.error(f"{node.name} cannot start with a dash")
    return name


def resolve(definition: Definition, workdir: Path, skipped: Skipped) -> Definition:
    """The same definition with its steps and files known: gets what comes from elsewhere, returns others as they are.

    :param workdir: an existing folder for what is got; the caller removes it, after the last use of the result.
    :param skipped: collects what of such a definition is not used.
    :raises FileError: git or a download failed, or what was got is no good test definition.
    """
    if definition.origin in _REMOTE and definition.folder is None:
        definition = _resolve_origin(definition, workdir, skipped)
    return _with_repositories(definition, workdir) if definition.repositories else definition


def _resolve_origin(definition: Definition, workdir: Path, skipped: Skipped) -> Definition:
    assert definition.repository is not None  # noqa: S101 - load() has seen to it
    if definition.origin == "url":
        folder = download(definition.repository, workdir, definition.where)
    else:
        folder = clone(definition.repository, definition.branch, definition.revision, workdir, definition.where)
    path = folder / definition.path
    if not path.resolve().is_relative_to(folder.resolve()):
        raise FileError(f"{quoted(definition.path)} leads out of the repository", where=definition.where)
    shown = f"{definition.path} of {definition.repository}"
    content = _content(read(path, skipped, shown=shown, named_at=definition.where), definition)
    return _filled(definition, content, folder, read_folder(folder, definition.where))


def _with_repositories(definition: Definition, workdir: Path) -> Definition:
    files = dict(definition.files)
    for each in definition.repositories:
        folder = clone(each.url, each.branch, None, workdir, each.where)
        cloned = read_folder(folder, each.where)
        files.update((f"{each.destination}/{path}", entry) for path, entry in cloned.items())
    return dataclasses.replace(definition, files=files, repositories=())
