"""A member of LAVA's own: its ``MultinodeProtocol``, told by hand where the coordinator is.

Arguments: port, job id, role, group, size, then the calls as one JSON list. Prints each call's reply as a line.
"""

from __future__ import annotations

import json
import sys

from lava_dispatcher.protocols.multinode import MultinodeProtocol

POLL_DELAY = 1


def main() -> None:
    port, job_id, role, group, size, calls = sys.argv[1:]
    place = {"target_group": group, "role": role, "group_size": int(size)}
    protocol = MultinodeProtocol({"protocols": {MultinodeProtocol.name: place}}, job_id)
    protocol.debug_setup()
    # What set_up() reads from /etc/lava-coordinator/lava-coordinator.conf.
    protocol.settings |= {"port": int(port), "poll_delay": POLL_DELAY}
    protocol.initialise_group()
    for call in json.loads(calls):
        print(json.dumps(protocol(call)), flush=True)
    protocol.finalise_protocol()


main()
