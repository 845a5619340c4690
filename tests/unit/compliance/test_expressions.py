from __future__ import annotations

import pytest

from compliance.expressions import LONGEST, Cel, ExpressionInvalid

NAMES = {
    "found": ["ssn", "name"], "tenant": "clinic", "application": "triage", "key": "k", "surface": "openai.chat", "model": "auto", "health": True,
    "target": {"boundary": "cloud", "provider": "openai", "region": "us", "baa": True, "zero_retention": False},
}  # fmt: skip


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ('"ssn" in found && target.boundary == "cloud"', True),
        ('tenant.startsWith("cl") && !target.zero_retention', True),
        ('found.exists(kind, kind == "card") || size(found) > 2', False),
        ('model.matches("^gpt-.*")', False),
        ("target.baa && health", True),
    ],
)
def test_conditions_hold_or_not(source: str, value: bool) -> None:
    assert Cel(source).holds(NAMES) is value


@pytest.mark.parametrize(
    "source", ['found[7] == "x"', '"a" in found && found[9] == "b" || found[9] == "c"', "int(tenant) == 1"]
)
def test_one_that_fails_says_so(source: str) -> None:
    assert Cel(source).holds(NAMES) is None


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("", "no expression"), ("found ==", "no expression"), ("(" * 500 + "true" + ")" * 500, "no expression"),
        ("user == 1", "speaks of 'user'"), ("target.nothing == 1", "field"), ("tenant", "neither true nor false"),
        ("1 + 1", "neither"), ("nobody(1)", "has not got"), ("tenant + 1 == 2", "has not got"), ("true" + " " * LONGEST, "longer"),
        ("found.all(a, found.all(b, found.all(c, a == b)))", "goes through lists"),
    ],
)  # fmt: skip
def test_mistakes_are_told_when_it_is_compiled(source: str, said: str) -> None:
    with pytest.raises(ExpressionInvalid, match=said):
        Cel(source)


def test_two_of_the_same_source_are_the_same() -> None:
    assert Cel("health") == Cel("health") and hash(Cel("health")) == hash(Cel("health"))
    assert Cel("health") != Cel("!health")
