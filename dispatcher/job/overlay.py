"""What is put on a device besides the scripts: the settings they read, the environment, and what a test action runs.

The layout and the contents are LAVA's overlay, so that test definitions find what they know
(``lava_dispatcher/actions/deploy/testdef.py`` and ``overlay.py``). Nothing here opens a file: definitions have
brought theirs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from dispatcher.console.install import Entry
from dispatcher.framing.reliable import Seed
from dispatcher.job.content import REBOOT
from dispatcher.job.definition import Test
from dispatcher.job.testdef import Definition

DEFAULT_CACHE: Final = "/tmp/lava_multi_node_cache.txt"  # noqa: S108 - the API page's name for it
"""Where scripts look for the data of a wait. Members that share a file system cannot all have it there."""


def runs(tests: Iterable[Test], first_index: int = 0) -> list[str]:
    """What the runs of a member's definitions are called, in order; LAVA counts them through all its test actions."""
    definitions = [definition for test in tests for definition in test.definitions]
    return [f"{index}_{definition.name}" for index, definition in enumerate(definitions, first_index)]


class Overlay:
    """The files of one test action of one member, by path below the member's directory.

    :param stage: how many test actions the member has had before.
    :param directory: where all of it goes on the device, absolute, without white space and quotes.
    :param uuid_for: gives a run of a definition, named ``INDEX_NAME``, its id.
    :param cache: stands in for every :data:`DEFAULT_CACHE` in the steps and in files that are text.
    :param first_index: how many definitions the member has had before; LAVA counts them through.
    :raises ValueError: a definition from git has not been resolved.
    :ivar definitions: by run.
    """

    def __init__(
        self,
        stage: int,
        test: Test,
        *,
        directory: str,
        uuid_for: Callable[[str], str],
        cache: str = DEFAULT_CACHE,
        first_index: int = 0,
    ) -> None:
        for definition in test.definitions:
            if not definition.resolved:
                raise ValueError(f"{definition.name} has not been resolved")
        self.definitions = dict(zip(runs([test], first_index), test.definitions, strict=True))
        self._uuids = {run: uuid_for(run) for run in self.definitions}
        self._stage = str(stage)
        self._directory = directory
        self._cache = cache

    def files(self) -> dict[str, Entry]:
        """All of it: the folder named as the stage is what the test runner is given."""
        return self._listed(self._stage, map(self._home, self.definitions)) | self._of(self.definitions)

    def rest(self, folder: str, run: str, step: int) -> dict[str, Entry]:
        """What is left behind a step of a run, for a device that may have lost everything.

        :param folder: what the test runner is given this time.
        """
        names = list(self.definitions)
        later = names[names.index(run) + 1 :]
        definition = self.definitions[run]
        # Beside its directory, not in it: there an install.sh may have stayed, which is not to run again.
        own = {
            "uuid": Entry(f"{self._uuids[run]}\n".encode()),
            "run.sh": Entry(_run_script(definition, run, self._home(run), self._uuids[run], behind=step)),
        }
        homes = [f"{self._directory}/{folder}/tests/{run}", *map(self._home, later)]
        return (
            self._listed(folder, homes)
            | self._placed(f"{folder}/tests/{run}", own)
            | self._placed(f"{self._stage}/tests/{run}", {"uuid": own["uuid"], **definition.files})
            | self._of(later)
        )

    def _home(self, run: str) -> str:
        return f"{self._directory}/{self._stage}/tests/{run}"

    def _listed(self, folder: str, homes: Iterable[str]) -> dict[str, Entry]:
        return {f"{folder}/lava-test-runner.conf": Entry("".join(f"{home}\n" for home in homes).encode())}

    def _of(self, names: Iterable[str]) -> dict[str, Entry]:
        files: dict[str, Entry] = {}
        for run in names:
            brought = _of_definition(self.definitions[run], run, self._home(run), self._uuids[run])
            files |= self._placed(f"{self._stage}/tests/{run}", brought)
        return files

    def _placed(self, folder: str, files: Mapping[str, Entry]) -> dict[str, Entry]:
        return {
            f"{folder}/{path}": Entry(_with_cache(entry.content, self._cache), entry.executable)
            for path, entry in files.items()
        }


def named(tests: Iterable[Test], scripts: Iterable[str]) -> set[str]:
    """Those scripts whose names stand anywhere in the steps and files of some tests.

    All of them would take a second at 115200 baud, and ten at 9600.
    """
    texts = {text for test in tests for definition in test.definitions for text in _texts(definition)}
    return {script for script in scripts if any(script.encode() in text for text in texts)}


