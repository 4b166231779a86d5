"""A job of LAVA's in a process of its own: LAVA's parser makes it, and its protocols are set up and called.

Arguments: the file with its settings, the member's id, its role, the group's size, then the calls as one JSON list.
Prints what the parser selected as ``MODULE.CLASS``, then the outcome of each call, a line of JSON each.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from types import ModuleType

# LAVA imports it for disk images, which nothing here makes; it would bring libguestfs and a kernel.
sys.modules["guestfs"] = ModuleType("guestfs")

from lava_common.exceptions import MultinodeProtocolTimeoutError  # noqa: E402
from lava_dispatcher.actions.test.multinode import MultinodeTestAction  # noqa: E402
from lava_dispatcher.device import NewDevice  # noqa: E402
from lava_dispatcher.parser import JobParser  # noqa: E402

CONFIG = "/etc/lava-coordinator/lava-coordinator.conf"
DEVICE = """\
actions: {deploy: {methods: {ssh: {options: [], host: localhost, port: 22}}}, boot: {methods: {ssh: {}}}}
timeouts: {actions: {}, connections: {}}
constants: {boot_retry: 1, failure_retry: 1}
commands: {}
"""


def job(role: str, size: int) -> str:
    """What LAVA's scheduler hands to one worker: this member's part of the job."""
    place = {"role": role, "target_group": "a-group", "group_size": size, "timeout": {"seconds": 60}}
    test = {"role": role, "definitions": [], "timeout": {"minutes": 1}, "namespace": "common"}
    timeouts = {"job": {"minutes": 5}, "action": {"minutes": 1}, "connection": {"minutes": 1}}
    parts = {"job_name": "j", "timeouts": timeouts, "protocols": {"lava-multinode": place}}
    return json.dumps({**parts, "actions": [{"test": test}]})


def main() -> None:
    settings, job_id, role, size, calls = sys.argv[1:]
    made = JobParser().parse(job(role, int(size)), NewDevice(io.StringIO(DEVICE)), job_id, logging.getLogger("x"), None)
    for protocol in made.protocols:
        print(f"{type(protocol).__module__}.{type(protocol).__qualname__}", flush=True)
    [protocol] = made.protocols
    [action, _finalise] = made.pipeline.actions
    assert isinstance(action, MultinodeTestAction), action
    assert action.protocols == [protocol]
    # What is read from a file that only root may make.
    exists = os.path.exists
    os.path.exists = lambda path: path == CONFIG or exists(path)
    read = protocol.read_settings
    protocol.read_settings = lambda _name: read(settings)
    protocol.set_up()
    for call in json.loads(calls):
        try:
            print(json.dumps(protocol(call)), flush=True)
        except MultinodeProtocolTimeoutError as error:
            print(json.dumps(f"failed: {error}"), flush=True)
    protocol.finalise_protocol(made.device)


if __name__ == "__main__":
    main()
