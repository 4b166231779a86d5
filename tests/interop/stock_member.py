"""A member of LAVA's own: its ``MultinodeProtocol``, told by hand where the coordinator is.

Arguments: port, job id, role, group, size, then the calls as one JSON list. Prints each call's reply as a line.
"""

from __future__ import annotations

import json
import sys

from lava_dispatcher.protocols.multinode import MultinodeProtocol

POLL_DELAY = 1


def join(port: int, job_id: str, role: str, group: str, size: int) -> MultinodeProtocol:
    """A member that has joined its group, which is complete."""
    place = {"target_group": group, "role": role, "group_size": size}
    protocol = MultinodeProtocol({"protocols": {MultinodeProtocol.name: place}}, job_id)
    protocol.debug_setup()
    # What set_up() reads from /etc/lava-coordinator/lava-coordinator.conf.
    protocol.settings |= {"port": port, "poll_delay": POLL_DELAY}
    protocol.initialise_group()
    return protocol


def main() -> None:
    port, job_id, role, group, size, calls = sys.argv[1:]
    protocol = join(int(port), job_id, role, group, int(size))
    for call in json.loads(calls):
        print(json.dumps(protocol(call)), flush=True)
    protocol.finalise_protocol()


if __name__ == "__main__":
    main()