def _texts(definition: Definition) -> Iterator[bytes]:
    for step in (*definition.steps, *definition.install_steps):
        yield step.encode("utf-8", "surrogateescape")
    for entry in definition.files.values():
        yield entry.content


def _of_definition(definition: Definition, run: str, directory: str, uuid: str) -> dict[str, Entry]:
    files = dict(definition.files)
    files["uuid"] = Entry(f"{uuid}\n".encode())
    files["run.sh"] = Entry(_run_script(definition, run, directory, uuid))
    if definition.install_steps:
        files["install.sh"] = Entry(_install_script(definition, directory))
    return files


def _run_script(definition: Definition, run: str, directory: str, uuid: str, *, behind: int = 0) -> bytes:
    """The steps behind one of them, all unless it is given."""
    steps = [_escaped(step) for step in definition.steps]
    if any(REBOOT.encode() in text for text in _texts(definition)):
        steps = [f"export LAVA_STEP={number}\n{step}" for number, step in enumerate(steps, 1)]
    return _script(
        [
            *_assignments({**definition.params, "UUID": uuid}),
            *_result_words(definition),
            "set -e",
            "set -x",
            f"export TESTRUN_ID={run}",
            f"cd {directory}",
            *steps[behind:],
            "set +x",
        ]
    )


def _result_words(definition: Definition) -> list[str]:
    """What ``lava-test-case`` takes for a result besides LAVA's words. Words with white space no test can give it."""
    if definition.fixup is None:
        return []
    words = " ".join(word for word in definition.fixup if not set(word) & set(" \t\n"))
    return [f"export LAVA_RESULT_WORDS={_quote(words)}"]


def _install_script(definition: Definition, directory: str) -> bytes:
    # Without set -e, as in LAVA: the last step decides whether the installation failed.
    return _script([*_assignments(definition.params), f"cd {directory}", *definition.install_steps])


def _script(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")


def _escaped(step: str) -> str:
    r"""A step as LAVA writes it: where a test case evaluates a command, ``$1`` belongs to that command (awk's)."""
    if "--cmd" in step or "--shell" in step:
        return re.sub(r"\$([0-9]+)\b", r"\\$\1", step)
    return step


def _with_cache(content: bytes, cache: str) -> bytes:
    if cache == DEFAULT_CACHE or b"\0" in content:
        return content
    return content.replace(DEFAULT_CACHE.encode(), cache.encode())


def environment(*sources: Mapping[str, str]) -> bytes:
    """A file that exports variables; where two sources set the same one, the later source has it."""
    merged = {name: value for source in sources for name, value in source.items()}
    return _script(f"export {line}" for line in _assignments(merged))


BYTES: Final = bytes(value for value in range(1, 256) if value != ord("\n")).decode("utf-8", "surrogateescape")
"""Every byte that a value may hold, in order: a script finds a byte's number by its place, without a process."""


def settings(
    *,
    job_id: str,
    role: str,
    group: Iterable[tuple[str, str]],
    console: str,
    cache: str,
    test_shell: str,
    nonce: str,
    seed: Seed,
) -> bytes:
    """The file beside the target scripts that tells them who they are.

    :param group: id and role of every member.
    :param console: the path of the device's console as the device names it; empty where it cannot tell.
    :param seed: what the sums of its frames begin with.
    """
    members = "\n".join(f"{member}\t{its_role}" for member, its_role in group)
    return _script(
        _assignments(
            {
                "LAVA_JOB_ID": job_id,
                "LAVA_ROLE": role,
                "LAVA_GROUP": members,
                "LAVA_CONSOLE": console,
                "LAVA_MULTI_NODE_CACHE_DEFAULT": cache,
                "LAVA_TEST_SHELL": test_shell,
                "LAVA_FRAMING": "2",
                "LAVA_NONCE": nonce,
                "LAVA_SEED_A": str(seed[0]),
                "LAVA_SEED_B": str(seed[1]),
                "LAVA_BYTES": BYTES,
            }
        )
    )


def _assignments(variables: Mapping[str, str]) -> list[str]:
    return [f"{name}={_quote(value)}" for name, value in variables.items()]


def _quote(value: str) -> str:
    """Any text but NUL as one word of a POSIX shell (XCU 2.2.2, Single-Quotes)."""
    return "'" + value.replace("'", "'\\''") + "'"
