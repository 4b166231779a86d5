"""The ``multinode`` command: from arguments to an exit status.

0 all cases passed; 1 the job ran and something failed; 2 the job, device file or command line is wrong; 3 a console or
the coordinator failed; 130 interrupted (128 and the signal's number for the others that end a run).
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from dispatcher.errors import MultinodeError, Stopped

_CRASHED = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Errors are one or two lines on stderr; a traceback only with ``--debug``."""
    debug = "--debug" in (sys.argv if argv is None else argv)
    try:
        # Imported here, and little above, so that Ctrl-C finds us ready while Python still loads modules.
        before = signal.signal(signal.SIGINT, _quit)
        try:
            from dispatcher.cli.parser import parse
        finally:
            signal.signal(signal.SIGINT, before)

        arguments = parse(argv)
        status: int = arguments.command(arguments)
        sys.stdout.flush()
    except MultinodeError as error:
        if debug:
            raise
        _tell(str(error))
        return error.exit_status
    except (KeyboardInterrupt, Stopped) as stop:
        _tell("interrupted; every console is closed")
        return 128 + (stop.number if isinstance(stop, Stopped) else signal.SIGINT)
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain once more when it flushes at exit.
        sys.stderr.close()
        return 128 + signal.SIGPIPE
    except OSError as error:
        if debug:
            raise
        _tell(f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
        return _CRASHED
    except Exception as error:
        if debug:
            raise
        _tell(f"internal error: {type(error).__name__}: {error}\n  run it again with --debug and report that")
        return _CRASHED
    return status


def _quit(number: int, _frame: Any) -> NoReturn:
    """End while nothing is open yet; an exception might be lost in what the import system calls back."""
    os.write(sys.stderr.fileno(), b"multinode: interrupted\n")
    os._exit(128 + number)


def _tell(message: str) -> None:
    print(f"multinode: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
