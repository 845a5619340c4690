"""Break-even, worked out by hand; two published cases, and what follows from their inputs."""

from __future__ import annotations

from fractions import Fraction

import pytest

from engines.ratecard import MICRO, YEAR, RateCard
from proxy.breakeven import API_CHANGES, UTILISATIONS, Case, Plan, Volume, plan, plan_rows, plan_words, verdict

DOLLAR = 1_000_000_000_000


def figure(found: Plan, name: str) -> float | int | None:
    return next(row.value for row in found.figures if row.name == name)


def case(found: Plan, utilisation: int, change: int) -> Case:
    return next(row for row in found.cases if (row.utilisation, row.api_change) == (utilisation, change))


def test_ten_million_tokens_at_900_dollars_a_month_pay_4000_back_in_5_3_months() -> None:
    """The published case: $4,000 of hardware and $150 a month of power; 4,000 / (900 - 150) = 5.33."""
    found = plan(
        RateCard(purchase=4_000 * DOLLAR, rent=150 * DOLLAR), Volume(900 * DOLLAR, "stated", 10_000_000), MICRO
    )
    assert found.base.payback == Fraction(16, 3)
    assert found.pays
    assert figure(found, "payback_months") == 5.33
    assert figure(found, "first_year") == 5_000 * DOLLAR  # 12 x 750 - 4,000
    assert figure(found, "three_years") == 23_000 * DOLLAR  # 36 x 750 - 4,000
    assert figure(found, "api_per_million") == 90 * DOLLAR  # no list price is near it, but it is what was stated
    # $4,000 / 48 months is $83.333333333333 a month, with $150 over 10M tokens $23.3333333333333 a million
    assert figure(found, "own_per_million") == 23_333_333_333_333


