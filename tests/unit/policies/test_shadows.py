"""Decisions that can never decide are found; nothing else is called so."""

from __future__ import annotations

from typing import Any

import pytest

from policies.conditions import parse
from policies.shadows import Row, unreached

ROUTES = {"route": frozenset({"a", "b", "none"})}


def found(*whens: dict[str, Any], models: list[set[str]] | None = None) -> list[tuple[int, tuple[int, ...]]]:
    rows = []
    for number, when in enumerate(whens):
        node, mistakes = parse(when)
        assert not mistakes
        rows.append(Row(node, frozenset(models[number] if models else {"auto"})))
    return [(one.decision, one.because) for one in unreached(rows, ROUTES)]


@pytest.mark.parametrize(
    ("whens", "expected"),
    [
        ([{"tokens": {"over": 3, "under": 4}}], [(0, ())]),
        ([{"all": [{"route": "a"}, {"route": "b"}]}], [(0, ())]),
        ([{"stream": True, "not": {"stream": True}}], [(0, ())]),
        ([{"structure": "code", "not": {"structure": ["code", "json"]}}], [(0, ())]),
        ([{"not": {"any": [{"stream": True}, {"stream": False}]}}], [(0, ())]),
        ([{"not": {"route": ["a", "b", "none"]}}], [(0, ())]),
        ([{"margin": {"over": 0.5, "at_most": 0.5}}], [(0, ())]),
        ([{"tokens": {"under": 0}}], [(0, ())]),
        ([{"probability": {"over": 1}}], [(0, ())]),
        ([{"complexity": {"at_least": 0}}, {"complexity": {"over": 50}}], [(1, (0,))]),
        ([{}, {"route": "a"}], [(1, (0,))]),
        ([{"tokens": {"over": 5}}, {"tokens": {"over": 10}, "route": "a"}], [(1, (0,))]),
        ([{"stream": True}, {"stream": False}, {"route": "a"}], [(2, (0, 1))]),
        ([{"tokens": {"under": 10}}, {"tokens": {"at_least": 10}}, {"route": "a"}], [(2, (0, 1))]),
        ([{"route": ["a", "b"]}, {"not": {"route": "none"}}], [(1, (0,))]),
        ([{"any": [{"route": "a"}, {"stream": True}]}, {"route": "a"}, {"stream": True}], [(1, (0,)), (2, (0,))]),
        ([{"keywords": ["x", "y"]}, {"keywords": "x"}], [(1, (0,))]),
        ([{"expr": "tokens > 4"}, {"expr": "tokens > 4", "stream": True}], [(1, (0,))]),
        ([{"tokens": {"over": 5}}, {"stream": True}, {"tokens": {"over": 9}}], [(2, (0,))]),  # the needed one alone
    ],
)
def test_what_never_decides_is_found(whens: list[dict[str, Any]], expected: list[tuple[int, tuple[int, ...]]]) -> None:
    assert found(*whens) == expected


@pytest.mark.parametrize(
    "whens",
    [
        [{"route": "a"}, {"route": ["a", "b"]}],
        [{"language": "en"}, {"not": {"language": "en"}}, {"stream": True}],  # where none can be told, both are unknown
        [{"complexity": {"under": 50}}, {"complexity": {"at_least": 50}}, {}],
        [{"max_output": {"under": 50}}, {"max_output": {"at_least": 50}}, {}],
        [{"tokens": {"over": 4, "under": 6}}],
        [{"structure": "code"}, {"structure": ["code", "json"]}],
        [{"all": [{"found": "ssn"}, {"found": "card"}]}, {"found": "ssn"}],
        [{"expr": "tokens > 4"}, {"expr": "tokens > 5"}],
        [{"tenant": "a"}, {"not": {"tenant": "a"}}],
        [{"all": [{"keywords": "x"}, {"keywords": "y"}]}],
    ],
)
def test_what_may_decide_is_not_called_unreached(whens: list[dict[str, Any]]) -> None:
    assert found(*whens) == []


def test_a_decision_for_other_models_takes_nothing_away() -> None:
    assert found({}, {"route": "a"}, models=[{"gpt-4o"}, {"auto"}]) == []
    assert found({}, {"route": "a"}, models=[{"gpt-4o", "auto"}, {"auto"}]) == [(1, (0,))]
    assert found({}, {}, {"route": "a"}, models=[{"gpt-4o"}, {"auto"}, {"auto", "gpt-4o"}]) == [(2, (0, 1))]


def test_too_much_to_look_at_says_nothing() -> None:
    many = {"all": [{"any": [{"tokens": n}, {"messages": n}]} for n in range(12)]}
    assert isinstance(unreached([Row(parse(many)[0], frozenset({"auto"}))], {}), list)
    wide = {"all": [{"any": [{"keywords": f"a{n}"}, {"keywords": f"b{n}"}]} for n in range(12)]}
    assert unreached([Row(parse(wide)[0], frozenset({"auto"})), Row(parse(wide)[0], frozenset({"auto"}))], {}) == []
