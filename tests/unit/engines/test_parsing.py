"""What is read of every body: limits under either name, and numbers that money can be made of."""

from __future__ import annotations

from typing import Any

import pytest

from engines.effort import LEAST_BUDGET, budget_of, effort_of
from engines.model import BadRequest
from engines.parsing import NUMBER_LIMIT, checked_body, output_limit, whole


@pytest.mark.parametrize(
    ("body", "limit"),
    [
        ({}, None), ({"a": None}, None), ({"a": 5}, 5), ({"b": 5}, 5), ({"a": 0}, 0), ({"a": -1}, None),
        # Engines differ in which name counts: the reservation covers both.
        ({"a": 5, "b": 9}, 9), ({"a": 9, "b": 5}, 9), ({"a": -1, "b": 5}, None), ({"a": 5, "b": -1}, None),
    ],
)  # fmt: skip
def test_law_03_the_highest_limit_that_an_engine_could_read(body: dict[str, Any], limit: int | None) -> None:
    assert output_limit(body, "a", "b") == limit


@pytest.mark.parametrize("value", [-2, 1.5, "5", True, [], NUMBER_LIMIT + 1, 10**30])
def test_what_is_no_count_is_refused(value: Any) -> None:
    for read in (whole, output_limit):
        with pytest.raises(BadRequest) as refused:
            read({"n": value}, "n")
        assert refused.value.param == "n"


def test_a_repeated_key_is_refused_by_its_path() -> None:
    with pytest.raises(BadRequest) as refused:
        checked_body(b'{"a":[{"b":1,"b":2}]}')
    assert refused.value.param == "a[0].b"


@pytest.mark.parametrize("effort", ["low", "medium", "high"])
def test_an_effort_survives_being_a_budget(effort: str) -> None:
    budget = budget_of(effort, 100_000)
    assert budget is not None and effort_of(budget) == effort


def test_budgets_and_efforts_at_their_ends() -> None:
    assert (effort_of(0), effort_of(1), effort_of(10**6)) == ("none", "low", "high")
    assert (budget_of("high", 100), budget_of("high", 10_000), budget_of("?", 100)) == (LEAST_BUDGET, 5000, None)
