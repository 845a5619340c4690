"""What mypyc compiles must mean the same compiled: traps that are known are kept out of the sources, the whole suite finds
the others (`make test-compiled`)."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import os
import pkgutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pydantic

import compliance
import engines
import policies
import proxy

ROOT = Path(__file__).resolve().parents[2]
COMPILED: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["spillway"]["compiled"]
WORDS_OF_C = {"thread", "real", "imag", "complex", "asm", "inline", "attribute", "const", "volatile", "signed", "typeof",
              "extension", "label", "alignof", "restrict", "auto_type", "int128"}  # fmt: skip
"""gcc's words with two underscores before them: an attribute `_real` becomes one in the C that mypyc writes."""


def source(name: str) -> ast.Module:
    return ast.parse((ROOT / f"{name.replace('.', '/')}.py").read_text())


def classes(name: str) -> Iterator[type]:
    for value in vars(importlib.import_module(name)).values():
        if inspect.isclass(value) and value.__module__ == name:
            yield value


def test_what_is_listed_is_there_once_and_in_order() -> None:
    assert len(COMPILED) == len(set(COMPILED))
    for name in COMPILED:
        assert (ROOT / f"{name.replace('.', '/')}.py").exists(), name


def test_no_compiled_module_declares_a_class_that_others_build() -> None:
    """msgspec, dataclasses and pydantic read annotations and options that a compiled class does not keep."""
    for name in COMPILED:
        for kind in classes(name):
            assert not issubclass(kind, (msgspec.Struct, pydantic.BaseModel)), f"{name}.{kind.__name__}"
            assert not dataclasses.is_dataclass(kind), f"{name}.{kind.__name__}"


def test_no_compiled_class_has_a_base_with_slots_that_is_not_compiled() -> None:
    for name in COMPILED:
        for kind in classes(name):
            for base in kind.__mro__[1:-1]:
                if base.__module__ not in (*COMPILED, "builtins", "typing", "abc"):
                    assert not getattr(base, "__slots__", ()), f"{name}.{kind.__name__}"


def test_nothing_interpreted_derives_from_what_is_compiled() -> None:
    for package in (compliance, engines, policies, proxy):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if found.name in COMPILED or found.name.endswith(("__main__", ".worker", "presidio")):
                continue
            for kind in classes(found.name):
                bases = {base.__module__ for base in kind.__mro__[1:]}
                assert bases.isdisjoint(COMPILED), f"{found.name}.{kind.__name__}"


def test_a_slices_bounds_have_no_effects() -> None:
    """mypyc evaluates them twice where what is sliced is no list, tuple, str or bytes."""
    pure = {"len", "min", "max"}
    for name in COMPILED:
        for node in ast.walk(source(name)):
            if not isinstance(node, ast.Slice):
                continue
            for bound in (node.lower, node.upper):
                for call in ast.walk(bound) if bound is not None else ():
                    if isinstance(call, ast.Call):
                        called = ast.unparse(call.func)
                        assert called in pure or called.endswith(
                            (".find", ".rfind", ".index", ".rindex", ".start", ".end")
                        ), f"{name}, line {call.lineno}: {called}"


def test_an_int_is_not_taken_for_a_float() -> None:
    """Where `int | float` is declared mypy says `float`, and compiled code makes one: `48213` becomes `48213.0`."""
    for name in COMPILED:
        for node in ast.walk(source(name)):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
                words = {part.strip() for part in ast.unparse(node).split("|")}
                assert not {"int", "float"} <= words, f"{name}, line {node.lineno}"


def test_no_attribute_is_a_word_of_c() -> None:
    for name in COMPILED:
        for node in ast.walk(source(name)):
            if isinstance(node, ast.Attribute):
                assert not (node.attr.startswith("_") and node.attr[1:] in WORDS_OF_C), f"{name}, line {node.lineno}"


def test_a_constructor_passes_no_arguments_on_unseen() -> None:
    """`super().__init__(*arguments)` gives the tuple itself as the first."""
    for name in COMPILED:
        for node in ast.walk(source(name)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("super()"):
                stars = any(isinstance(one, ast.Starred) for one in node.args) or any(
                    key.arg is None for key in node.keywords
                )
                assert not stars, f"{name}, line {node.lineno}"


def test_nothing_asks_a_cast_of_what_comes_from_outside() -> None:
    """Compiled code checks a cast: uvloop's transport is no `asyncio.Transport`."""
    for name in COMPILED:
        for node in ast.walk(source(name)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("cast", "typing.cast"):
                raise AssertionError(f"{name}, line {node.lineno}")


def test_nothing_is_awaited_while_an_exception_is_handled() -> None:
    """Compiled, it would stay the one that is being handled for whoever runs meanwhile."""
    waits = (ast.Await, ast.Yield, ast.YieldFrom, ast.AsyncFor, ast.AsyncWith)
    for name in COMPILED:
        for node in ast.walk(source(name)):
            if isinstance(node, ast.Try):
                for handler in (*node.handlers, ast.Module(node.finalbody, [])):
                    for inner in ast.walk(handler):
                        assert not isinstance(inner, waits), f"{name}, line {inner.lineno}"


def test_the_suite_runs_on_what_it_says_it_does() -> None:
    """`make test-compiled` must not pass on the sources."""
    wanted = ".so" if "build/compiled" in os.environ.get("PYTHONPATH", "") else ".py"
    for name in COMPILED:
        file = importlib.import_module(name).__file__
        assert file is not None and file.endswith(wanted), file
