"""Who is charged to what: chains, names, units."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.budgets import REQUESTS, TOKENS, USD
from policies.scopes import (
    LEVELS,
    Budget,
    Who,
    chain_of,
    counts_local,
    key_of,
    matching,
    name_of,
    root_of,
    unit_of,
)
from policies.thresholds import crossed, forecast

BUDGETS = (
    Budget("each user", "day", 5),
    Budget("each team", "month", 100),
    Budget("team/heart", "month", 300),
    Budget("team/heart", "day", 30),
    Budget("org", "month", 1_000),
    Budget("key/nightly", "minute", 60, REQUESTS, everywhere=True),
    Budget("each key", "minute", 600, REQUESTS, everywhere=True),
    Budget("each key", "minute", 200_000, TOKENS),
    Budget("each organisation", "r86400", 900),
)


def chained(who: Who) -> list[tuple[str, int]]:
    return [(name, budget.limit) for name, budget in chain_of(BUDGETS, who)]


def test_a_chain_is_every_budget_that_is_about_the_caller_in_the_order_of_the_hierarchy() -> None:
    who = Who("acme", "heart", "triage", "k_1", "3f0a", key_name="app")
    assert chained(who) == [
        ("org", 1_000),
        ("organisation/acme", 900),
        ("acme:team/heart", 300),  # by name: it takes the place of the one for each team
        ("acme:team/heart", 30),
        ("acme:key/k_1#requests-all", 600),
        ("acme:key/k_1#tokens", 200_000),
        ("acme:user/3f0a", 5),
    ]


def test_without_a_team_a_user_or_a_key_their_budgets_do_not_hold() -> None:
    assert chained(Who()) == [("org", 1_000), ("organisation/default", 900)]
    assert ("team/eyes", 100) in chained(Who(team="eyes"))


def test_a_key_is_named_by_its_id_or_its_name() -> None:
    assert ("key/nightly#requests-all", 60) in chained(Who(key="k_9", key_name="nightly"))
    assert ("key/nightly#requests-all", 60) in chained(Who(key="nightly"))
    assert not [name for name, _ in chained(Who(key="k_9", key_name="nightly")) if name == "key/k_9#requests-all"]


@given(
    st.sampled_from(LEVELS),
    st.text(min_size=1, max_size=20),
    st.text(min_size=1, max_size=20),
    st.sampled_from([USD, TOKENS, REQUESTS]),
    st.booleans(),
)
def test_law_03_no_name_can_be_taken_for_another(
    level: str, organisation: str, value: str, unit: int, everywhere: bool
) -> None:
    """Whatever callers are called: units, windows and organisations are read back as they were."""
    budget = Budget(f"each {level}", "month", 1, unit, everywhere=everywhere and unit != USD)
    who = Who(**{"organisation": organisation, level: value})
    name = name_of(budget, who)
    assert name is not None and name.isascii() and name.isprintable() and "|" not in name and " " not in name
    assert unit_of(name) == unit
    assert counts_local(name) == budget.everywhere
    other = name_of(budget, Who(**{"organisation": organisation, level: value + "x"}))
    assert other != name
    assert matching([budget], name.partition("#")[0]) == [budget]
    if level != "organisation":
        assert name_of(budget, Who(**{"organisation": organisation + "x", level: value})) != name
        assert root_of(name) == root_of(str(name_of(Budget("each organisation", "day", 1), who)))


def test_roots_and_keys_of_overrides() -> None:
    assert [root_of(name) for name in ("org", "team/heart", "acme:team/heart", "organisation/acme", "organisation/acme#tokens")] == [
        "", "default", "acme", "acme", "acme",
    ]  # fmt: skip
    assert root_of("key/config:nightly") == "default"
    assert key_of(("team/heart#tokens", "2026-11")) == "team/heart#tokens|month"
    assert key_of(("org", "r86400@123")) == "org|r86400"


def test_a_named_budget_replaces_the_one_for_each_where_both_limit_the_same() -> None:
    assert [budget.limit for budget in matching(BUDGETS, "acme:team/heart")] == [300, 30]
    assert [budget.limit for budget in matching(BUDGETS, "team/eyes")] == [100]
    assert matching(BUDGETS, "project/x") == []


@pytest.mark.parametrize(
    ("unit", "window", "rate"),
    [(USD, "minute", False), (REQUESTS, "minute", True), (TOKENS, "hour", True), (TOKENS, "day", False), (REQUESTS, "r3600", True)],
)  # fmt: skip
def test_what_is_a_rate_limit(unit: int, window: str, rate: bool) -> None:
    assert Budget("each key", window, 1, unit).is_rate is rate


def test_thresholds_are_reached_exactly() -> None:
    assert crossed(799, 1_000, (50, 80, 100)) == (50,)
    assert crossed(800, 1_000, (50, 80, 100)) == (50, 80)
    assert crossed(1_200, 1_000, (50, 80, 100)) == (50, 80, 100)
    assert crossed(0, 0, (50, 100)) == ()  # a limit of nothing, and nothing was spent


def test_a_forecast_waits_for_a_tenth_of_the_window() -> None:
    assert forecast(100, 0.0, 1_000.0, 99.0) is None
    assert forecast(100, 0.0, 1_000.0, 100.0) == 1_000
    assert forecast(100, 0.0, 1_000.0, 500.0) == 200
    assert forecast(100, 0.0, 1_000.0, 5_000.0) == 100
