"""Puts ``multinode_lava.pth`` into the wheel's top folder, for which setuptools has no setting."""

from __future__ import annotations

from setuptools import setup
from setuptools.command.build_py import build_py


class WithPath(build_py):
    """Builds the package and that file beside it."""

    def run(self) -> None:
        super().run()
        self.copy_file("multinode_lava.pth", self.build_lib)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [*super().get_outputs(include_bytecode), f"{self.build_lib}/multinode_lava.pth"]


setup(cmdclass={"build_py": WithPath})
