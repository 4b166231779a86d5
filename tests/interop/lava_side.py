"""LAVA's end of a console, for a process of its own: LAVA's connection, patterns and signal director, as they are.

Runs the command given and serves its calls until it ends. Every call of the group is told on standard output, a line
of JSON each: ``{"send": [ID, DATA]}``, ``{"wait": [NAME, ID]}``, ``{"result": {…}}``. A wait gets what was sent last
under its ID, as if a member named 10 had sent it; a sync gets nothing.

With more arguments, those of :func:`stock_member.join`, it is a member of a group of a coordinator's instead, by LAVA's
own protocol.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import stock_member
from lava_common.timeout import Timeout
from lava_dispatcher.actions.test.multinode import MultinodeTestAction
from lava_dispatcher.protocols.multinode import MultinodeProtocol
from lava_dispatcher.shell import ShellCommand


def tell(what: str, value: Any) -> None:
    print(json.dumps({what: value}), flush=True)


class Log(logging.Logger):
    """LAVA's logger has these besides."""

    def results(self, result: dict[str, Any]) -> None:
        tell("result", result)

    def marker(self, _what: dict[str, Any]) -> None:
        pass

    def event(self, _what: str) -> None:
        pass

    def input(self, *_what: Any, **_more: Any) -> None:
        pass

    def target(self, *_what: Any, **_more: Any) -> None:
        pass


class Echo:
    """Stands in for LAVA's protocol, and for all other members."""

    def __init__(self) -> None:
        self.sent: dict[str, dict[str, str]] = {}

    def __call__(self, message: dict[str, Any]) -> Any:
        if message["request"] == "lava_send":
            tell("send", [message["messageID"], message["message"]])
            self.sent[message["messageID"]] = message["message"]
            return "ack"
        tell("wait", [message["request"], message["messageID"]])
        return {"10": self.sent.get(message["messageID"], {})} if "wait" in message["request"] else "ack"


def member(port: str, job_id: str, role: str, group: str, size: str) -> MultinodeProtocol:
    return stock_member.join(int(port), job_id, role, group, int(size))


def main() -> None:
    command, *place = sys.argv[1:]
    log = Log("lava")
    action = MultinodeTestAction()
    action.logger = log
    action._reset_patterns()
    protocol = member(*place) if place else Echo()
    action.signal_director = action.SignalDirector(protocol)
    action.signal_director.test_uuid = "0123"
    action.definition = "0_test"
    connection = ShellCommand(command, Timeout("test", duration=300), logger=log)
    action.signal_director.connection = connection
    running = True
    while running:
        running = action._keep_running(connection, 60, "#")
    if place:
        protocol.finalise_protocol()


if __name__ == "__main__":
    main()
