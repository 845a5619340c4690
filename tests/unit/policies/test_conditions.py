"""Conditions: what they take, what they refuse in words, and what they say."""

from __future__ import annotations

from typing import Any

import pytest
from signalling import CODING, signals

from policies.conditions import compiled, parse, reads, spoken
from policies.semantic import Placed
from policies.signals import Found, SignalFailed, Signals, Who


def holds(when: Any, read: Signals | None = None) -> bool | None:
    node, mistakes = parse(when)
    assert not mistakes, mistakes
    return compiled(node)(read or signals())


NOWHERE = Placed(None, 0.3, 0.1, (("coding", 0.3),), ("coding", 2, 0.2), -0.5)


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ({}, True),
        ({"tokens": {"over": 100}}, False),
        ({"tokens": {"at_least": 100}}, True),
        ({"tokens": {"under": 100}}, False),
        ({"tokens": {"at_most": 100}}, True),
        ({"tokens": {"over": 50, "under": 101}}, True),
        ({"tokens": 100}, True),
        ({"tokens": 99}, False),
        ({"stream": False}, True),
        ({"model": ["auto", "gpt-4o"]}, True),
        ({"tenant": "clinic"}, True),
        ({"not": {"tenant": "clinic"}}, False),
        ({"all": [{"tenant": "clinic"}, {"tokens": 100}]}, True),
        ({"any": [{"tenant": "bank"}, {"tokens": 100}]}, True),
        ({"any": [{"tenant": "bank"}, {"tokens": 1}]}, False),
        ({"found": "phi"}, False),
        ({"found": ["card", "ssn"]}, True),
        ({"structure": ["code", "json"]}, True),
        ({"structure": "diff"}, False),
        ({"keywords": ["refund", "invoice"]}, True),
        ({"keywords": "invoi"}, False),
        ({"keywords": "INVOICE  number"}, True),
        ({"route": "coding"}, True),
        ({"route": ["maths", "none"]}, False),
        ({"probability": {"over": "89%"}}, True),
        ({"probability": {"over": 0.95}}, False),
        ({"margin": {"under": "80%"}}, False),
        ({"complexity": {"over": 60}}, True),
        ({"complexity": {"over": "80%"}}, False),
        ({"load": {"over": "50%"}}, True),
        ({"max_output": {"over": 5}}, None),
        ({"not": {"max_output": {"over": 5}}}, None),
        ({"any": [{"max_output": {"over": 5}}, {"tokens": 100}]}, True),
        ({"all": [{"max_output": {"over": 5}}, {"tokens": 1}]}, False),
        ({"expr": 'tokens > 50 && "code" in structure && route == "coding"'}, True),
        ({"expr": "max_output != null && max_output > 5"}, False),
        ({"expr": '"ssn" in found && tenant == "clinic"'}, True),
    ],
)
def test_a_condition(when: Any, expected: bool | None) -> None:
    read = signals(
        "the invoice number ```x = 1```",
        found=Found(("ssn",)), who=Who(tenant="clinic"), place=lambda _: CODING, complexity=lambda _: 70.0, load=lambda: 0.75,
    )  # fmt: skip
    assert holds(when, read) is expected


def test_out_of_scope_is_a_route_of_its_own() -> None:
    assert holds({"route": "none"}, signals(place=lambda _: NOWHERE))
    assert holds({"route": None}, signals(place=lambda _: NOWHERE))
    assert holds({"not": {"route": "coding"}}, signals(place=lambda _: NOWHERE))


def test_keywords_are_whole_words_in_any_script_and_no_patterns() -> None:
    assert holds({"keywords": "größe"}, signals("Welche GRÖSSE? Größe!"))
    assert not holds({"keywords": "größe"}, signals("Übergrößen"))
    assert not holds({"keywords": "a.c"}, signals("abc"))
    assert holds({"keywords": "c++"}, signals("I write C++"))


def test_an_expression_that_fails_raises_instead_of_saying_no() -> None:
    with pytest.raises(SignalFailed, match="expr failed"):
        holds({"expr": "9223372036854775807 + tokens > 0"})


@pytest.mark.parametrize(
    ("when", "path", "wrong", "hint"),
    [
        ([], (), "must be a table", "such as"),
        ({"tokns": 4}, ("tokns",), "'tokns' is nothing", "did you mean 'tokens'?"),
        ({"tokens": {"above": 4}}, ("tokens",), "'above' is no comparison", "over"),
        ({"tokens": {}}, ("tokens",), "compares with nothing", "over"),
        ({"tokens": "many"}, ("tokens",), "whole number", "over"),
        ({"tokens": True}, ("tokens",), "whole number", "over"),
        ({"probability": {"over": 2}}, ("probability",), "a share", "80%"),
        ({"complexity": {"over": 101}}, ("complexity",), "a percentile", "70"),
        ({"stream": "yes"}, ("stream",), "true or false", ""),
        ({"structure": "cod"}, ("structure",), "'cod' is no structure", "did you mean 'code'?"),
        ({"language": "german"}, ("language",), "is no language", "there are en, de"),
        ({"route": 4}, ("route",), "must be a name", "such as"),
        ({"found": []}, ("found",), "must be a name", "such as"),
        ({"any": {}}, ("any",), "must be a list of tables", "such as"),
        ({"all": [{"nope": 1}]}, ("all", 0, "nope"), "is nothing that a condition can ask", "there are"),
        ({"not": {"not": {"tokns": 1}}}, ("not", "not", "tokns"), "is nothing", "tokens"),
        ({"expr": "tokns > 4"}, ("expr",), "speaks of 'tokns'", "tokens"),
        ({"expr": "tokens +"}, ("expr",), "is no expression", "such as"),
        ({"expr": "tokens + 1"}, ("expr",), "neither true nor false", "compare"),
        ({"expr": 'tokens == "a" + 4'}, ("expr",), "does something", ""),
        ({"expr": "complexity > 50.0"}, ("expr",), "fails where complexity is not known", "complexity != null &&"),
        ({"keywords": "x" * 65}, ("keywords",), "more than 64", ""),
    ],
)
def test_a_mistake_is_said_with_its_place_and_what_would_be_right(
    when: Any, path: tuple[Any, ...], wrong: str, hint: str
) -> None:
    _, mistakes = parse(when)
    assert [mistake.path for mistake in mistakes] == [path]
    assert wrong in mistakes[0].wrong
    assert hint in mistakes[0].hint


def test_every_mistake_is_said_at_once_and_depth_is_bounded() -> None:
    assert len(parse({"tokns": 1, "rout": "x", "any": [{"stram": True}]})[1]) == 3
    deep: dict[str, Any] = {"tokens": 1}
    for _ in range(50):
        deep = {"not": deep}
    assert "nested" in parse(deep)[1][0].wrong


def test_what_is_read_is_known_before_any_request() -> None:
    node, _ = parse({"any": [{"route": "x"}, {"not": {"structure": "code"}}], "expr": "tokens > 4 && stream"})
    assert reads(node) == {"route", "structure", "tokens", "stream"}


def test_a_condition_in_words() -> None:
    node, _ = parse({"any": [{"route": ["b", "a"], "tokens": {"over": 4}}, {"stream": True}], "not": {"found": "phi"}})
    assert spoken(node) == "((route a or b and tokens at least 5) or stream true) and not found phi"
    assert spoken(parse({})[0]) == "every request"
