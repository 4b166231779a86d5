"""LAVA's own loop on what a command prints on a pty, for ``bench/console.py``; prints seconds, those of CPU, and reads.

Needs LAVA's packages in PYTHONPATH. The log is as ``lava-run`` writes it where no server is named: every line as YAML,
by one handler. (With a server it goes through a pipe to another process besides.) Off, nothing is logged at all.
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lava_common.exceptions import ConnectionClosedError
from lava_common.log import YAMLLogger
from lava_common.timeout import Timeout
from lava_dispatcher.actions.test.multinode import MultinodeTestAction
from lava_dispatcher.shell import ShellCommand, ShellSession


def answered(_request: dict[str, Any]) -> dict[str, Any]:
    """What a coordinator says that never lets anybody wait."""
    return {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", type=Path, help="a file for the log; off unless given")
    parser.add_argument("--size", type=int, required=True, help="bytes of a read")
    parser.add_argument("command")
    arguments = parser.parse_args()

    logging.setLoggerClass(YAMLLogger)
    logger = logging.getLogger("dispatcher")
    if arguments.log:
        logger.addHandler(logging.FileHandler(arguments.log))
    else:
        logger.log_message = lambda *_args, **_fields: None  # type: ignore[attr-defined]

    action = MultinodeTestAction()
    action.signal_director = action.SignalDirector(answered)
    action._reset_patterns()
    action.definition = action.signal_director.test_uuid = "bench"
    began, used = time.perf_counter(), time.process_time()
    command = ShellCommand(arguments.command, Timeout("bench", 3600), logger=logger, window=arguments.size)
    if not arguments.log:
        command.logfile = None
    session = ShellSession(SimpleNamespace(device=None, context={}), command)
    action.signal_director.connection = session
    reads = 0
    read = command.read_nonblocking

    def counted(*args: Any, **fields: Any) -> Any:
        nonlocal reads
        reads += 1
        return read(*args, **fields)

    command.read_nonblocking = counted
    try:
        while action._keep_running(command, 3600, session.check_char):
            pass
        raise SystemExit("the loop ended before the output did")
    except ConnectionClosedError:
        print(time.perf_counter() - began, time.process_time() - used, reads)


if __name__ == "__main__":
    main()
