"""A guest that runs a Python program as its first process, with this interpreter and what the program imports."""

from __future__ import annotations

import ast
import importlib.util
import os
import py_compile
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from dispatcher.guest import initramfs, recipe

PROJECT = Path(__file__).parents[2]
IMPORTED = """\
import runpy, sys
runpy.run_path(sys.argv[1], run_name="imported")
print([module.__file__ for module in list(sys.modules.values()) if getattr(module, "__file__", None)])
print([path for path in sys.path if path])
"""

INIT = """\
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs devtmpfs /dev
export PYTHONPATH={path} PYTHONHOME={home}
/bin/busybox setsid -c {python} {program} <"/dev/{console}" >"/dev/{console}" 2>&1
/bin/busybox poweroff -f
"""


def with_program(guest: recipe.Guest, program: Path, folder: Path) -> recipe.Guest:
    """A guest that runs a program and goes off; everything has the path that it has on this host.

    :param folder: where its initramfs is written.
    """
    printed = subprocess.run(
        [sys.executable, "-c", IMPORTED, str(program)], capture_output=True, check=True, text=True, cwd=folder
    )
    modules, path = map(ast.literal_eval, printed.stdout.splitlines()[-2:])
    python = os.path.realpath(sys.executable)
    files = {name: Path(name).read_bytes() for name in {*modules, str(program)}}
    for name in [name for name in files if name.endswith(".py")]:
        # The guest is slow, and its files have no times by which a cached module could be told to be of today.
        compiled = py_compile.compile(
            name, folder / "compiled", invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
        )
        files[importlib.util.cache_from_source(name)] = Path(str(compiled)).read_bytes()
    for binary in [python, *(name for name in files if ".so" in name)]:
        for library in re.findall(r"(/\S+) \(0x", subprocess.check_output(["ldd", binary], text=True)):
            files[library] = Path(library).read_bytes()
    files[python] = Path(python).read_bytes()
    files["/program"] = INIT.format(
        path=":".join([str(PROJECT), *path]),
        home=sys.base_prefix,
        python=python,
        program=program,
        console=guest.architecture.serial,
    ).encode()
    initrd = folder / "initrd"
    # The kernel takes several archives one after the other.
    initrd.write_bytes(guest.initrd.read_bytes() + _archive(files))
    return replace(guest, initrd=initrd)


def _archive(files: dict[str, bytes]) -> bytes:
    parents = {parent for name in files for parent in Path(name).parents if parent != Path("/")}
    # Without it the interpreter takes its home for wrong.
    parents.add(Path(sys.base_prefix, "lib", f"python{sys.version_info.major}.{sys.version_info.minor}", "lib-dynload"))
    parents.update([parent for folder in list(parents) for parent in folder.parents if parent != Path("/")])
    entries = [initramfs.directory(str(folder)[1:]) for folder in sorted(parents)]
    entries += [initramfs.file(name[1:], data, 0o755) for name, data in files.items()]
    return initramfs.archive(entries)
