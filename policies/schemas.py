"""Does a value fit a JSON Schema?  True and False only where that is certain; None where it cannot be told.  Pure.

The keywords are those that applications write for structured output (JSON Schema 2020-12, and OpenAI's and Anthropic's
parts of it).  A keyword that is not known here can make a value wrong, but never right: what breaks a known one is
broken, and what breaks none is only called whole where every keyword was known.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

Verdict = bool | None
MOST_STEPS = 20_000
"""Values, schemas, and pairs of values that are looked at; of more it cannot be told."""
_DEPTH = 64
_SAYS_NOTHING = frozenset(
    {
        "$schema", "$id", "$comment", "$defs", "definitions", "$anchor", "title", "description", "default", "examples", "deprecated",
        "readOnly", "writeOnly", "format", "contentMediaType", "contentEncoding",
    }
)  # fmt: skip
"""Keywords that forbid nothing by themselves; of a format only some validators make more."""


class _TooMuch(Exception):
    pass


def fits(schema: Any, value: Any) -> Verdict:
    """Does a value, as `json` decodes it, fit a schema?"""
    try:
        return _Look(schema).at(schema, value, 0)
    except (_TooMuch, RecursionError):
        return None


def text_fits(schema: Any, text: str) -> Verdict:
    """The same for a text that must be JSON; `schema` None: it must be an object, and no more is known of it."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    if schema is None:
        return isinstance(value, dict)
    return fits(schema, value)


