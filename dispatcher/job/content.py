"""What a test definition says, wherever it stands: LAVA's "Lava-Test Test Definition 1.0"."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from dispatcher.errors import FileError
from dispatcher.job import keys
from dispatcher.job.fields import pattern, variables
from dispatcher.job.yamlfile import Keys, Node
from dispatcher.wording import quoted

CASES: Final = ("pass", "fail", "skip", "unknown")
"""The results that a test case may have."""

FIXUP: Final = {word.upper(): word for word in CASES}
"""LAVA's translation of a result's word where the definition has none."""

GROUPS: Final = frozenset(("test_case_id", "result"))
"""Groups that a ``parse: pattern`` must have; ``measurement`` and ``units`` it may have."""

GONE: Final = {
    "lava-network": "LAVA has dropped it; send addresses with lava-send, and read them from the cache of a wait",
    **dict.fromkeys(("lava-vland-self", "lava-vland-names", "lava-vland-tags"), "there are no VLANs here"),
    **dict.fromkeys(("lava-lxc-device-add", "lava-lxc-device-wait-add"), "there are no containers here"),
    **dict.fromkeys(
        ("lava-test-case-attach", "lava-test-run-attach", "lava-test-case-metadata"),
        "LAVA has dropped it; record what matters with lava-test-case or lava-test-reference",
    ),
}
"""LAVA's helpers that cannot work here, each with why or what to do instead."""

REBOOT: Final = "lava-reboot"
"""The helper that has to know from which step it is called, and what its device shows when it is up again."""

_COMMAND = re.compile(
    r"(?:^|[;&|(`{'\"]|(?:\b(?:then|do|else|if|while|until|exec)|--shell|--cmd)\s)\s*(lava-[a-z0-9-]+)", re.MULTILINE
)
"""A call of a helper where a shell looks for a command, as far as a pattern can tell."""


@dataclass(frozen=True, slots=True)
class Repository:
    """One of ``install: git-repos``. ``destination`` is a folder's name in the definition's directory."""

    url: str
    branch: str | None
    destination: str
    where: str


@dataclass(frozen=True, slots=True)
class Content:
    """A definition's own words.

    :ivar steps: shell code, one step each, in the order in which it runs. ``install_steps`` likewise.
    :ivar params: variables of both; the job's values have replaced those of the definition.
    :ivar pattern: what in a line of output is a result, a regular expression.
    :ivar fixup: a result's word in the output → LAVA's; None for LAVA's own.
    :ivar expected: the test cases that have failed if they are not reported; None where it does not say.
    :ivar helpers: the ``lava-*`` commands of the steps → file and line of the first call.
    """

    steps: tuple[str, ...] = ()
    install_steps: tuple[str, ...] = ()
    params: Mapping[str, str] = field(default_factory=dict)
    metadata_name: str = ""
    pattern: str | None = None
    fixup: Mapping[str, str] | None = None
    expected: tuple[str, ...] | None = None
    helpers: Mapping[str, str] = field(default_factory=dict)
    repositories: tuple[Repository, ...] = ()


def read_content(node: Node, name: str, given: Mapping[str, str], skip: frozenset[str]) -> Content:
    """Reads a definition.

    :param name: the name that the job gives it.
    :param given: the job's values for its parameters.
    :param skip: what of ``install`` is to be left out.
    """
    found = node.mapping(keys.TESTDEF)
    helpers: dict[str, str] = {}
    steps: tuple[str, ...] = ()
    if "run" in found and not found["run"].is_null:
        steps = _steps(found["run"].mapping(keys.RUN).get("steps"), helpers)
    if not steps:
        at = found.get("run", node)
        raise at.error(f"definition {quoted(name)} has no run steps", "list them under run: steps:")
    params = {**parameters(found, "params", "parameters"), **given}
    parse = found["parse"].mapping(keys.PARSE) if "parse" in found and not found["parse"].is_null else {}
    install, repositories = _install(found.get("install"), params, skip, helpers)
    return Content(
        steps=steps,
        install_steps=install,
        params=params,
        metadata_name=_metadata_name(found, name),
        pattern=_pattern(parse["pattern"]) if "pattern" in parse else None,
        fixup=_fixup(parse.get("fixupdict"), "pattern" in parse),
        expected=expected(found),
        helpers=helpers,
        repositories=repositories,
    )


def parameters(found: Mapping[str, Node], *names: str) -> dict[str, str]:
    """Variables. Both words are LAVA's; it writes the one named last behind the other, so that the last one holds."""
    params: dict[str, str] = {}
    for name in names:
        if name in found and not found[name].is_null:
            params.update(variables(found[name]))
    return params


def expected(found: Mapping[str, Node]) -> tuple[str, ...] | None:
    """The names of ``expected``, each once."""
    if "expected" not in found:
        return None
    return tuple(dict.fromkeys(case.line_of_text() for case in found["expected"].sequence("a test case")))


# --- run ---------------------------------------------------------------------------------------------------------