def test_90000_dollars_a_year_against_30000_and_10000_a_year_pay_back_in_4_5_months() -> None:
    """The published case: 30,000 / ((90,000 - 10,000) / 12) = 4.5."""
    card = RateCard(purchase=30_000 * DOLLAR, rent=10_000 * DOLLAR // 12)
    found = plan(card, Volume(7_500 * DOLLAR, "stated", 100_000_000), MICRO)
    assert figure(found, "payback_months") == 4.5
    assert verdict(found) == "it pays back in 4.5 months, within its life of 48"


def test_a_cost_that_does_not_follow_from_its_tokens_is_said_not_to_and_what_does() -> None:
    """Both published cases pay back as they say; their API costs of $90 and $75 a million tokens are above any listed price."""
    card = RateCard(purchase=4_000 * DOLLAR, rent=150 * DOLLAR)
    listed = ("openai/gpt-4o", 10_000_000)  # $10 a million out, the dearer of its meters
    found = plan(card, Volume(900 * DOLLAR, "stated", 10_000_000), MICRO, dearest=listed)
    assert found.base.payback == Fraction(16, 3)
    (note,) = [note for note in found.notes if "dearest" in note]
    assert "$90.00 for a million tokens" in note and "openai/gpt-4o, costs $10.00" in note
    assert "at most $100.00 a month for these tokens, with which it never pays back" in note
    larger = plan(
        RateCard(purchase=30_000 * DOLLAR, rent=10_000 * DOLLAR // 12),
        Volume(7_500 * DOLLAR, "stated", 100_000_000),
        MICRO,
        dearest=listed,
    )
    (note,) = [note for note in larger.notes if "dearest" in note]
    # 100M at $10 is $1,000 a month, less $833.33: 30,000 / 166.67
    assert "$75.00 for a million tokens" in note and "pays back in 180.0 months" in note
    assert figure(larger, "first_year") == 50_000 * DOLLAR + 4  # of a rent rounded down: 12 x 6,666.67 - 30,000
    assert not any(
        "dearest" in note
        for note in plan(card, Volume(100 * DOLLAR, "stated", 10_000_000), MICRO, dearest=listed).notes
    )
    assert not any(
        "dearest" in note for note in plan(card, Volume(900 * DOLLAR, "stated"), MICRO, dearest=listed).notes
    )


def test_buying_renting_and_the_api_over_three_years() -> None:
    card = RateCard(purchase=36_000 * DOLLAR, staff=100 * DOLLAR, rent=200 * DOLLAR)
    found = plan(card, Volume(2_000 * DOLLAR, "stated"), MICRO, rented=1_400 * DOLLAR)
    assert figure(found, "rent_month") == 1_500 * DOLLAR  # somebody looks after rented hardware, too
    assert figure(found, "buy_over_rent_months") == 30  # 36,000 / (1,500 - 300)
    assert found.base.spent == {"api": 72_000 * DOLLAR, "buy": 46_800 * DOLLAR, "rent": 54_000 * DOLLAR}
    assert found.base.cheapest == "buy"
    least = case(found, 250_000, -500_000)  # an eighth of the API's cost
    assert (least.spent["api"], least.cheapest) == (9_000 * DOLLAR, "api")
    assert "cheapest over three years" in plan_words(found)
    dear = plan(card, Volume(2_000 * DOLLAR, "stated"), MICRO, rented=100 * DOLLAR)
    assert figure(dear, "buy_over_rent_months") is None and dear.base.cheapest == "rent"
    assert "rent" not in plan(card, Volume(2_000 * DOLLAR, "stated"), MICRO).base.spent


def test_sensitivity_by_hand() -> None:
    """$1,000 a month at the API when half busy; 2 kW loaded, 0.4 kW idle, PUE 1.25, $0.10 a kWh, $9,000."""
    card = RateCard(
        purchase=9_000 * DOLLAR, life_us=2 * YEAR, residual=200_000, watts_idle=400, watts_load=2_000, pue=1_250_000,
        kwh=DOLLAR // 10, staff=100 * DOLLAR,
    )  # fmt: skip
    found = plan(card, Volume(1_000 * DOLLAR, "stated"), 500_000)
    # half of 730 h: 365 x 2 x 1.25 x 0.10 = $91.25 busy, 365 x 0.4 x 1.25 x 0.10 = $18.25 idle, $100 staff
    assert found.base.running == 209_500_000_000_000
    assert found.base.saving == 790_500_000_000_000
    assert found.base == case(found, 500_000, 0)
    # after three years it was bought twice and sold once, for 20% of $9,000: 36 x 790.50 - 18,000 + 1,800
    assert found.base.three_years == 12_258 * DOLLAR
    assert found.base.first_year == 486 * DOLLAR  # 12 x 790.50 - 9,000
    # all busy, a quarter dearer: the API would be $2,500; 730 x 2 x 1.25 x 0.10 = $182.50, $100 staff
    busy = case(found, 1_000_000, 250_000)
    assert (busy.api, busy.running) == (2_500 * DOLLAR, 282_500_000_000_000)
    assert busy.payback == Fraction(9_000 * DOLLAR, 2_217_500_000_000_000)
    # a quarter busy at half the price: $250; 182.5 x 2.5 x 0.10 = $45.625, 547.5 x 0.5 x 0.10 = $27.375, $100
    least = case(found, 250_000, -500_000)
    assert (least.api, least.running) == (250 * DOLLAR, 173 * DOLLAR)
    assert least.payback == Fraction(9_000, 77)
    assert [(row.utilisation, row.api_change) for row in found.cases] == [
        (u, c) for u in UTILISATIONS for c in API_CHANGES
    ]


def test_what_saves_nothing_never_pays_back() -> None:
    for api in (0, 100, 150):
        found = plan(RateCard(purchase=DOLLAR, rent=150 * DOLLAR), Volume(api * DOLLAR, "stated"), MICRO)
        assert not found.pays
        assert figure(found, "payback_months") is None
        assert "does not pay back" in verdict(found)
        assert "never" in plan_words(found)
    assert any("costs nothing at the API" in note for note in plan(RateCard(), Volume(0, "stated"), MICRO).notes)


def test_what_pays_back_after_its_life_does_not_pay() -> None:
    at_life = plan(RateCard(purchase=48 * DOLLAR), Volume(DOLLAR, "stated"), MICRO)
    assert at_life.pays  # in the last month of it
    after = plan(RateCard(purchase=48 * DOLLAR + 1), Volume(DOLLAR, "stated"), MICRO)
    assert not after.pays
    assert "after its life of 48" in verdict(after)


def test_every_figure_says_how_and_what_is_missing_is_said() -> None:
    found = plan(RateCard(purchase=DOLLAR), Volume(5 * DOLLAR, "as stated", notes=("a note",)), MICRO)
    assert all(row.how for row in found.figures)
    assert figure(found, "api_per_million") is None
    words = plan_words(found)
    for said in ("a note", "no power is counted", "no staff is counted", "the tokens of a month are not known"):
        assert said in words
    rows = plan_rows(found)
    assert rows["pays_back"] is True
    assert len(rows["sensitivity"]) == 16
    assert rows["figures"]["payback_months"] == {"value": 0.2, "unit": "months", "how": "$1.00 / $5.00"}


@pytest.mark.parametrize("utilisation", [1, 300_000, MICRO])
def test_the_stated_volume_is_the_base_whatever_its_utilisation(utilisation: int) -> None:
    found = plan(RateCard(purchase=DOLLAR), Volume(5 * DOLLAR, "stated"), utilisation)
    assert found.base.api == 5 * DOLLAR
    assert found.base == case(found, utilisation, 0)  # it stands among the assumptions
    assert len(found.cases) == 16 + 4 * (utilisation not in UTILISATIONS)
    assert f"\n{utilisation / MICRO:.0%} " in plan_words(found)