class _Look:
    """One look at one value."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._steps = 0

    def step(self, count: int = 1) -> None:
        """Something more is looked at."""
        self._steps += count
        if self._steps > MOST_STEPS:
            raise _TooMuch

    def at(self, schema: Any, value: Any, depth: int) -> Verdict:
        self.step()
        if depth > _DEPTH:
            raise _TooMuch
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            return None
        self.step(len(schema) // 16)
        found: Verdict = True
        for keyword, wanted in schema.items():
            if keyword in _SAYS_NOTHING:
                continue
            check = _CHECKS.get(keyword)
            said = None if check is None else check(self, wanted, value, schema, depth + 1)
            if said is False:
                return False
            if said is None:
                found = None
        return found

    def named(self, reference: Any) -> Any:
        """The schema that a `$ref` into the same document names; None: there is none."""
        if not isinstance(reference, str) or not reference.startswith("#"):
            return None
        place = self._root
        self.step(len(reference) // 16)
        for part in reference[1:].split("/")[1:]:
            part = part.replace("~1", "/").replace("~0", "~")
            place = place.get(part) if isinstance(place, dict) else None
        return place


def _every(said: list[Verdict]) -> Verdict:
    return False if False in said else None if None in said else True


def _some(said: list[Verdict]) -> Verdict:
    return True if True in said else None if None in said else False


def _is(kind: Any, value: Any) -> Verdict:
    match kind:
        case "object":
            return isinstance(value, dict)
        case "array":
            return isinstance(value, list)
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
        case "number":
            return _number(value)
        case "integer":
            return _number(value) and (isinstance(value, int) or value.is_integer())
        case _:
            return None


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _same(look: _Look, one: Any, other: Any) -> bool:
    """Equal as JSON has it: `1` is `1.0`, and neither is `true`."""
    look.step()
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(look, one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(_same(look, a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def _type(look: _Look, wanted: Any, value: Any, schema: Any, depth: int) -> Verdict:
    if not isinstance(wanted, list):
        return _is(wanted, value)
    look.step(len(wanted))
    return _some([_is(kind, value) for kind in wanted])


def _enum(look: _Look, wanted: Any, value: Any, schema: Any, depth: int) -> Verdict:
    return any(_same(look, one, value) for one in wanted) if isinstance(wanted, list) else None


def _const(look: _Look, wanted: Any, value: Any, schema: Any, depth: int) -> Verdict:
    return _same(look, wanted, value)


def _required(look: _Look, wanted: Any, value: Any, schema: Any, depth: int) -> Verdict:
    if not isinstance(value, dict):
        return True
    if not isinstance(wanted, list):
        return None
    look.step(len(wanted))
    return all([name in value for name in wanted]) if all([isinstance(name, str) for name in wanted]) else None


def _properties(look: _Look, wanted: Any, value: Any, schema: Any, depth: int) -> Verdict:
    if not isinstance(value, dict):
        return True
    if not isinstance(wanted, dict):
        return None
    look.step(len(wanted))
    return _every([look.at(part, value[name], depth) for name, part in wanted.items() if name in value])


def _additional(look: _Look, wanted: Any, value: Any, schema: Any, depth: int) -> Verdict:
    if not isinstance(value, dict):
        return True
    if "patternProperties" in schema:
        return None
    named = schema.get("properties")
    known = named if isinstance(named, dict) else {}
    return _every([look.at(wanted, other, depth) for name, other in value.items() if name not in known])


def _items(look: _Look, wanted: Any, value: Any, schema: Any, depth: int) -> Verdict:
    if not isinstance(value, list):
        return True
    first = schema.get("prefixItems")
    rest = value[len(first) :] if isinstance(first, list) else value
    return _every([look.at(wanted, one, depth) for one in rest])


def _prefix(look: _Look, wanted: Any, value: Any, schema: Any, depth: int) -> Verdict:
    if not isinstance(value, list):
        return True
    if not isinstance(wanted, list):
        return None
    return _every([look.at(part, one, depth) for part, one in zip(wanted, value, strict=False)])


def _unique(look: _Look, wanted: Any, value: Any, schema: Any, depth: int) -> Verdict:
    if wanted is not True or not isinstance(value, list):
        return True if wanted in (True, False) else None
    if len(value) > 200:
        return None
    return not any(_same(look, one, other) for place, one in enumerate(value) for other in value[:place])


def _bound(suits: Callable[[Any], bool], measure: Callable[[Any], Any], holds: Callable[[Any, Any], bool]) -> Any:
    def check(look: _Look, wanted: Any, value: Any, schema: Any, depth: int) -> Verdict:
        if not suits(value):
            return True
        return holds(measure(value), wanted) if _number(wanted) and wanted - wanted == 0 else None  # infinite, or none

    return check


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _list(value: Any) -> bool:
    return isinstance(value, list)


def _object(value: Any) -> bool:
    return isinstance(value, dict)


def _itself(value: Any) -> Any:
    return value


def _most(found: Any, wanted: Any) -> bool:
    return bool(found <= wanted)


def _least(found: Any, wanted: Any) -> bool:
    return bool(found >= wanted)


def _under(found: Any, wanted: Any) -> bool:
    return bool(found < wanted)


def _over(found: Any, wanted: Any) -> bool:
    return bool(found > wanted)


def _all_of(look: _Look, wanted: Any, value: Any, schema: Any, depth: int) -> Verdict:
    return _every([look.at(part, value, depth) for part in wanted]) if isinstance(wanted, list) else None


def _any_of(look: _Look, wanted: Any, value: Any, schema: Any, depth: int) -> Verdict:
    return _some([look.at(part, value, depth) for part in wanted]) if isinstance(wanted, list) else None


def _one_of(look: _Look, wanted: Any, value: Any, schema: Any, depth: int) -> Verdict:
    if not isinstance(wanted, list):
        return None
    said = [look.at(part, value, depth) for part in wanted]
    if said.count(True) > 1:
        return False
    return None if None in said else True in said


def _not(look: _Look, wanted: Any, value: Any, schema: Any, depth: int) -> Verdict:
    said = look.at(wanted, value, depth)
    return None if said is None else not said


def _ref(look: _Look, wanted: Any, value: Any, schema: Any, depth: int) -> Verdict:
    return look.at(look.named(wanted), value, depth)


_CHECKS: Mapping[str, Callable[[_Look, Any, Any, Any, int], Verdict]] = {
    "type": _type,
    "enum": _enum,
    "const": _const,
    "required": _required,
    "properties": _properties,
    "additionalProperties": _additional,
    "items": _items,
    "prefixItems": _prefix,
    "uniqueItems": _unique,
    "minLength": _bound(_text, len, _least),
    "maxLength": _bound(_text, len, _most),
    "minItems": _bound(_list, len, _least),
    "maxItems": _bound(_list, len, _most),
    "minProperties": _bound(_object, len, _least),
    "maxProperties": _bound(_object, len, _most),
    "minimum": _bound(_number, _itself, _least),
    "maximum": _bound(_number, _itself, _most),
    "exclusiveMinimum": _bound(_number, _itself, _over),
    "exclusiveMaximum": _bound(_number, _itself, _under),
    "allOf": _all_of,
    "anyOf": _any_of,
    "oneOf": _one_of,
    "not": _not,
    "$ref": _ref,
}
