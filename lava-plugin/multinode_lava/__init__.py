"""Has LAVA's dispatcher learn of our protocol when it loads its own.

LAVA has no entry point for protocols: it imports its four in ``lava_dispatcher.protocols.strategies`` and then asks the
subclasses of ``Protocol``. So ``multinode_lava.pth``, beside this package, has every Python program of the environment
import this module at its start (the manual of ``site``), which waits for that import and then does its own. Programs
that are not LAVA's dispatcher pay for one object in ``sys.meta_path``.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

LOADS_PROTOCOLS = "lava_dispatcher.protocols.strategies"


class AfterLavas(MetaPathFinder):
    """Finds the module that imports LAVA's protocols, once, and has ours imported after it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != LOADS_PROTOCOLS:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_both(module: ModuleType) -> None:
                execute(module)
                importlib.import_module("multinode_lava.protocol")

            spec.loader.exec_module = execute_both  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, AfterLavas())
