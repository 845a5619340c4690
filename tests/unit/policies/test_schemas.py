"""Whether a value fits a schema: certain where it says so, and silent where it cannot tell."""

from __future__ import annotations

from typing import Any

import pytest

from policies.schemas import MOST_STEPS, fits, text_fits

PERSON = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "description": "in full"},
        "age": {"type": "integer", "minimum": 0},
        "mail": {"anyOf": [{"type": "string", "format": "email"}, {"type": "null"}]},
        "kind": {"enum": ["a", "b", 1]},
        "friends": {"type": "array", "items": {"$ref": "#"}, "maxItems": 2},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("value", "fit"),
    [
        ({"name": "Ann", "age": 4}, True),
        ({"name": "Ann", "age": 4.0, "mail": None, "kind": 1.0}, True),
        ({"name": "Ann", "age": 4, "friends": [{"name": "Bo", "age": 1}]}, True),
        ({"name": "Ann"}, False),
        ({"name": "", "age": 4}, False),
        ({"name": "Ann", "age": 4.5}, False),
        ({"name": "Ann", "age": True}, False),
        ({"name": "Ann", "age": -1}, False),
        ({"name": "Ann", "age": 4, "more": 1}, False),
        ({"name": "Ann", "age": 4, "kind": True}, False),
        ({"name": "Ann", "age": 4, "mail": 3}, False),
        ({"name": "Ann", "age": 4, "friends": [{"name": "Bo"}]}, False),
        ({"name": "Ann", "age": 4, "friends": [{"name": "Bo", "age": 1}] * 3}, False),
        ([], False),
    ],
)
def test_a_person(value: Any, fit: bool) -> None:
    assert fits(PERSON, value) is fit


@pytest.mark.parametrize(
    ("schema", "value", "fit"),
    [
        (True, 1, True),
        (False, 1, False),
        ({}, 1, True),
        ("nonsense", 1, None),
        ({"type": "sort"}, 1, None),
        ({"type": ["string", "null"]}, None, True),
        ({"type": ["string", "null"]}, 1, False),
        ({"pattern": "^a"}, "b", None),  # not looked at: it may be wrong
        ({"pattern": "^a", "type": "integer"}, "b", False),  # but it is wrong anyway
        ({"const": {"a": [1, 2]}}, {"a": [1, 2.0]}, True),
        ({"const": 1}, True, False),
        ({"const": 0}, False, False),
        ({"allOf": [{"minimum": 1}, {"exclusiveMaximum": 3}]}, 2, True),
        ({"allOf": [{"minimum": 1}, {"exclusiveMaximum": 3}]}, 3, False),
        ({"oneOf": [{"type": "integer"}, {"minimum": 5}]}, 7, False),
        ({"oneOf": [{"type": "integer"}, {"minimum": 5}]}, 3, True),
        ({"oneOf": [{"pattern": "a"}, {"type": "string"}]}, "b", None),
        ({"anyOf": [{"pattern": "a"}, {"type": "string"}]}, "b", True),
        ({"not": {"type": "string"}}, "b", False),
        ({"not": {"pattern": "a"}}, "b", None),
        ({"prefixItems": [{"type": "string"}], "items": {"type": "integer"}}, ["a", 1], True),
        ({"prefixItems": [{"type": "string"}], "items": {"type": "integer"}}, ["a", "b"], False),
        ({"prefixItems": [{"type": "string"}], "items": False}, ["a", 1], False),
        ({"uniqueItems": True}, [1, 1.0], False),
        ({"uniqueItems": True}, [1, True], True),
        ({"additionalProperties": {"type": "integer"}}, {"a": 1, "b": "x"}, False),
        ({"additionalProperties": False, "patternProperties": {"^x": {}}}, {"x1": 1}, None),
        ({"minProperties": 1}, {}, False),
        ({"exclusiveMinimum": 3}, 3, False),
        ({"minimum": "3"}, 4, None),
        ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "integer"}}}, 1, True),
        ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "integer"}}}, "1", False),
        ({"$ref": "https://else.where/x"}, 1, None),
        ({"$ref": "#/$defs/none"}, 1, None),
        ({"required": "a"}, {}, None),
        ({"items": {"type": "integer"}}, "no list", True),
        ({"required": [["a"]]}, {"a": 1}, None),  # no name, and nothing that a mapping could be asked for
        ({"minimum": 10**400}, 1, False),  # longer than a float
        ({"maximum": float("inf")}, 1, None),
    ],
)
def test_keywords(schema: Any, value: Any, fit: bool | None) -> None:
    assert fits(schema, value) is fit


def test_what_goes_round_in_circles_or_is_too_much_cannot_be_told() -> None:
    assert fits({"$ref": "#"}, 1) is None
    assert fits({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}, 1) is None
    assert fits({"items": {"type": "integer"}}, [1] * (MOST_STEPS + 1)) is None
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    assert fits({"const": deep}, deep) in (None, True)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"items": {"enum": [str(n) for n in range(3000)]}}, [1] * 3000),
        ({"items": {"required": ["a"] * 3000}}, [{"a": 1}] * 3000),
        ({"items": {"type": ["string"] * 3000}}, [1] * 3000),
        ({"items": {"properties": {str(n): True for n in range(3000)}}}, [{}] * 3000),
        ({"items": {str(n): 1 for n in range(3000)}}, [1] * 3000),
        ({"items": {"$ref": "#" + "/a" * 3000}}, [1] * 3000),
        ({"uniqueItems": True}, [[1] * 3000 + [n] for n in range(200)]),
    ],
)
def test_law_10_pairs_are_counted_as_steps(schema: Any, value: Any) -> None:
    """A schema that is long and a value that is long multiply: nine million looks would hold up a worker for seconds."""
    assert fits(schema, value) is None


@pytest.mark.parametrize(
    ("schema", "text", "fit"),
    [
        (None, "{}", True),
        (None, "[]", False),
        (None, "{} and more", False),
        ({"type": "object"}, '{"a": 1}', True),
        ({"type": "object"}, "", False),
        ({"type": "object"}, "```json\n{}\n```", False),
        ({"type": "object"}, "[" * 100_000, False),
    ],
)
def test_texts(schema: Any, text: str, fit: bool) -> None:
    assert text_fits(schema, text) is fit
