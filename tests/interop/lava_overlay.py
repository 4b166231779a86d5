"""LAVA's own overlay for one member of a group, for a process of its own: its MultiNode scripts with their headers.

Arguments: the directory to make, the member's id, and the group as a JSON object of id → role. The scripts are then in
``bin`` below that directory, and their cache file is ``cache`` there, for members that share a host. One more
argument is a directory of scripts to take instead of LAVA's own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

# The overlay's module imports it for disk images, which nothing here makes; it would bring libguestfs and a kernel.
sys.modules["guestfs"] = ModuleType("guestfs")

from lava_dispatcher.actions.deploy.overlay import MultinodeOverlayAction  # noqa: E402
from lava_dispatcher.protocols.multinode import MultinodeProtocol  # noqa: E402


def main() -> None:
    directory, job_id, group, *scripts = sys.argv[1:]
    roles = json.loads(group)
    (Path(directory) / "bin").mkdir(parents=True)
    action = MultinodeOverlayAction()
    action.role = roles[job_id]
    [action.lava_multi_node_test_dir] = scripts or [action.lava_multi_node_test_dir]
    action.lava_multi_node_cache_file = f"{directory}/cache"
    action.parameters = {"namespace": "common"}
    place = {"role": roles[job_id], "roles": roles}
    parameters = {"protocols": {MultinodeProtocol.name: place}}
    action.job = SimpleNamespace(job_id=job_id, parameters=parameters, context={}, protocols=[])
    shared = {"lava_test_sh_cmd": "/bin/sh", "location": "/"}
    for label, data in {"results": {"lava_test_results_dir": directory}, "shared": shared}.items():
        for key, value in data.items():
            action.set_namespace_data(action="test", label=label, key=key, value=value)
    action.run(None, None)


if __name__ == "__main__":
    main()