def _steps(node: Node | None, helpers: dict[str, str]) -> tuple[str, ...]:
    """The steps of a list; an empty one is left out, as LAVA does."""
    if node is None or node.is_null:
        return ()
    steps = []
    for step in node.sequence("a step"):
        if step.is_mapping:
            raise step.error("a step must be one text, not a mapping", "quote a step that holds ': '")
        if text := step.text():
            steps.append(text)
            for helper in _COMMAND.findall(text):
                if helper in GONE:
                    raise step.error(f"{helper} is not supported", GONE[helper])
                helpers.setdefault(helper, step.where)
    return tuple(steps)


def _metadata_name(found: Mapping[str, Node], name: str) -> str:
    if "metadata" not in found or found["metadata"].is_null:
        return name
    for key, value in found["metadata"].items():
        if key.word() == "name":
            return value.line_of_text()
    return name


# --- results -----------------------------------------------------------------------------------------------------


def _pattern(node: Node) -> str:
    text = pattern(node)
    missing = sorted(GROUPS - set(re.compile(text).groupindex))
    if missing:
        what = f"{node.name} has no group named {missing[0]!r}"
        raise node.error(what, f"write the part of the line that says it as (?P<{missing[0]}>...)")
    return text


def _fixup(node: Node | None, parsed: bool) -> Mapping[str, str] | None:
    if node is None or node.is_null:
        return {} if parsed else None  # as in LAVA: with a pattern its own translation does not hold
    return {key.word(): value.choice(CASES) for key, value in node.items()}


# --- install -----------------------------------------------------------------------------------------------------


def _install(
    node: Node | None, params: Mapping[str, str], skip: frozenset[str], helpers: dict[str, str]
) -> tuple[tuple[str, ...], tuple[Repository, ...]]:
    """The commands that install, in LAVA's order, and the repositories that are cloned before."""
    if node is None or node.is_null:
        return (), ()
    # LAVA appends a distribution to 'deps': deps-debian, deps-centos and so on.
    of_distros = [key.word() for key, _ in node.items() if key.word().startswith("deps-")]
    parts = node.mapping(Keys("install", used=keys.INSTALLERS | {"steps"} | frozenset(of_distros), lenient=True))
    wanted = {word: parts[word] for word in parts if _kind(word) not in skip and not parts[word].is_null}
    commands = [f"lava-add-{word} {each}" for word in ("keys", "sources") for each in _words(wanted.get(word))]
    distros = {word.removeprefix("deps-"): _words(wanted[word]) for word in of_distros if word in wanted}
    commands += _install_packages(
        _words(wanted.get("deps")), {distro: deps for distro, deps in distros.items() if deps}
    )
    repositories = wanted["git-repos"].sequence("a repository") if "git-repos" in wanted else []
    called: dict[str, str] = {}
    steps = _steps(wanted.get("steps"), called)
    if REBOOT in called:
        hint = "a test goes on after a reboot only in its run: steps:"
        raise FileError(f"{REBOOT} cannot be called in install: steps:", where=called[REBOOT], hint=hint)
    for helper, where in called.items():
        helpers.setdefault(helper, where)
    return (
        (*commands, *steps),
        tuple(_repository(repository, params) for repository in repositories),
    )


def _kind(word: str) -> str:
    return "deps" if word.startswith("deps-") else word


def _words(node: Node | None) -> list[str]:
    return [] if node is None else [value.line_of_text() for value in node.sequence()]


def _install_packages(packages: list[str], distros: Mapping[str, list[str]]) -> list[str]:
    """One command for all packages. Which distribution it is, the device says (os-release(5), ``ID``)."""
    if not distros:
        return [f"lava-install-packages {' '.join(packages)}"] if packages else []
    cases = " ".join(f'{distro}) set -- "$@" {" ".join(deps)};;' for distro, deps in distros.items())
    own = '$(. /etc/os-release; printf %s "$ID")'
    chosen = f'set -- {" ".join(packages)}; case {own} in {cases} esac; [ $# -eq 0 ] || lava-install-packages "$@"'
    return [f"({chosen})"]


def _repository(node: Node, params: Mapping[str, str]) -> Repository:
    branch = destination = None
    if node.is_mapping:
        found = node.mapping(keys.GIT_REPO)
        at = node.need(found, "url")
        branch = _substituted(found["branch"], params) if "branch" in found else None
        destination = _substituted(found["destination"], params) if "destination" in found else None
    else:
        at = node
    url = _substituted(at, params)
    destination = destination or url.rstrip("/").rpartition("/")[2].removesuffix(".git")
    if destination in {"", ".", "..", ".git"} or "/" in destination:
        raise node.error(f"{quoted(destination)} cannot be the folder of a repository", "give it a destination: NAME")
    if branch is not None and branch.startswith("-"):
        raise node.error("a branch cannot start with a dash")
    return Repository(url, branch, destination, node.where)


def _substituted(node: Node, params: Mapping[str, str]) -> str:
    """A word, or the value of the parameter that it names."""
    word = node.line_of_text()
    return params.get(word, word)
