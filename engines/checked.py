"""Reads the fields of a request's body for translation: each has the type that it must have, or is refused by its path.

An engine that speaks the client's own dialect may say better what is wrong, so a wrong type is `Untranslatable`,
which lets another candidate try, and not the end of the request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from typing import Any, TypeVar, cast

from engines.errors import Untranslatable

_FIELD_NAME = re.compile(r"[a-z][a-z_]{0,39}")
_WORDS: dict[type, str] = {
    str: "a string", bool: "true or false", int: "a whole number", float: "a number", dict: "an object", list: "an array",
}  # fmt: skip
T = TypeVar("T")


def typed(value: Any, path: str, kind: type[T]) -> T:
    """`value`, where it is of this kind; a whole number is a float too, a boolean is no number."""
    if isinstance(value, bool) and kind is not bool:
        raise Untranslatable(path, f"must be {_WORDS[kind]}")
    if not isinstance(value, (int, float) if kind is float else kind):
        raise Untranslatable(path, f"must be {_WORDS[kind]}")
    return cast(T, value)


def maybe(row: Mapping[str, Any], name: str, kind: type[T], path: str = "") -> T | None:
    """A field that may be left out or null."""
    value = row.get(name)
    return None if value is None else typed(value, f"{path}.{name}" if path else name, kind)


def listed(value: Any, path: str) -> list[Any]:
    """An array; nothing is an empty one."""
    rows: list[Any] = [] if value is None else typed(value, path, list)
    return rows


def mapped(value: Any, path: str) -> dict[str, Any]:
    """An object; nothing is an empty one."""
    row: dict[str, Any] = {} if value is None else typed(value, path, dict)
    return row


def only(row: Mapping[str, Any], path: str, known: Set[str]) -> None:
    """Refuse what else stands in an object: it has no neutral word, and nothing is dropped in silence."""
    for name, value in row.items():
        if name not in known and value is not None:
            raise Untranslatable(f"{path}.{named(name)}", "a field that the engine's dialect does not know")


def named(name: str) -> str:
    """A field's name if it looks like one: what a client wrote stands in no message otherwise."""
    return name if _FIELD_NAME.fullmatch(name) else "*"
