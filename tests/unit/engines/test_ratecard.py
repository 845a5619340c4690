"""What a pool costs, worked out by hand, and allocated to the pico-dollar."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.ratecard import MICRO, MONTH, YEAR, RateCard, allocate, busy_time, period_cost

DOLLAR = 1_000_000_000_000
HOUR = 3_600 * MICRO
GPU = RateCard(
    purchase=60_000 * DOLLAR, life_us=4 * YEAR, residual=100_000, financing=50_000, watts_idle=200, watts_load=1_400,
    pue=1_300_000, kwh=12 * DOLLAR // 100, rent=300 * DOLLAR, staff=500 * DOLLAR,
)  # fmt: skip
CARDS = st.builds(
    RateCard,
    purchase=st.integers(0, 10**19), life_us=st.integers(YEAR // 4, 50 * YEAR), residual=st.integers(0, MICRO),
    financing=st.integers(0, MICRO), watts_idle=st.integers(0, 10**6), watts_load=st.integers(0, 10**6),
    pue=st.integers(MICRO, 10 * MICRO), kwh=st.integers(0, 10**13), rent=st.integers(0, 10**18), staff=st.integers(0, 10**18),
)  # fmt: skip


def test_a_month_half_busy_by_hand() -> None:
    month = period_cost(GPU, MONTH, MONTH // 2)
    assert month.depreciation == 1_125 * DOLLAR  # ($60,000 - $6,000) / 48 months
    assert month.financing == 137_500_000_000_000  # ($60,000 + $6,000) / 2 x 5% / 12 = $137.50
    assert (month.rent, month.staff) == (300 * DOLLAR, 500 * DOLLAR)
    # a month has 730 hours: 365 h x 1.4 kW x 1.3 x $0.12 = $79.716, and 365 h x 0.2 kW x 1.3 x $0.12 = $11.388
    assert month.energy_busy == month.marginal == 79_716_000_000_000
    assert month.energy_idle == 11_388_000_000_000
    assert month.fixed == 2_062_500_000_000_000  # 1,125 + 137.50 + 300 + 500
    assert month.total == 2_153_604_000_000_000  # + 79.716 + 11.388
    assert month.busy == 1_110_966_000_000_000  # half of what is fixed, and the energy of the busy half
    assert month.idle == 1_042_638_000_000_000
    assert month.cash == 1_028_604_000_000_000  # all but depreciation


def test_an_hour_of_an_idle_pool_is_idle_and_nothing_else() -> None:
    hour = period_cost(RateCard(watts_idle=1_000, watts_load=2_000, kwh=DOLLAR // 10), HOUR, 0)
    assert (hour.busy, hour.idle, hour.total) == (0, DOLLAR // 10, DOLLAR // 10)  # 1 kWh at $0.10
    full = period_cost(RateCard(watts_idle=1_000, watts_load=2_000, kwh=DOLLAR // 10), HOUR, HOUR)
    assert (full.busy, full.idle) == (DOLLAR // 5, 0)
    assert period_cost(GPU, 0, 0).total == 0


def test_a_whole_life_costs_what_was_lost_on_the_purchase() -> None:
    life = period_cost(RateCard(purchase=60_000 * DOLLAR, residual=100_000), 4 * YEAR, 0)
    assert life.total == 54_000 * DOLLAR


@pytest.mark.parametrize(("period", "busy"), [(1, 2), (1, -1)])
def test_a_pool_is_busy_for_a_part_of_the_period(period: int, busy: int) -> None:
    with pytest.raises(ValueError, match="part of the period"):
        period_cost(GPU, period, busy)


@pytest.mark.parametrize(
    ("intervals", "length"),
    [
        ([], 0),
        ([(0, 10)], 10),
        ([(0, 10), (2, 5), (8, 12)], 12),  # together from 0 to 12
        ([(0, 10), (10, 12), (20, 25)], 17),  # touching, then a gap of 8
        ([(0, 10), (0, 10)], 10),
    ],
)
def test_two_at_once_keep_a_pool_busy_once(intervals: list[tuple[int, int]], length: int) -> None:
    assert busy_time(intervals) == length


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=12))
def test_busy_time_is_the_number_of_moments_with_an_attempt(rows: list[tuple[int, int]]) -> None:
    intervals = sorted((start, start + length) for start, length in rows)
    assert busy_time(intervals) == len({moment for start, end in intervals for moment in range(start, end)})


def test_an_amount_is_allocated_by_weight() -> None:
    assert allocate(100, [1, 1, 2]) == [25, 25, 50]
    assert allocate(100, [1, 1, 1]) == [33, 33, 34]
    assert allocate(100, [0, 0]) == [0, 0]
    assert allocate(100, []) == []


@given(st.integers(0, 10**19), st.lists(st.integers(0, 10**15), min_size=1))
def test_what_is_allocated_is_the_amount_and_each_part_is_within_one_of_its_share(
    amount: int, weights: list[int]
) -> None:
    parts, whole = allocate(amount, weights), sum(weights)
    assert sum(parts) == (amount if whole else 0)
    for part, weight in zip(parts, weights, strict=True):
        assert part >= 0
        assert abs(part * whole - amount * weight) < whole or not whole


@given(CARDS, st.integers(0, 10 * YEAR), st.data())
def test_busy_and_idle_are_all_that_was_spent(card: RateCard, period: int, data: st.DataObject) -> None:
    spent = period_cost(card, period, data.draw(st.integers(0, period)))
    assert spent.busy + spent.idle == spent.total
    assert spent.busy >= spent.marginal >= 0
    assert spent.idle >= 0
    parts = (spent.depreciation, spent.financing, spent.rent, spent.staff, spent.energy_busy, spent.energy_idle)
    assert sum(parts) == spent.total == spent.cash + spent.depreciation
