"""Builds Spillway.  With SPILLWAY_COMPILED=1 the modules of `tool.spillway.compiled` are compiled to C by mypyc.

The source is the same either way.  A compiled worker serves 1.4 to 1.6 times as many requests (`make bench`); it needs a C
compiler and Python's headers once, where it is built (`make wheel`).
"""

from __future__ import annotations

import os
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext


class OnAllCores(build_ext):
    """One C file a module, as many at once as there are cores: in one file they take twice as long."""

    def build_extension(self, ext: Extension) -> None:
        def compiled(source: str) -> list[str]:
            made: list[str] = self.compiler.compile(
                [source],
                output_dir=self.build_temp,
                include_dirs=ext.include_dirs,
                extra_postargs=ext.extra_compile_args,
            )
            return made

        with ThreadPoolExecutor(os.cpu_count()) as threads:
            ext.extra_objects = [made for files in threads.map(compiled, ext.sources) for made in files]
        ext.sources = []
        super().build_extension(ext)


options: dict[str, Any] = {}
if os.environ.get("SPILLWAY_COMPILED") == "1":
    from mypyc.build import mypycify

    listed = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["spillway"]["compiled"]
    files = [f"{name.replace('.', '/')}.py" for name in listed]
    modules = mypycify(files, opt_level="2", debug_level="0", multi_file=True)
    options = {"ext_modules": modules, "cmdclass": {"build_ext": OnAllCores}}
setup(**options)
