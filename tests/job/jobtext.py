"""Job files that are right, and ways to make them wrong: what the tests of this folder share."""

from __future__ import annotations

from pathlib import Path

import pytest

from dispatcher.errors import FileError
from dispatcher.job import definition
from dispatcher.job.definition import Job, load_job
from dispatcher.job.testdef import Definition

Edits = dict[int, str | None]
"""What takes the place of a line, by its number; None takes the line away."""

JOB = """\
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

DEFINITION = """\
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

FILE = "from: file\nname: x\npath: tests/x.yaml\nparams: {A: job's}\n"
TESTDEF = "metadata: {name: of the file}\nparams: {A: file's, B: file's}\nrun: {steps: [./x.sh]}\n"


def edited(text: str, edits: Edits) -> str:
    """A text with some of its lines replaced, or taken away."""
    lines: list[str | None] = [*text.splitlines()]
    for number, line in edits.items():
        lines[number - 1] = line
    return "".join(f"{line}\n" for line in lines if line is not None)


def entry(text: str) -> str:
    """A job with one definition, given by its own lines."""
    lines = text.splitlines()
    return edited(DEFINITION, {7: f"    - {lines[0]}", **dict.fromkeys(range(8, 12))}) + "".join(
        f"      {x}\n" for x in lines[1:]
    )


def job_of(text: str) -> Job:
    """The job that a file of this text is, in the current directory."""
    Path("job.yaml").write_text(text)
    return load_job(Path("job.yaml"))


def load(text: str) -> Definition:
    """The first definition of the first test action."""
    action = job_of(text).actions[0]
    assert isinstance(action, definition.Test)
    return action.definitions[0]


def refused(text: str) -> FileError:
    with pytest.raises(FileError) as caught:
        load(text)
    return caught.value


def put(path: str, content: str | bytes = b"", mode: int = 0o644) -> None:
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content.encode() if isinstance(content, str) else content)
    target.chmod(mode)
